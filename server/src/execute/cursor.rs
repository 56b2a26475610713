//! `DECLARE … CURSOR FOR`, `FETCH`, `CLOSE`: rows of a query or a subscription, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use freshet_planner::statement::{Close, CursorSubject, Declare, Fetch};
use freshet_types::{SqlError, SqlState};
use futures::{FutureExt, StreamExt};
use tokio::sync::Mutex;

use crate::execute::{select, subscribe};
use crate::session::{Response, RowStream, Session, TransactionStatus};

/// An open cursor.
pub struct Cursor {
    pub hold: bool,
    schema: SchemaRef,
    /// Locked while FETCH waits; a FETCH that is cancelled leaves the rest of the rows in place.
    rows: Arc<Mutex<Rows>>,
}

struct Rows {
    stream: RowStream,
    /// What was read and not fetched.
    rest: Option<RecordBatch>,
    live: bool,
}

pub async fn declare(session: &Session, declare: &Declare) -> Result<Response, SqlError> {
    if session.state().cursors.contains_key(&declare.cursor) {
        let message = format!("cursor \"{}\" already exists", declare.cursor);
        return Err(SqlError::new(SqlState::DuplicateCursor, message));
    }
    let (schema, stream, live) = match &declare.subject {
        CursorSubject::Subscribe(statement) => {
            let (schema, stream) = subscribe::start(session, statement).await?;
            (schema, stream, true)
        }
        CursorSubject::Query(query) => match select::execute(session, query, vec![]).await? {
            Response::Rows { schema, stream, .. } => (schema, stream, false),
            _ => return Err(SqlError::internal("a query gave no rows")),
        },
    };
    let in_transaction = session.transaction_status() != TransactionStatus::Idle;
    let cursor = Cursor {
        // Outside a transaction block there is no end at which a cursor would close, so it stays until CLOSE.
        hold: declare.hold || !in_transaction,
        schema,
        rows: Arc::new(Mutex::new(Rows { stream, rest: None, live })),
    };
    session.state().cursors.insert(declare.cursor.clone(), cursor);
    Ok(Response::Complete { tag: "DECLARE CURSOR".to_owned() })
}

pub async fn fetch(session: &Session, fetch: &Fetch) -> Result<Response, SqlError> {
    let (schema, rows) = {
        let state = session.state();
        let cursor = state.cursors.get(&fetch.cursor).ok_or_else(|| undefined(&fetch.cursor))?;
        (cursor.schema.clone(), cursor.rows.clone())
    };
    let mut rows = rows.lock().await;
    let rows_max = fetch.rows_max.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
    let batches = rows.fetch(rows_max, fetch.timeout).await?;
    Ok(Response::rows(schema, batches, "FETCH"))
}

pub fn describe(session: &Session, fetch: &Fetch) -> Result<SchemaRef, SqlError> {
    let state = session.state();
    let cursor = state.cursors.get(&fetch.cursor).ok_or_else(|| undefined(&fetch.cursor))?;
    Ok(cursor.schema.clone())
}

pub fn close(session: &Session, close: &Close) -> Result<Response, SqlError> {
    let mut state = session.state();
    let tag = match close {
        Close::All => {
            state.cursors.clear();
            "CLOSE CURSOR ALL"
        }
        Close::Cursor(name) => {
            state.cursors.remove(name).ok_or_else(|| undefined(name))?;
            "CLOSE CURSOR"
        }
    };
    Ok(Response::Complete { tag: tag.to_owned() })
}

impl Rows {
    /// At most `rows_max` rows. A query is read until there are so many, or none left. A subscription never ends, so
    /// of it comes what is there; if nothing is, the first change is waited for, `timeout` at the longest.
    async fn fetch(&mut self, rows_max: usize, timeout: Option<Duration>) -> Result<Vec<RecordBatch>, SqlError> {
        let mut fetched = Vec::new();
        let mut wanted = rows_max;
        while wanted > 0 {
            let wait = !self.live || fetched.is_empty();
            let Some(batch) = self.next(wait, timeout).await? else { break };
            let taken = batch.num_rows().min(wanted);
            wanted -= taken;
            if taken < batch.num_rows() {
                self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            if taken > 0 {
                fetched.push(batch.slice(0, taken));
            }
        }
        Ok(fetched)
    }

    async fn next(&mut self, wait: bool, timeout: Option<Duration>) -> Result<Option<RecordBatch>, SqlError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let next = self.stream.next();
        let next = match (wait, timeout) {
            (false, _) => next.now_or_never().flatten(),
            (true, None) => next.await,
            (true, Some(timeout)) => tokio::time::timeout(timeout, next).await.unwrap_or(None),
        };
        next.transpose()
    }
}

fn undefined(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidCursorName, format!("cursor \"{name}\" does not exist"))
}
