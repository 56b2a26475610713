//! Values of a type as integers or bytes that sort alike: what min and max compare and keep.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float32Array, Float64Array, Int64Array, PrimitiveArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type};
use arrow::error::ArrowError;

/// What stands for the values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Int64,
    Int128,
    Bytes,
}

/// The form of a type, if it has one.
pub fn form_of(data_type: &DataType) -> Option<Form> {
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Duration(_) => Form::Int64,
        DataType::Decimal128(_, _) => Form::Int128,
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => Form::Bytes,
        _ => return None,
    })
}

/// The bits of a float as an integer of the same order: NaN, whatever its bits, above all other values.
fn order_of_float(value: f64) -> i64 {
    let bits = if value.is_nan() { f64::NAN } else { value }.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The inverse of [`order_of_float`]: flipping is undone by flipping.
fn float_of_order(order: i64) -> f64 {
    f64::from_bits((order ^ (((order >> 63) as u64) >> 1) as i64) as u64)
}

/// The values of a column without NULLs whose form is [`Form::Int64`].
pub fn to_int64(array: &ArrayRef) -> Result<ScalarBuffer<i64>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().map(|v| order_of_float(*v)).collect(),
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            values.iter().map(|value| order_of_float(f64::from(*value))).collect()
        }
        DataType::Date32 | DataType::Time32(_) => {
            let days = cast(array, &DataType::Int32)?;
            cast(&days, &DataType::Int64)?.as_primitive::<Int64Type>().values().clone()
        }
        _ => cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().values().clone(),
    })
}

/// The column of `data_type` that has the values in [`Form::Int64`].
pub fn from_int64(values: Vec<Option<i64>>, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    Ok(match data_type {
        DataType::Float64 => {
            let values = values.into_iter().map(|value| value.map(float_of_order));
            Arc::new(values.collect::<Float64Array>())
        }
        DataType::Float32 => {
            // It was a float of 32 bits before, so nothing is lost.
            let values = values.into_iter().map(|value| value.map(|order| float_of_order(order) as f32));
            Arc::new(values.collect::<Float32Array>())
        }
        DataType::Date32 | DataType::Time32(_) => {
            let days = cast(&Int64Array::from(values), &DataType::Int32)?;
            cast(&days, data_type)?
        }
        _ => cast(&Int64Array::from(values), data_type)?,
    })
}

pub fn to_int128(array: &ArrayRef) -> ScalarBuffer<i128> {
    array.as_primitive::<Decimal128Type>().values().clone()
}

pub fn from_int128(values: Vec<Option<i128>>, data_type: &DataType) -> ArrayRef {
    let array: PrimitiveArray<Decimal128Type> = Decimal128Array::from(values);
    Arc::new(array.with_data_type(data_type.clone()))
}

/// The column of a text or binary type as bytes.
pub fn to_bytes(array: &ArrayRef) -> Result<BinaryArray, ArrowError> {
    let binary = match array.data_type() {
        // Views go by way of text: a direct cast need not exist.
        DataType::Utf8View => cast(&cast(array, &DataType::Utf8)?, &DataType::Binary)?,
        _ => cast(array, &DataType::Binary)?,
    };
    Ok(binary.as_binary::<i32>().clone())
}

pub fn from_bytes<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    data_type: &DataType,
) -> Result<ArrayRef, ArrowError> {
    let binary = values.collect::<BinaryArray>();
    match data_type {
        DataType::Utf8View => cast(&cast(&binary, &DataType::Utf8)?, data_type),
        _ => cast(&binary, data_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_sort_as_integers() {
        let sorted = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, f64::MIN_POSITIVE, 2.0, f64::INFINITY, f64::NAN];
        let orders: Vec<i64> = sorted.iter().map(|value| order_of_float(*value)).collect();
        assert!(orders.is_sorted_by(|a, b| a < b));
        for (value, order) in sorted.iter().zip(orders) {
            assert_eq!(float_of_order(order).to_bits(), value.to_bits());
        }
        assert_eq!(order_of_float(-f64::NAN), order_of_float(f64::NAN));
    }

    #[test]
    fn every_type_comes_back() {
        use DataType as D;
        use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Second};
        let zone = Some("UTC".into());
        for data_type in [
            D::Boolean,
            D::Int16,
            D::Int32,
            D::Int64,
            D::Float32,
            D::Float64,
            D::Date32,
            D::Time64(Microsecond),
            D::Time32(Second),
            D::Timestamp(Microsecond, None),
            D::Timestamp(Millisecond, zone),
            D::Decimal128(10, 2),
            D::Utf8,
            D::Utf8View,
            D::LargeUtf8,
            D::Binary,
        ] {
            let ones = cast(&arrow::array::StringArray::from(vec!["1", "0"]), &D::Int64).unwrap();
            let array = match form_of(&data_type).unwrap() {
                Form::Int64 => from_int64(to_int64(&ones).unwrap().iter().map(|v| Some(*v)).collect(), &data_type),
                Form::Int128 => Ok(from_int128(vec![Some(1), Some(0)], &data_type)),
                Form::Bytes => from_bytes([Some(&b"1"[..]), Some(&b"0"[..])].into_iter(), &data_type),
            };
            let array = array.unwrap();
            assert_eq!(array.data_type(), &data_type);
            let back = match form_of(&data_type).unwrap() {
                Form::Int64 => from_int64(to_int64(&array).unwrap().iter().map(|v| Some(*v)).collect(), &data_type),
                Form::Int128 => Ok(from_int128(to_int128(&array).iter().map(|v| Some(*v)).collect(), &data_type)),
                Form::Bytes => from_bytes(to_bytes(&array).unwrap().iter(), &data_type),
            };
            assert_eq!(&back.unwrap(), &array);
        }
    }
}
