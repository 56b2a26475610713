//! Decimals as `numeric`: text with the declared scale, and the binary form in base 10000.

use std::io::Write;

use bytes::BufMut;

/// Writes a decimal whose unscaled digits are `digits`, with as many places as its scale.
pub fn put_text(out: &mut Vec<u8>, negative: bool, digits: &str, scale: i8) {
    if negative {
        out.push(b'-');
    }
    if scale <= 0 {
        out.extend_from_slice(digits.as_bytes());
        if digits != "0" {
            out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    if digits.len() <= scale {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', scale - digits.len()));
        return out.extend_from_slice(digits.as_bytes());
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    out.push(b'.');
    out.extend_from_slice(fraction.as_bytes());
}

/// Writes the binary form: number of base-10000 digits, weight of the first, sign, display scale, digits.
pub fn put_binary(out: &mut Vec<u8>, negative: bool, digits: &str, scale: i8) {
    let places = usize::try_from(scale).unwrap_or(0);
    let zeros = usize::try_from(-i32::from(scale)).unwrap_or(0);
    let mut decimal = Vec::with_capacity(digits.len() + zeros + 8);
    // Padding on both ends puts the decimal point on a boundary between groups of four.
    let whole = (digits.len() + zeros).saturating_sub(places);
    let leading = (4 - whole % 4) % 4 + places.saturating_sub(digits.len() + zeros);
    decimal.extend(std::iter::repeat_n(b'0', leading));
    decimal.extend_from_slice(digits.as_bytes());
    decimal.extend(std::iter::repeat_n(b'0', zeros + (4 - places % 4) % 4));
    let groups: Vec<u16> = decimal
        .chunks(4)
        .map(|four| four.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0')))
        .collect();
    let whole_groups = whole.div_ceil(4);
    let first = groups.iter().position(|group| *group != 0);
    let (used, weight) = match first {
        None => (&groups[..0], 0),
        Some(first) => {
            let last = groups.iter().rposition(|group| *group != 0).expect("there is a group that is not zero");
            (&groups[first..=last], whole_groups as i64 - 1 - first as i64)
        }
    };
    out.put_u16(u16::try_from(used.len()).expect("a decimal has at most 76 digits"));
    out.put_i16(i16::try_from(weight).expect("a decimal has at most 76 digits"));
    out.put_u16(if negative && !used.is_empty() { 0x4000 } else { 0 });
    out.put_u16(u16::try_from(places).expect("a scale is at most 127"));
    for group in used {
        out.put_u16(*group);
    }
}

/// Calls `with` with the sign and the digits of an integer, without an allocation.
pub fn with_digits<R>(value: i128, with: impl FnOnce(bool, &str) -> R) -> R {
    let mut buffer = [0_u8; 40];
    let mut rest = &mut buffer[..];
    write!(rest, "{}", value.unsigned_abs()).expect("an i128 has at most 39 digits");
    let unused = rest.len();
    let digits = std::str::from_utf8(&buffer[..buffer.len() - unused]).expect("digits are ASCII");
    with(value < 0, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: i128, scale: i8) -> String {
        let mut out = Vec::new();
        with_digits(value, |negative, digits| put_text(&mut out, negative, digits, scale));
        String::from_utf8(out).unwrap()
    }

    fn binary(value: i128, scale: i8) -> String {
        let mut out = Vec::new();
        with_digits(value, |negative, digits| put_binary(&mut out, negative, digits, scale));
        out.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn text_keeps_the_scale() {
        assert_eq!(text(12_345, 2), "123.45");
        assert_eq!(text(-5, 2), "-0.05");
        assert_eq!(text(0, 3), "0.000");
        assert_eq!(text(12, -2), "1200");
        assert_eq!(text(i128::MIN, 0), "-170141183460469231731687303715884105728");
    }

    /// Each line is the end of `SELECT encode(numeric_send(x), 'hex')` in PostgreSQL 15.
    #[test]
    fn binary_is_base_10000() {
        assert_eq!(binary(0, 0), "0000000000000000");
        assert_eq!(binary(0, 2), "0000000000000002");
        assert_eq!(binary(12_345, 2), "0002000000000002007b1194");
        assert_eq!(binary(-5, 2), "0001ffff4000000201f4");
        assert_eq!(binary(10_000, 0), "00010001000000000001");
        assert_eq!(binary(123_456_789, 0), "0003000200000000000109291a85");
        assert_eq!(binary(1, 8), "0001fffe000000080001");
        assert_eq!(binary(12, -3), "0002000100000000000107d0");
    }
}
