//! Optimized logical plans to nodes, one logical operator after the other.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{
    Distinct, Expr, Filter, LogicalPlan, Projection, TableProviderFilterPushDown, TableScan, Union, Values,
    utils::conjunction,
};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use super::expression::physical;
use super::map::{cast, identity, map};
use super::{aggregate, construct, join, not_yet, properties, top_n, window};
use crate::catalog::{RelationKind, split_reference};
use crate::coerce::one_zero;
use crate::error::sql_error;
use crate::logical::Names;
use crate::plan::{Node, Op};
use crate::rewrite::visible_name;

/// The node that maintains `plan`; its columns are those of `plan`.
pub(super) fn convert(plan: &LogicalPlan, names: &Names) -> Result<Node, SqlError> {
    match plan {
        LogicalPlan::TableScan(scan) => table_scan(scan, names),
        LogicalPlan::Projection(projection) => project(projection, names),
        LogicalPlan::Filter(filter) => filter_rows(filter, names),
        LogicalPlan::SubqueryAlias(alias) => convert(&alias.input, names),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => convert(&sort.input, names),
        LogicalPlan::Sort(sort) => top_n::sorted_first(sort, names),
        LogicalPlan::Limit(limit) => top_n::limit(limit, names),
        LogicalPlan::Union(union) => union_all(union, names),
        LogicalPlan::Distinct(Distinct::All(input)) => with_one_zero(input, names).map(distinct),
        LogicalPlan::Distinct(Distinct::On(on)) => top_n::distinct_on(on, names),
        LogicalPlan::Aggregate(aggregate) => aggregate::convert(aggregate, names),
        LogicalPlan::Join(join) => join::convert(join, names),
        LogicalPlan::Window(window) => window::convert(window, names),
        LogicalPlan::EmptyRelation(empty) => {
            let rows = usize::from(empty.produce_one_row);
            let schema = schema_of(&empty.schema);
            if rows == 0 { Ok(constant(RecordBatch::new_empty(schema))) } else { one_row(schema) }
        }
        LogicalPlan::Values(values) => constant_rows(values),
        other => Err(not_yet(construct(other))),
    }
}

/// The columns of a logical plan, under names that tell them apart where the qualifier is needed for it.
pub(super) fn schema_of(schema: &DFSchema) -> SchemaRef {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let fields = schema.iter().map(|(qualifier, field)| {
        let is_repeated = names.iter().filter(|name| *name == field.name()).count() > 1;
        let name = match qualifier {
            Some(qualifier) if is_repeated => format!("{}.{}", qualifier.table(), field.name()),
            _ => visible_name(field.name()).to_owned(),
        };
        Field::new(name, field.data_type().clone(), field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn table_scan(scan: &TableScan, names: &Names) -> Result<Node, SqlError> {
    let (schema, name) = split_reference(&scan.table_name)?;
    let relation = names.relation(schema, name)?;
    if relation.kind == RelationKind::System {
        let message = format!("system catalog \"{name}\" cannot be read by a materialized view");
        return Err(SqlError::new(SqlState::WrongObjectType, message));
    }
    let columns = scan.projection.clone().unwrap_or_else(|| (0..relation.schema.fields().len()).collect());
    let properties = properties::input(&relation.properties, &columns);
    let schema = schema_of(&scan.projected_schema);
    let op = Op::Input { relation: relation.id, name: relation.name, columns };
    let node = Node { op, schema: schema.clone(), properties };
    match conjunction(exact_filters(scan)?) {
        None => Ok(node),
        Some(predicate) => {
            let predicate = physical(&predicate, &scan.projected_schema)?;
            map(node, Some(predicate), identity(&schema), schema)
        }
    }
}

/// The filters that the relation alone answers for; the plan applies the others once more above the scan.
fn exact_filters(scan: &TableScan) -> Result<Vec<Expr>, SqlError> {
    let support = scan.source.supports_filters_pushdown(&scan.filters.iter().collect::<Vec<_>>()).map_err(sql_error)?;
    let filters = scan.filters.iter().zip(support);
    let exact = filters.filter(|(_, support)| *support == TableProviderFilterPushDown::Exact);
    Ok(exact.map(|(filter, _)| filter.clone()).collect())
}

fn project(projection: &Projection, names: &Names) -> Result<Node, SqlError> {
    let input = convert(&projection.input, names)?;
    let expressions = projection.expr.iter().map(|expr| physical(expr, projection.input.schema()));
    let expressions = expressions.collect::<Result<Vec<_>, _>>()?;
    map(input, None, expressions, schema_of(&projection.schema))
}

fn filter_rows(filter: &Filter, names: &Names) -> Result<Node, SqlError> {
    let input = convert(&filter.input, names)?;
    let predicate = physical(&filter.predicate, filter.input.schema())?;
    let input = top_n::within_row_numbers(input, &predicate);
    let schema = input.schema.clone();
    map(input, Some(predicate), identity(&schema), schema)
}

fn union_all(union: &Union, names: &Names) -> Result<Node, SqlError> {
    let schema = schema_of(&union.schema);
    let mut inputs = Vec::new();
    for plan in &union.inputs {
        match cast(convert(plan, names)?, schema.clone())? {
            Node { op: Op::UnionAll { inputs: nested }, .. } => inputs.extend(nested),
            input => inputs.push(input),
        }
    }
    let properties = properties::union_all(&inputs);
    Ok(Node { op: Op::UnionAll { inputs }, schema, properties })
}

/// The rows of `plan` with -0 as 0, so that DISTINCT takes both for one value.
fn with_one_zero(plan: &LogicalPlan, names: &Names) -> Result<Node, SqlError> {
    let node = convert(plan, names)?;
    if !node.schema.fields().iter().any(|field| field.data_type().is_floating()) {
        return Ok(node);
    }
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let expressions = columns.map(|column| {
        let column = one_zero(column, plan.schema()).map_err(sql_error)?;
        physical(&column, plan.schema())
    });
    let expressions = expressions.collect::<Result<Vec<_>, _>>()?;
    let schema = node.schema.clone();
    map(node, None, expressions, schema)
}

/// Each row once; nothing to do where a key makes rows differ already.
pub(super) fn distinct(input: Node) -> Node {
    if input.properties.key.is_some() {
        return input;
    }
    let properties = properties::distinct(&input);
    let schema = input.schema.clone();
    Node { op: Op::Distinct { input: Box::new(input) }, schema, properties }
}

pub(super) fn constant(rows: RecordBatch) -> Node {
    let properties = properties::constant(rows.num_rows());
    Node { schema: rows.schema(), op: Op::Constant { rows }, properties }
}

fn one_row(schema: SchemaRef) -> Result<Node, SqlError> {
    let columns = schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), 1)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(schema, columns, &options).map(constant).map_err(|error| sql_error(error.into()))
}

/// `VALUES (…), (…)`
fn constant_rows(values: &Values) -> Result<Node, SqlError> {
    let schema = schema_of(&values.schema);
    let no_columns = one_row(Arc::new(Schema::empty()))?;
    let Op::Constant { rows: one } = &no_columns.op else {
        return Err(SqlError::internal("a constant is not a constant"));
    };
    let cell = |expr: &Expr| {
        let value = physical(expr, DFSchema::empty_ref())?.evaluate(one).map_err(sql_error)?;
        let array = value.into_array(1).map_err(sql_error)?;
        ScalarValue::try_from_array(&array, 0).map_err(sql_error)
    };
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (at, field) in schema.fields().iter().enumerate() {
        let cells = values.values.iter().map(|row| cell(&row[at])).collect::<Result<Vec<_>, _>>()?;
        let cells = cells.into_iter().map(|cell| cell.cast_to(field.data_type())).collect::<Result<Vec<_>, _>>();
        columns.push(ScalarValue::iter_to_array(cells.map_err(sql_error)?).map_err(sql_error)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(values.values.len()));
    let rows = RecordBatch::try_new_with_options(schema, columns, &options);
    rows.map(constant).map_err(|error| sql_error(error.into()))
}
