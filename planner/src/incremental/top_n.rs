//! `ORDER BY … LIMIT`, `DISTINCT ON`, and filters on `row_number()`: the first rows of a whole or of each partition.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::{
    DistinctOn, Expr, FetchType, Limit, LogicalPlan, Operator, Projection, SkipType, Sort, SubqueryAlias,
};
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Literal};
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, split_conjunction};
use datafusion::scalar::ScalarValue;
use freshet_types::SqlError;

use super::convert::{convert, schema_of};
use super::expression::{column_index, physical};
use super::join::{Side, column};
use super::map::map;
use super::{not_yet, properties};
use crate::coerce::one_zero;
use crate::error::sql_error;
use crate::logical::Names;
use crate::plan::{Node, Op, SortKey};

/// `LIMIT`, whose order lies right below it, or below projections.
pub(super) fn limit(limit: &Limit, names: &Names) -> Result<Node, SqlError> {
    let below = |input: &Arc<LogicalPlan>| {
        let (skip, fetch) = (limit.skip.clone(), limit.fetch.clone());
        Arc::new(LogicalPlan::Limit(Limit { skip, fetch, input: input.clone() }))
    };
    match &*limit.input {
        LogicalPlan::Sort(sort) => sorted(sort, range(limit)?, names),
        LogicalPlan::Projection(projection) if contains_sort(&projection.input) => {
            let moved = Projection::try_new_with_schema(
                projection.expr.clone(),
                below(&projection.input),
                projection.schema.clone(),
            );
            convert(&LogicalPlan::Projection(moved.map_err(sql_error)?), names)
        }
        LogicalPlan::SubqueryAlias(alias) if contains_sort(&alias.input) => {
            let moved = SubqueryAlias::try_new(below(&alias.input), alias.alias.clone()).map_err(sql_error)?;
            convert(&LogicalPlan::SubqueryAlias(moved), names)
        }
        _ => Err(not_yet("LIMIT without ORDER BY").with_hint("say by ORDER BY which rows are meant")),
    }
}

fn contains_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => contains_sort(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => contains_sort(&alias.input),
        _ => false,
    }
}

/// A sort that gives its first rows alone.
pub(super) fn sorted_first(sort: &Sort, names: &Names) -> Result<Node, SqlError> {
    sorted(sort, (0, sort.fetch.map(|rows| rows as u64)), names)
}

fn sorted(sort: &Sort, (offset, limit): (u64, Option<u64>), names: &Names) -> Result<Node, SqlError> {
    let input = convert(&sort.input, names)?;
    let limit = limit.map(|limit| sort.fetch.map_or(limit, |fetch| limit.min((fetch as u64).saturating_sub(offset))));
    let schema = input.schema.clone();
    first_rows(input, sort.input.schema(), &[], &sort.expr, (offset, limit), schema)
}

/// How many rows are skipped, and how many are given.
fn range(limit: &Limit) -> Result<(u64, Option<u64>), SqlError> {
    let unknown = || not_yet("LIMIT of what is not a number");
    let SkipType::Literal(skip) = limit.get_skip_type().map_err(sql_error)? else { return Err(unknown()) };
    let FetchType::Literal(fetch) = limit.get_fetch_type().map_err(sql_error)? else { return Err(unknown()) };
    Ok((skip as u64, fetch.map(|rows| rows as u64)))
}

/// `SELECT DISTINCT ON (a) … ORDER BY a, b`: the first row of each `a`.
pub(super) fn distinct_on(distinct: &DistinctOn, names: &Names) -> Result<Node, SqlError> {
    let input = convert(&distinct.input, names)?;
    let (input_schema, schema) = (distinct.input.schema(), input.schema.clone());
    let sorts = distinct.sort_expr.as_deref().unwrap_or_default();
    // The first keys of the order are those of the partition.
    let order = sorts.get(distinct.on_expr.len()..).unwrap_or_default();
    let node = first_rows(input, input_schema, &distinct.on_expr, order, (0, Some(1)), schema)?;
    let columns = distinct.select_expr.iter().map(|expr| physical(expr, input_schema));
    map(node, None, columns.collect::<Result<Vec<_>, _>>()?, schema_of(&distinct.schema))
}

/// The first rows of each partition, with the columns of `input`, whose logical schema is `input_schema`.
fn first_rows(
    input: Node,
    input_schema: &DFSchema,
    partition_by: &[Expr],
    order_by: &[SortExpr],
    (offset, limit): (u64, Option<u64>),
    schema: SchemaRef,
) -> Result<Node, SqlError> {
    if schema.fields().is_empty() {
        return Err(not_yet("LIMIT of rows without columns"));
    }
    let mut side = Side::new(input, input_schema);
    let partition = partition_by.iter().map(|key| {
        let key = one_zero(key.clone(), input_schema).map_err(sql_error)?;
        side.column(&key)
    });
    let partition = partition.collect::<Result<Vec<usize>, _>>()?;
    let order = order_by.iter().map(|key| {
        let expr = one_zero(key.expr.clone(), input_schema).map_err(sql_error)?;
        let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
        Ok(SortKey { column: side.column(&expr)?, options })
    });
    let order = order.collect::<Result<Vec<SortKey>, SqlError>>()?;
    let input = side.finish()?;
    let width = schema.fields().len();
    let properties = properties::top_n(&input, &partition, limit);
    let computed = input.schema.fields().len() > width;
    let node_schema = input.schema.clone();
    let op = Op::TopN { input: Box::new(input), partition, order, offset, limit };
    let node = Node { op, schema: node_schema, properties };
    if !computed {
        return Ok(Node { schema, ..node });
    }
    let columns = (0..width).map(|at| column(&node, at)).collect();
    map(node, None, columns, schema)
}

/// `input` below a filter on `row_number() <= n`, without the rows that have no chance to pass it.
pub(super) fn within_row_numbers(input: Node, predicate: &Arc<dyn PhysicalExpr>) -> Node {
    let bounds = split_conjunction(predicate).into_iter().filter_map(row_bound);
    bounds.fold(input, |node, (column, rows)| first_numbers(node, column, rows))
}

/// The column that is compared, and how many numbers from one on pass.
fn row_bound(predicate: &Arc<dyn PhysicalExpr>) -> Option<(usize, u64)> {
    let comparison = predicate.downcast_ref::<BinaryExpr>()?;
    // Other numbers compare in other ways: 2 is less than 2.7.
    let number = |expr: &Arc<dyn PhysicalExpr>| {
        let value = expr.downcast_ref::<Literal>()?.value();
        let ScalarValue::Int64(Some(number)) = value.cast_to(&DataType::Int64).ok()? else { return None };
        if value.data_type().is_integer() { u64::try_from(number).ok() } else { None }
    };
    let (column, operator, number) = match (number(comparison.left()), number(comparison.right())) {
        (None, Some(number)) => (comparison.left(), *comparison.op(), number),
        (Some(number), None) => (comparison.right(), comparison.op().swap()?, number),
        _ => return None,
    };
    let column = column.downcast_ref::<CastExpr>().map_or(column, CastExpr::expr);
    let rows = match operator {
        Operator::LtEq | Operator::Eq => number,
        Operator::Lt => number.checked_sub(1)?,
        _ => return None,
    };
    Some((column_index(column)?, rows))
}

/// The node with the first rows of each partition alone, if `at` is a column of their numbers.
fn first_numbers(node: Node, at: usize, rows: u64) -> Node {
    let Node { op, schema, properties } = node;
    let op = match op {
        Op::Map { input, predicate: None, expressions } if column_index(&expressions[at]).is_some() => {
            let below = column_index(&expressions[at]).unwrap_or_default();
            Op::Map { input: Box::new(first_numbers(*input, below, rows)), predicate: None, expressions }
        }
        Op::Window { input, partition, functions } => {
            let order = numbered_by(&functions).filter(|_| at == input.schema.fields().len());
            let input = match order {
                Some(order) => {
                    let properties = properties::top_n(&input, &partition, Some(rows));
                    let (schema, partition) = (input.schema.clone(), partition.clone());
                    Box::new(Node {
                        op: Op::TopN { input, partition, order, offset: 0, limit: Some(rows) },
                        schema,
                        properties,
                    })
                }
                None => input,
            };
            Op::Window { input, partition, functions }
        }
        other => other,
    };
    Node { op, schema, properties }
}

/// The order by which rows are numbered, if that is all that the functions do, and it is by columns.
fn numbered_by(functions: &[Arc<dyn WindowExpr>]) -> Option<Vec<SortKey>> {
    let [function] = functions else { return None };
    let standard = function.as_any().downcast_ref::<StandardWindowExpr>()?;
    if !standard.get_standard_func_expr().name().starts_with("row_number") {
        return None;
    }
    let key = |key: &PhysicalSortExpr| Some(SortKey { column: column_index(&key.expr)?, options: key.options });
    function.order_by().iter().map(key).collect()
}
