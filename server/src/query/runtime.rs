//! Where queries compute: threads of their own, so that a query that takes all the CPU that it can get delays other
//! queries, but neither the sealing of epochs nor the listeners.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use freshet_planner::sql_error;
use freshet_types::SqlError;
use futures::{StreamExt, stream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::limits::{QUERY_BATCHES_AHEAD_MAX, THREAD_STACK_BYTES};
use crate::session::RowStream;

/// The threads that queries run on.
pub struct QueryRuntime {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl QueryRuntime {
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).enable_all().thread_name("freshet-query");
        let runtime = runtime.thread_stack_size(THREAD_STACK_BYTES).build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Starts a plan. Dropping the stream ends the query: where it next yields, and where it looks at `stop`.
    pub fn run(&self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>, stop: CancellationToken) -> RowStream {
        let (sender, batches) = mpsc::channel(QUERY_BATCHES_AHEAD_MAX);
        let runtime = self.runtime.as_ref().expect("the runtime is there until it is dropped");
        let query = runtime.spawn(compute(plan, context, sender));
        let running = Running { query, batches, ended: false, _stop: stop.drop_guard() };
        Box::pin(stream::unfold(running, |mut running| async move {
            let batch = running.next().await?;
            Some((batch, running))
        }))
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        // Waiting for queries here could block a thread of the server for as long as they take.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn compute(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    sender: mpsc::Sender<Result<RecordBatch, SqlError>>,
) {
    let mut rows = match execute_stream(plan, context) {
        Ok(rows) => rows,
        Err(error) => {
            // Whoever asked may have gone, and then does not want to know.
            let _ = sender.send(Err(sql_error(error))).await;
            return;
        }
    };
    while let Some(batch) = rows.next().await {
        if sender.send(batch.map_err(sql_error)).await.is_err() {
            return;
        }
    }
}

/// A query at work.
struct Running {
    query: JoinHandle<()>,
    batches: mpsc::Receiver<Result<RecordBatch, SqlError>>,
    ended: bool,
    _stop: DropGuard,
}

impl Running {
    async fn next(&mut self) -> Option<Result<RecordBatch, SqlError>> {
        if self.ended {
            return None;
        }
        if let Some(batch) = self.batches.recv().await {
            return Some(batch);
        }
        self.ended = true;
        // A query that broke off must not look like one that has ended.
        let broke_off = (&mut self.query).await.is_err();
        broke_off.then(|| Err(SqlError::internal("the query broke off; see the server's log")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.query.abort();
    }
}
