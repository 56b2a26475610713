//! Runs a logical plan at one epoch.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use freshet_planner::sql_error;
use freshet_types::{Epoch, SqlError};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use crate::query::interrupt::interruptible;
use crate::query::past::Passed;
use crate::query::pin::{PinnedAt, Reads};
use crate::server::Server;
use crate::session::RowStream;

/// A query that has been planned over `reads`.
pub struct Query {
    pub plan: LogicalPlan,
    pub reads: Arc<Reads>,
}

impl Query {
    /// Pins the epoch and starts the query. Rows come as they are made.
    pub async fn start(
        self,
        server: &Server,
        not_before: Epoch,
        sealed: Epoch,
    ) -> Result<(RowStream, PinnedAt), SqlError> {
        let pinned = self.reads.pin(not_before, passed(server, sealed)).await?;
        let (stream, _) = run(server, &self.plan).await?;
        Ok((stream, pinned))
    }

    /// Runs the query to its end.
    pub async fn collect(
        self,
        server: &Server,
        not_before: Epoch,
        sealed: Epoch,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        let (stream, _) = self.start(server, not_before, sealed).await?;
        stream.try_collect().await
    }

    /// The physical plan as lines of text.
    pub async fn explain(self, server: &Server, not_before: Epoch, sealed: Epoch) -> Result<String, SqlError> {
        self.reads.pin(not_before, passed(server, sealed)).await?;
        let plan = physical(&server.query_state, &self.plan).await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string())
    }

    /// Runs the query to its end, and tells its plan with what each operator did.
    pub async fn explain_analyze(self, server: &Server, not_before: Epoch, sealed: Epoch) -> Result<String, SqlError> {
        self.reads.pin(not_before, passed(server, sealed)).await?;
        let (stream, plan) = run(server, &self.plan).await?;
        stream.try_for_each(|_| std::future::ready(Ok(()))).await?;
        let display = datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(plan.as_ref());
        Ok(display.indent(false).to_string())
    }
}

fn passed(server: &Server, sealed: Epoch) -> Passed {
    Passed { sealed, now_ms: server.clock.now_ms() }
}

/// Starts a plan; gives its rows, and the plan as it runs.
async fn run(server: &Server, plan: &LogicalPlan) -> Result<(RowStream, Arc<dyn ExecutionPlan>), SqlError> {
    let stop = CancellationToken::new();
    let plan = interruptible(physical(&server.query_state, plan).await?, &stop).map_err(sql_error)?;
    let stream = server.query_runtime.run(plan.clone(), server.query_state.task_ctx(), stop);
    Ok((stream, plan))
}

async fn physical(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
    if !reads_clock(plan).map_err(sql_error)? {
        return state.create_physical_plan(plan).await.map_err(sql_error);
    }
    // `now()` is one instant for all of a query.
    let mut state = state.clone();
    let config = state.config().options().clone();
    state.execution_props_mut().mark_start_execution(config);
    state.create_physical_plan(plan).await.map_err(sql_error)
}

fn reads_clock(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    const FUNCTIONS: [&str; 3] = ["now", "current_date", "current_time"];
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |=
                expr.exists(|part| Ok(matches!(part, Expr::ScalarFunction(call) if FUNCTIONS.contains(&call.name()))))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}
