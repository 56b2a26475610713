//! Parameters as clients send them, in text or binary, to the scalars that a statement takes.
//!
//! A parameter is read as the Postgres type that the client and the server agreed on at Parse, then
//! cast to the Arrow type that the statement asks for.

mod array;
mod binary;
mod interval;
mod text;

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use super::encode::Format;
use super::types::{Oid, data_type_of, name_of};

/// Reads one parameter; `None` is NULL.
///
/// # Errors
/// If the bytes are no value of the type (22P02, 22007, 22003), or the type cannot be a parameter (0A000).
pub fn decode(bytes: Option<&[u8]>, format: Format, oid: Oid, target: &DataType) -> Result<ScalarValue, SqlError> {
    let Some(bytes) = bytes else {
        return null(target);
    };
    let value = match format {
        Format::Text => text::decode(bytes, oid, target)?,
        Format::Binary => binary::decode(bytes, oid)?,
    };
    if value.data_type() == *target || target.is_null() {
        return Ok(value);
    }
    value.cast_to(target).map_err(|_| {
        let shown = format!("parameter of type {} cannot be used as {target}", name_of(oid));
        SqlError::new(SqlState::DatatypeMismatch, shown)
    })
}

fn null(target: &DataType) -> Result<ScalarValue, SqlError> {
    ScalarValue::try_new_null(target)
        .map_err(|_| SqlError::unsupported(format!("parameters of type {target} are not supported")))
}

/// The Arrow type in which parameters of a type arrive.
fn arriving_type(oid: Oid) -> Result<DataType, SqlError> {
    data_type_of(oid)
        .ok_or_else(|| SqlError::unsupported(format!("parameters of the type with OID {oid} are not supported")))
}

fn utf8(bytes: &[u8]) -> Result<&str, SqlError> {
    std::str::from_utf8(bytes)
        .map_err(|_| SqlError::new(SqlState::CharacterNotInRepertoire, "invalid byte sequence for encoding \"UTF8\""))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::super::types::*;
    use super::*;

    fn text(value: &str, oid: Oid, target: DataType) -> ScalarValue {
        decode(Some(value.as_bytes()), Format::Text, oid, &target).unwrap()
    }

    #[test]
    fn text_parameters_become_what_the_statement_asks_for() {
        assert_eq!(text("42", INT4, DataType::Int64), ScalarValue::Int64(Some(42)));
        assert_eq!(text(" 42 ", INT8, DataType::Int64), ScalarValue::Int64(Some(42)));
        assert_eq!(text("t", BOOL, DataType::Boolean), ScalarValue::Boolean(Some(true)));
        assert_eq!(text("off", BOOL, DataType::Boolean), ScalarValue::Boolean(Some(false)));
        assert_eq!(text("1.50", NUMERIC, DataType::Decimal128(10, 2)), ScalarValue::Decimal128(Some(150), 10, 2));
        assert_eq!(text("-Infinity", FLOAT8, DataType::Float64), ScalarValue::Float64(Some(f64::NEG_INFINITY)));
        assert_eq!(text("x", UNKNOWN, DataType::Utf8View), ScalarValue::Utf8View(Some("x".to_owned())));
        assert_eq!(text("\\x00ff", BYTEA, DataType::Binary), ScalarValue::Binary(Some(vec![0, 255])));
        assert_eq!(text("2024-02-29", DATE, DataType::Date32), ScalarValue::Date32(Some(19_782)));
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let one_second = ScalarValue::TimestampMicrosecond(Some(1_000_000), None);
        assert_eq!(text("1970-01-01 00:00:01", TIMESTAMP, micros), one_second);
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let two_hours = ScalarValue::TimestampMicrosecond(Some(-7_200_000_000), Some(UTC.into()));
        assert_eq!(text("1970-01-01 00:00:00+02", TIMESTAMPTZ, zoned), two_hours);
    }

    #[test]
    fn null_has_the_type_of_the_parameter() {
        assert_eq!(decode(None, Format::Binary, INT4, &DataType::Int32).unwrap(), ScalarValue::Int32(None));
    }

    #[test]
    fn malformed_text_is_told_as_postgres_does() {
        let error = decode(Some(b"abc"), Format::Text, INT4, &DataType::Int32).unwrap_err();
        assert_eq!(error.state, SqlState::InvalidTextRepresentation);
        assert_eq!(error.message, "invalid input syntax for type integer: \"abc\"");
        let error = decode(Some(b"2024-13-01"), Format::Text, DATE, &DataType::Date32).unwrap_err();
        assert_eq!(error.state, SqlState::InvalidDatetimeFormat);
        assert!(decode(Some(b"\xff"), Format::Text, TEXT, &DataType::Utf8).is_err());
    }
}
