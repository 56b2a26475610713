//! Logical expressions to executable ones.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use freshet_types::SqlError;

use crate::error::sql_error;

/// The expression over the columns of `schema`.
pub(crate) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    if expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).map_err(sql_error)? {
        return Err(SqlError::unsupported("parameters are not supported in RETURNING and ON CONFLICT yet")
            .with_hint("write the value itself, or use EXCLUDED"));
    }
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).map_err(sql_error)
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
