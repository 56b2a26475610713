//! Constructs that cannot be maintained, found while they still look as the user wrote them.
//!
//! The optimizer turns EXCEPT into a join and `now()` into a constant; errors would then name what nobody wrote, or not
//! arise at all. Outer joins are not judged here: a filter above may turn one into an inner join.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Volatility};
use freshet_types::SqlError;

use super::{construct, not_yet};
use crate::error::sql_error;

/// An error for the first construct of the plan that cannot be maintained.
pub(super) fn refuse(plan: &LogicalPlan) -> Result<(), SqlError> {
    plan.apply(|node| {
        let verdict = refuse_node(node).and_then(|()| refuse_expressions(node));
        verdict.map(|()| TreeNodeRecursion::Continue).map_err(|error| DataFusionError::External(Box::new(error)))
    })
    .map(|_| ())
    .map_err(sql_error)
}

fn refuse_node(plan: &LogicalPlan) -> Result<(), SqlError> {
    match plan {
        LogicalPlan::Limit(limit) => {
            let has_order = matches!(&*limit.input, LogicalPlan::Sort(_) | LogicalPlan::Projection(_))
                && contains_sort(&limit.input);
            Err(not_yet(if has_order { "ORDER BY ... LIMIT" } else { "LIMIT" }))
        }
        LogicalPlan::Distinct(Distinct::On(_)) => Err(not_yet("DISTINCT ON")),
        LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => match join.join_type {
            JoinType::LeftSemi => Err(not_yet("INTERSECT")),
            JoinType::LeftAnti => Err(not_yet("EXCEPT")),
            _ => Ok(()),
        },
        LogicalPlan::Window(_) | LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) | LogicalPlan::Subquery(_) => {
            Err(not_yet(construct(plan)))
        }
        _ => Ok(()),
    }
}

fn contains_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => contains_sort(&projection.input),
        _ => false,
    }
}

fn refuse_expressions(plan: &LogicalPlan) -> Result<(), SqlError> {
    plan.apply_expressions(|expr| {
        expr.apply(|expr| match refuse_expression(expr) {
            Ok(()) => Ok(TreeNodeRecursion::Continue),
            Err(error) => Err(DataFusionError::External(Box::new(error))),
        })
    })
    .map(|_| ())
    .map_err(sql_error)
}

fn refuse_expression(expr: &Expr) -> Result<(), SqlError> {
    match expr {
        Expr::InSubquery(_) => Err(not_yet("IN (subquery)").with_hint("use a join")),
        Expr::Exists(_) => Err(not_yet("EXISTS").with_hint("use a join")),
        Expr::ScalarSubquery(_) => Err(not_yet("a scalar subquery").with_hint("use a join")),
        Expr::SetComparison(_) => Err(not_yet("ANY or ALL (subquery)").with_hint("use a join")),
        Expr::OuterReferenceColumn(..) => Err(not_yet("a LATERAL subquery")),
        Expr::GroupingSet(_) => Err(not_yet("GROUPING SETS, ROLLUP or CUBE").with_hint("use UNION ALL")),
        Expr::WindowFunction(_) => Err(not_yet("a window function (OVER)")),
        Expr::Unnest(_) => Err(not_yet("unnest")),
        Expr::Placeholder(placeholder) => {
            Err(SqlError::unsupported(format!("a view cannot contain the parameter {}", placeholder.id)))
        }
        Expr::ScalarFunction(call) => match call.func.signature().volatility {
            Volatility::Immutable => Ok(()),
            Volatility::Stable | Volatility::Volatile => Err(changing(call.name())),
        },
        _ => Ok(()),
    }
}

/// A function whose result depends on more than its arguments.
fn changing(function: &str) -> SqlError {
    let error = not_yet(&format!("{function}()"));
    let error = error.with_detail("its result changes while its arguments do not");
    match function {
        "now" | "current_date" | "current_time" => error.with_hint("use a time column of the source, and TUMBLE"),
        _ => error,
    }
}
