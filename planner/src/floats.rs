//! Where a DOUBLE PRECISION and a NUMERIC meet, both become DOUBLE PRECISION, as in Postgres.
//!
//! The query engine would make both NUMERIC, which has no NaN, no infinities, and a far smaller range. Operators are
//! seen to when they are planned (see [`crate::operators`]); this is for what takes several values of one type:
//! BETWEEN, IN, CASE, COALESCE and its like, VALUES and UNION.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, Values};
use freshet_types::SqlError;

use crate::error::sql_error;
use crate::operators::as_double;

/// Functions whose arguments are of one type.
const OF_ONE_TYPE: [&str; 5] = ["coalesce", "greatest", "least", "nullif", "make_array"];

/// To be done before types are coerced.
pub(crate) fn prefer_floats(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let preferred = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Union(union) => prefer_in_union(union),
        LogicalPlan::Values(values) => prefer_in_values(values),
        plan => {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let preferred = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let preferred = expr.transform_up(|expr| Ok(Transformed::yes(prefer_in_expression(expr, &schema))))?;
                Ok(preferred.update_data(|expr| name.restore(expr)))
            })?;
            preferred.map_data(LogicalPlan::recompute_schema)
        }
    });
    preferred.data().map_err(sql_error)
}

/// The same for one expression.
pub(crate) fn prefer_in_expression(mut expr: Expr, schema: &DFSchema) -> Expr {
    match &mut expr {
        Expr::Between(between) => {
            prefer(vec![&mut *between.expr, &mut *between.low, &mut *between.high], schema);
        }
        Expr::InList(list) => {
            prefer(std::iter::once(&mut *list.expr).chain(&mut list.list).collect(), schema);
        }
        Expr::Case(case) => {
            let (whens, thens): (Vec<_>, Vec<_>) =
                case.when_then_expr.iter_mut().map(|(when, then)| (&mut **when, &mut **then)).unzip();
            if let Some(operand) = &mut case.expr {
                prefer(std::iter::once(&mut **operand).chain(whens).collect(), schema);
            }
            prefer(thens.into_iter().chain(case.else_expr.as_deref_mut()).collect(), schema);
        }
        Expr::ScalarFunction(call) if OF_ONE_TYPE.contains(&call.name()) => {
            prefer(call.args.iter_mut().collect(), schema);
        }
        _ => {}
    }
    expr
}

fn prefer(values: Vec<&mut Expr>, schema: &DFSchema) {
    // A type that is not known, such as a parameter's, is left to the engine.
    let types: Vec<Option<DataType>> = values.iter().map(|value| value.get_type(schema).ok()).collect();
    if !types.iter().flatten().any(DataType::is_floating) {
        return;
    }
    for (value, data_type) in values.into_iter().zip(types) {
        if matches!(data_type, Some(DataType::Decimal128(..))) {
            *value = as_double(std::mem::take(value));
        }
    }
}

fn prefer_in_union(union: Union) -> DataFusionResult<Transformed<LogicalPlan>> {
    let columns = union.inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let has = |column: usize, is: fn(&DataType) -> bool| {
        union.inputs.iter().any(|input| is(input.schema().field(column).data_type()))
    };
    let mixed: Vec<usize> = (0..columns).filter(|at| has(*at, DataType::is_floating) && has(*at, is_decimal)).collect();
    if mixed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let mut inputs = Vec::with_capacity(union.inputs.len());
    for input in &union.inputs {
        let columns = input.schema().columns().into_iter().enumerate().map(|(at, column)| {
            let is_decimal = is_decimal(input.schema().field(at).data_type());
            let name = column.name.clone();
            let column = Expr::Column(column);
            if mixed.contains(&at) && is_decimal { as_double(column).alias(name) } else { column }
        });
        let input = LogicalPlanBuilder::from(input.as_ref().clone()).project(columns.collect::<Vec<_>>())?.build()?;
        inputs.push(Arc::new(input));
    }
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// The columns of VALUES were given one type when they were planned.
fn prefer_in_values(values: Values) -> DataFusionResult<Transformed<LogicalPlan>> {
    let nothing = DFSchema::empty();
    let from_float = |expr: &Expr| match expr {
        Expr::Cast(Cast { expr, .. }) => expr.get_type(&nothing).is_ok_and(|found| found.is_floating()),
        _ => false,
    };
    let is_mixed = |at: &usize| {
        is_decimal(values.schema.field(*at).data_type()) && values.values.iter().any(|row| from_float(&row[*at]))
    };
    let mixed: Vec<usize> = (0..values.schema.fields().len()).filter(is_mixed).collect();
    if mixed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Values(values)));
    }
    let Values { values: mut rows, .. } = values;
    for row in &mut rows {
        for at in &mixed {
            let cell = std::mem::take(&mut row[*at]);
            row[*at] = match cell {
                Expr::Cast(Cast { expr, .. }) => as_double(*expr),
                cell => as_double(cell),
            };
        }
    }
    LogicalPlanBuilder::values(rows)?.build().map(Transformed::yes)
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}
