//! Joins, and the subqueries that the optimizer has made joins. Join keys that are expressions become columns of a map below.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNotNullExpr, Literal};
use datafusion::scalar::ScalarValue;
use freshet_types::SqlError;

use super::convert::schema_of;
use super::expression::{column_index, physical, replace_columns};
use super::map::{identity, map};
use super::{convert, not_yet, properties};
use crate::coerce::one_zero;
use crate::error::sql_error;
use crate::logical::Names;
use crate::plan::{Aggregate, AggregateFunction, JoinKind, Node, Op};

pub(super) fn convert(join: &Join, names: &Names) -> Result<Node, SqlError> {
    let (kind, swapped) = kind_of(join.join_type);
    let (first, second) = if swapped { (&join.right, &join.left) } else { (&join.left, &join.right) };
    let (left_width, right_width) = (first.schema().fields().len(), second.schema().fields().len());
    let mut left = Side::new(convert::convert(first, names)?, first.schema());
    let mut right = Side::new(convert::convert(second, names)?, second.schema());
    refuse_several_rows(second, &right.node, &join.on)?;
    let mut on = Vec::with_capacity(join.on.len());
    for (left_key, right_key) in &join.on {
        let (left_key, right_key) = if swapped { (right_key, left_key) } else { (left_key, right_key) };
        let (left_key, right_key) = same_type((left_key, first.schema()), (right_key, second.schema()))?;
        on.push((left.column(&left_key)?, right.column(&right_key)?));
    }
    let (left, right) = (left.finish()?, right.finish()?);
    // Keys that were computed stand behind the columns of their side, and move those of the right side.
    let moved = left.schema.fields().len() - left_width;
    let pair_schema = first.schema().join(second.schema()).map_err(sql_error)?;
    let residual = join.filter.as_ref().map(|filter| residual(filter, &pair_schema, left_width, moved)).transpose()?;
    let matched = Matching { on, null_equality: join.null_equality, residual };
    let node = if join.null_aware && kind == JoinKind::Anti {
        not_in(left, right, matched)?
    } else {
        joined(kind, left, right, matched)
    };
    let right_columns = if kind.gives_pairs() { right_width } else { usize::from(kind == JoinKind::Mark) };
    if node.schema.fields().len() == left_width + right_columns {
        return Ok(Node { schema: schema_of(&join.schema), ..node });
    }
    let kept = (0..left_width).chain((0..right_columns).map(|at| at + left_width + moved));
    let columns = kept.map(|at| column(&node, at)).collect();
    map(node, None, columns, schema_of(&join.schema))
}

/// What a join gives, and whether its sides change places for it.
fn kind_of(join_type: JoinType) -> (JoinKind, bool) {
    match join_type {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::Left, false),
        JoinType::Right => (JoinKind::Right, false),
        JoinType::Full => (JoinKind::Full, false),
        JoinType::LeftSemi => (JoinKind::Semi, false),
        JoinType::RightSemi => (JoinKind::Semi, true),
        JoinType::LeftAnti => (JoinKind::Anti, false),
        JoinType::RightAnti => (JoinKind::Anti, true),
        JoinType::LeftMark => (JoinKind::Mark, false),
        JoinType::RightMark => (JoinKind::Mark, true),
    }
}

/// A scalar subquery, which has become the right side of a join, gives one row.
fn refuse_several_rows(right: &LogicalPlan, node: &Node, on: &[(Expr, Expr)]) -> Result<(), SqlError> {
    let LogicalPlan::SubqueryAlias(alias) = right else { return Ok(()) };
    let is_scalar = alias.alias.table().starts_with(SCALAR_SUBQUERY_PREFIX) && on.is_empty();
    if !is_scalar || node.properties.key.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    Err(not_yet("a scalar subquery that may give more than one row")
        .with_hint("aggregate its rows, with max() for instance, or use a join"))
}

/// The names that the optimizer gives to scalar subqueries begin so.
const SCALAR_SUBQUERY_PREFIX: &str = "__scalar_sq";

/// Which rows match.
struct Matching {
    on: Vec<(usize, usize)>,
    null_equality: NullEquality,
    residual: Option<Arc<dyn PhysicalExpr>>,
}

fn joined(kind: JoinKind, left: Node, right: Node, matching: Matching) -> Node {
    let Matching { on, null_equality, residual } = matching;
    let fields = |node: &Node, may_be_missing: bool| {
        let fields = node.schema.fields().iter();
        fields.map(|field| field.as_ref().clone().with_nullable(field.is_nullable() || may_be_missing)).collect()
    };
    let mut columns: Vec<Field> = fields(&left, matches!(kind, JoinKind::Right | JoinKind::Full));
    if kind.gives_pairs() {
        columns.extend::<Vec<Field>>(fields(&right, matches!(kind, JoinKind::Left | JoinKind::Full)));
    } else if kind == JoinKind::Mark {
        columns.push(Field::new("mark", DataType::Boolean, false));
    }
    let properties = properties::join(kind, &left, &right, &on);
    let op = Op::Join { kind, left: Box::new(left), right: Box::new(right), on, null_equality, residual };
    Node { op, schema: Arc::new(Schema::new(columns)), properties }
}

/// `key NOT IN (rows)`: true where there are no rows, else unknown for a key that is NULL and, if one of the rows is,
/// for every key. So the keys that match nothing are held against the number of all rows and of those with NULL.
fn not_in(left: Node, right: Node, matching: Matching) -> Result<Node, SqlError> {
    let ([(left_key, right_key)], None) = (matching.on.as_slice(), &matching.residual) else {
        return Err(not_yet("NOT IN with a subquery that refers to columns outside").with_hint("use NOT EXISTS"));
    };
    let (left_key, right_key, left_width) = (*left_key, *right_key, left.schema.fields().len());
    let count = |argument| Aggregate {
        function: AggregateFunction::Count,
        argument,
        distinct: false,
        filter: None,
        output_type: DataType::Int64,
    };
    let counts = ["rows", "keys"].map(|name| Field::new(name, DataType::Int64, false));
    let counted = Node {
        properties: properties::aggregate(&right, &[]),
        op: Op::Aggregate {
            input: Box::new(right.clone()),
            keys: Vec::new(),
            aggregates: vec![count(None), count(Some(right_key))],
        },
        schema: Arc::new(Schema::new(counts.to_vec())),
    };
    let schema = left.schema.clone();
    let unmatched = joined(JoinKind::Anti, left, right, matching);
    let with_counts = Matching { on: Vec::new(), null_equality: NullEquality::NullEqualsNothing, residual: None };
    let node = joined(JoinKind::Inner, unmatched, counted, with_counts);
    let [key, rows, keys] = [left_key, left_width, left_width + 1].map(|at| column(&node, at));
    let binary = |left, operator, right| Arc::new(BinaryExpr::new(left, operator, right)) as Arc<dyn PhysicalExpr>;
    let is_empty = binary(rows.clone(), Operator::Eq, Arc::new(Literal::new(ScalarValue::Int64(Some(0)))));
    let has_key: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(key));
    let all_known = binary(binary(rows, Operator::Eq, keys), Operator::And, has_key);
    let columns = (0..left_width).map(|at| column(&node, at)).collect();
    map(node, Some(binary(is_empty, Operator::Or, all_known)), columns, schema)
}

pub(super) fn column(node: &Node, at: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(node.schema.field(at).name(), at))
}

/// The two keys under the type that both can be compared in.
fn same_type(
    (left, left_schema): (&Expr, &DFSchema),
    (right, right_schema): (&Expr, &DFSchema),
) -> Result<(Expr, Expr), SqlError> {
    let left_type = left.get_type(left_schema).map_err(sql_error)?;
    let right_type = right.get_type(right_schema).map_err(sql_error)?;
    let common = comparison_coercion(&left_type, &right_type)
        .ok_or_else(|| SqlError::internal(format!("no common type of {left_type} and {right_type}")))?;
    let key = |key: &Expr, schema: &DFSchema| {
        key.clone().cast_to(&common, schema).and_then(|key| one_zero(key, schema)).map_err(sql_error)
    };
    Ok((key(left, left_schema)?, key(right, right_schema)?))
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
pub(super) struct Side<'a> {
    node: Node,
    schema: &'a DFSchema,
    computed: Vec<Arc<dyn PhysicalExpr>>,
}

impl<'a> Side<'a> {
    pub(super) fn new(node: Node, schema: &'a DFSchema) -> Self {
        Self { node, schema, computed: Vec::new() }
    }

    /// The index of the column that holds `key`.
    pub(super) fn column(&mut self, key: &Expr) -> Result<usize, SqlError> {
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

    pub(super) fn finish(self) -> Result<Node, SqlError> {
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
