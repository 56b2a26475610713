//! Literals and operators whose types Postgres chooses otherwise than the query engine.
//!
//! The planner asks here before it makes an expression, so that the types of all that stands above it follow.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawDictionaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::functions::{divide_interval, divide_numeric, multiply_interval};
use crate::rewrite::{literal, numeric_literal};

#[derive(Debug)]
pub(crate) struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_dictionary_literal(
        &self,
        entries: RawDictionaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawDictionaryExpr>> {
        Ok(match literal(&entries.keys, &entries.values) {
            Some(number) => PlannerResult::Planned(number),
            None => PlannerResult::Original(entries),
        })
    }

    fn plan_binary_op(&self, call: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !is_of_numbers(&call.op) {
            return Ok(PlannerResult::Original(call));
        }
        // An operand whose type is not known, such as a parameter, is left to the engine.
        let (Ok(left), Ok(right)) = (call.left.get_type(schema), call.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(call));
        };
        let RawBinaryExpr { op, left: a, right: b } = call;
        // A string literal takes the type of the other operand.
        if left.is_numeric() && is_text_literal(&b) {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left: a, right: read_as(b, left) }));
        }
        if right.is_numeric() && is_text_literal(&a) {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left: read_as(a, right), right: b }));
        }
        Ok(match (&op, &left, &right) {
            (_, float, DataType::Decimal128(..)) if float.is_floating() => {
                PlannerResult::Original(RawBinaryExpr { op, left: a, right: as_double(b) })
            }
            (_, DataType::Decimal128(..), float) if float.is_floating() => {
                PlannerResult::Original(RawBinaryExpr { op, left: as_double(a), right: b })
            }
            (BinaryOperator::Divide, DataType::Decimal128(..), divisor) if is_exact(divisor) => {
                PlannerResult::Planned(divide_numeric(a, b))
            }
            (BinaryOperator::Divide, dividend, DataType::Decimal128(..)) if is_exact(dividend) => {
                PlannerResult::Planned(divide_numeric(a, b))
            }
            (BinaryOperator::Multiply, DataType::Interval(_), number) if number.is_numeric() => {
                PlannerResult::Planned(multiply_interval(a, as_double(b)))
            }
            (BinaryOperator::Multiply, number, DataType::Interval(_)) if number.is_numeric() => {
                PlannerResult::Planned(multiply_interval(b, as_double(a)))
            }
            (BinaryOperator::Divide, DataType::Interval(_), number) if number.is_numeric() => {
                PlannerResult::Planned(divide_interval(a, as_double(b)))
            }
            _ => PlannerResult::Original(RawBinaryExpr { op, left: a, right: b }),
        })
    }
}

fn is_of_numbers(operator: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        operator,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::Eq
            | Op::NotEq
            | Op::Lt
            | Op::LtEq
            | Op::Gt
            | Op::GtEq
    )
}

fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// A string literal as a number. One that becomes a NUMERIC keeps its own decimal places.
fn read_as(text: Expr, data_type: DataType) -> Expr {
    if let (Expr::Literal(ScalarValue::Utf8(Some(written)), _), DataType::Decimal128(..)) = (&text, &data_type)
        && let Some(number) = numeric_literal(written)
    {
        return number;
    }
    cast(text, data_type)
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..))
}

/// The expression as a DOUBLE PRECISION; a literal is read anew, which is exact where a division by a power of ten
/// would not be.
pub(crate) fn as_double(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(value @ ScalarValue::Decimal128(Some(digits), _, scale), _) => {
            let text = format!("{digits}e{}", -i16::from(*scale));
            match text.parse::<f64>() {
                Ok(number) => lit(number),
                Err(_) => cast(Expr::Literal(value.clone(), None), DataType::Float64),
            }
        }
        _ => cast(expr, DataType::Float64),
    }
}
