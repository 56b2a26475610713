//! Columns in Postgres' binary format: what each type's `send` function gives.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use bytes::BufMut;
use freshet_types::SqlError;

use super::canonical::{Micros, binaries, decimals, integers, intervals, strings, times, timestamps};
use super::temporal::{POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS};
use super::{Cells, nested, numeric, text};

const MILLIS_PER_DAY: i64 = 86_400_000;

pub fn encode(array: &ArrayRef, _field: &Field) -> Result<Cells, SqlError> {
    Ok(match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            Cells::each(array, |row, out| out.push(u8::from(values.value(row))))
        }
        DataType::Int8 => integers::<Int8Type>(array, put_int2),
        DataType::UInt8 => integers::<UInt8Type>(array, put_int2),
        DataType::Int16 => integers::<Int16Type>(array, put_int2),
        DataType::UInt16 => integers::<UInt16Type>(array, put_int4),
        DataType::Int32 => integers::<Int32Type>(array, put_int4),
        DataType::UInt32 => integers::<UInt32Type>(array, put_oid),
        DataType::Int64 => integers::<Int64Type>(array, |out, value| out.put_i64(value)),
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => decimals(array, numeric::put_binary),
        DataType::Float16 => {
            let values = array.as_primitive::<Float16Type>().values();
            Cells::each(array, |row, out| out.put_f32(values[row].into()))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            Cells::each(array, |row, out| out.put_f32(values[row]))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().values();
            Cells::each(array, |row, out| out.put_f64(values[row]))
        }
        DataType::Utf8 => strings(array.as_string::<i32>(), array),
        DataType::LargeUtf8 => strings(array.as_string::<i64>(), array),
        DataType::Utf8View => strings(array.as_string_view(), array),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            binaries(array, |out, bytes| out.extend_from_slice(bytes))
        }
        DataType::Date32 => integers::<Date32Type>(array, put_date),
        DataType::Date64 => {
            integers::<Date64Type>(array, |out, millis| put_date(out, millis.div_euclid(MILLIS_PER_DAY)))
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let micros = times(array, *unit);
            Cells::each(array, |row, out| out.put_i64(micros.value(row)))
        }
        DataType::Timestamp(unit, _) => put_timestamps(array, &timestamps(array, *unit)),
        DataType::Interval(_) | DataType::Duration(_) => intervals(array, |out, interval| {
            out.put_i64(interval.micros);
            out.put_i32(interval.days);
            out.put_i32(interval.months);
        }),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => nested::array_binary(array)?,
        DataType::Struct(_) => nested::record_binary(array)?,
        _ => return text::display(array),
    })
}

fn put_int2(out: &mut Vec<u8>, value: i64) {
    out.put_i16(i16::try_from(value).expect("the column's integers have at most 16 bits"));
}

fn put_oid(out: &mut Vec<u8>, value: i64) {
    out.put_u32(u32::try_from(value).expect("object ids have 32 bits"));
}

fn put_int4(out: &mut Vec<u8>, value: i64) {
    out.put_i32(i32::try_from(value).expect("the column's integers have at most 32 bits"));
}

fn put_date(out: &mut Vec<u8>, days: i64) {
    let shifted = days - POSTGRES_EPOCH_DAYS;
    // A day that does not fit is beyond what `date` can hold: the nearest value reads as infinity.
    out.put_i32(i32::try_from(shifted).unwrap_or(if shifted > 0 { i32::MAX } else { i32::MIN }));
}

fn put_timestamps(array: &ArrayRef, micros: &Micros) -> Cells {
    Cells::each(array, |row, out| {
        out.put_i64(match micros.value(row) {
            i64::MAX => i64::MAX,
            value => value.saturating_sub(POSTGRES_EPOCH_MICROS),
        });
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Float32Array, Int64Array, IntervalMonthDayNanoArray, TimestampMillisecondArray,
        UInt8Array,
    };
    use arrow::datatypes::IntervalMonthDayNano;

    use super::super::tests::hex;

    /// Each line is what the type's `send` function gives in PostgreSQL 15.
    #[test]
    fn scalars_as_postgres_sends_them() {
        assert_eq!(hex(Arc::new(BooleanArray::from(vec![true]))), "01");
        assert_eq!(hex(Arc::new(UInt8Array::from(vec![200]))), "00c8");
        assert_eq!(hex(Arc::new(Int64Array::from(vec![-2]))), "fffffffffffffffe");
        assert_eq!(hex(Arc::new(Float32Array::from(vec![1.5]))), "3fc00000");
        assert_eq!(hex(Arc::new(Date32Array::from(vec![10_958]))), "00000001");
        assert_eq!(hex(Arc::new(TimestampMillisecondArray::from(vec![946_684_801_000]))), "00000000000f4240");
        let interval = IntervalMonthDayNano::new(14, 3, 1_000_000);
        assert_eq!(hex(Arc::new(IntervalMonthDayNanoArray::from(vec![interval]))), "00000000000003e8000000030000000e");
    }
}
