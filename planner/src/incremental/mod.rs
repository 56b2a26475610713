//! Logical plans to incremental plans.
//!
//! Three steps, one file each: [`refuse`] names what no rewriting could make maintainable, [`optimize`] brings the plan
//! into a form with filters and projections where they cost least, and [`convert`] turns it node by node into
//! [`Node`](crate::plan::Node)s. [`properties`] says what is proven of each node's output.
//!
//! Invariant: the node made from a logical plan has the columns of that plan, in the same order and of the same types.

mod aggregate;
mod convert;
mod expression;
mod join;
mod map;
mod optimize;
mod properties;
mod refuse;
#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use freshet_types::SqlError;

use crate::ViewPlan;
use crate::catalog::PlannerCatalog;
use crate::logical::{Names, output_schema, with_column_names, without_sorts};
use crate::statement::Query;

pub(crate) use expression::physical;

/// What keeps the view up to date.
pub(crate) fn plan_view(
    state: &SessionState,
    query: &Query,
    columns: &[String],
    catalog: &dyn PlannerCatalog,
) -> Result<ViewPlan, SqlError> {
    let names = Names::new(state, catalog);
    let logical = with_column_names(names.plan(query, &[])?, columns)?;
    refuse::refuse(&logical)?;
    let optimized = optimize::optimize(without_sorts(logical.clone())?, state)?;
    let mut node = convert::convert(&optimized, &names)?;
    let schema = output_schema(&logical);
    if types_of(&node.schema) != types_of(&schema) {
        return Err(SqlError::internal("the incremental plan of the view has other types than its query"));
    }
    node.schema = schema.clone();
    let relations = node.relations();
    Ok(ViewPlan { node, schema, relations, logical })
}

fn types_of(schema: &SchemaRef) -> Vec<&DataType> {
    schema.fields().iter().map(|field| field.data_type()).collect()
}

/// The name of a plan's outermost construct, for errors.
fn construct(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Window(_) => "a window function (OVER)",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Unnest(_) => "unnest",
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE",
        LogicalPlan::Subquery(_) => "a LATERAL subquery",
        _ => "this statement",
    }
}

/// 0A000: the construct cannot be maintained yet.
fn not_yet(construct: &str) -> SqlError {
    SqlError::unsupported(format!("{construct} is not supported in a materialized view yet"))
}
