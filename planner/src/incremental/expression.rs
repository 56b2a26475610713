//! Logical expressions to executable ones.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use freshet_types::SqlError;

use crate::error::sql_error;

/// The expression over the columns of `schema`. Arithmetic that overflows fails: a wrapped number is a wrong answer.
pub(crate) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    if expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).map_err(sql_error)? {
        return Err(SqlError::unsupported("parameters are not supported in RETURNING and ON CONFLICT yet")
            .with_hint("write the value itself, or use EXCLUDED"));
    }
    let expr = create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .map_err(sql_error)?;
    checked_arithmetic(expr).map_err(sql_error)
}

/// The expression with arithmetic that fails where it would overflow.
pub fn checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    expr.transform_up(|expr| Ok(checked(expr))).data()
}

fn checked(expr: Arc<dyn PhysicalExpr>) -> Transformed<Arc<dyn PhysicalExpr>> {
    match expr.downcast_ref::<BinaryExpr>() {
        Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
            let fresh = BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone());
            Transformed::yes(Arc::new(fresh.with_fail_on_overflow(true)))
        }
        _ => Transformed::no(expr),
    }
}

/// The index of the column, if the expression is one.
pub(super) fn column_index(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// The expression with each column replaced.
pub(super) fn replace_columns(
    expr: &Arc<dyn PhysicalExpr>,
    replacement: impl Fn(&Column) -> Arc<dyn PhysicalExpr>,
) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let replaced = expr.clone().transform_down(|expr| {
        // A replacement may contain columns itself, which must stay as they are.
        Ok(match expr.downcast_ref::<Column>() {
            Some(column) => {
                let new = replacement(column);
                Transformed::new(new, true, datafusion::common::tree_node::TreeNodeRecursion::Jump)
            }
            None => Transformed::no(expr),
        })
    });
    replaced.data().map_err(sql_error)
}

/// How often each column occurs, added to `counts`.
pub(super) fn count_columns(expr: &Arc<dyn PhysicalExpr>, counts: &mut [usize]) {
    if let Some(index) = column_index(expr) {
        counts[index] += 1;
    }
    for child in expr.children() {
        count_columns(child, counts);
    }
}
