//! The incremental plan: how a view is kept up to date, as data.
//!
//! It is the boundary between the planner, which makes it, and the dataflow, which runs it. A plan is
//! a tree of [`Node`]s. Each has an operator, an output schema, and [`Properties`] that the planner
//! has proven of its output and that operators may rely on. Columns are referred to by index;
//! expressions are DataFusion `PhysicalExpr`s over the columns of a node's input, and appear only in
//! [`Op::Map`] and as the residual of [`Op::Join`]: all other operators see plain columns.
//!
//! A plan runs nothing, reads nothing and knows no catalog.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
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
    /// Inner equi-join: pairs of rows whose `on` columns (left, right) are equal and not NULL, and for
    /// which `residual` (over the left columns, then the right) is true. Gives the left columns, then the right.
    /// An empty `on` is a cross join.
    Join { left: Box<Node>, right: Box<Node>, on: Vec<(usize, usize)>, residual: Option<Arc<dyn PhysicalExpr>> },
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
            Op::Map { input, .. } | Op::Distinct { input } | Op::Aggregate { input, .. } => vec![input],
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
