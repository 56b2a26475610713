//! Columns in Postgres' text format.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use freshet_types::SqlError;

use super::canonical::{Micros, binaries, decimals, integers, intervals, strings, times, timestamps};
use super::float::{DOUBLE_FIXED_MAX, REAL_FIXED_MAX, put_float};
use super::temporal::{put_date, put_interval, put_time, put_timestamp};
use super::{Cells, nested, numeric};
use crate::pg::types::{self, oid_of_field};

const MILLIS_PER_DAY: i64 = 86_400_000;

pub fn encode(array: &ArrayRef, field: &Field) -> Result<Cells, SqlError> {
    Ok(match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            Cells::each(array, |row, out| out.push(if values.value(row) { b't' } else { b'f' }))
        }
        DataType::Int8 => integers::<Int8Type>(array, put_integer),
        DataType::Int16 => integers::<Int16Type>(array, put_integer),
        DataType::Int32 => integers::<Int32Type>(array, put_integer),
        DataType::Int64 => integers::<Int64Type>(array, put_integer),
        DataType::UInt8 => integers::<UInt8Type>(array, put_integer),
        DataType::UInt16 => integers::<UInt16Type>(array, put_integer),
        DataType::UInt32 => integers::<UInt32Type>(array, put_integer),
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => decimals(array, numeric::put_text),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => floats(array),
        DataType::Utf8 => strings(array.as_string::<i32>(), array),
        DataType::LargeUtf8 => strings(array.as_string::<i64>(), array),
        DataType::Utf8View => strings(array.as_string_view(), array),
        DataType::FixedSizeBinary(_) if oid_of_field(field) == types::UUID => binaries(array, put_uuid),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            binaries(array, put_bytea)
        }
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => dates_and_times(array),
        DataType::Timestamp(unit, zone) => {
            put_timestamps(array, &timestamps(array, *unit), if zone.is_some() { "+00" } else { "" })
        }
        DataType::Interval(_) | DataType::Duration(_) => intervals(array, |out, interval| {
            put_interval(out, i64::from(interval.months), i64::from(interval.days), interval.micros);
        }),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => nested::array_text(array)?,
        DataType::Struct(_) => nested::record_text(array)?,
        _ => return display(array),
    })
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    write!(out, "{value}").expect("writing to memory does not fail");
}

fn floats(array: &ArrayRef) -> Cells {
    match array.data_type() {
        DataType::Float16 => {
            let values = array.as_primitive::<Float16Type>().values();
            Cells::each(array, |row, out| put_float(out, f32::from(values[row]), REAL_FIXED_MAX))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            Cells::each(array, |row, out| put_float(out, values[row], REAL_FIXED_MAX))
        }
        _ => {
            let values = array.as_primitive::<Float64Type>().values();
            Cells::each(array, |row, out| put_float(out, values[row], DOUBLE_FIXED_MAX))
        }
    }
}

fn dates_and_times(array: &ArrayRef) -> Cells {
    match array.data_type() {
        DataType::Date32 => integers::<Date32Type>(array, put_date),
        DataType::Date64 => {
            integers::<Date64Type>(array, |out, millis| put_date(out, millis.div_euclid(MILLIS_PER_DAY)))
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let micros = times(array, *unit);
            Cells::each(array, |row, out| put_time(out, micros.value(row)))
        }
        other => unreachable!("{other} is neither a date nor a time"),
    }
}

fn put_timestamps(array: &ArrayRef, micros: &Micros, zone: &str) -> Cells {
    Cells::each(array, |row, out| match micros.value(row) {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        value => put_timestamp(out, value, zone),
    })
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

fn put_bytea(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"\\x");
    put_hex(out, bytes);
}

fn put_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    for (index, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if index > 0 {
            out.push(b'-');
        }
        put_hex(out, &bytes[part]);
    }
}

/// Types that Postgres does not have, in Arrow's own text form.
pub fn display(array: &ArrayRef) -> Result<Cells, SqlError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options).map_err(|e| SqlError::internal(e.to_string()))?;
    Ok(Cells::each(array, |row, out| {
        write!(out, "{}", formatter.value(row)).expect("writing to memory does not fail");
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, DurationMillisecondArray, Float64Array,
        IntervalYearMonthArray, ListArray, NullArray, StringViewArray, Time64MicrosecondArray,
        TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    };

    use super::super::tests::texts;
    use super::*;

    fn first(array: impl Array + 'static) -> String {
        texts(Arc::new(array))[0].clone().unwrap()
    }

    #[test]
    fn scalars_as_postgres_prints_them() {
        assert_eq!(
            texts(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            [Some("t".to_owned()), None, Some("f".to_owned())]
        );
        assert_eq!(first(Float64Array::from(vec![1e20])), "1e+20");
        assert_eq!(first(UInt64Array::from(vec![u64::MAX])), "18446744073709551615");
        assert_eq!(first(BinaryArray::from(vec![&b"\x00\xffa"[..]])), "\\x00ff61");
        assert_eq!(first(StringViewArray::from(vec!["häß"])), "häß");
        assert_eq!(first(Time64MicrosecondArray::from(vec![3_723_000_500])), "01:02:03.0005");
        let decimals = Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(first(decimals), "1.50");
        let packed: DictionaryArray<Int32Type> = vec!["x", "y"].into_iter().collect();
        assert_eq!(first(packed), "x");
    }

    #[test]
    fn instants_of_all_units() {
        assert_eq!(
            first(TimestampNanosecondArray::from(vec![1_700_000_000_123_456_789])),
            "2023-11-14 22:13:20.123456"
        );
        assert_eq!(first(TimestampSecondArray::from(vec![0]).with_timezone("+00:00")), "1970-01-01 00:00:00+00");
        assert_eq!(first(TimestampSecondArray::from(vec![i64::MAX])), "infinity");
        assert_eq!(first(DurationMillisecondArray::from(vec![90_061_500])), "1 day 01:01:01.5");
        assert_eq!(first(IntervalYearMonthArray::from(vec![14])), "1 year 2 mons");
    }

    #[test]
    fn arrays_quote_what_needs_it() {
        let rows = vec![Some(vec![Some(1), None, Some(3)]), Some(vec![]), None];
        let array = ListArray::from_iter_primitive::<Int64Type, _, _>(rows);
        assert_eq!(texts(Arc::new(array)), [Some("{1,NULL,3}".to_owned()), Some("{}".to_owned()), None]);
        let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        for text in ["a b", "", "null", "q\"\\", "x,y", "plain"] {
            builder.values().append_value(text);
        }
        builder.append(true);
        assert_eq!(first(builder.finish()), r#"{"a b","","null","q\"\\","x,y",plain}"#);
    }

    #[test]
    fn a_column_of_nulls_is_null() {
        assert_eq!(texts(Arc::new(NullArray::new(2))), [None, None]);
    }
}
