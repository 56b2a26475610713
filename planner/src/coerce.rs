//! Where Postgres and the query engine differ in what a query means: rounding casts, -0 against 0, what a window may be
//! over, and from which side a shared column comes.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinConstraint, JoinType};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::math::round;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use crate::error::sql_error;
use crate::functions::{cast_bytea, check_overflow, round_half_even};
use crate::sql_type::sql_name;

/// Gives expressions Postgres' meaning: casts of fractions to integers round to the nearest where the engine's own cut
/// off, DISTINCT takes -0 for 0, and arithmetic fails where it would overflow.
pub(crate) fn mean_as_postgres(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let meant = plan.transform_up_with_subqueries(|plan| {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let meant = expr.transform_up(|expr| {
                round_cast(expr, &schema)?
                    .transform_data(|expr| zero_once(expr, &schema))?
                    .transform_data(|expr| cast_bytea(expr, &schema))?
                    .transform_data(|expr| check_overflow(expr, &schema))
            })?;
            Ok(meant.update_data(|expr| name.restore(expr)))
        })
    });
    meant.data().map_err(sql_error)
}

fn round_cast(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let is_float = |data_type: &DataType| matches!(data_type, DataType::Float32 | DataType::Float64);
    match expr {
        Expr::ScalarFunction(mut call) if call.func.name() == "round" && call.args.len() == 1 => {
            if !is_float(&call.args[0].get_type(schema)?) {
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            }
            Ok(Transformed::yes(round_half_even(call.args.remove(0))))
        }
        Expr::Cast(cast) if cast.field.data_type().is_integer() => {
            let rounded = match cast.expr.get_type(schema)? {
                from if is_float(&from) => round_half_even(*cast.expr),
                DataType::Decimal128(_, scale) if scale > 0 => round().call(vec![*cast.expr]),
                _ => return Ok(Transformed::no(Expr::Cast(cast))),
            };
            Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field: cast.field })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The expression with -0 as 0, which it is equal to: keys are compared by their bits. Adding zero does that, and
/// changes no other value.
pub(crate) fn one_zero(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    Ok(match expr.get_type(schema)? {
        DataType::Float64 => expr + lit(0.0_f64),
        DataType::Float32 => expr + lit(0.0_f32),
        _ => expr,
    })
}

fn zero_once(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let Expr::AggregateFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
    if !call.params.distinct {
        return Ok(Transformed::no(Expr::AggregateFunction(call)));
    }
    for argument in &mut call.params.args {
        *argument = one_zero(argument.clone(), schema)?;
    }
    Ok(Transformed::yes(Expr::AggregateFunction(call)))
}

/// Refuses joins in which a shared column would come from the wrong side: it is the left one for the engine, which is
/// NULL where only the right side has a row.
pub(crate) fn check_shared_columns(plan: &LogicalPlan) -> Result<(), SqlError> {
    let has_wrong = |plan: &LogicalPlan| {
        let LogicalPlan::Join(join) = plan else { return false };
        let is_kept = matches!(join.join_type, JoinType::Right | JoinType::Full);
        is_kept && join.join_constraint == JoinConstraint::Using
    };
    let mut found = false;
    let walked = plan.apply_with_subqueries(|plan| {
        found |= has_wrong(plan);
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(sql_error)?;
    if !found {
        return Ok(());
    }
    Err(SqlError::unsupported("RIGHT JOIN and FULL JOIN with USING or NATURAL are not supported yet")
        .with_hint("write ON l.key = r.key, and coalesce(l.key, r.key) for the shared column"))
}

/// Refuses windows over what is not a time, which the engine would otherwise try to read as one.
pub(crate) fn check_windows(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut wrong = None;
    let walked = plan.apply_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        for expr in plan.expressions() {
            if let Expr::Alias(alias) = &expr
                && alias.name == "window_start"
            {
                alias.expr.apply(|part| {
                    if let Expr::ScalarFunction(call) = part
                        && call.name() == "date_bin"
                        && let [size, time, ..] = call.args.as_slice()
                    {
                        if !is_positive(size) {
                            wrong = Some(no_size());
                        } else if let Ok(data_type) = time.get_type(&schema)
                            && !matches!(data_type, DataType::Timestamp(..) | DataType::Date32)
                        {
                            wrong = Some(no_time(time, &data_type));
                        }
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(sql_error)?;
    wrong.map_or(Ok(()), Err)
}

/// Whether the size of windows is more than nothing; one that is not a plain interval is judged when it is used.
fn is_positive(size: &Expr) -> bool {
    match size {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(size)), _) => {
            let parts = [i64::from(size.months), i64::from(size.days), size.nanoseconds];
            parts.iter().all(|part| *part >= 0) && parts.iter().any(|part| *part > 0)
        }
        _ => true,
    }
}

fn no_size() -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, "the size of windows must be positive")
        .with_hint("for example INTERVAL '1 minute'")
}

fn no_time(column: &Expr, data_type: &DataType) -> SqlError {
    let message = format!("windows are over a timestamp, and {column} is of type {}", sql_name(data_type));
    SqlError::new(SqlState::DatatypeMismatch, message)
}
