//! Runs a logical plan at one epoch.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use freshet_planner::sql_error;
use freshet_types::{Epoch, SqlError};
use futures::{StreamExt, TryStreamExt};

use crate::query::pin::{PinnedAt, Reads};
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
        state: &SessionState,
        not_before: Epoch,
        sealed: Epoch,
    ) -> Result<(RowStream, PinnedAt), SqlError> {
        let pinned = self.reads.pin(not_before, sealed).await?;
        let plan = physical(state, &self.plan).await?;
        let stream = execute_stream(plan, state.task_ctx()).map_err(sql_error)?;
        Ok((stream.map_err(sql_error).boxed(), pinned))
    }

    /// Runs the query to its end.
    pub async fn collect(
        self,
        state: &SessionState,
        not_before: Epoch,
        sealed: Epoch,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        let (stream, _) = self.start(state, not_before, sealed).await?;
        stream.try_collect().await
    }

    /// The physical plan as lines of text.
    pub async fn explain(self, state: &SessionState, not_before: Epoch, sealed: Epoch) -> Result<String, SqlError> {
        self.reads.pin(not_before, sealed).await?;
        let plan = physical(state, &self.plan).await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string())
    }

    /// Runs the query to its end, and tells its plan with what each operator did.
    pub async fn explain_analyze(
        self,
        state: &SessionState,
        not_before: Epoch,
        sealed: Epoch,
    ) -> Result<String, SqlError> {
        self.reads.pin(not_before, sealed).await?;
        let plan = physical(state, &self.plan).await?;
        let stream = execute_stream(plan.clone(), state.task_ctx()).map_err(sql_error)?;
        stream.try_for_each(|_| std::future::ready(Ok(()))).await.map_err(sql_error)?;
        let display = datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(plan.as_ref());
        Ok(display.indent(false).to_string())
    }
}

async fn physical(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
    state.create_physical_plan(plan).await.map_err(sql_error)
}
