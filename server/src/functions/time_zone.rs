//! `timezone(zone, time)`, which is `time AT TIME ZONE zone`: the instant at which clocks of a zone show a time, and what
//! they show at an instant.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::kernels::arity::try_unary;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use datafusion::common::{internal_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AtTimeZone {
    signature: Signature,
}

impl Default for AtTimeZone {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn local_times() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [zone, DataType::Timestamp(_, Some(_)) | DataType::Date32 | DataType::Null] if is_text(zone) => {
                Ok(vec![DataType::Utf8, instants()])
            }
            [zone, DataType::Timestamp(_, None)] if is_text(zone) => Ok(vec![DataType::Utf8, local_times()]),
            // A string literal is an instant, as in Postgres.
            [zone, text] if is_text(zone) && is_text(text) => Ok(vec![DataType::Utf8, instants()]),
            _ => plan_err!("no timezone of that"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [_, DataType::Timestamp(_, None)] => Ok(instants()),
            _ => Ok(local_times()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [zone, times] = arguments.args.as_slice() else { return internal_err!("timezone takes two arguments") };
        let result_type = arguments.return_field.data_type();
        let zone = match zone {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))) => zone_of(name)?,
            ColumnarValue::Scalar(_) => return ScalarValue::try_new_null(result_type).map(ColumnarValue::Scalar),
            ColumnarValue::Array(_) => {
                return Err(external(SqlError::unsupported("the name of a time zone must be a constant")));
            }
        };
        let to_instants = *result_type == instants();
        let convert = |times: &ArrayRef| -> Result<ArrayRef> {
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let converted: TimestampMicrosecondArray = match to_instants {
                true => try_unary(times, |time| instant_of(time, &zone)),
                false => try_unary(times, |time| local_time_of(time, &zone)),
            }
            .map_err(|_| external(SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")))?;
            Ok(Arc::new(converted.with_data_type(result_type.clone())))
        };
        match times {
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(convert(times)?)),
            ColumnarValue::Scalar(time) => {
                ScalarValue::try_from_array(&convert(&time.to_array()?)?, 0).map(ColumnarValue::Scalar)
            }
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_null()
}

/// A zone by its name (in any case), or by its distance from UTC.
fn zone_of(name: &str) -> Result<Tz> {
    let unknown = || {
        let message = format!("time zone \"{name}\" not recognized");
        external(SqlError::new(SqlState::InvalidParameterValue, message))
    };
    let trimmed = name.trim();
    if trimmed.eq_ignore_ascii_case("z") || trimmed.eq_ignore_ascii_case("zulu") {
        return Tz::from_str("UTC").map_err(|_| unknown());
    }
    if let Some(offset) = posix_offset(trimmed) {
        return Tz::from_str(&offset).map_err(|_| unknown());
    }
    Tz::from_str(trimmed)
        .or_else(|_| Tz::from_str(&trimmed.to_ascii_uppercase()))
        .or_else(|_| Tz::from_str(&capitalized(trimmed)))
        .map_err(|_| unknown())
}

/// `+02` as Postgres takes it here: by the POSIX rule, which counts hours to the west.
fn posix_offset(name: &str) -> Option<String> {
    let (sign, rest) = match name.strip_prefix('+') {
        Some(rest) => ('-', rest),
        None => ('+', name.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    (hours <= 15 && minutes < 60).then(|| format!("{sign}{hours:02}:{minutes:02}"))
}

/// `europe/berlin` as `Europe/Berlin`.
fn capitalized(name: &str) -> String {
    let mut starts = true;
    let letter = |character: char| {
        let letter = if starts { character.to_ascii_uppercase() } else { character.to_ascii_lowercase() };
        starts = !character.is_ascii_alphabetic();
        letter
    };
    name.chars().map(letter).collect()
}

fn out_of_range() -> ArrowError {
    ArrowError::ComputeError("timestamp out of range".into())
}

/// The instant at which clocks show a time. One that they show twice is the later one; one that they skip is told by the
/// offset before: the rules of `DetermineTimeZoneOffset` in PostgreSQL's `datetime.c`.
fn instant_of(local_micros: i64, zone: &Tz) -> Result<i64, ArrowError> {
    let local: NaiveDateTime = DateTime::from_timestamp_micros(local_micros).ok_or_else(out_of_range)?.naive_utc();
    let offset = match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => offset.fix(),
        LocalResult::None => {
            let before = local.checked_sub_signed(TimeDelta::days(1)).ok_or_else(out_of_range)?;
            zone.offset_from_local_datetime(&before).earliest().ok_or_else(out_of_range)?.fix()
        }
    };
    local_micros.checked_sub(i64::from(offset.local_minus_utc()) * 1_000_000).ok_or_else(out_of_range)
}

fn local_time_of(instant_micros: i64, zone: &Tz) -> Result<i64, ArrowError> {
    let instant: DateTime<Utc> = DateTime::from_timestamp_micros(instant_micros).ok_or_else(out_of_range)?;
    let offset = zone.offset_from_utc_datetime(&instant.naive_utc()).fix();
    instant_micros.checked_add(i64::from(offset.local_minus_utc()) * 1_000_000).ok_or_else(out_of_range)
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
