//! Division of NUMERIC: rounded, with enough decimal places to be of use.
//!
//! Postgres chooses the number of places by the values, at least 16 significant digits; a column here has one scale for
//! all values. So there are 16 places, or as many as an operand has if those are more. The engine's own division keeps
//! four more than the dividend has, and cuts off the rest.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, Decimal128Array};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, i256};
use arrow::error::ArrowError;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use freshet_types::{SqlError, SqlState};

const PLACES_MIN: i8 = 16;

pub(crate) fn divide_numeric(dividend: Expr, divisor: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(NumericDivision { signature }.into())
    });
    Expr::ScalarFunction(ScalarFunction::new_udf(FUNCTION.clone(), vec![dividend, divisor]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NumericDivision {
    signature: Signature,
}

impl ScalarUDFImpl for NumericDivision {
    fn name(&self) -> &str {
        "numeric_div"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arguments.iter().map(as_decimal).collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let scales = arguments.iter().map(scale_of).collect::<Result<Vec<_>>>()?;
        let scale = scales.into_iter().fold(PLACES_MIN, i8::max);
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [dividends, divisors] = arrays.as_slice() else { return internal_err!("numeric_div takes two arguments") };
        let DataType::Decimal128(precision, scale) = *arguments.return_field.data_type() else {
            return internal_err!("numeric_div gives a decimal");
        };
        let shift =
            i16::from(scale) - i16::from(scale_of(dividends.data_type())?) + i16::from(scale_of(divisors.data_type())?);
        let shift = u32::try_from(shift).map_err(|_| DataFusionError::Internal("a scale is negative".into()))?;
        let quotients: Decimal128Array = try_binary(
            dividends.as_primitive::<Decimal128Type>(),
            divisors.as_primitive::<Decimal128Type>(),
            |dividend, divisor| quotient(dividend, divisor, shift),
        )
        .map_err(|error| match error {
            ArrowError::ArithmeticOverflow(_) => DataFusionError::External(Box::new(SqlError::new(
                SqlState::NumericValueOutOfRange,
                "value overflows numeric format",
            ))),
            other => other.into(),
        })?;
        let quotients: Arc<dyn arrow::array::Array> = Arc::new(quotients.with_precision_and_scale(precision, scale)?);
        let all_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        if all_scalar {
            return datafusion::scalar::ScalarValue::try_from_array(&quotients, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(quotients))
    }
}

/// `dividend * 10^shift / divisor`, rounded half away from zero.
fn quotient(dividend: i128, divisor: i128, shift: u32) -> Result<i128, ArrowError> {
    if divisor == 0 {
        return Err(ArrowError::DivideByZero);
    }
    let overflow = || ArrowError::ArithmeticOverflow("a quotient does not fit a decimal".into());
    let narrow = 10_i128.checked_pow(shift).and_then(|factor| dividend.checked_mul(factor));
    let quotient = match narrow {
        Some(numerator) => {
            let (quotient, rest) = (numerator / divisor, numerator % divisor);
            let away = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
            quotient + if away { (numerator.signum()) * divisor.signum() } else { 0 }
        }
        None => {
            let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(overflow)?;
            let numerator = i256::from_i128(dividend).checked_mul(factor).ok_or_else(overflow)?;
            let divisor = i256::from_i128(divisor);
            let quotient = numerator.checked_div(divisor).ok_or_else(overflow)?;
            let rest = numerator.checked_rem(divisor).ok_or_else(overflow)?;
            let magnitude = |number: i256| if number.is_negative() { number.wrapping_neg() } else { number };
            let away = magnitude(rest) >= magnitude(divisor).wrapping_sub(magnitude(rest));
            let sign = if numerator.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
            let rounded = if away { quotient.wrapping_add(sign) } else { quotient };
            rounded.to_i128().ok_or_else(overflow)?
        }
    };
    Decimal128Type::validate_decimal_precision(quotient, DECIMAL128_MAX_PRECISION, 0).map_err(|_| overflow())?;
    Ok(quotient)
}

fn as_decimal(data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Decimal128(..) => data_type.clone(),
        DataType::Int8 | DataType::UInt8 => DataType::Decimal128(3, 0),
        DataType::Int16 | DataType::UInt16 => DataType::Decimal128(5, 0),
        DataType::Int32 | DataType::UInt32 => DataType::Decimal128(10, 0),
        DataType::Int64 | DataType::UInt64 => DataType::Decimal128(20, 0),
        other => return plan_err!("numeric_div does not take {other}"),
    })
}

fn scale_of(data_type: &DataType) -> Result<i8> {
    match as_decimal(data_type)? {
        DataType::Decimal128(_, scale) => Ok(scale),
        other => internal_err!("{other} has no scale"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        assert_eq!(quotient(2, 3, 4).unwrap(), 6667);
        assert_eq!(quotient(-2, 3, 4).unwrap(), -6667);
        assert_eq!(quotient(1, -8, 2).unwrap(), -13);
        assert_eq!(quotient(-1, -8, 2).unwrap(), 13);
        assert_eq!(quotient(1, 3, 0).unwrap(), 0);
        assert!(matches!(quotient(1, 0, 0), Err(ArrowError::DivideByZero)));
    }

    #[test]
    fn numerators_beyond_128_bits_are_no_overflow() {
        let large = 10_i128.pow(37);
        assert_eq!(quotient(large, large, 20).unwrap(), 10_i128.pow(20));
        assert_eq!(quotient(2 * large, -3 * large, 20).unwrap(), -66_666_666_666_666_666_667);
        assert!(quotient(large, 1, 2).is_err());
    }
}
