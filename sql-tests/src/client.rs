//! A client's connection, and results as text.

use std::net::SocketAddr;
use std::ops::Deref;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use crate::wait;

/// One row, each value as the server writes it; NULL is `NULL`, the empty string `(empty)`.
pub type TextRow = Vec<String>;

/// A session. Dropping it closes the connection.
pub struct Client {
    client: tokio_postgres::Client,
    /// Drives the connection; aborted with the client.
    _connection: JoinSet<()>,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Client {
    /// Connects to the database `freshet` at `address`.
    ///
    /// # Errors
    /// If the server does not take the connection.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port()).user("tester").dbname("freshet");
        Self::connect_with(&config).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// If the server does not take the connection.
    pub async fn connect_with(config: &Config) -> Result<Self> {
        let (client, connection) = config.connect(NoTls).await.context("cannot connect")?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // A broken connection shows in the query that it breaks.
            let _ = connection.await;
        });
        Ok(Self { client, _connection: driver })
    }

    /// Runs statements over the simple protocol and gives the rows of all of them.
    ///
    /// # Errors
    /// What the server answered, as [`describe`] writes it.
    pub async fn rows(&self, sql: &str) -> Result<Vec<TextRow>> {
        let messages = match self.client.simple_query(sql).await {
            Ok(messages) => messages,
            Err(error) => bail!("{}\nin: {sql}", describe(&error)),
        };
        Ok(text_rows(&messages))
    }

    /// Runs statements that give no rows worth looking at.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.rows(sql).await.map(drop)
    }

    /// The single value that a query gives.
    ///
    /// # Errors
    /// What the server answered, or that it was not one value.
    pub async fn value(&self, sql: &str) -> Result<String> {
        let rows = self.rows(sql).await?;
        match rows.as_slice() {
            [row] if row.len() == 1 => Ok(row[0].clone()),
            _ => bail!("one value was expected, but {} rows came: {rows:?}\nin: {sql}", rows.len()),
        }
    }

    /// The error that a statement must give, as [`describe`] writes it.
    ///
    /// # Errors
    /// If the statement succeeds.
    pub async fn error(&self, sql: &str) -> Result<String> {
        match self.client.simple_query(sql).await {
            Ok(_) => bail!("an error was expected\nin: {sql}"),
            Err(error) => Ok(describe(&error)),
        }
    }

    /// Asks `sql` until it gives exactly `expected`.
    ///
    /// # Errors
    /// After [`wait::PATIENCE`], with the last answer.
    pub async fn wait_for(&self, sql: &str, expected: &[&[&str]]) -> Result<()> {
        let mut last = Vec::new();
        let outcome = wait::until(sql, async || {
            last = self.rows(sql).await?;
            let equal = last.len() == expected.len() && last.iter().zip(expected).all(|(row, wanted)| row == wanted);
            Ok(equal.then_some(()))
        })
        .await;
        outcome.with_context(|| format!("expected {expected:?}, and the last answer was {last:?}"))
    }
}

/// The rows among the messages of an answer.
pub fn text_rows(messages: &[SimpleQueryMessage]) -> Vec<TextRow> {
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(text_row(row)),
            _ => None,
        })
        .collect()
}

fn text_row(row: &SimpleQueryRow) -> TextRow {
    (0..row.len())
        .map(|column| match row.get(column) {
            None => "NULL".to_owned(),
            Some("") => "(empty)".to_owned(),
            Some(value) => value.to_owned(),
        })
        .collect()
}

/// An error as tests match it: `SQLSTATE: message`, then a line each for detail and hint.
pub fn describe(error: &tokio_postgres::Error) -> String {
    let Some(error) = error.as_db_error() else {
        return format!("no answer from the server: {error}");
    };
    let mut text = format!("{}: {}", error.code().code(), error.message());
    if let Some(detail) = error.detail() {
        text.push_str("\nDETAIL: ");
        text.push_str(detail);
    }
    if let Some(hint) = error.hint() {
        text.push_str("\nHINT: ");
        text.push_str(hint);
    }
    text
}
