//! Asks a Parquet bloom filter for all values of a column at once.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimeUnit};
use parquet::bloom_filter::Sbbf;

/// Which of `values` the column may contain; `None` if the filter says nothing of values of this type. NULL may be
/// there: the filter does not know it.
pub(super) fn may_contain(filter: &Sbbf, values: &ArrayRef) -> Option<BooleanBuffer> {
    let check = |is_there: &dyn Fn(usize) -> bool| {
        BooleanBuffer::collect_bool(values.len(), |row| values.is_null(row) || is_there(row))
    };
    let widened = |data_type: &DataType| arrow::compute::cast(values, data_type).ok();
    // As each type is written: the filter hashes the bytes of the stored form.
    match values.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Date32 => {
            let values = widened(&DataType::Int32)?;
            let values = values.as_primitive::<Int32Type>();
            Some(check(&|row| filter.check(&values.value(row))))
        }
        DataType::Int64
        | DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
        | DataType::Time64(_) => {
            let values = widened(&DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            Some(check(&|row| filter.check(&values.value(row))))
        }
        DataType::Decimal128(precision, _) if *precision <= 18 => {
            let narrow = *precision <= 9;
            let values = values.as_primitive::<Decimal128Type>();
            Some(check(&|row| match (i64::try_from(values.value(row)), i32::try_from(values.value(row))) {
                (_, Ok(value)) if narrow => filter.check(&value),
                (Ok(value), _) if !narrow => filter.check(&value),
                _ => true,
            }))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let values = widened(&DataType::Utf8View)?;
            let values = values.as_string_view();
            Some(check(&|row| filter.check(values.value(row))))
        }
        _ => None,
    }
}
