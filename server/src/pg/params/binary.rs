//! Parameters in binary format: what each type's `recv` function takes.

use arrow::datatypes::IntervalMonthDayNano;
use bytes::Buf;
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use super::text::uuid_text;
use super::{array, utf8};
use crate::pg::types::{self, Oid, element_of, name_of};

const POSTGRES_EPOCH_DAYS: i32 = 10_957;
const POSTGRES_EPOCH_MICROS: i64 = 10_957 * 86_400_000_000;

pub fn decode(bytes: &[u8], oid: Oid) -> Result<ScalarValue, SqlError> {
    if let Some(element) = element_of(oid) {
        return array::decode_binary(bytes, element);
    }
    let value = match oid {
        types::BOOL => ScalarValue::Boolean(Some(i8::from_be_bytes(exactly(bytes, oid)?) != 0)),
        types::INT2 => ScalarValue::Int16(Some(i16::from_be_bytes(exactly(bytes, oid)?))),
        types::INT4 => ScalarValue::Int32(Some(i32::from_be_bytes(exactly(bytes, oid)?))),
        types::INT8 => ScalarValue::Int64(Some(i64::from_be_bytes(exactly(bytes, oid)?))),
        types::OID => ScalarValue::Int64(Some(i64::from(u32::from_be_bytes(exactly(bytes, oid)?)))),
        types::FLOAT4 => ScalarValue::Float32(Some(f32::from_be_bytes(exactly(bytes, oid)?))),
        types::FLOAT8 => ScalarValue::Float64(Some(f64::from_be_bytes(exactly(bytes, oid)?))),
        types::NUMERIC => numeric(bytes)?,
        types::BYTEA => ScalarValue::Binary(Some(bytes.to_vec())),
        types::DATE => date(bytes)?,
        types::TIME => ScalarValue::Time64Microsecond(Some(i64::from_be_bytes(exactly(bytes, oid)?))),
        types::TIMESTAMP => ScalarValue::TimestampMicrosecond(Some(micros(bytes, oid)?), None),
        types::TIMESTAMPTZ => ScalarValue::TimestampMicrosecond(Some(micros(bytes, oid)?), Some(types::UTC.into())),
        types::INTERVAL => interval(bytes)?,
        types::UUID => ScalarValue::Utf8(Some(uuid_text(&exactly::<16>(bytes, oid)?))),
        types::JSONB => match bytes.split_first() {
            Some((1, json)) => ScalarValue::Utf8(Some(utf8(json)?.to_owned())),
            _ => return Err(malformed(oid)),
        },
        types::TEXT | types::VARCHAR | types::BPCHAR | types::NAME | types::UNKNOWN | types::CHAR | types::JSON => {
            ScalarValue::Utf8(Some(utf8(bytes)?.to_owned()))
        }
        _ => {
            let message = format!("parameters of the type with OID {oid} are not supported in binary format");
            return Err(SqlError::unsupported(message));
        }
    };
    Ok(value)
}

fn exactly<const N: usize>(bytes: &[u8], oid: Oid) -> Result<[u8; N], SqlError> {
    bytes.try_into().map_err(|_| malformed(oid))
}

pub(super) fn malformed(oid: Oid) -> SqlError {
    SqlError::new(
        SqlState::InvalidBinaryRepresentation,
        format!("incorrect binary data format for type {}", name_of(oid)),
    )
}

fn out_of_range(oid: Oid) -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, format!("{} out of range", name_of(oid)))
}

fn date(bytes: &[u8]) -> Result<ScalarValue, SqlError> {
    let days = i32::from_be_bytes(exactly(bytes, types::DATE)?);
    let days = days.checked_add(POSTGRES_EPOCH_DAYS).ok_or_else(|| out_of_range(types::DATE))?;
    Ok(ScalarValue::Date32(Some(days)))
}

fn micros(bytes: &[u8], oid: Oid) -> Result<i64, SqlError> {
    let micros = i64::from_be_bytes(exactly(bytes, oid)?);
    micros.checked_add(POSTGRES_EPOCH_MICROS).ok_or_else(|| out_of_range(oid))
}

fn interval(bytes: &[u8]) -> Result<ScalarValue, SqlError> {
    let mut bytes: &[u8] = &exactly::<16>(bytes, types::INTERVAL)?;
    let nanos = bytes.get_i64().checked_mul(1_000).ok_or_else(|| out_of_range(types::INTERVAL))?;
    let (days, months) = (bytes.get_i32(), bytes.get_i32());
    Ok(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos))))
}

const NUMERIC_NEGATIVE: u16 = 0x4000;

/// Reads base-10000 digits into a decimal with the display scale that the client gave.
fn numeric(bytes: &[u8]) -> Result<ScalarValue, SqlError> {
    let mut bytes = bytes;
    if bytes.len() < 8 {
        return Err(malformed(types::NUMERIC));
    }
    let (count, weight) = (usize::from(bytes.get_u16()), i32::from(bytes.get_i16()));
    let (sign, scale) = (bytes.get_u16(), i32::from(bytes.get_u16()));
    if bytes.len() != count * 2 {
        return Err(malformed(types::NUMERIC));
    }
    if sign != 0 && sign != NUMERIC_NEGATIVE {
        return Err(SqlError::unsupported("NaN and infinity are not supported as numeric"));
    }
    let too_large = || SqlError::new(SqlState::NumericValueOutOfRange, "numeric has more than 38 digits");
    let mut unscaled: i128 = 0;
    for position in 0..count {
        let group = i128::from(bytes.get_u16());
        // The power of ten of this group's last digit, in units of the display scale.
        let exponent = (weight - position as i32) * 4 + scale;
        let part = match u32::try_from(exponent) {
            Ok(up) => 10_i128.checked_pow(up).and_then(|power| group.checked_mul(power)).ok_or_else(too_large)?,
            Err(_) => group / 10_i128.pow(exponent.unsigned_abs().min(4)),
        };
        unscaled = unscaled.checked_add(part).ok_or_else(too_large)?;
    }
    let signed = if sign == NUMERIC_NEGATIVE { -unscaled } else { unscaled };
    let scale = i8::try_from(scale).ok().filter(|scale| *scale <= 38).ok_or_else(too_large)?;
    Ok(ScalarValue::Decimal128(Some(signed), 38, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn numerics_of_all_sizes() {
        let read = |hex: &str| numeric(&bytes(hex)).unwrap();
        assert_eq!(read("0000000000000002"), ScalarValue::Decimal128(Some(0), 38, 2));
        assert_eq!(read("0002000000000002007b1194"), ScalarValue::Decimal128(Some(12_345), 38, 2));
        assert_eq!(read("0001ffff4000000201f4"), ScalarValue::Decimal128(Some(-5), 38, 2));
        assert_eq!(read("00010001000000000001"), ScalarValue::Decimal128(Some(10_000), 38, 0));
        assert_eq!(read("0001fffe000000080001"), ScalarValue::Decimal128(Some(1), 38, 8));
        assert!(numeric(&bytes("00017fff000000000001")).is_err());
        assert!(numeric(&bytes("0005")).is_err());
    }

    #[test]
    fn instants_count_from_2000() {
        let value = decode(&1_000_000_i64.to_be_bytes(), types::TIMESTAMP).unwrap();
        assert_eq!(value, ScalarValue::TimestampMicrosecond(Some(946_684_801_000_000), None));
        assert_eq!(decode(&1_i32.to_be_bytes(), types::DATE).unwrap(), ScalarValue::Date32(Some(10_958)));
        assert!(decode(&i64::MAX.to_be_bytes(), types::TIMESTAMP).is_err());
    }

    #[test]
    fn wrong_lengths_are_told() {
        let error = decode(&[0, 1], types::INT4).unwrap_err();
        assert_eq!(error.message, "incorrect binary data format for type integer");
    }
}
