//! Rows as JSON objects. What arrow writes as Postgres' `to_json` does is left to arrow.
//!
//! | type                       | JSON                                                                        |
//! |----------------------------|-----------------------------------------------------------------------------|
//! | boolean, integers, text    | as they are                                                                 |
//! | numeric                    | a number with all of its digits: `12.50`                                    |
//! | real, double precision     | the shortest number that reads the same; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | date, time                 | `"2024-02-29"`, `"23:59:59.5"`                                              |
//! | timestamp                  | `"2024-02-29T23:59:59.5"`, with time zone in UTC: `"2024-02-29T23:59:59.5Z"` |
//! | interval                   | as ISO 8601 says: `"P1Y2M3DT4H5M6.7S"`                                      |
//! | bytea                      | `"\\x00ff"`                                                                  |
//! | arrays, records            | arrays, objects                                                             |
//! | NULL                       | `null`; no column is left out                                               |

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, IntervalMonthDayNanoArray, StructArray};
use arrow::array::{PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use chrono::DateTime;

/// The rows of a batch, each as an object.
#[derive(Debug, Default)]
pub struct JsonRows {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl JsonRows {
    /// # Errors
    /// If the batch has a type that there is no JSON for.
    pub fn new(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let count = rows.num_rows();
        let fields = rows.schema().fields().clone();
        let objects = StructArray::try_new_with_length(fields, rows.columns().to_vec(), None, count)?;
        let field: FieldRef = Arc::new(Field::new("row", objects.data_type().clone(), false));
        let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Postgres));
        let mut encoder = make_encoder(&field, &objects, &options)?;
        let mut encoded = Self { bytes: Vec::new(), ends: Vec::with_capacity(count) };
        for row in 0..count {
            encoder.encode(row, &mut encoded.bytes);
            encoded.ends.push(encoded.bytes.len());
        }
        Ok(encoded)
    }

    pub fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|row| self.row(row))
    }
}

/// Writes a string with quotes and escapes.
pub fn put_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// The types that arrow would write otherwise.
#[derive(Debug)]
struct Postgres;

impl EncoderFactory for Postgres {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder> = match array.data_type() {
            DataType::Float16 => {
                let wide: Float64Array = array.as_primitive::<Float16Type>().unary(f64::from);
                Box::new(Doubles(wide))
            }
            DataType::Float32 => Box::new(Reals(array.as_primitive::<Float32Type>().clone())),
            DataType::Float64 => Box::new(Doubles(array.as_primitive::<Float64Type>().clone())),
            DataType::Timestamp(_, zone) => {
                let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                let micros = micros.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>();
                Box::new(Timestamps { micros, zone: if zone.is_some() { "Z" } else { "" } })
            }
            DataType::Interval(_) => {
                let parts = cast(array, &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?;
                Box::new(Intervals(parts.as_primitive::<IntervalMonthDayNanoType>().clone()))
            }
            DataType::Duration(_) => {
                let nanos = cast(array, &DataType::Duration(TimeUnit::Microsecond))?;
                let micros: ArrayRef = cast(&nanos, &DataType::Int64)?;
                Box::new(Durations(micros.as_primitive::<Int64Type>().clone()))
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Box::new(Binaries(cast(array, &DataType::Binary)?.as_binary::<i32>().clone()))
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Doubles(Float64Array);
struct Reals(PrimitiveArray<Float32Type>);
/// Microseconds since 1970, and what follows the time.
struct Timestamps {
    micros: PrimitiveArray<Int64Type>,
    zone: &'static str,
}
struct Intervals(IntervalMonthDayNanoArray);
/// In microseconds.
struct Durations(PrimitiveArray<Int64Type>);
struct Binaries(BinaryArray);

impl Encoder for Doubles {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        if value.is_finite() { put_number(&value, out) } else { put_infinite(value, out) }
    }
}

impl Encoder for Reals {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        if value.is_finite() { put_number(&value, out) } else { put_infinite(f64::from(value), out) }
    }
}

/// The shortest number that reads the same, and a whole one without a fraction.
fn put_number(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, value).expect("writing to memory does not fail");
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

fn put_infinite(value: f64, out: &mut Vec<u8>) {
    let name: &[u8] = match value {
        value if value.is_nan() => b"\"NaN\"",
        value if value > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    };
    out.extend_from_slice(name);
}

impl Encoder for Timestamps {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let micros = self.micros.value(row);
        // What lies beyond the calendar is Postgres' infinity.
        match DateTime::from_timestamp_micros(micros) {
            Some(time) => write!(out, "\"{}{}\"", time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f"), self.zone),
            None => write!(out, "\"{}infinity\"", if micros < 0 { "-" } else { "" }),
        }
        .expect("writing to memory does not fail");
    }
}

impl Encoder for Intervals {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let parts = self.0.value(row);
        put_interval(parts.months, parts.days, parts.nanoseconds / 1_000, out);
    }
}

impl Encoder for Durations {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        put_interval(0, 0, self.0.value(row), out);
    }
}

/// Postgres' `IntervalStyle = iso_8601`: each part with a sign of its own.
fn put_interval(months: i32, days: i32, micros: i64, out: &mut Vec<u8>) {
    let mut text = String::from("P");
    let put = |text: &mut String, value: i64, unit: char| {
        if value != 0 {
            write!(text, "{value}{unit}").expect("writing to memory does not fail");
        }
    };
    put(&mut text, i64::from(months / 12), 'Y');
    put(&mut text, i64::from(months % 12), 'M');
    put(&mut text, i64::from(days), 'D');
    if micros != 0 || text == "P" {
        text.push('T');
        let seconds = micros / 1_000_000;
        put(&mut text, seconds / 3600, 'H');
        put(&mut text, seconds / 60 % 60, 'M');
        let (whole, fraction) = (seconds % 60, micros % 1_000_000);
        if whole != 0 || fraction != 0 || text == "PT" {
            let sign = if whole < 0 || fraction < 0 { "-" } else { "" };
            write!(text, "{sign}{}", whole.abs()).expect("writing to memory does not fail");
            if fraction != 0 {
                let digits = format!("{:06}", fraction.abs());
                write!(text, ".{}", digits.trim_end_matches('0')).expect("writing to memory does not fail");
            }
            text.push('S');
        }
    }
    put_string(&text, out);
}

impl Encoder for Binaries {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out.extend_from_slice(b"\"\\\\x");
        for byte in self.0.value(row) {
            out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        out.push(b'"');
    }
}
