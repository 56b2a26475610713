//! Makes a plan stop soon after it is told to, and leave its threads to other queries meanwhile.
//!
//! A query is a task, and a task can be stopped, or pause for others, only where it yields. DataFusion lets plans
//! yield at their leaves, once every so many batches that are read. That is not often enough in two cases:
//!
//! * An operator gives much more than it takes, or gives only once it has taken all: a join of two small inputs can
//!   give billions of rows. Such operators are made to yield as leaves do, by the batches that they give.
//! * A join finds no row among the pairs that it looks at, and so gives no batch: a nested loop over all pairs of a
//!   batch with the other side does not come to an end for minutes. What such a join does in between is to evaluate
//!   its condition, so the condition looks whether the query is to stop; and as it cannot yield, it hands the other
//!   tasks of its thread to another thread.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, EmissionType, SchedulingType};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use tokio::task::{block_in_place, coop};
use tokio_util::sync::CancellationToken;

/// The plan, so that it stops soon after `stop` is triggered if it runs as a task of a runtime with several threads.
///
/// # Errors
/// If DataFusion refuses a plan that it has made itself.
pub fn interruptible(plan: Arc<dyn ExecutionPlan>, stop: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|plan| {
        let plan = with_condition(plan, stop)?;
        Ok(if yields_too_seldom(&*plan) {
            Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::yes(plan)
        })
    })
    .data()
}

/// Whether the operator can give many batches for one that it takes.
fn yields_too_seldom(plan: &dyn ExecutionPlan) -> bool {
    let properties = plan.properties();
    let amplifies = matches!(plan.cardinality_effect(), CardinalityEffect::Unknown | CardinalityEffect::GreaterEqual);
    properties.scheduling_type == SchedulingType::NonCooperative
        && (amplifies || properties.emission_type != EmissionType::Incremental)
}

/// The join with its condition made [`Interruptible`], or the operator as it is.
fn with_condition(plan: Arc<dyn ExecutionPlan>, stop: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        // Without a condition, a semi join goes through the pairs all the same.
        let always = || JoinFilter::new(lit(true), vec![], Arc::new(Schema::empty()));
        let filter = condition(&join.filter().cloned().unwrap_or_else(always), stop);
        return Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter)).build()?));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        return join.builder().with_filter(Some(condition(filter, stop))).build_exec();
    }
    Ok(plan)
}

fn condition(filter: &JoinFilter, stop: &CancellationToken) -> JoinFilter {
    let expression = Interruptible { expression: filter.expression().clone(), stop: stop.clone() };
    JoinFilter::new(Arc::new(expression), filter.column_indices().to_vec(), filter.schema().clone())
}

/// An expression that fails once its query is to stop, and does not keep its thread to itself.
#[derive(Debug)]
struct Interruptible {
    expression: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
}

impl PhysicalExpr for Interruptible {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.is_cancelled() {
            // Whoever would read this has gone.
            return exec_err!("the query was stopped");
        }
        // Each batch of pairs counts as one step of the task. When its steps are used up, it should yield, which it can
        // do only further up; until then it goes on, and others are given another thread. No waker is needed for that.
        match coop::poll_proceed(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => {
                turn.made_progress();
                self.expression.evaluate(batch)
            }
            Poll::Pending => block_in_place(|| self.expression.evaluate(batch)),
        }
    }

    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.expression.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.expression.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.expression.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.expression]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(expression), true) => Ok(Arc::new(Self { expression, stop: self.stop.clone() })),
            _ => exec_err!("a condition is one expression"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt_sql(f)
    }
}

impl fmt::Display for Interruptible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}

impl PartialEq for Interruptible {
    fn eq(&self, other: &Self) -> bool {
        self.expression.eq(&other.expression)
    }
}

impl Eq for Interruptible {}

impl Hash for Interruptible {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expression.hash(state);
    }
}
