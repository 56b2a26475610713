//! Constructs that cannot be maintained, found while they still look as the user wrote them.
//!
//! The optimizer turns `now()` into a constant; errors would then name what nobody wrote, or not arise at all. Only of
//! subqueries it is known after the optimizer alone whether they have become joins.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use freshet_types::SqlError;

use super::{construct, not_yet};
use crate::error::sql_error;

/// An error for the first construct of the plan that cannot be maintained.
pub(super) fn refuse(plan: &LogicalPlan) -> Result<(), SqlError> {
    judge(plan, refuse_node, refuse_expression)
}

/// An error for the first subquery that the optimizer could not make a join of.
pub(super) fn refuse_subqueries(plan: &LogicalPlan) -> Result<(), SqlError> {
    judge(plan, |_| Ok(()), refuse_subquery)
}

/// The first error that a plan or an expression in it deserves, subqueries included.
fn judge(
    plan: &LogicalPlan,
    judge_node: fn(&LogicalPlan) -> Result<(), SqlError>,
    judge_expression: fn(&Expr) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let go_on = |verdict: Result<(), SqlError>| {
        verdict.map(|()| TreeNodeRecursion::Continue).map_err(|error| DataFusionError::External(Box::new(error)))
    };
    let walked = plan.apply_with_subqueries(|node| {
        go_on(judge_node(node))?;
        node.apply_expressions(|expr| expr.apply(|expr| go_on(judge_expression(expr))))
    });
    walked.map(|_| ()).map_err(sql_error)
}

fn refuse_node(plan: &LogicalPlan) -> Result<(), SqlError> {
    match plan {
        // With ALL, copies of a row are to be counted; the join that this has become cannot.
        LogicalPlan::Join(join)
            if join.null_equality == NullEquality::NullEqualsNull
                && !matches!(&*join.left, LogicalPlan::Distinct(_)) =>
        {
            match join.join_type {
                JoinType::LeftSemi => Err(not_yet("INTERSECT ALL")),
                JoinType::LeftAnti => Err(not_yet("EXCEPT ALL")),
                _ => Ok(()),
            }
        }
        LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) => Err(not_yet(construct(plan))),
        _ => Ok(()),
    }
}

fn refuse_subquery(expr: &Expr) -> Result<(), SqlError> {
    match expr {
        Expr::Exists(_) => {
            Err(not_yet("EXISTS outside WHERE").with_hint("count the rows instead, by a scalar subquery"))
        }
        Expr::InSubquery(_) => Err(not_yet("IN (subquery) outside WHERE").with_hint("use a LEFT JOIN")),
        Expr::SetComparison(_) => Err(not_yet("ANY or ALL (subquery) outside WHERE")),
        Expr::ScalarSubquery(_) => Err(not_yet("this scalar subquery").with_hint("use a join")),
        Expr::OuterReferenceColumn(..) => Err(not_yet("this LATERAL subquery").with_hint("use a join")),
        _ => Ok(()),
    }
}

fn refuse_expression(expr: &Expr) -> Result<(), SqlError> {
    match expr {
        Expr::GroupingSet(_) => Err(not_yet("GROUPING SETS, ROLLUP or CUBE").with_hint("use UNION ALL")),
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
