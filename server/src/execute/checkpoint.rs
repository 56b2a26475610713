//! `CHECKPOINT`: makes all that happened so far quick to come back to.

use freshet_planner::Statement;
use freshet_types::{SqlError, SqlState};
use tokio::sync::oneshot;

use crate::pipeline::checkpointer::CheckpointRequest;
use crate::pipeline::iceberg::Deletes;
use crate::session::{Response, Session};

/// Returns when everything up to now is in a durable checkpoint, and what it has in the cold tier is published. A failure of
/// the latter is in the log.
pub async fn execute(session: &Session) -> Result<Response, SqlError> {
    let (request, made) = oneshot::channel();
    let stopping = || SqlError::new(SqlState::AdminShutdown, "the server is shutting down");
    session.server.checkpoint_requests.send(CheckpointRequest::Make(request)).await.map_err(|_| stopping())?;
    made.await.map_err(|_| stopping())??;
    session.server.iceberg.publish(&session.server, Deletes::Now).await;
    Ok(Response::complete(&Statement::Checkpoint))
}
