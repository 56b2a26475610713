//! The incremental plan: how a view is kept up to date, as data.
//!
//! It is the boundary between the planner, which makes it, and the dataflow, which runs it. A plan is
//! a tree of [`Node`]s. Each has an operator, an output schema, and [`Properties`] that the planner
//! has proven of its output and that operators may rely on. Columns are referred to by index;
//! expressions are DataFusion `PhysicalExpr`s over the columns of a node's input, and appear only in
//! [`Op::Map`], as the residual of [`Op::Join`], and in the functions of [`Op::Window`]: all other operators see plain
//! columns.
//!
//! A plan runs nothing, reads nothing and knows no catalog.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::NullEquality;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::window::WindowExpr;
use freshet_types::RelationId;

/// One operator with its inputs, and what is known of its output.
#[derive(Debug, Clone)]
pub struct Node {
    pub op: Op,
    pub schema: SchemaRef,
    pub properties: Properties,
}

/// What an operator does with its inputs.
#[derive(Debug, Clone)]
pub enum Op {
    /// The rows of a source, table or view. Gives `columns` of the relation, in that order.
    Input { relation: RelationId, name: String, columns: Vec<usize> },
    /// Rows written in the query itself (`VALUES`, or a SELECT without FROM): present from the first epoch on.
    Constant { rows: arrow::array::RecordBatch },
    /// Filter, then project, in one pass. Without predicate all rows stay.
    Map { input: Box<Node>, predicate: Option<Arc<dyn PhysicalExpr>>, expressions: Vec<Arc<dyn PhysicalExpr>> },
    /// All rows of all inputs, which have the same types.
    UnionAll { inputs: Vec<Node> },
    /// Each distinct row once.
    Distinct { input: Box<Node> },
    /// One row a group: the `keys` columns of the input, then one column an aggregate.
    /// Without keys there is always exactly one row, even over no input.
    Aggregate { input: Box<Node>, keys: Vec<usize>, aggregates: Vec<Aggregate> },
    /// Rows of two inputs that match: whose `on` columns (left, right) are equal, and for which `residual` (over the
    /// left columns, then the right) is true. NULL equals NULL only if `null_equality` says so. With an empty `on`
    /// all rows are equal. What is given of them is said by [`JoinKind`].
    Join {
        kind: JoinKind,
        left: Box<Node>,
        right: Box<Node>,
        on: Vec<(usize, usize)>,
        null_equality: NullEquality,
        residual: Option<Arc<dyn PhysicalExpr>>,
    },
    /// All rows, with a column for each of `functions` behind theirs. The functions look at the rows that agree in the
    /// columns `partition`, in the order that all of them share.
    Window { input: Box<Node>, partition: Vec<usize>, functions: Vec<Arc<dyn WindowExpr>> },
    /// Of the rows that agree in the columns `partition`, those that stand behind the first `offset` in this order, at most
    /// `limit` of them. Rows that the order does not tell apart stand in the order of all columns.
    TopN { input: Box<Node>, partition: Vec<usize>, order: Vec<SortKey>, offset: u64, limit: Option<u64> },
}

/// A column by which rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    pub column: usize,
    pub options: SortOptions,
}

/// What a join gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// The pairs of rows that match: the left columns, then the right.
    Inner,
    /// The pairs, and the left rows that match nothing, with NULLs for the right columns.
    Left,
    /// The pairs, and the right rows that match nothing.
    Right,
    /// The pairs, and the rows of both sides that match nothing.
    Full,
    /// The left rows that match something.
    Semi,
    /// The left rows that match nothing.
    Anti,
    /// All left rows, and in one more column whether they match something.
    Mark,
}

impl JoinKind {
    pub fn gives_pairs(self) -> bool {
        matches!(self, Self::Inner | Self::Left | Self::Right | Self::Full)
    }

    /// Whether it matters for a row of the left side (0) or the right one (1) that it matches nothing.
    pub fn asks_for_partners(self, side: usize) -> bool {
        match self {
            Self::Inner => false,
            Self::Left | Self::Semi | Self::Anti | Self::Mark => side == 0,
            Self::Right => side == 1,
            Self::Full => true,
        }
    }
}

/// One aggregate of an [`Op::Aggregate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// The input column it reads; `None` only for `count(*)`. The planner has cast it: sums read
    /// Int64, Float64 or Decimal128; averages, variances and deviations read Float64 or (averages) Decimal128.
    pub argument: Option<usize>,
    /// Count each distinct value of the argument once.
    pub distinct: bool,
    /// A Boolean input column; rows where it is not true do not take part.
    pub filter: Option<usize>,
    /// The type of the result. count: Int64. sum: Int64, Float64 or Decimal128. The others: what their name says.
    pub output_type: DataType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    VarianceSample,
    VariancePopulation,
    StddevSample,
    StddevPopulation,
    BoolAnd,
    BoolOr,
}

impl AggregateFunction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::VarianceSample => "var_samp",
            Self::VariancePopulation => "var_pop",
            Self::StddevSample => "stddev_samp",
            Self::StddevPopulation => "stddev_pop",
            Self::BoolAnd => "bool_and",
            Self::BoolOr => "bool_or",
        }
    }
}

impl fmt::Display for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is proven of a node's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Columns whose values no two live rows share (NULL equal to NULL). `Some(vec![])`: at most one row.
    pub key: Option<Vec<usize>>,
    /// Rows are only ever inserted: every delta is [`freshet_types::Weights::Inserts`].
    pub append_only: bool,
    /// Columns that carry a watermark: from some point on no row with a smaller value arrives.
    pub watermarks: Vec<usize>,
}

impl Node {
    /// The nodes this one reads, left to right.
    pub fn inputs(&self) -> Vec<&Node> {
        match &self.op {
            Op::Input { .. } | Op::Constant { .. } => vec![],
            Op::Map { input, .. }
            | Op::Distinct { input }
            | Op::Aggregate { input, .. }
            | Op::Window { input, .. }
            | Op::TopN { input, .. } => vec![input],
            Op::UnionAll { inputs } => inputs.iter().collect(),
            Op::Join { left, right, .. } => vec![left, right],
        }
    }

    /// The relations read anywhere below, each once, in order of first appearance.
    pub fn relations(&self) -> Vec<RelationId> {
        let mut found = Vec::new();
        self.visit(&mut |node| {
            if let Op::Input { relation, .. } = &node.op
                && !found.contains(relation)
            {
                found.push(*relation);
            }
        });
        found
    }

    /// Calls `see` for this node and all below, parents first.
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Node)) {
        see(self);
        for input in self.inputs() {
            input.visit(see);
        }
    }
}
