//! One client's connection: reads a message, does what it asks, answers.
//!
//! While a statement runs, three things can end it early: a cancel request, the client going away, and
//! the server shutting down. Each drops the statement's future or stream, and with it all it holds.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use freshet_types::{SqlError, SqlState};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery, TransactionStatus as WireStatus};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use super::backend::{Severity, Writer};
use super::cancel::CancelGuard;
use super::extended::{Portal, PortalState, Prepared};
use super::frontend::{Bind, Message, Protocol, ReadError, Reader, Target};
use super::rows::{Outcome, Progress, complete, description, outcome};
use super::series::send_series;
use super::{limits, startup};
use crate::session::{Session, TransactionStatus};

/// Why a statement did not finish.
#[derive(Debug)]
pub enum Stop {
    /// It failed: the client is told, and the connection goes on.
    Failed(SqlError),
    /// The client is gone.
    Gone,
    /// The server shuts down.
    Shutdown,
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

pub struct Connection {
    pub reader: Reader<OwnedReadHalf>,
    pub writer: Writer<OwnedWriteHalf>,
    pub session: Arc<Session>,
    pub cancel: CancelGuard,
    pub shutdown: CancellationToken,
    /// Settings as the client last heard of them.
    pub reported: BTreeMap<String, String>,
    pub queries: Queries,
}

/// What the extended protocol keeps between messages.
#[derive(Default)]
pub struct Queries {
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
    /// After an error, messages are skipped up to the next Sync.
    skipping: bool,
}

impl Connection {
    /// Serves the client until it leaves or the server shuts down.
    pub async fn run(&mut self) -> Result<(), Stop> {
        self.put_ready();
        loop {
            if !self.reader.has_message() {
                self.writer.flush().await?;
            }
            let message = tokio::select! {
                message = self.reader.message() => message,
                () = self.shutdown.cancelled() => return Err(Stop::Shutdown),
            };
            match message {
                Ok(Message::Terminate) | Err(ReadError::Closed) => return Ok(()),
                Ok(message) => self.handle(message).await?,
                Err(ReadError::Message(protocol, error)) => self.fail(&error, protocol),
                Err(ReadError::Broken(error)) => {
                    self.writer.put_error(&error, Severity::Fatal);
                    self.writer.flush().await?;
                    return Ok(());
                }
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Sync => {
                self.queries.skipping = false;
                if self.session.transaction_status() == TransactionStatus::Idle {
                    self.queries.portals.clear();
                }
                self.put_ready();
                Ok(())
            }
            _ if self.queries.skipping => Ok(()),
            Message::Query(sql) => {
                // The unnamed statement and portal do not survive a simple query.
                self.queries.statements.remove("");
                self.queries.portals.remove("");
                let done = self.simple_query(&sql).await;
                self.settle(done, Protocol::Simple)
            }
            Message::Flush => Ok(self.writer.flush().await?),
            Message::Terminate | Message::Ignored => Ok(()),
            message => {
                let done = self.extended(message).await;
                self.settle(done, Protocol::Extended)
            }
        }
    }

    /// Answers a finished message: an error that ends the statement only is told here.
    fn settle(&mut self, done: Result<(), Stop>, protocol: Protocol) -> Result<(), Stop> {
        match done {
            Ok(()) => {
                if protocol == Protocol::Simple {
                    self.put_ready();
                }
                Ok(())
            }
            Err(Stop::Failed(error)) => {
                self.fail(&error, protocol);
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }

    fn fail(&mut self, error: &SqlError, protocol: Protocol) {
        self.session.statement_failed();
        self.put_notices();
        if error.state == SqlState::InternalError {
            tracing::error!(%error, "a statement failed by a fault of ours");
        }
        self.writer.put_error(error, Severity::Error);
        match protocol {
            Protocol::Simple => self.put_ready(),
            Protocol::Extended => self.queries.skipping = true,
        }
    }

    fn put_notices(&mut self) {
        for notice in self.session.take_notices() {
            self.writer.put_error(&notice, Severity::Notice);
        }
    }

    fn put_ready(&mut self) {
        for (name, value) in self.session.reported_settings() {
            if self.reported.get(&name) != Some(&value) {
                startup::put_setting(&mut self.writer, &name, &value);
                self.reported.insert(name, value);
            }
        }
        let status = match self.session.transaction_status() {
            TransactionStatus::Idle => WireStatus::Idle,
            TransactionStatus::InTransaction => WireStatus::Transaction,
            TransactionStatus::Failed => WireStatus::Error,
        };
        self.writer.put(&PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)));
    }

    async fn simple_query(&mut self, sql: &str) -> Result<(), Stop> {
        let Self { reader, writer, session, cancel, shutdown, .. } = self;
        let work = async {
            let statements = session.parse(sql)?;
            if statements.is_empty() {
                writer.put(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
            }
            for statement in &statements {
                metrics::counter!("freshet_statements_total", "protocol" => "simple").increment(1);
                let response = session.execute(statement, vec![]).await?;
                put_notices(session, writer);
                match outcome(writer, response, &[]) {
                    Outcome::Message(message) => writer.put(&message),
                    Outcome::Rows(mut cursor) if cursor.is_endless() && session.application_name() == "psql" => {
                        send_series(&mut cursor, writer).await?;
                    }
                    Outcome::Rows(mut cursor) => {
                        if !cursor.is_copy() {
                            writer.put(&description(Some(cursor.schema()), &[]));
                        }
                        cursor.send(writer, None).await?;
                        put_notices(session, writer);
                    }
                }
            }
            Ok(())
        };
        guarded(session, reader, cancel, shutdown, work).await
    }

    async fn extended(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Parse { statement, sql, types } => self.parse(statement, &sql, types).await,
            Message::Bind(bind) => self.bind(&bind).await,
            Message::Describe { target, name } => self.describe(target, &name).await,
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Message::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.queries.statements.remove(&name)),
                    Target::Portal => drop(self.queries.portals.remove(&name)),
                }
                self.writer.put(&PgWireBackendMessage::CloseComplete(CloseComplete::new()));
                Ok(())
            }
            other => unreachable!("{other:?} is no message of the extended protocol"),
        }
    }

    async fn parse(&mut self, name: String, sql: &str, types: Vec<u32>) -> Result<(), Stop> {
        if !name.is_empty() && self.queries.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new(SqlState::DuplicatePreparedStatement, message).into());
        }
        check_room(self.queries.statements.len())?;
        let Self { reader, writer, session, cancel, shutdown, queries, .. } = self;
        let work = async { Ok(Prepared::parse(session, sql, types).await?) };
        let prepared = guarded(session, reader, cancel, shutdown, work).await?;
        queries.statements.insert(name, Arc::new(prepared));
        writer.put(&PgWireBackendMessage::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    async fn bind(&mut self, bind: &Bind) -> Result<(), Stop> {
        if !bind.portal.is_empty() && self.queries.portals.contains_key(&bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(SqlError::new(SqlState::DuplicateCursor, message).into());
        }
        check_room(self.queries.portals.len())?;
        let prepared = self.queries.prepared(&bind.statement)?;
        let Self { reader, writer, session, cancel, shutdown, queries, .. } = self;
        let work = async { Ok(Portal::bind(session, prepared, bind).await?) };
        let portal = guarded(session, reader, cancel, shutdown, work).await?;
        queries.portals.insert(bind.portal.clone(), portal);
        writer.put(&PgWireBackendMessage::BindComplete(BindComplete::new()));
        Ok(())
    }

    async fn describe(&mut self, target: Target, name: &str) -> Result<(), Stop> {
        let (prepared, formats) = match target {
            Target::Statement => (self.queries.prepared(name)?, vec![]),
            Target::Portal => {
                let portal = self.queries.portals.get(name).ok_or_else(|| no_portal(name))?;
                (Arc::clone(&portal.prepared), portal.formats.clone())
            }
        };
        let Self { reader, writer, session, cancel, shutdown, .. } = self;
        let work = async {
            if target == Target::Statement {
                writer.put(&prepared.parameter_description(session).await?);
            }
            writer.put(&description(prepared.describe(session).await?.columns.as_ref(), &formats));
            Ok(())
        };
        guarded(session, reader, cancel, shutdown, work).await
    }

    async fn execute(&mut self, name: &str, rows_max: usize) -> Result<(), Stop> {
        // The portal is out of the map while it runs: if it fails, it is gone.
        let mut portal = self.queries.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let Self { reader, writer, session, cancel, shutdown, .. } = self;
        let rows_max = (rows_max > 0).then_some(rows_max);
        let work = run_portal(&mut portal, session, writer, rows_max);
        guarded(session, reader, cancel, shutdown, work).await?;
        self.queries.portals.insert(name.to_owned(), portal);
        Ok(())
    }
}

/// Executes a portal, or goes on with it.
async fn run_portal(
    portal: &mut Portal,
    session: &Session,
    writer: &mut Writer<OwnedWriteHalf>,
    rows_max: Option<usize>,
) -> Result<(), Stop> {
    let mut cursor = match std::mem::replace(&mut portal.state, PortalState::Done) {
        PortalState::Running(cursor) => cursor,
        PortalState::Exhausted => {
            portal.state = PortalState::Exhausted;
            writer.put(&complete("SELECT 0"));
            return Ok(());
        }
        PortalState::Done => {
            let message = "portal cannot be run anymore";
            return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message).into());
        }
        PortalState::Ready(parameters) => {
            let Some(statement) = &portal.prepared.statement else {
                writer.put(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
                return Ok(());
            };
            metrics::counter!("freshet_statements_total", "protocol" => "extended").increment(1);
            let response = session.execute(statement, parameters).await?;
            put_notices(session, writer);
            match outcome(writer, response, &portal.formats) {
                Outcome::Rows(cursor) => cursor,
                Outcome::Message(message) => {
                    writer.put(&message);
                    return Ok(());
                }
            }
        }
    };
    if !cursor.is_copy() {
        portal.check_columns(cursor.schema())?;
    }
    let rows_max = if cursor.is_copy() { None } else { rows_max };
    portal.state = match cursor.send(writer, rows_max).await? {
        Progress::Suspended => PortalState::Running(cursor),
        Progress::Finished => PortalState::Exhausted,
    };
    put_notices(session, writer);
    Ok(())
}

impl Queries {
    fn prepared(&self, name: &str) -> Result<Arc<Prepared>, SqlError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            SqlError::new(SqlState::InvalidSqlStatementName, message)
        })
    }
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidCursorName, format!("portal \"{name}\" does not exist"))
}

fn check_room(count: usize) -> Result<(), SqlError> {
    if count < limits::STATEMENTS_MAX {
        return Ok(());
    }
    let message = format!("too many prepared statements or portals in this session (limit {})", limits::STATEMENTS_MAX);
    Err(SqlError::new(SqlState::ConfigurationLimitExceeded, message).with_hint("close those no longer needed"))
}

fn put_notices(session: &Session, writer: &mut Writer<OwnedWriteHalf>) {
    for notice in session.take_notices() {
        writer.put_error(&notice, Severity::Notice);
    }
}

/// Runs a part of a statement; whatever ends it early drops it. What has begun to take effect by then goes on without
/// it, except that a cancel request waits for it: that client is still there, and is told how it went.
async fn guarded<T>(
    session: &Session,
    reader: &mut Reader<OwnedReadHalf>,
    cancel: &CancelGuard,
    shutdown: &CancellationToken,
    work: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    let statement = cancel.statement();
    let cancelled = async {
        statement.token.cancelled().await;
        session.interruptible().await;
    };
    tokio::select! {
        // In this order, so that a statement which is always ready can be stopped.
        biased;
        () = cancelled => {
            Err(SqlError::new(SqlState::QueryCanceled, "canceling statement due to user request").into())
        }
        () = shutdown.cancelled() => Err(Stop::Shutdown),
        () = reader.disconnected() => Err(Stop::Gone),
        done = work => done,
    }
}
