//! Inner joins. Join keys that are expressions become columns of a map below.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, type_coercion::binary::comparison_coercion};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use freshet_types::SqlError;

use super::convert::schema_of;
use super::expression::{column_index, physical, replace_columns};
use super::map::{identity, map};
use super::{convert, not_yet, properties};
use crate::coerce::one_zero;
use crate::error::sql_error;
use crate::logical::Names;
use crate::plan::{Node, Op};

pub(super) fn convert(join: &Join, names: &Names) -> Result<Node, SqlError> {
    refuse(join)?;
    let left_width = join.left.schema().fields().len();
    let right_width = join.right.schema().fields().len();
    let mut left = Side::new(convert::convert(&join.left, names)?, join.left.schema());
    let mut right = Side::new(convert::convert(&join.right, names)?, join.right.schema());
    let mut on = Vec::with_capacity(join.on.len());
    for (left_key, right_key) in &join.on {
        let (left_key, right_key) = same_type(left_key, right_key, join)?;
        on.push((left.column(&left_key)?, right.column(&right_key)?));
    }
    let (left, right) = (left.finish()?, right.finish()?);
    // Keys that were computed stand behind the columns of their side, and move those of the right side.
    let moved = left.schema.fields().len() - left_width;
    let residual = join.filter.as_ref().map(|filter| residual(filter, &join.schema, left_width, moved)).transpose()?;
    let node = inner(left, right, on, residual);
    if node.schema.fields().len() == left_width + right_width {
        return Ok(Node { schema: schema_of(&join.schema), ..node });
    }
    let kept = (0..left_width).chain((0..right_width).map(|at| at + left_width + moved));
    let columns = kept.map(|at| Arc::new(Column::new(node.schema.field(at).name(), at)) as Arc<dyn PhysicalExpr>);
    let columns = columns.collect();
    map(node, None, columns, schema_of(&join.schema))
}

fn refuse(join: &Join) -> Result<(), SqlError> {
    let construct = match join.join_type {
        JoinType::Inner if join.null_equality == NullEquality::NullEqualsNull => "a join on IS NOT DISTINCT FROM",
        JoinType::Inner => return Ok(()),
        JoinType::Left => "LEFT JOIN",
        JoinType::Right => "RIGHT JOIN",
        JoinType::Full => "FULL JOIN",
        JoinType::LeftSemi | JoinType::RightSemi => "SEMI JOIN",
        JoinType::LeftAnti | JoinType::RightAnti => "ANTI JOIN",
        JoinType::LeftMark | JoinType::RightMark => "a subquery in an expression",
    };
    Err(not_yet(construct))
}

fn inner(left: Node, right: Node, on: Vec<(usize, usize)>, residual: Option<Arc<dyn PhysicalExpr>>) -> Node {
    let fields: Vec<Field> =
        left.schema.fields().iter().chain(right.schema.fields()).map(|field| field.as_ref().clone()).collect();
    let properties = properties::join(&left, &right, &on);
    let op = Op::Join { left: Box::new(left), right: Box::new(right), on, residual };
    Node { op, schema: Arc::new(Schema::new(fields)), properties }
}

/// The two keys under the type that both can be compared in.
fn same_type(left: &Expr, right: &Expr, join: &Join) -> Result<(Expr, Expr), SqlError> {
    let left_type = left.get_type(join.left.schema()).map_err(sql_error)?;
    let right_type = right.get_type(join.right.schema()).map_err(sql_error)?;
    let common = comparison_coercion(&left_type, &right_type)
        .ok_or_else(|| SqlError::internal(format!("no common type of {left_type} and {right_type}")))?;
    let key = |key: &Expr, schema: &DFSchema| {
        key.clone().cast_to(&common, schema).and_then(|key| one_zero(key, schema)).map_err(sql_error)
    };
    Ok((key(left, join.left.schema())?, key(right, join.right.schema())?))
}

fn residual(
    filter: &Expr,
    schema: &DFSchema,
    left_width: usize,
    moved: usize,
) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let filter = physical(filter, schema)?;
    if moved == 0 {
        return Ok(filter);
    }
    replace_columns(&filter, |column| {
        let at = if column.index() < left_width { column.index() } else { column.index() + moved };
        Arc::new(Column::new(column.name(), at))
    })
}

/// One input of a join, with the keys that must be computed for it.
struct Side<'a> {
    node: Node,
    schema: &'a DFSchema,
    computed: Vec<Arc<dyn PhysicalExpr>>,
}

impl<'a> Side<'a> {
    fn new(node: Node, schema: &'a DFSchema) -> Self {
        Self { node, schema, computed: Vec::new() }
    }

    /// The index of the column that holds `key`.
    fn column(&mut self, key: &Expr) -> Result<usize, SqlError> {
        let key = physical(key, self.schema)?;
        if let Some(index) = column_index(&key) {
            return Ok(index);
        }
        let width = self.schema.fields().len();
        if let Some(at) = self.computed.iter().position(|computed| computed.eq(&key)) {
            return Ok(width + at);
        }
        self.computed.push(key);
        Ok(width + self.computed.len() - 1)
    }

    fn finish(self) -> Result<Node, SqlError> {
        if self.computed.is_empty() {
            return Ok(self.node);
        }
        let mut fields: Vec<Field> = self.node.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for key in &self.computed {
            let data_type = key.data_type(&self.node.schema).map_err(sql_error)?;
            fields.push(Field::new(format!("key{}", fields.len()), data_type, true));
        }
        let expressions = identity(&self.node.schema).into_iter().chain(self.computed).collect();
        map(self.node, None, expressions, Arc::new(Schema::new(fields)))
    }
}
