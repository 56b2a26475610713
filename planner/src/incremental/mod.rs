//! Logical plans to incremental plans.
//!
//! Three steps, one file each: [`refuse`] names what no rewriting could make maintainable, [`optimize`] brings the plan
//! into a form with filters and projections where they cost least, and [`convert`] turns it node by node into
//! [`Node`](crate::plan::Node)s. [`properties`] says what is proven of each node's output.
//!
//! Invariant: the node made from a logical plan has the columns of that plan, in the same order and of the same types.

mod aggregate;
mod convert;
pub(crate) mod expression;
mod join;
mod map;
mod optimize;
mod properties;
mod refuse;
#[cfg(test)]
mod tests;
mod top_n;
mod window;

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
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
    let names = Names::of_now(state, catalog);
    let logical = with_column_names(names.plan(query, &[])?, columns)?;
    refuse::refuse(&logical)?;
    let optimized = optimize::optimize(without_sorts(logical.clone())?, state)?;
    refuse::refuse_subqueries(&optimized)?;
    let mut node = convert::convert(&optimized, &names)?;
    // Optimizing may narrow a type: `round(x, CAST(6 AS INT))` has the scale 6 once the cast is folded away.
    let schema = under_names_of(&output_schema(&logical), &optimized);
    if types_of(&node.schema) != types_of(&schema) {
        return Err(SqlError::internal("the incremental plan of the view has other types than its query"));
    }
    node.schema = schema.clone();
    let relations = node.relations();
    Ok(ViewPlan { node, schema, relations, logical })
}

/// The columns of `named` with the types of `plan`.
fn under_names_of(named: &SchemaRef, plan: &LogicalPlan) -> SchemaRef {
    let fields = named.fields().iter().zip(plan.schema().fields());
    let fields = fields.map(|(named, typed)| named.as_ref().clone().with_data_type(typed.data_type().clone()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn types_of(schema: &SchemaRef) -> Vec<&DataType> {
    schema.fields().iter().map(|field| field.data_type()).collect()
}

/// The name of a plan's outermost construct, for errors.
fn construct(plan: &LogicalPlan) -> &'static str {
    match plan {
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
