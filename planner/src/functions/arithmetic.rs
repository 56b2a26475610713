//! `+`, `-` and `*` of numbers that fail where the result does not fit: a wrapped number is a wrong answer.
//!
//! The engine's own operators wrap. They are replaced once types are settled and before anything is optimized, so that
//! constants are folded by these functions too, wherever in a query they stand.

use std::sync::{Arc, LazyLock};

use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, binary::BinaryTypeCoercer,
};
use datafusion::physical_expr_common::datum::apply;
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use crate::sql_type::sql_name;

/// Puts checked functions in the place of operators on integers and decimals.
pub(crate) fn check_overflow(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let function = function_of(op);
            match function {
                Some(function) if can_overflow(&left.get_type(schema)?) && can_overflow(&right.get_type(schema)?) => {
                    let call = ScalarFunction::new_udf(function.clone(), vec![*left, *right]);
                    Ok(Transformed::yes(Expr::ScalarFunction(call)))
                }
                _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            }
        }
        Expr::Negative(operand) => {
            let data_type = operand.get_type(schema)?;
            if !data_type.is_signed_integer() || matches!(*operand, Expr::Literal(..)) {
                return Ok(Transformed::no(Expr::Negative(operand)));
            }
            let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
            let call = ScalarFunction::new_udf(MINUS.clone(), vec![zero, *operand]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The operator that a function of this name stands for.
pub(crate) fn operator_of(function: &str) -> Option<Operator> {
    [Operator::Plus, Operator::Minus, Operator::Multiply].into_iter().find(|operator| operator.to_string() == function)
}

fn can_overflow(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

static PLUS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::function(Operator::Plus));
static MINUS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::function(Operator::Minus));
static TIMES: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Checked::function(Operator::Multiply));

fn function_of(operator: Operator) -> Option<&'static Arc<ScalarUDF>> {
    match operator {
        Operator::Plus => Some(&PLUS),
        Operator::Minus => Some(&MINUS),
        Operator::Multiply => Some(&TIMES),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    name: String,
    signature: Signature,
}

impl Checked {
    fn function(operator: Operator) -> Arc<ScalarUDF> {
        // Types were coerced before: both operands are as the operator wants them.
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(Self { operator, name: operator.to_string(), signature }.into())
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        self.schema_name(arguments)
    }

    /// As the operator would be named, so that columns keep their names.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let [left, right] = arguments else { return internal_err!("{} takes two arguments", self.name) };
        Ok(format!("{} {} {}", left.schema_name(), self.name, right.schema_name()))
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [left, right] = arguments else { return internal_err!("{} takes two arguments", self.name) };
        BinaryTypeCoercer::new(left, &self.operator, right).get_result_type()
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(&self.name, self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = arguments.args.as_slice() else {
            return internal_err!("{} takes two arguments", self.name);
        };
        let kernel = match self.operator {
            Operator::Plus => add,
            Operator::Minus => sub,
            _ => mul,
        };
        apply(left, right, kernel).map_err(|error| out_of_range(error, arguments.return_field.data_type()))
    }
}

/// Names the type that a result does not fit.
fn out_of_range(error: DataFusionError, data_type: &DataType) -> DataFusionError {
    match &error {
        DataFusionError::ArrowError(inner, _) if matches!(**inner, ArrowError::ArithmeticOverflow(_)) => {
            let message = if data_type.is_integer() {
                format!("{} out of range", sql_name(data_type))
            } else {
                "value overflows numeric format".to_owned()
            };
            DataFusionError::External(Box::new(SqlError::new(SqlState::NumericValueOutOfRange, message)))
        }
        _ => error,
    }
}
