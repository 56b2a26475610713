//! A session: one client's conversation with the database, whatever the protocol it came by.

pub mod settings;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use freshet_planner::Statement;
use freshet_types::SqlError;
use futures::Stream;
use parking_lot::{Mutex, MutexGuard};

use crate::execute;
use crate::execute::cursor::Cursor;
use crate::server::Server;
use crate::session::settings::Settings;
use crate::{system, task};

/// Rows on their way to the client.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// What executing a statement gives.
pub enum Response {
    /// Rows; when the stream ends, the command tag is `tag` and, for SELECT, FETCH and RETURNING, the number of rows.
    Rows { schema: SchemaRef, stream: RowStream, tag: String },
    /// `COPY … TO STDOUT`: rows to be sent in COPY's text format. May never end.
    CopyOut { schema: SchemaRef, stream: RowStream },
    /// Done, with this command tag, as in `INSERT 0 3` or `CREATE TABLE`.
    Complete { tag: String },
    /// The statement was empty.
    Empty,
}

impl Response {
    /// Done, with the tag of the statement.
    pub fn complete(statement: &Statement) -> Self {
        Self::Complete { tag: statement.tag().to_owned() }
    }

    /// Rows that are all there already.
    pub fn rows(schema: SchemaRef, batches: Vec<RecordBatch>, tag: &str) -> Self {
        let stream = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
        Self::Rows { schema, stream, tag: tag.to_owned() }
    }
}

/// What a statement takes and gives, before it is executed.
#[derive(Debug, Default)]
pub struct Description {
    pub parameters: Vec<DataType>,
    /// `None` if the statement gives no rows.
    pub columns: Option<SchemaRef>,
}

/// As in the ReadyForQuery message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

/// One client's conversation. All methods take `&self`; a session is used by one connection task at a time.
pub struct Session {
    pub(crate) server: Arc<Server>,
    state: Mutex<State>,
    /// Held while a statement takes effect, see [`Session::finish`].
    effect: tokio::sync::Mutex<()>,
}

/// What a session remembers between statements.
pub(crate) struct State {
    pub settings: Settings,
    /// Statements of SQL's PREPARE, with the declared types of their parameters.
    pub prepared: HashMap<String, (Statement, Vec<DataType>)>,
    /// Taken out while FETCH waits for rows.
    pub cursors: HashMap<String, Cursor>,
    pub transaction: TransactionStatus,
    notices: Vec<SqlError>,
}

impl Session {
    pub fn new(server: Arc<Server>, user: &str, settings: Settings) -> Self {
        metrics::gauge!("freshet_sessions").increment(1.0);
        tracing::debug!(user, "session opened");
        let state = State {
            settings,
            prepared: HashMap::new(),
            cursors: HashMap::new(),
            transaction: TransactionStatus::Idle,
            notices: Vec::new(),
        };
        Self { server, state: Mutex::new(state), effect: tokio::sync::Mutex::default() }
    }

    /// Splits a text into statements and parses them.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        freshet_planner::parse(&system::rewrite_sql(sql))
    }

    /// Whether a statement is analysed before it is executed, so that [`Session::describe`] tells what is wrong with it.
    ///
    /// # Errors
    /// In a transaction block that has failed.
    pub fn analyzes(&self, statement: &Statement) -> Result<bool, SqlError> {
        execute::analyzes(self, statement)
    }

    /// `parameters` are the types that the client declared, `None` where it left them open.
    pub async fn describe(
        &self,
        statement: &Statement,
        parameters: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        execute::describe(self, statement, parameters)
    }

    pub async fn execute(&self, statement: &Statement, parameters: Vec<ScalarValue>) -> Result<Response, SqlError> {
        let started = std::time::Instant::now();
        let outcome = execute::execute(self, statement, parameters).await;
        metrics::histogram!("freshet_statement_seconds", "statement" => statement.tag())
            .record(started.elapsed().as_secs_f64());
        if outcome.is_err() {
            self.statement_failed();
        }
        outcome
    }

    /// Notes that a statement has failed, be it while its rows were on their way: a transaction block is now aborted.
    pub fn statement_failed(&self) {
        let mut state = self.state();
        if state.transaction == TransactionStatus::InTransaction {
            state.transaction = TransactionStatus::Failed;
        }
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        self.state().transaction
    }

    /// NOTICEs since the last call (SQLSTATE 00000, severity NOTICE).
    pub fn take_notices(&self) -> Vec<SqlError> {
        std::mem::take(&mut self.state().notices)
    }

    /// Settings to report to the client as ParameterStatus, as they are now.
    pub fn reported_settings(&self) -> Vec<(String, String)> {
        self.state().settings.reported()
    }

    /// Runs the part of a statement that takes effect: to its end, even if the client goes away meanwhile.
    ///
    /// From here on a cancel request comes too late, as for a commit in Postgres: it waits ([`Session::interruptible`])
    /// until the outcome is known. A client that was told of a cancelled write could not know whether its next
    /// statement sees the write.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn finish<T, F>(&self, name: &'static str, work: F) -> Result<T, SqlError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SqlError>> + Send + 'static,
    {
        let _effect = self.effect.lock().await;
        task::finish(name, work).await
    }

    /// Waits until the session's statement may be cancelled. Whoever asks while a statement takes effect is next: the
    /// effect of a later statement of the same message comes after the answer.
    pub async fn interruptible(&self) {
        drop(self.effect.lock().await);
    }

    /// What the client calls itself.
    pub fn application_name(&self) -> String {
        self.state().settings.get("application_name").map_or_else(|_| String::new(), |(_, name)| name.to_owned())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn notice(&self, notice: SqlError) {
        self.state().notices.push(notice);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        metrics::gauge!("freshet_sessions").decrement(1.0);
    }
}
