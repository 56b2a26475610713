//! Parameters in text format.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use super::interval::spell_out_clock;
use super::{array, arriving_type, utf8};
use crate::pg::types::{self, Oid, element_of, name_of};

pub fn decode(bytes: &[u8], oid: Oid, target: &DataType) -> Result<ScalarValue, SqlError> {
    let text = utf8(bytes)?;
    if element_of(oid).is_some() {
        return array::decode_text(text, oid);
    }
    match oid {
        types::BYTEA => bytea(text),
        types::BOOL => boolean(text).map(|value| ScalarValue::Boolean(Some(value))),
        types::TEXT | types::VARCHAR | types::BPCHAR | types::NAME | types::UNKNOWN | types::CHAR => {
            Ok(ScalarValue::Utf8(Some(text.to_owned())))
        }
        types::JSON | types::JSONB => json(text, oid),
        types::UUID => uuid(text, target),
        types::INTERVAL => cast(&spell_out_clock(text), oid, &arriving_type(oid)?).map_err(|_| malformed(text, oid)),
        types::NUMERIC if matches!(target, DataType::Decimal128(..) | DataType::Decimal256(..)) => {
            cast(text, oid, target)
        }
        types::NUMERIC => cast(text, oid, &DataType::Decimal128(38, places(text))),
        _ => cast(text, oid, &arriving_type(oid)?),
    }
}

fn cast(text: &str, oid: Oid, target: &DataType) -> Result<ScalarValue, SqlError> {
    ScalarValue::Utf8(Some(text.trim().to_owned())).cast_to(target).map_err(|_| malformed(text, oid))
}

/// The digits after the point, so that none is lost before the cast to what the statement asks for.
fn places(text: &str) -> i8 {
    let fraction = text.trim().split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    i8::try_from(digits.min(37)).expect("at most 37")
}

/// Postgres takes any unambiguous beginning of these words.
fn boolean(text: &str) -> Result<bool, SqlError> {
    let word = text.trim().to_ascii_lowercase();
    let begins = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || word == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(malformed(text, types::BOOL))
    }
}

fn bytea(text: &str) -> Result<ScalarValue, SqlError> {
    let bytes = match text.strip_prefix("\\x") {
        Some(digits) => hex(digits),
        None => escaped(text),
    };
    bytes.map(|bytes| ScalarValue::Binary(Some(bytes))).ok_or_else(|| malformed(text, types::BYTEA))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII was checked"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// The older form: `\\` for a backslash, `\ooo` for any byte in octal.
fn escaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
        } else if let Some(after) = after.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = after;
        } else {
            let octal = std::str::from_utf8(after.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(octal, 8).ok()?);
            rest = &after[3..];
        }
    }
    Some(bytes)
}

fn json(text: &str, oid: Oid) -> Result<ScalarValue, SqlError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| malformed(text, oid))?;
    Ok(ScalarValue::Utf8(Some(text.to_owned())))
}

/// UUIDs are 16 bytes in a column of UUIDs, and their canonical text elsewhere.
fn uuid(text: &str, target: &DataType) -> Result<ScalarValue, SqlError> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, '-' | '{' | '}')).collect();
    let bytes = hex(&digits).filter(|bytes| bytes.len() == 16).ok_or_else(|| malformed(text, types::UUID))?;
    Ok(match target {
        DataType::FixedSizeBinary(16) => ScalarValue::FixedSizeBinary(16, Some(bytes)),
        _ => ScalarValue::Utf8(Some(uuid_text(&bytes))),
    })
}

/// `bytes` are the 16 of a UUID.
pub fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn malformed(text: &str, oid: Oid) -> SqlError {
    let name = name_of(oid);
    let fits_number = text.trim().parse::<f64>().is_ok();
    if matches!(oid, types::INT2 | types::INT4 | types::INT8 | types::NUMERIC) && fits_number && !text.contains('.') {
        let message = format!("value \"{text}\" is out of range for type {name}");
        return SqlError::new(SqlState::NumericValueOutOfRange, message);
    }
    let state = match oid {
        types::DATE | types::TIME | types::TIMESTAMP | types::TIMESTAMPTZ | types::INTERVAL => {
            SqlState::InvalidDatetimeFormat
        }
        _ => SqlState::InvalidTextRepresentation,
    };
    SqlError::new(state, format!("invalid input syntax for type {name}: \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytea_in_both_forms() {
        assert_eq!(bytea("\\xDEad").unwrap(), ScalarValue::Binary(Some(vec![0xde, 0xad])));
        assert_eq!(bytea("a\\\\\\001").unwrap(), ScalarValue::Binary(Some(vec![b'a', b'\\', 1])));
        assert!(bytea("\\xabc").is_err());
        assert!(bytea("\\9").is_err());
    }

    #[test]
    fn too_large_integers_are_out_of_range() {
        let error = decode(b"99999999999", types::INT4, &DataType::Int32).unwrap_err();
        assert_eq!(error.state, SqlState::NumericValueOutOfRange);
    }

    #[test]
    fn uuids_take_any_usual_spelling() {
        let canonical = "00112233-4455-6677-8899-aabbccddeeff";
        let value = uuid("{00112233445566778899AABBCCDDEEFF}", &DataType::Utf8).unwrap();
        assert_eq!(value, ScalarValue::Utf8(Some(canonical.to_owned())));
        assert!(uuid("0011", &DataType::Utf8).is_err());
    }

    #[test]
    fn intervals_in_postgres_style() {
        let target = arriving_type(types::INTERVAL).unwrap();
        let value = decode(b"1 day 02:00:00", types::INTERVAL, &target).unwrap();
        let expected = ScalarValue::new_interval_mdn(0, 1, 7_200_000_000_000);
        assert_eq!(value, expected);
    }
}
