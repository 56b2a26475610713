//! Making [`Op::Map`]s, as few of them as possible.
//!
//! A map over a map is one map, unless that would compute an expression twice; a map that only picks columns of a
//! relation is the relation, read more narrowly; a map over constants is a constant.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use freshet_types::SqlError;

use super::expression::{column_index, count_columns, replace_columns};
use super::properties;
use crate::error::sql_error;
use crate::plan::{Node, Op};

type Expr = Arc<dyn PhysicalExpr>;

/// The rows of `input` for which `predicate` is true, as `expressions`, under the names in `schema`.
pub(super) fn map(
    input: Node,
    predicate: Option<Expr>,
    expressions: Vec<Expr>,
    schema: SchemaRef,
) -> Result<Node, SqlError> {
    match input {
        Node { op: Op::Constant { rows }, .. } => constant(&rows, predicate, &expressions, schema),
        Node { op: Op::Map { input: below, predicate: below_predicate, expressions: below_expressions }, .. }
            if fuses(&below_expressions, predicate.as_ref(), &expressions) =>
        {
            let predicate = predicate.map(|predicate| substitute(&predicate, &below_expressions)).transpose()?;
            let expressions = expressions.iter().map(|expr| substitute(expr, &below_expressions));
            let expressions = expressions.collect::<Result<Vec<_>, _>>()?;
            // The lower predicate goes first: it may keep the upper one from failing.
            map(*below, and(below_predicate, predicate), expressions, schema)
        }
        input if predicate.is_none() && is_identity(&expressions, input.schema.fields().len()) => {
            Ok(Node { schema, ..input })
        }
        input => match narrowed(&input, predicate.as_ref(), &expressions) {
            Some(op) => {
                let properties = properties::map(&input, &expressions);
                Ok(Node { op, schema, properties })
            }
            None => {
                let properties = properties::map(&input, &expressions);
                Ok(Node { op: Op::Map { input: Box::new(input), predicate, expressions }, schema, properties })
            }
        },
    }
}

/// All columns of a node, as expressions.
pub(super) fn identity(schema: &SchemaRef) -> Vec<Expr> {
    schema.fields().iter().enumerate().map(|(at, field)| Arc::new(Column::new(field.name(), at)) as Expr).collect()
}

/// The columns of `input` under new types, where they differ.
pub(super) fn cast(input: Node, schema: SchemaRef) -> Result<Node, SqlError> {
    let expressions = identity(&input.schema).into_iter().zip(schema.fields()).zip(input.schema.fields());
    let expressions = expressions.map(|((expr, wanted), found)| {
        if wanted.data_type() == found.data_type() {
            return Ok(expr);
        }
        datafusion::physical_expr::expressions::cast(expr, &input.schema, wanted.data_type().clone()).map_err(sql_error)
    });
    let expressions = expressions.collect::<Result<Vec<_>, _>>()?;
    map(input, None, expressions, schema)
}

fn is_identity(expressions: &[Expr], columns: usize) -> bool {
    expressions.len() == columns && expressions.iter().enumerate().all(|(at, expr)| column_index(expr) == Some(at))
}

/// A relation read with fewer columns, or in another order.
fn narrowed(input: &Node, predicate: Option<&Expr>, expressions: &[Expr]) -> Option<Op> {
    let Op::Input { relation, name, columns } = &input.op else {
        return None;
    };
    if predicate.is_some() {
        return None;
    }
    let columns =
        expressions.iter().map(|expr| column_index(expr).map(|at| columns[at])).collect::<Option<Vec<_>>>()?;
    let repeats = columns.iter().enumerate().any(|(at, column)| columns[..at].contains(column));
    (!repeats).then(|| Op::Input { relation: *relation, name: name.clone(), columns })
}

/// Whether no expression of the lower map would be computed more often by the upper one.
fn fuses(below: &[Expr], predicate: Option<&Expr>, expressions: &[Expr]) -> bool {
    let mut uses = vec![0; below.len()];
    predicate.into_iter().chain(expressions).for_each(|expr| count_columns(expr, &mut uses));
    below.iter().zip(uses).all(|(expr, uses)| uses <= 1 || is_trivial(expr))
}

fn is_trivial(expr: &Expr) -> bool {
    column_index(expr).is_some() || expr.downcast_ref::<Literal>().is_some()
}

fn substitute(expr: &Expr, below: &[Expr]) -> Result<Expr, SqlError> {
    replace_columns(expr, |column| below[column.index()].clone())
}

fn and(first: Option<Expr>, second: Option<Expr>) -> Option<Expr> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Arc::new(BinaryExpr::new(first, Operator::And, second))),
        (first, second) => first.or(second),
    }
}

fn constant(
    rows: &RecordBatch,
    predicate: Option<Expr>,
    expressions: &[Expr],
    schema: SchemaRef,
) -> Result<Node, SqlError> {
    let evaluate = |expr: &Expr, rows: &RecordBatch| {
        expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).map_err(sql_error)
    };
    let kept = match predicate {
        None => rows.clone(),
        Some(predicate) => {
            let mask = evaluate(&predicate, rows)?;
            filter_record_batch(rows, mask.as_boolean()).map_err(|error| sql_error(error.into()))?
        }
    };
    let columns = expressions.iter().map(|expr| evaluate(expr, &kept)).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| sql_error(error.into()))?;
    Ok(super::convert::constant(rows))
}
