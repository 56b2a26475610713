//! What the world outside looks like from inside when it is written to: the traits that connectors implement.
//!
//! Exactly once takes two. Whoever calls sends the changes of one relation in the order of their epochs, and can send
//! each of them again, the very same, until it is told that it has arrived. The connector makes a change and its epoch
//! visible in one transaction, and after any failure can tell which epoch was the last.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use freshet_types::{Delta, Epoch, SqlError, SqlState};

use crate::definition::Format;

/// A sink as it was declared, and what is known of the relation that it sends.
#[derive(Debug, Clone)]
pub struct SinkDefinition {
    pub name: String,
    /// No other sink has it, be it in another database.
    pub identity: String,
    pub relation: String,
    pub schema: SchemaRef,
    /// Columns whose values no two rows share, if that is proven of any.
    pub key: Option<Vec<usize>>,
    /// Rows never change and never go.
    pub append_only: bool,
    /// What stood in `WITH (…)`.
    pub options: BTreeMap<String, String>,
    pub format: Option<Format>,
}

/// A place outside to which changes go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Connects once, to find out whether it can be done.
    async fn reach(&self) -> Result<(), SinkError>;

    /// Takes over the writing. A writer that was there before, in this process or another, can commit nothing from
    /// then on, and what it did commit is known.
    async fn writer(&self) -> Result<Box<dyn SinkWriter>, SinkError>;
}

/// The one writer of a sink. After an error it is of no use; a new one tells what has arrived.
#[async_trait]
pub trait SinkWriter: Send {
    /// The epoch of the last change that has arrived, as it was when the writer was made; `None` if nobody
    /// remembers one.
    fn committed(&self) -> Option<Epoch>;

    /// Sends the change of an epoch: all of it arrives, with the epoch, or nothing does.
    async fn send(&mut self, epoch: Epoch, change: Delta) -> Result<Sent, SinkError>;
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
}

/// Why something could not be sent, by what can be done about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SinkError {
    /// The declaration is at fault, or does not fit the system outside: change it.
    #[error("{0}")]
    Options(SqlError),
    /// The system outside cannot be reached or refuses us: try again later.
    #[error("{message}")]
    Unreachable { message: String, hint: Option<String> },
    /// The change cannot be told in the declared format, and never will be.
    #[error("{0}")]
    Unfit(String),
}

impl From<SqlError> for SinkError {
    fn from(error: SqlError) -> Self {
        Self::Options(error)
    }
}

impl From<SinkError> for SqlError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Options(error) => error,
            SinkError::Unreachable { message, hint } => {
                let error = SqlError::new(SqlState::ConnectionFailure, message);
                match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
            SinkError::Unfit(message) => SqlError::new(SqlState::ObjectNotInPrerequisiteState, message),
        }
    }
}
