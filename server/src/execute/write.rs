//! How a change of a table becomes durable, visible and acknowledged, in this order.

use arrow::array::RecordBatch;
use freshet_planner::Returning;
use freshet_types::{Delta, RelationId, SqlError, SqlState};
use tokio::sync::OwnedMutexGuard;

use crate::coordinator::{Cause, Command, TableWrite};
use crate::execute::rows;
use crate::server::Server;
use crate::server::objects::{collection_error, store_error};
use crate::session::{Response, Session, TransactionStatus};

/// Like [`write_table`], but goes on to the end even if the client vanishes, and keeps the table locked until then:
/// nobody decides on a state of the table in which a durable change is missing.
pub async fn commit(
    session: &Session,
    table: RelationId,
    delta: Delta,
    lock: Option<OwnedMutexGuard<()>>,
) -> Result<(), SqlError> {
    if delta.is_empty() {
        return Ok(());
    }
    let server = session.server.clone();
    session
        .finish("write a table", async move {
            let _lock = lock;
            write_table(&server, table, delta, Cause::Written).await
        })
        .await
}

/// Writes `delta` to the log, then makes it visible; returns when every query from now on will see it. The caller has
/// locked the table.
pub async fn write_table(server: &Server, table: RelationId, delta: Delta, cause: Cause) -> Result<(), SqlError> {
    let logged = server.store.append(table, server.coordinator.sealed(), &delta).await.map_err(store_error)?;
    let writes = vec![TableWrite { table, delta, cause, logged }];
    let epoch = server.coordinator.ask(|reply| Command::Commit { writes, reply }).await?;
    epoch.map(|_| ()).map_err(collection_error)
}

/// A statement in a transaction block would have to be undone by ROLLBACK, which is not there yet.
pub fn refuse_in_transaction(session: &Session, what: &str) -> Result<(), SqlError> {
    if session.transaction_status() == TransactionStatus::Idle {
        return Ok(());
    }
    Err(SqlError::new(SqlState::FeatureNotSupported, format!("{what} inside a transaction block is not supported yet"))
        .with_detail("each statement that writes is a transaction of its own")
        .with_hint("leave out BEGIN, or switch your driver to autocommit"))
}

/// The response to a statement that changed `count` rows; `changed` are the rows that RETURNING is about.
pub fn respond(
    tag: &str,
    count: usize,
    returning: Option<&Returning>,
    changed: &RecordBatch,
) -> Result<Response, SqlError> {
    match returning {
        None => Ok(Response::Complete { tag: format!("{tag} {count}") }),
        Some(returning) => {
            let batch = rows::returning(returning, changed)?;
            Ok(Response::rows(returning.schema.clone(), vec![batch], tag))
        }
    }
}
