//! Texts of JSON values into one Arrow column: one loop a type.
//!
//! | column                   | accepts                                                                               |
//! |--------------------------|---------------------------------------------------------------------------------------|
//! | BOOLEAN                  | `true`, `false`, and both in quotes                                                   |
//! | SMALLINT INTEGER BIGINT  | numbers without fraction (`7`, `7.0`, `7e2`), quoted or not; others are rejected, never rounded |
//! | REAL, DOUBLE PRECISION   | numbers, quoted or not, `"NaN"`, `"Infinity"`, `"-Infinity"`                          |
//! | NUMERIC                  | numbers, quoted or not, rounded half away from zero to the column's scale             |
//! | TEXT                     | strings; any other value as the JSON text that was written                            |
//! | BYTEA                    | strings: `\x` and hex digits, else base64                                             |
//! | DATE                     | `"YYYY-MM-DD"`, or a number: days since 1970                                          |
//! | TIME                     | `"HH:MM:SS[.ffffff]"`                                                                 |
//! | TIMESTAMP [WITH TIME ZONE] | RFC 3339, `"YYYY-MM-DD[ HH:MM:SS[.ffffff]]"` taken as UTC, or a number: milliseconds since 1970. What has an offset is converted to UTC |
//! | arrays, structs          | JSON arrays and objects                                                               |

use std::borrow::Cow;
use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, LargeStringBuilder, PrimitiveBuilder, StringBuilder,
    StringViewBuilder,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::Utc;
use freshet_types::SqlError;
use serde::de::IgnoredAny;

use super::nested::NestedColumn;

/// Builds one column out of the texts of JSON values, `None` for NULL.
pub trait CellColumn: Send {
    /// One value a text. A text that does not fit is told to `bad` by its position, and becomes NULL.
    fn append(&mut self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String));
    /// Tells `bad` of the same texts as `append`, without keeping a value.
    fn check(&self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String));
    fn finish(&mut self) -> ArrayRef;
}

/// Why a text does not fit its column.
enum Misfit {
    Syntax,
    Range,
    Because(&'static str),
}

impl Misfit {
    /// In the words of Postgres. Long values are cut: the payload is kept whole elsewhere.
    fn reason(&self, text: &str, type_name: &str) -> String {
        const SHOWN_MAX: usize = 100;
        let shown: String = text.chars().take(SHOWN_MAX).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        match self {
            Self::Syntax => format!("invalid input syntax for type {type_name}: {shown}{more}"),
            Self::Range => format!("value {shown}{more} is out of range for type {type_name}"),
            Self::Because(why) => format!("invalid value for type {type_name}: {shown}{more} ({why})"),
        }
    }
}

/// The column that reads JSON values as `field`'s type.
pub fn column(field: &Field) -> Result<Box<dyn CellColumn>, SqlError> {
    let data_type = field.data_type();
    Ok(match data_type {
        DataType::Boolean => {
            Box::new(Cells { builder: BooleanBuilder::new(), parse: boolean, type_name: "boolean".into() })
        }
        DataType::Int8 => primitive::<Int8Type>(data_type, "tinyint", integer),
        DataType::Int16 => primitive::<Int16Type>(data_type, "smallint", integer),
        DataType::Int32 => primitive::<Int32Type>(data_type, "integer", integer),
        DataType::Int64 => primitive::<Int64Type>(data_type, "bigint", integer),
        DataType::Float32 => primitive::<Float32Type>(data_type, "real", real),
        DataType::Float64 => primitive::<Float64Type>(data_type, "double precision", double),
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let name = format!("numeric({precision},{scale})");
            primitive::<Decimal128Type>(data_type, &name, move |text| decimal(text, precision, scale))
        }
        DataType::Date32 => primitive::<Date32Type>(data_type, "date", date),
        DataType::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(data_type, "time", time),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let name = if zone.is_some() { "timestamp with time zone" } else { "timestamp" };
            primitive::<TimestampMicrosecondType>(data_type, name, timestamp)
        }
        DataType::Utf8 => Box::new(Cells { builder: StringBuilder::new(), parse: string, type_name: "text".into() }),
        DataType::LargeUtf8 => {
            Box::new(Cells { builder: LargeStringBuilder::new(), parse: string, type_name: "text".into() })
        }
        DataType::Utf8View => {
            Box::new(Cells { builder: StringViewBuilder::new(), parse: string, type_name: "text".into() })
        }
        DataType::Binary => Box::new(Cells { builder: BinaryBuilder::new(), parse: bytes, type_name: "bytea".into() }),
        _ => Box::new(NestedColumn::new(field)?),
    })
}

/// A column of one builder, filled by one parse function.
struct Cells<B, F> {
    builder: B,
    parse: F,
    type_name: String,
}

fn primitive<T: ArrowPrimitiveType>(
    data_type: &DataType,
    type_name: &str,
    parse: impl Fn(&str) -> Result<T::Native, Misfit> + Send + 'static,
) -> Box<dyn CellColumn> {
    let builder = PrimitiveBuilder::<T>::new().with_data_type(data_type.clone());
    Box::new(Cells { builder, parse, type_name: type_name.to_owned() })
}

/// The loop of [`CellColumn::append`], once for every kind of builder.
macro_rules! cell_column {
    ($builder:ty, $value:ty $(, $generic:ident: $bound:ident)?) => {
        impl<F: Fn(&str) -> Result<$value, Misfit> + Send $(, $generic: $bound)?> CellColumn for Cells<$builder, F> {
            fn append(&mut self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String)) {
                for (row, text) in texts.iter().enumerate() {
                    match text.map(&self.parse) {
                        Some(Ok(value)) => self.builder.append_value(value),
                        None => self.builder.append_null(),
                        Some(Err(misfit)) => {
                            self.builder.append_null();
                            bad(row, misfit.reason(text.unwrap_or_default(), &self.type_name));
                        }
                    }
                }
            }

            fn check(&self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String)) {
                for (row, text) in texts.iter().enumerate() {
                    if let Some(Err(misfit)) = text.map(&self.parse) {
                        bad(row, misfit.reason(text.unwrap_or_default(), &self.type_name));
                    }
                }
            }

            fn finish(&mut self) -> ArrayRef {
                Arc::new(self.builder.finish())
            }
        }
    };
}

/// The same for builders of values that borrow from the text.
macro_rules! borrowing_cell_column {
    ($builder:ty, $value:ty) => {
        impl<F: for<'t> Fn(&'t str) -> Result<Cow<'t, $value>, Misfit> + Send> CellColumn for Cells<$builder, F> {
            fn append(&mut self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String)) {
                for (row, text) in texts.iter().enumerate() {
                    match text.map(&self.parse) {
                        Some(Ok(value)) => self.builder.append_value(&*value),
                        None => self.builder.append_null(),
                        Some(Err(misfit)) => {
                            self.builder.append_null();
                            bad(row, misfit.reason(text.unwrap_or_default(), &self.type_name));
                        }
                    }
                }
            }

            fn check(&self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String)) {
                for (row, text) in texts.iter().enumerate() {
                    if let Some(Err(misfit)) = text.map(&self.parse) {
                        bad(row, misfit.reason(text.unwrap_or_default(), &self.type_name));
                    }
                }
            }

            fn finish(&mut self) -> ArrayRef {
                Arc::new(self.builder.finish())
            }
        }
    };
}

cell_column!(PrimitiveBuilder<T>, T::Native, T: ArrowPrimitiveType);
cell_column!(BooleanBuilder, bool);
borrowing_cell_column!(StringBuilder, str);
borrowing_cell_column!(LargeStringBuilder, str);
borrowing_cell_column!(StringViewBuilder, str);
borrowing_cell_column!(BinaryBuilder, [u8]);

fn is_string(text: &str) -> bool {
    text.starts_with('"')
}

/// What a JSON string says.
#[inline]
fn unquoted(text: &str) -> Result<Cow<'_, str>, Misfit> {
    let inner = &text[1..text.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    match serde_json::from_str(text) {
        Ok(inner) => Ok(Cow::Owned(inner)),
        Err(_) => Err(Misfit::Because("invalid escape or control character in the string")),
    }
}

/// The text itself, or what is in its quotes.
#[inline]
fn bare(text: &str) -> Result<Cow<'_, str>, Misfit> {
    match is_string(text) {
        true => unquoted(text),
        false => Ok(Cow::Borrowed(text)),
    }
}

fn string(text: &str) -> Result<Cow<'_, str>, Misfit> {
    if is_string(text) {
        return unquoted(text);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(Cow::Borrowed(text)),
        Err(_) => Err(Misfit::Because("invalid JSON")),
    }
}

fn bytes(text: &str) -> Result<Cow<'_, [u8]>, Misfit> {
    if !is_string(text) {
        return Err(Misfit::Syntax);
    }
    let text = unquoted(text)?;
    let decoded = match text.strip_prefix("\\x") {
        Some(hex) => hex_bytes(hex),
        None => BASE64_STANDARD.decode(text.as_bytes()).ok(),
    };
    decoded.map(Cow::Owned).ok_or(Misfit::Because("neither \\x and hex digits nor base64"))
}

fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(pair).collect()
}

fn boolean(text: &str) -> Result<bool, Misfit> {
    match &*bare(text)? {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Misfit::Syntax),
    }
}

/// A whole number of any width.
fn integer<N: std::str::FromStr + TryFrom<i64>>(text: &str) -> Result<N, Misfit> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let text = bare(text)?;
    let text = text.trim();
    if let Ok(value) = text.parse::<i64>() {
        return N::try_from(value).map_err(|_| Misfit::Range);
    }
    // Not by way of a float, which beyond 2^53 may not be the number that was written.
    match scaled(text, 0)? {
        (value, Rest::Nothing) => {
            i64::try_from(value).ok().and_then(|value| N::try_from(value).ok()).ok_or(Misfit::Range)
        }
        _ => Err(Misfit::Because("it has a fraction")),
    }
}

fn double(text: &str) -> Result<f64, Misfit> {
    let quoted = is_string(text);
    let bare = bare(text)?;
    let value: f64 = bare.trim().parse().map_err(|_| Misfit::Syntax)?;
    // Infinity can be written, in quotes; a number must not turn into it.
    let overflown = value.is_infinite() && (!quoted || bare.contains(|c: char| c.is_ascii_digit()));
    if overflown { Err(Misfit::Range) } else { Ok(value) }
}

fn real(text: &str) -> Result<f32, Misfit> {
    let wide = double(text)?;
    let value = wide as f32;
    if value.is_infinite() && wide.is_finite() { Err(Misfit::Range) } else { Ok(value) }
}

/// A number times 10^scale, rounded half away from zero, as Postgres does.
fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Misfit> {
    let (value, rest) = scaled(bare(text)?.trim(), scale)?;
    let away = match rest {
        Rest::HalfOrMore { negative: false } => 1,
        Rest::HalfOrMore { negative: true } => -1,
        Rest::Nothing | Rest::BelowHalf => 0,
    };
    let value = value.checked_add(away).ok_or(Misfit::Range)?;
    let bound = 10_u128.checked_pow(u32::from(precision)).ok_or(Misfit::Range)?;
    if value.unsigned_abs() < bound { Ok(value) } else { Err(Misfit::Range) }
}

/// What of a number lies behind the last digit that is kept.
#[derive(Debug, PartialEq)]
enum Rest {
    Nothing,
    BelowHalf,
    HalfOrMore { negative: bool },
}

/// A number times 10^scale, cut off towards zero, and what was cut off.
fn scaled(text: &str, scale: i8) -> Result<(i128, Rest), Misfit> {
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, ten_to(exponent)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() == 0 || !digits().all(|b| b.is_ascii_digit()) {
        return Err(Misfit::Syntax);
    }
    // How many of the digits stand before the point once multiplied by 10^scale.
    let point = i128::try_from(whole.len()).map_err(|_| Misfit::Range)? + i128::from(exponent) + i128::from(scale);
    let mut digits = digits();
    let mut value: i128 = 0;
    let mut taken = 0;
    while taken < point {
        let digit = digits.next();
        if digit.is_none() && value == 0 {
            return Ok((0, Rest::Nothing));
        }
        let digit = digit.map_or(0, |b| i128::from(b - b'0'));
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(Misfit::Range)?;
        taken += 1;
    }
    // With `point` below zero, zeros stand between the point and the first digit.
    let rest = match digits.next() {
        Some(b'5'..) if point >= 0 => Rest::HalfOrMore { negative },
        Some(digit) if digit != b'0' || digits.any(|digit| digit != b'0') => Rest::BelowHalf,
        _ => Rest::Nothing,
    };
    Ok((if negative { -value } else { value }, rest))
}

/// The exponent of a number; one that is beyond all bounds is as good as the bound.
fn ten_to(exponent: &str) -> Result<i32, Misfit> {
    exponent.parse().or_else(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => Ok(i32::MAX),
        IntErrorKind::NegOverflow => Ok(i32::MIN),
        _ => Err(Misfit::Syntax),
    })
}

fn date(text: &str) -> Result<i32, Misfit> {
    if is_string(text) {
        let text = unquoted(text)?;
        return Date32Type::parse(&text).ok_or(Misfit::Syntax);
    }
    integer(text)
}

fn time(text: &str) -> Result<i64, Misfit> {
    if !is_string(text) {
        return Err(Misfit::Syntax);
    }
    // The parser takes a bare number for a count of microseconds; in quotes that is more likely a mistake.
    let text = unquoted(text)?;
    if !text.contains(':') {
        return Err(Misfit::Syntax);
    }
    Time64MicrosecondType::parse(&text).ok_or(Misfit::Syntax)
}

/// Microseconds since 1970.
fn timestamp(text: &str) -> Result<i64, Misfit> {
    if is_string(text) {
        let text = unquoted(text)?;
        return match string_to_datetime(&Utc, &text) {
            Ok(instant) => Ok(instant.timestamp_micros()),
            Err(_) => Err(Misfit::Syntax),
        };
    }
    integer::<i64>(text)?.checked_mul(1000).ok_or(Misfit::Range)
}
