//! Arrow has many units where Postgres has one: each column is brought to that one, vectorised.

use arrow::array::{Array, AsArray, IntervalMonthDayNanoArray, PrimitiveArray, StringArrayType};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use super::Cells;
use super::numeric::with_digits;
use super::temporal::MICROS_PER_DAY;

/// Microseconds, whatever the unit. What does not fit becomes the nearest value, which reads as `infinity`.
pub type Micros = PrimitiveArray<Int64Type>;

fn scaled<T: ArrowPrimitiveType>(array: &dyn Array, to_micros: impl Fn(T::Native) -> i64) -> Micros {
    array.as_primitive::<T>().unary(to_micros)
}

fn seconds(value: i64) -> i64 {
    value.saturating_mul(1_000_000)
}

fn millis(value: i64) -> i64 {
    value.saturating_mul(1_000)
}

fn nanos(value: i64) -> i64 {
    value.div_euclid(1_000)
}

pub fn timestamps(array: &dyn Array, unit: TimeUnit) -> Micros {
    match unit {
        TimeUnit::Second => scaled::<TimestampSecondType>(array, seconds),
        TimeUnit::Millisecond => scaled::<TimestampMillisecondType>(array, millis),
        TimeUnit::Microsecond => scaled::<TimestampMicrosecondType>(array, |value| value),
        TimeUnit::Nanosecond => scaled::<TimestampNanosecondType>(array, nanos),
    }
}

pub fn times(array: &dyn Array, unit: TimeUnit) -> Micros {
    match unit {
        TimeUnit::Second => scaled::<Time32SecondType>(array, |value| seconds(i64::from(value))),
        TimeUnit::Millisecond => scaled::<Time32MillisecondType>(array, |value| millis(i64::from(value))),
        TimeUnit::Microsecond => scaled::<Time64MicrosecondType>(array, |value| value),
        TimeUnit::Nanosecond => scaled::<Time64NanosecondType>(array, nanos),
    }
}

fn durations(array: &dyn Array, unit: TimeUnit) -> Micros {
    match unit {
        TimeUnit::Second => scaled::<DurationSecondType>(array, seconds),
        TimeUnit::Millisecond => scaled::<DurationMillisecondType>(array, millis),
        TimeUnit::Microsecond => scaled::<DurationMicrosecondType>(array, |value| value),
        TimeUnit::Nanosecond => scaled::<DurationNanosecondType>(array, |value| value / 1_000),
    }
}

/// The parts of a Postgres interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

/// Calls `put` with the parts of each interval or duration.
///
/// A duration is what subtracting timestamps gives; Postgres counts its whole days apart.
pub fn intervals(array: &dyn Array, put: impl Fn(&mut Vec<u8>, Interval)) -> Cells {
    match array.data_type() {
        DataType::Duration(unit) => {
            let values = durations(array, *unit);
            Cells::each(array, |row, out| {
                let micros = values.value(row);
                let days = i32::try_from(micros / MICROS_PER_DAY).expect("2^63 microseconds are fewer than 2^31 days");
                put(out, Interval { months: 0, days, micros: micros % MICROS_PER_DAY });
            })
        }
        _ => {
            let values = month_day_nanos(array);
            Cells::each(array, |row, out| {
                let value = values.value(row);
                put(out, Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1_000 });
            })
        }
    }
}

fn month_day_nanos(array: &dyn Array) -> IntervalMonthDayNanoArray {
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            array.as_primitive::<IntervalYearMonthType>().unary(|months| IntervalMonthDayNano::new(months, 0, 0))
        }
        DataType::Interval(IntervalUnit::DayTime) => array.as_primitive::<IntervalDayTimeType>().unary(|value| {
            IntervalMonthDayNano::new(0, value.days, i64::from(value.milliseconds).saturating_mul(1_000_000))
        }),
        _ => array.as_primitive::<IntervalMonthDayNanoType>().clone(),
    }
}

/// Calls `put` with sign, digits and scale of each decimal.
pub fn decimals(array: &dyn Array, put: impl Fn(&mut Vec<u8>, bool, &str, i8)) -> Cells {
    match array.data_type() {
        DataType::Decimal32(_, scale) => {
            let values = array.as_primitive::<Decimal32Type>();
            Cells::each(array, |row, out| {
                with_digits(i128::from(values.value(row)), |negative, digits| put(out, negative, digits, *scale));
            })
        }
        DataType::Decimal64(_, scale) => {
            let values = array.as_primitive::<Decimal64Type>();
            Cells::each(array, |row, out| {
                with_digits(i128::from(values.value(row)), |negative, digits| put(out, negative, digits, *scale));
            })
        }
        DataType::Decimal128(_, scale) => {
            let values = array.as_primitive::<Decimal128Type>();
            Cells::each(array, |row, out| {
                with_digits(values.value(row), |negative, digits| put(out, negative, digits, *scale));
            })
        }
        DataType::Decimal256(_, scale) => {
            let values = array.as_primitive::<arrow::datatypes::Decimal256Type>();
            Cells::each(array, |row, out| {
                let shown = values.value(row).to_string();
                let digits = shown.strip_prefix('-').unwrap_or(&shown);
                put(out, digits.len() < shown.len(), digits, *scale);
            })
        }
        _ => {
            let values = array.as_primitive::<arrow::datatypes::UInt64Type>();
            Cells::each(array, |row, out| {
                with_digits(i128::from(values.value(row)), |negative, digits| put(out, negative, digits, 0));
            })
        }
    }
}

/// Calls `put` with each integer of up to 64 bits.
pub fn integers<T>(array: &dyn Array, put: impl Fn(&mut Vec<u8>, i64)) -> Cells
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let values = array.as_primitive::<T>().values();
    Cells::each(array, |row, out| put(out, values[row].into()))
}

/// Copies strings: their text and binary forms are the same.
pub fn strings<'a>(array: impl StringArrayType<'a>, plain: &dyn Array) -> Cells {
    Cells::each(plain, |row, out| out.extend_from_slice(array.value(row).as_bytes()))
}

/// Calls `put` with the bytes of each value of a binary column.
pub fn binaries(array: &dyn Array, put: impl Fn(&mut Vec<u8>, &[u8])) -> Cells {
    match array.data_type() {
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            Cells::each(array, |row, out| put(out, values.value(row)))
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            Cells::each(array, |row, out| put(out, values.value(row)))
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            Cells::each(array, |row, out| put(out, values.value(row)))
        }
        _ => {
            let values = array.as_fixed_size_binary();
            Cells::each(array, |row, out| put(out, values.value(row)))
        }
    }
}
