//! `to_char(time | interval | number, template)`: Postgres' templates, read once and applied to a column.

mod datetime;
mod number;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{internal_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use freshet_types::SqlError;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ToChar {
    signature: Signature,
}

impl Default for ToChar {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [value, template] = arguments else { return plan_err!("to_char takes two arguments") };
        if !template.is_string() && !template.is_null() {
            return plan_err!("no to_char with that template");
        }
        let value = match value {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            DataType::Date32 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Decimal128(..) => value.clone(),
            integer if integer.is_integer() => DataType::Int64,
            float if float.is_floating() => DataType::Float64,
            other => return plan_err!("no to_char of {other}"),
        };
        Ok(vec![value, DataType::Utf8])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.as_slice() {
            [ColumnarValue::Array(values), ColumnarValue::Scalar(ScalarValue::Utf8(template))] => match template {
                Some(template) => Ok(ColumnarValue::Array(Arc::new(formatted(values, template)?))),
                None => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
            },
            [ColumnarValue::Scalar(value), ColumnarValue::Scalar(ScalarValue::Utf8(template))] => {
                let Some(template) = template else { return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))) };
                let text = formatted(&value.to_array()?, template)?;
                ScalarValue::try_from_array(&text, 0).map(ColumnarValue::Scalar)
            }
            [values, ColumnarValue::Array(templates)] => {
                let values = values.to_array(arguments.number_rows)?;
                let mut texts = StringBuilder::new();
                for (row, template) in templates.as_string::<i32>().iter().enumerate() {
                    let text = template.map(|template| formatted(&values.slice(row, 1), template)).transpose()?;
                    texts.append_option(text.as_ref().and_then(|text| text.iter().next().flatten()));
                }
                Ok(ColumnarValue::Array(Arc::new(texts.finish())))
            }
            _ => internal_err!("to_char takes a value and a template"),
        }
    }
}

fn formatted(values: &ArrayRef, template: &str) -> Result<StringArray> {
    match values.data_type() {
        // As in Postgres, which gives an empty text for a number.
        DataType::Timestamp(..) | DataType::Interval(_) if template.is_empty() => {
            Ok(StringArray::new_null(values.len()))
        }
        DataType::Timestamp(_, zone) => {
            let template = datetime::Template::parse(template).map_err(external)?;
            let in_zone = zone.is_some();
            let values = values.as_primitive::<TimestampMicrosecondType>().iter();
            each(values, |micros, text| template.put_time(micros, in_zone, text))
        }
        DataType::Interval(_) => {
            let template = datetime::Template::parse(template).map_err(external)?;
            let values = values.as_primitive::<IntervalMonthDayNanoType>().iter();
            each(values, |interval, text| template.put_interval(interval, text))
        }
        DataType::Int64 => {
            let template = number::Template::parse(template).map_err(external)?;
            each(values.as_primitive::<Int64Type>().iter(), |value, text| {
                template.put(value < 0, &value.unsigned_abs().to_string(), text);
                Ok(())
            })
        }
        DataType::Decimal128(_, scale) => {
            let template = number::Template::parse(template).map_err(external)?;
            // Rounded to the places of the template, which may be fewer than the column has.
            let places = i8::try_from(template.places()).unwrap_or(i8::MAX).min(*scale);
            let rounded = cast(values, &DataType::Decimal128(38, places))?;
            each(rounded.as_primitive::<Decimal128Type>().iter(), |value, text| {
                template.put(value < 0, &with_point(value.unsigned_abs(), places), text);
                Ok(())
            })
        }
        DataType::Float64 => {
            let template = number::Template::parse(template).map_err(external)?;
            each(values.as_primitive::<Float64Type>().iter(), |value, text| {
                // A double has 15 digits that mean something.
                let whole = format!("{:.0}", value.abs()).len();
                let places = template.places().min(15_usize.saturating_sub(whole));
                template.put(value < 0.0, &format!("{:.places$}", value.abs()), text);
                Ok(())
            })
        }
        other => internal_err!("to_char of {other}"),
    }
}

fn each<T>(
    values: impl Iterator<Item = Option<T>>,
    mut put: impl FnMut(T, &mut String) -> Result<(), SqlError>,
) -> Result<StringArray> {
    let mut texts = StringBuilder::new();
    let mut text = String::new();
    for value in values {
        match value {
            Some(value) => {
                text.clear();
                put(value, &mut text).map_err(external)?;
                texts.append_value(&text);
            }
            None => texts.append_null(),
        }
    }
    Ok(texts.finish())
}

fn with_point(digits: u128, places: i8) -> String {
    let places = usize::try_from(places).unwrap_or(0);
    let mut text = format!("{digits:0width$}", width = places + 1);
    if places > 0 {
        text.insert(text.len() - places, '.');
    }
    text
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
