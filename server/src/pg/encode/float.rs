//! Floats in text: the shortest digits that read back as the same number, laid out as Postgres 12 and later do.

use std::fmt::LowerExp;
use std::io::Write;

/// Decimal exponents from which on Postgres writes `1e+15` for `double precision` and `1e+06` for `real`.
pub const DOUBLE_FIXED_MAX: i32 = 15;
pub const REAL_FIXED_MAX: i32 = 6;

/// Writes `value`; `fixed_max` is the first exponent in scientific notation.
pub fn put_float(out: &mut Vec<u8>, value: impl LowerExp + Into<f64> + Copy, fixed_max: i32) {
    let wide: f64 = value.into();
    if wide.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if wide.is_infinite() {
        return out.extend_from_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let mut buffer = [0_u8; 40];
    let mut rest = &mut buffer[..];
    write!(rest, "{value:e}").expect("the shortest form of a float has at most 24 bytes");
    let unused = rest.len();
    let written = &buffer[..buffer.len() - unused];
    layout(out, written, fixed_max);
}

/// Lays out Rust's `-1.234e-5` the Postgres way.
fn layout(out: &mut Vec<u8>, written: &[u8], fixed_max: i32) {
    let written = std::str::from_utf8(written).expect("digits are ASCII");
    let (mantissa, exponent) = written.split_once('e').expect("the scientific form has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    out.extend_from_slice(sign.as_bytes());
    if !(-4..fixed_max).contains(&exponent) {
        out.extend_from_slice(mantissa.as_bytes());
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", exponent.abs()).expect("writing to memory does not fail");
        return;
    }
    let digits = mantissa.bytes().filter(|byte| *byte != b'.');
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
        return out.extend(digits);
    }
    let whole = exponent.unsigned_abs() as usize + 1;
    let start = out.len();
    out.extend(digits);
    let count = out.len() - start;
    if count <= whole {
        out.extend(std::iter::repeat_n(b'0', whole - count));
    } else {
        out.insert(start + whole, b'.');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        put_float(&mut out, value, DOUBLE_FIXED_MAX);
        String::from_utf8(out).unwrap()
    }

    fn real(value: f32) -> String {
        let mut out = Vec::new();
        put_float(&mut out, value, REAL_FIXED_MAX);
        String::from_utf8(out).unwrap()
    }

    /// Each line is what `SELECT x::float8` prints in PostgreSQL 15.
    #[test]
    fn doubles_as_postgres_prints_them() {
        assert_eq!(double(0.0), "0");
        assert_eq!(double(-0.0), "-0");
        assert_eq!(double(1.0), "1");
        assert_eq!(double(0.1), "0.1");
        assert_eq!(double(-12.5), "-12.5");
        assert_eq!(double(123_456.789), "123456.789");
        assert_eq!(double(100_000_000_000_000.0), "100000000000000");
        assert_eq!(double(1e15), "1e+15");
        assert_eq!(double(1e20), "1e+20");
        assert_eq!(double(123_456_789_012_345_680.0), "1.2345678901234568e+17");
        assert_eq!(double(0.0001), "0.0001");
        assert_eq!(double(0.000_012_3), "1.23e-05");
        assert_eq!(double(1e-300), "1e-300");
        assert_eq!(double(f64::MAX), "1.7976931348623157e+308");
        assert_eq!(double(f64::NAN), "NaN");
        assert_eq!(double(f64::NEG_INFINITY), "-Infinity");
    }

    #[test]
    fn reals_as_postgres_prints_them() {
        assert_eq!(real(0.1), "0.1");
        assert_eq!(real(999_999.0), "999999");
        assert_eq!(real(1e6), "1e+06");
        assert_eq!(real(1_234_567.0), "1.234567e+06");
        assert_eq!(real(f32::INFINITY), "Infinity");
    }
}
