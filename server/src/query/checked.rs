//! Arithmetic that overflows fails in queries too, as it does in views: a wrapped number is a wrong answer.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use freshet_planner::checked_arithmetic;

/// Makes the arithmetic of projections and filters checked.
#[derive(Debug)]
pub struct CheckedArithmetic;

impl PhysicalOptimizerRule for CheckedArithmetic {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(checked).data()
    }

    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn checked(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let expressions = projection.expr().iter().map(|projected| {
            let expr = checked_arithmetic(projected.expr.clone())?;
            Ok(ProjectionExpr { expr, alias: projected.alias.clone() })
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        let checked = ProjectionExec::try_new(expressions, projection.input().clone())?;
        return Ok(Transformed::yes(Arc::new(checked)));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let predicate = checked_arithmetic(filter.predicate().clone())?;
        let checked = FilterExecBuilder::from(filter).with_predicate(predicate).build()?;
        return Ok(Transformed::yes(Arc::new(checked)));
    }
    Ok(Transformed::no(plan))
}
