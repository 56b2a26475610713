//! `interval * number` and `interval / number`, by the rules of `interval_mul` in PostgreSQL's `timestamp.c`: fractions
//! of months become days of which a month has 30, fractions of days become time.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, IntervalMonthDayNanoArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use arrow::error::ArrowError;
use datafusion::common::internal_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

const DAYS_OF_MONTH: f64 = 30.0;
const SECONDS_OF_DAY: f64 = 86_400.0;
const NANOS_OF_MICRO: i64 = 1_000;

/// `interval * factor`
pub(crate) fn multiply_interval(interval: Expr, factor: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Scaling::function("interval_mul"));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![interval, factor]))
}

/// `interval / divisor`
pub(crate) fn divide_interval(interval: Expr, divisor: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Scaling::function("interval_div"));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![interval, divisor]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scaling {
    name: &'static str,
    signature: Signature,
}

impl Scaling {
    fn function(name: &'static str) -> Arc<ScalarUDF> {
        let types = vec![DataType::Interval(IntervalUnit::MonthDayNano), DataType::Float64];
        Arc::new(Self { name, signature: Signature::exact(types, Volatility::Immutable) }.into())
    }
}

impl ScalarUDFImpl for Scaling {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [intervals, factors] = arrays.as_slice() else { return internal_err!("{} takes two arguments", self.name) };
        let divides = self.name == "interval_div";
        let scaled: IntervalMonthDayNanoArray = try_binary(
            intervals.as_primitive::<IntervalMonthDayNanoType>(),
            factors.as_primitive::<Float64Type>(),
            |interval, factor| match divides {
                true if factor == 0.0 => Err(ArrowError::DivideByZero),
                true => scaled(interval, |part| part / factor),
                false => scaled(interval, |part| part * factor),
            },
        )
        .map_err(|error| match error {
            ArrowError::ArithmeticOverflow(_) => DataFusionError::External(Box::new(SqlError::new(
                SqlState::DatetimeFieldOverflow,
                "interval out of range",
            ))),
            other => other.into(),
        })?;
        let scaled: arrow::array::ArrayRef = Arc::new(scaled);
        if arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_))) {
            return ScalarValue::try_from_array(&scaled, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(scaled))
    }
}

fn scaled(interval: IntervalMonthDayNano, scale: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano, ArrowError> {
    let overflow = || ArrowError::ArithmeticOverflow("interval out of range".into());
    let whole = |part: f64| {
        let fits = part >= f64::from(i32::MIN) && part <= f64::from(i32::MAX);
        if fits { Ok(part as i32) } else { Err(overflow()) }
    };
    let (months, days) = (scale(f64::from(interval.months)), scale(f64::from(interval.days)));
    let (result_months, mut result_days) = (whole(months)?, whole(days)?);
    let days_of_months = to_micros((months - f64::from(result_months)) * DAYS_OF_MONTH);
    let part_of_day = days - f64::from(result_days) + days_of_months - days_of_months.trunc();
    let mut seconds = to_micros(part_of_day * SECONDS_OF_DAY);
    if seconds.abs() >= SECONDS_OF_DAY {
        let carried = (seconds / SECONDS_OF_DAY).trunc();
        result_days = result_days.checked_add(whole(carried)?).ok_or_else(overflow)?;
        seconds -= carried * SECONDS_OF_DAY;
    }
    let result_days = result_days.checked_add(whole(days_of_months)?).ok_or_else(overflow)?;
    let micros = (interval.nanoseconds / NANOS_OF_MICRO) as f64;
    let micros = (scale(micros) + seconds * 1e6).round_ties_even();
    let fits = micros.is_finite() && micros.abs() < i64::MAX as f64;
    let nanos = if fits { (micros as i64).checked_mul(NANOS_OF_MICRO) } else { None };
    Ok(IntervalMonthDayNano::new(result_months, result_days, nanos.ok_or_else(overflow)?))
}

/// Rounded to microseconds, as `TSROUND` does.
fn to_micros(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}
