//! One column of made-up values, a function of seed and row number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use freshet_types::SqlError;

use super::field_options;
use crate::definition::Column;
use crate::options::{Options, invalid};

/// Makes the values of one column.
#[derive(Debug)]
pub struct ColumnMaker {
    data_type: DataType,
    values: Values,
    null_rate: f64,
    seed: u64,
    /// Rows a second, for times.
    rate: f64,
}

#[derive(Debug)]
enum Values {
    /// `start`, `start + 1`, … up to `end`, and again.
    Sequence {
        start: i64,
        end: i64,
    },
    /// Evenly spread over `min ..= max`.
    Integers {
        min: i64,
        max: i64,
    },
    /// Evenly spread over `min .. max`.
    Floats {
        min: f64,
        max: f64,
    },
    Booleans,
    /// Letters and digits.
    Text {
        length: usize,
    },
    Bytes {
        length: usize,
    },
    OneOf(Vec<String>),
    /// The row's time, less up to `max_past_us`.
    Times {
        max_past_us: i64,
    },
}

impl ColumnMaker {
    pub fn new(options: &Options<'_>, index: usize, column: &Column, seed: u64, rate: f64) -> Result<Self, SqlError> {
        let given = Given { column: &column.name, options: field_options(options, &column.name) };
        let values = values(&given, &column.data_type)?;
        let null_rate = given.parsed("null_rate", "a number from 0 to 1")?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&null_rate) {
            return Err(given.invalid("null_rate", "a number from 0 to 1"));
        }
        let seed = given.parsed("seed", "a whole number")?.unwrap_or(seed);
        let seed = mix(seed ^ mix(index as u64));
        Ok(Self { data_type: column.data_type.clone(), values, null_rate, seed, rate })
    }

    /// The values of `rows`.
    pub fn make(&self, base_time_ms: i64, rows: Range<i64>) -> ArrayRef {
        let values = self.values(base_time_ms, rows.clone());
        // Whether a type can be made was checked by `values`; what overflows it becomes NULL.
        let values = cast(&values, &self.data_type).expect("the type was found to be castable");
        if self.null_rate == 0.0 {
            return values;
        }
        let kept = NullBuffer::from_iter(rows.map(|row| unit(mix(!self.hash(row))) >= self.null_rate));
        let nulls = NullBuffer::union(Some(&kept), values.nulls());
        let data = values.to_data().into_builder().nulls(nulls).build().expect("only NULLs were added");
        make_array(data)
    }

    fn hash(&self, row: i64) -> u64 {
        mix(self.seed.wrapping_add(row.cast_unsigned().wrapping_mul(GOLDEN)))
    }

    fn values(&self, base_time_ms: i64, rows: Range<i64>) -> ArrayRef {
        let hashes = rows.clone().map(|row| self.hash(row));
        match &self.values {
            Values::Sequence { start, end } => {
                let length = i128::from(*end) - i128::from(*start) + 1;
                let nth = |row: i64| i128::from(*start) + i128::from(row) % length;
                let values = rows.map(|row| i64::try_from(nth(row)).expect("it is between start and end"));
                Arc::new(Int64Array::from_iter_values(values))
            }
            Values::Integers { min, max } => {
                Arc::new(Int64Array::from_iter_values(hashes.map(|hash| between(hash, *min, *max))))
            }
            Values::Floats { min, max } => {
                Arc::new(Float64Array::from_iter_values(hashes.map(|hash| min + unit(hash) * (max - min))))
            }
            Values::Booleans => Arc::new(hashes.map(|hash| Some(hash & 1 == 1)).collect::<BooleanArray>()),
            Values::Text { length } => Arc::new(StringArray::from_iter_values(hashes.map(|hash| text(hash, *length)))),
            Values::Bytes { length } => Arc::new(BinaryArray::from_iter_values(hashes.map(|hash| text(hash, *length)))),
            Values::OneOf(choices) => Arc::new(StringArray::from_iter_values(
                hashes.map(|hash| &choices[below(hash, choices.len() as u64) as usize]),
            )),
            Values::Times { max_past_us } => {
                let row_us = |row: i64| base_time_ms * 1000 + (row as f64 * 1e6 / self.rate) as i64;
                let values = rows.map(|row| row_us(row) - between(self.hash(row), 0, *max_past_us));
                let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
                cast(&values, &DataType::Timestamp(TimeUnit::Microsecond, None)).expect("times are 64-bit integers")
            }
        }
    }
}

/// The options of one column.
struct Given<'a> {
    column: &'a str,
    options: BTreeMap<&'static str, &'a str>,
}

impl Given<'_> {
    fn parsed<T: FromStr>(&self, option: &str, what: &str) -> Result<Option<T>, SqlError> {
        let parse = |value: &&str| value.trim().parse().map_err(|_| self.invalid(option, what));
        self.options.get(option).map(parse).transpose()
    }

    fn invalid(&self, option: &str, what: &str) -> SqlError {
        let value = self.options.get(option).copied().unwrap_or_default();
        invalid(&format!("fields.{}.{option}", self.column), value, what)
    }
}

fn values(given: &Given<'_>, data_type: &DataType) -> Result<Values, SqlError> {
    let time = matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32);
    let sequence = match given.options.get("kind") {
        None => time && !given.options.contains_key("max_past"),
        Some(kind) if kind.eq_ignore_ascii_case("sequence") => true,
        Some(kind) if kind.eq_ignore_ascii_case("random") => false,
        Some(_) => return Err(given.invalid("kind", "'sequence' or 'random'")),
    };
    if let Some(choices) = given.options.get("values") {
        let choices: Vec<String> = choices.split(',').map(|choice| choice.trim().to_owned()).collect();
        let column = arrow::array::StringArray::from_iter_values(&choices);
        let fits = cast(&column, data_type).is_ok_and(|cast| cast.null_count() == 0);
        return if fits {
            Ok(Values::OneOf(choices))
        } else {
            Err(given.invalid("values", "values of the column's type"))
        };
    }
    Ok(match data_type {
        _ if time && sequence => Values::Times { max_past_us: 0 },
        _ if time => Values::Times { max_past_us: max_past_us(given)? },
        _ if sequence && (data_type.is_numeric() || is_text(data_type)) => sequence_values(given)?,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => integers(given)?,
        DataType::Float32 | DataType::Float64 => floats(given, 1.0)?,
        DataType::Decimal128(_, _) => floats(given, 1000.0)?,
        DataType::Boolean if !sequence => Values::Booleans,
        DataType::Binary if !sequence => Values::Bytes { length: length(given)? },
        _ if is_text(data_type) => Values::Text { length: length(given)? },
        _ => {
            let message = format!("datagen cannot make values for column \"{}\" of this type", given.column);
            let hint = "use numbers, BOOLEAN, TEXT, BYTEA, DATE or TIMESTAMP, or a computed column";
            return Err(SqlError::unsupported(message).with_hint(hint));
        }
    })
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn sequence_values(given: &Given<'_>) -> Result<Values, SqlError> {
    let start = given.parsed("start", "a whole number")?.unwrap_or(0);
    let end = given.parsed("end", "a whole number")?.unwrap_or(i64::MAX);
    if end < start { Err(given.invalid("end", "at least start")) } else { Ok(Values::Sequence { start, end }) }
}

fn integers(given: &Given<'_>) -> Result<Values, SqlError> {
    let min = given.parsed("min", "a whole number")?.unwrap_or(0);
    let max = given.parsed("max", "a whole number")?.unwrap_or(if min > 1000 { i64::MAX } else { 1000 });
    if max < min { Err(given.invalid("max", "at least min")) } else { Ok(Values::Integers { min, max }) }
}

fn floats(given: &Given<'_>, default_max: f64) -> Result<Values, SqlError> {
    let min: f64 = given.parsed("min", "a number")?.unwrap_or(0.0);
    let max: f64 = given.parsed("max", "a number")?.unwrap_or(min.max(0.0) + default_max);
    let ordered = min.is_finite() && max.is_finite() && min <= max;
    if ordered { Ok(Values::Floats { min, max }) } else { Err(given.invalid("max", "at least min")) }
}

fn length(given: &Given<'_>) -> Result<usize, SqlError> {
    const LENGTH_MAX: usize = 1_000_000;
    let length = given.parsed("length", "a whole number")?.unwrap_or(16);
    if length > LENGTH_MAX { Err(given.invalid("length", "at most 1000000")) } else { Ok(length) }
}

/// A number and a unit, as in `10 minutes`.
fn max_past_us(given: &Given<'_>) -> Result<i64, SqlError> {
    let Some(text) = given.options.get("max_past").map(|text| text.trim()) else { return Ok(0) };
    let bad = || given.invalid("max_past", "a length of time like '10 minutes'");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let unit_us = match unit.trim().to_ascii_lowercase().trim_end_matches('s') {
        "m" if unit.trim().len() == 2 => 1_000,
        "milli" | "millisecond" => 1_000,
        "" | "sec" | "second" => 1_000_000,
        "m" | "min" | "minute" => 60_000_000,
        "h" | "hour" => 3_600_000_000,
        "d" | "day" => 86_400_000_000,
        _ => return Err(bad()),
    };
    let count: i64 = count.parse().map_err(|_| bad())?;
    count.checked_mul(unit_us).ok_or_else(bad)
}

/// The golden ratio in 64 bits: consecutive multiples of it spread evenly.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finalizer (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(GOLDEN);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A number from 0 up to 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number from 0 up to but excluding `bound`.
fn below(hash: u64, bound: u64) -> u64 {
    ((u128::from(hash) * u128::from(bound)) >> 64) as u64
}

fn between(hash: u64, min: i64, max: i64) -> i64 {
    let width = max.abs_diff(min);
    match width.checked_add(1) {
        Some(bound) => min.wrapping_add_unsigned(below(hash, bound)),
        None => hash.cast_signed(),
    }
}

fn text(hash: u64, length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |at: usize| char::from(LETTERS[(mix(hash ^ (at as u64 / 12)) >> (at % 12 * 5)) as usize % 32]);
    (0..length).map(letter).collect()
}
