//! Runs `.slt` files: SQL and the answers expected, in the format of the `sqllogictest` crate.
//!
//! * `statement error 42P01: .*` matches the whole error as [`crate::client::describe`] writes it.
//! * `skipif freshet`, `onlyif postgres` and so on choose by what the file runs against. It can be a PostgreSQL, where
//!   a materialized view becomes a plain view: that is how answers are found that are Postgres' and not merely ours.
//! * A comment line `# except: crash, tiny, …` says in which modes a file makes no sense; the reason follows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use sqllogictest::runner::{default_normalizer, default_validator};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Record, Runner, StatementExpect};
use tokio_postgres::{Config, SimpleQueryMessage};

use crate::client::{Client, describe, text_rows};
use crate::server::{Server, ServerConfig};
use crate::{oracle, tiny};

/// In the mode [`Batches::Crash`] the server is killed after every so many statements.
const STATEMENTS_BETWEEN_CRASHES: usize = 4;

/// How long a statement may take; one that takes longer will not end.
const STATEMENT_BOUND: Duration = Duration::from_secs(60);

/// After so many failures a file is given up: what follows mostly fails for the same reason.
const FAILURES_MAX: usize = 5;

/// One way to run a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub name: &'static str,
    pub workers: usize,
    pub batches: Batches,
}

/// What is done to the statements of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batches {
    AsWritten,
    /// Rows are inserted one by one, in another order.
    Tiny,
    /// The server is killed and started again between statements, mostly without a checkpoint of what they did.
    Crash,
    /// The server is killed and started again after every statement, with more or fewer workers each time. After every
    /// other one a checkpoint is asked for; else the kill comes at any point of one.
    Restart,
}

/// The numbers of workers that servers have in turn in the mode [`Batches::Restart`].
const WORKERS_IN_TURN: [usize; 4] = [2, 4, 1, 1];

/// All ways to run a file.
pub const MODES: &[Mode] = &[
    Mode { name: "workers-1", workers: 1, batches: Batches::AsWritten },
    Mode { name: "workers-2", workers: 2, batches: Batches::AsWritten },
    Mode { name: "workers-4", workers: 4, batches: Batches::AsWritten },
    Mode { name: "tiny", workers: 2, batches: Batches::Tiny },
    Mode { name: "crash", workers: 1, batches: Batches::Crash },
    Mode { name: "restart", workers: 1, batches: Batches::Restart },
];

/// What a file runs against.
#[derive(Debug, Clone)]
pub enum Target {
    /// A Freshet of its own, started for the file.
    Freshet(Mode),
    /// A PostgreSQL that is there, whose schema `public` is emptied first.
    Postgres(Box<Config>),
}

/// All `.slt` files below the folder `slt` of this crate, in the order of their names.
///
/// # Errors
/// If the folder cannot be read.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "slt") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `file` is meant to run in `mode`.
///
/// # Errors
/// If the file cannot be read.
pub fn runs_in(file: &Path, mode: Mode) -> Result<bool> {
    let text = std::fs::read_to_string(file)?;
    let exceptions = text.lines().find_map(|line| line.strip_prefix("# except:")).unwrap_or_default();
    let names = exceptions.split(['(', '.']).next().unwrap_or_default();
    // What makes no sense with some crashes makes none with more.
    let is_exception = |name: &str| name == mode.name || (name == "crash" && mode.batches == Batches::Restart);
    Ok(!names.split(',').any(|name| is_exception(name.trim())))
}

/// Runs a file and compares.
///
/// # Errors
/// If records are not answered as written, or views differ from their queries: the first few of them.
pub async fn run(file: &Path, target: Target) -> Result<()> {
    let place = Place::prepare(target.clone()).await?;
    let outcome = run_records(file, &place, &target).await;
    outcome.map_err(|error| anyhow!("{error:#}\n{}", place.log_tail()))
}

async fn run_records(file: &Path, place: &Arc<Place>, target: &Target) -> Result<()> {
    let mut runner = runner(place);
    runner.with_column_validator(same_number);
    let (mut statements, mut failures) = (0, Vec::new());
    let records = sqllogictest::parse_file::<DefaultColumnType>(file)?;
    for (index, record) in records.into_iter().enumerate() {
        let is_statement = matches!(record, Record::Statement { .. });
        let batches = target.batches();
        let seed = u64::try_from(index).context("a file has fewer than 2^64 records")?;
        for record in if batches == Batches::Tiny { cut(record, seed) } else { vec![record] } {
            if let Err(error) = runner.run_async(record).await {
                failures.push(error.to_string());
            }
        }
        if failures.len() >= FAILURES_MAX {
            break;
        }
        if is_statement {
            statements += 1;
            if batches == Batches::Crash && statements % STATEMENTS_BETWEEN_CRASHES == 0 {
                runner.shutdown_async().await;
                place.crash().await?;
            }
            if batches == Batches::Restart {
                runner.shutdown_async().await;
                place.restart(statements).await?;
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(anyhow!(failures.join("\n"))) }
}

/// Runs a file and writes the answers into it.
///
/// # Errors
/// If the file cannot be parsed or written, or the server not be started.
pub async fn record(file: &Path, target: Target) -> Result<()> {
    let place = Place::prepare(target).await?;
    let (validator, normalizer) = (default_validator, default_normalizer);
    runner(&place)
        .update_test_file(file, " ", validator, normalizer, same_number)
        .await
        .map_err(|error| anyhow!("{error}"))
}

fn runner(place: &Arc<Place>) -> Runner<Session, impl sqllogictest::MakeConnection<Conn = Session> + use<>> {
    let place = place.clone();
    Runner::new(move || {
        let session = Session { place: place.clone(), client: None, in_transaction: false };
        async move { Ok(session) }
    })
}

/// Columns come as text, so what can be compared is their number.
#[allow(clippy::ptr_arg, reason = "the type that the runner calls")]
fn same_number(actual: &Vec<DefaultColumnType>, expected: &Vec<DefaultColumnType>) -> bool {
    actual.len() == expected.len()
}

/// A record as one record a row, if it is an insert that can be cut.
fn cut(record: Record<DefaultColumnType>, seed: u64) -> Vec<Record<DefaultColumnType>> {
    let Record::Statement { loc, conditions, connection, sql, expected, retry } = &record else {
        return vec![record];
    };
    let each = match expected {
        StatementExpect::Ok => StatementExpect::Ok,
        StatementExpect::Count(_) => StatementExpect::Count(1),
        // What of it would be there, when some rows of it can be inserted?
        StatementExpect::Error(_) => return vec![record],
    };
    let Some(statements) = tiny::cut(sql, seed) else { return vec![record] };
    let record_of = |sql| Record::Statement {
        loc: loc.clone(),
        conditions: conditions.clone(),
        connection: connection.clone(),
        sql,
        expected: each.clone(),
        retry: retry.clone(),
    };
    statements.into_iter().map(record_of).collect()
}

impl Target {
    fn batches(&self) -> Batches {
        match self {
            Self::Freshet(mode) => mode.batches,
            Self::Postgres(_) => Batches::AsWritten,
        }
    }
}

/// Where a file runs: shared by its sessions.
enum Place {
    Freshet(Box<tokio::sync::Mutex<Server>>),
    Postgres(Box<Config>),
}

impl Place {
    async fn prepare(target: Target) -> Result<Arc<Self>> {
        let place = match target {
            Target::Freshet(mode) => {
                let mut config = ServerConfig { workers: mode.workers, ..ServerConfig::default() };
                if mode.batches == Batches::Restart {
                    config.arguments = ["--checkpoint-interval", "20ms"].map(Into::into).to_vec();
                }
                Self::Freshet(Box::new(Server::start_with(config).await?.into()))
            }
            Target::Postgres(config) => {
                let client = Client::connect_with(&config).await?;
                client.run("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public").await?;
                Self::Postgres(config)
            }
        };
        Ok(Arc::new(place))
    }

    async fn connect(&self) -> Result<Client> {
        match self {
            Self::Freshet(server) => server.lock().await.connect().await,
            Self::Postgres(config) => Client::connect_with(config).await,
        }
    }

    async fn crash(&self) -> Result<()> {
        let Self::Freshet(server) = self else { return Ok(()) };
        let mut server = server.lock().await;
        server.kill_hard()?;
        server.start_again().await
    }

    /// Kills the server after its `statements`th statement, and starts it with another number of workers.
    async fn restart(&self, statements: usize) -> Result<()> {
        let Self::Freshet(server) = self else { return Ok(()) };
        let mut server = server.lock().await;
        if statements % 2 == 1 {
            server.connect().await?.run("CHECKPOINT").await?;
        }
        server.kill_hard()?;
        server.set_workers(WORKERS_IN_TURN[statements % WORKERS_IN_TURN.len()]);
        server.start_again().await
    }

    fn log_tail(&self) -> String {
        match self {
            Self::Freshet(server) => server.try_lock().map(|server| server.log_tail()).unwrap_or_default(),
            Self::Postgres(_) => String::new(),
        }
    }
}

/// One connection of a file, made when first used and again after a crash.
struct Session {
    place: Arc<Place>,
    client: Option<Client>,
    /// Between BEGIN and COMMIT the oracle keeps quiet: views do not show what is not committed.
    in_transaction: bool,
}

/// Why a record did not give an answer.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct SessionError {
    text: String,
    state: Option<String>,
}

impl SessionError {
    fn of_database(error: &tokio_postgres::Error) -> Self {
        Self { text: describe(error), state: error.code().map(|state| state.code().to_owned()) }
    }

    fn of_test(error: &anyhow::Error) -> Self {
        Self { text: format!("{error:#}"), state: None }
    }
}

#[async_trait]
impl AsyncDB for Session {
    type Error = SessionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SessionError> {
        let place = self.place.clone();
        let client = match &mut self.client {
            Some(client) if !client.is_closed() => client,
            stale => {
                let client = place.connect().await.map_err(|error| SessionError::of_test(&error))?;
                stale.insert(client)
            }
        };
        let statement = match &*place {
            Place::Freshet(..) => sql.to_owned(),
            Place::Postgres(_) => in_postgres(sql),
        };
        let answer = tokio::time::timeout(STATEMENT_BOUND, client.simple_query(&statement)).await;
        let answer = answer.map_err(|_| SessionError::of_test(&anyhow!("no answer within {STATEMENT_BOUND:?}")))?;
        match first_word(sql).as_str() {
            "begin" | "start" => self.in_transaction = true,
            "commit" | "end" | "rollback" | "abort" => self.in_transaction = false,
            _ => {}
        }
        if matches!(*place, Place::Freshet(..)) && !self.in_transaction && may_change(sql) {
            oracle::check(client).await.map_err(|error| SessionError::of_test(&error))?;
        }
        let messages = answer.map_err(|error| SessionError::of_database(&error))?;
        Ok(output(&messages))
    }

    async fn shutdown(&mut self) {
        self.client = None;
    }

    fn engine_name(&self) -> &str {
        match *self.place {
            Place::Freshet(..) => "freshet",
            Place::Postgres(_) => "postgres",
        }
    }

    async fn sleep(_: Duration) {
        // `sleep` and `retry` have no place in these files: what must be waited for is waited for in Rust tests.
        tokio::task::yield_now().await;
    }

    fn error_sql_state(error: &SessionError) -> Option<String> {
        error.state.clone()
    }
}

/// Rows if the answer has columns, even if there are no rows; else the count of what was changed.
fn output(messages: &[SimpleQueryMessage]) -> DBOutput<DefaultColumnType> {
    let columns = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::RowDescription(columns) => Some(columns.len()),
        _ => None,
    });
    let count = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::CommandComplete(count) => Some(*count),
        _ => None,
    });
    match columns {
        Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Text; columns], rows: text_rows(messages) },
        None => DBOutput::StatementComplete(count.unwrap_or(0)),
    }
}

fn first_word(sql: &str) -> String {
    sql.split_whitespace().next().unwrap_or_default().trim_end_matches(';').to_ascii_lowercase()
}

/// Whether a look at the views is worth it: reading alone changes nothing.
fn may_change(sql: &str) -> bool {
    !matches!(first_word(sql).as_str(), "select" | "show" | "explain" | "describe" | "values" | "set")
}

/// The statement as PostgreSQL can follow it: there a plain view is what is always up to date.
fn in_postgres(sql: &str) -> String {
    sql.replace("MATERIALIZED VIEW", "VIEW")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_says_in_which_modes_it_makes_no_sense() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "# About things.\n# except: crash, tiny. Cursors belong to a session.\n").unwrap();
        let runs: Vec<&str> =
            MODES.iter().filter(|mode| runs_in(file.path(), **mode).unwrap()).map(|mode| mode.name).collect();
        assert_eq!(runs, ["workers-1", "workers-2", "workers-4"], "restarts are crashes");
    }

    #[test]
    fn only_statements_that_succeed_are_cut() {
        let script =
            "statement count 2\nINSERT INTO t VALUES (1), (2)\n\nstatement error\nINSERT INTO t VALUES (1), (2)\n";
        let records = sqllogictest::parse::<DefaultColumnType>(script).unwrap();
        let statements: Vec<_> = records.into_iter().filter(|r| matches!(r, Record::Statement { .. })).collect();
        let cut: Vec<usize> = statements.into_iter().map(|record| super::cut(record, 1).len()).collect();
        assert_eq!(cut, [2, 1]);
    }

    #[test]
    fn the_files_are_found() {
        assert!(files().unwrap().iter().any(|file| file.ends_with("slt/tables/insert.slt")));
    }
}
