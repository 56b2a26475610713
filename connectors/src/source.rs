//! What a stream of the outside world looks like from inside: the traits that connectors implement.
//!
//! Replay: for every source, two readings of the same [`Range`] yield the same rows and dead letters in
//! the same order within a partition, as long as the system outside still keeps the records. How they are
//! cut into batches, and how partitions interleave, may differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use freshet_types::{SqlError, SqlState};
use serde::{Deserialize, Serialize};

use crate::status::SourceStatus;

/// A position in a source: for each partition, the offset of the next record to read.
///
/// Negative partitions are notes that a source keeps for itself (generated sources: -1 is the time of row 0).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets(pub BTreeMap<i32, i64>);

/// Decoded rows, records set aside, and how far the source has been read.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// All columns of the source, in declared order. Columns that were not asked for hold NULLs.
    pub rows: RecordBatch,
    pub dead_letters: Vec<DeadLetter>,
    /// Where to read on after this batch, for the partitions it touched.
    pub offsets: Offsets,
    /// Bytes of the records as they arrived.
    pub bytes: usize,
}

/// A record that could not become a row, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub payload: Option<Vec<u8>>,
    pub error: String,
    /// The column at fault, where it is known.
    pub column: Option<String>,
    pub partition: i32,
    pub offset: i64,
    /// When the record was written, in milliseconds since 1970, where the system tells.
    pub timestamp_ms: Option<i64>,
}

/// Which part of a source to read: from `from` up to but excluding `until`, or for ever.
///
/// With `until`, only the partitions named in it are read. Without, partitions that appear later are read
/// from their beginning.
#[derive(Debug, Clone)]
pub struct Range {
    pub from: Offsets,
    pub until: Option<Offsets>,
}

/// One declared stream of the outside world.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns of the rows it yields.
    fn schema(&self) -> SchemaRef;

    /// Connects, and turns the declared start into offsets. Called once, at CREATE SOURCE; the result is
    /// kept in the catalog, so that every later reading of the source starts at the same records.
    async fn resolve_start(&self) -> Result<Offsets, SourceError>;

    /// Reads `range`. Only the columns in `columns` (indices into [`Source::schema`]) need be decoded, besides those
    /// that the source's own rules (computed columns, constraints) need.
    async fn read(&self, range: Range, columns: &[usize]) -> Result<Box<dyn SourceReader>, SourceError>;

    /// Where the source ends at the moment, for a query while nothing reads it; `None` if it has no end to speak of.
    async fn end(&self) -> Result<Option<Offsets>, SourceError> {
        Ok(None)
    }

    /// How the source is doing, over all its readings without an end.
    fn status(&self) -> Arc<SourceStatus>;
}

/// One reading of a source. Dropping it ends the reading.
#[async_trait]
pub trait SourceReader: Send {
    /// The next batch, as soon as there is anything; `None` once the range has been read.
    /// Cancel-safe: dropping the future loses no record.
    async fn next(&mut self) -> Result<Option<SourceBatch>, SourceError>;
}

/// What went wrong, by what can be done about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The declaration is at fault, or does not fit the system outside: change it.
    #[error("{0}")]
    Options(SqlError),
    /// The system outside cannot be reached or refuses us: try again later.
    #[error("{message}")]
    Unreachable { message: String, hint: Option<String> },
    /// A record is at fault, and the source was declared with `on_error = 'fail'`.
    #[error("{message}")]
    Record { message: String, partition: i32, offset: i64 },
    /// Records of the range are gone from the system outside, so that it cannot be read as it was.
    #[error("{message}")]
    Lost { message: String },
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl From<SqlError> for SourceError {
    fn from(error: SqlError) -> Self {
        Self::Options(error)
    }
}

impl From<SourceError> for SqlError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Options(error) => error,
            SourceError::Unreachable { message, hint } => {
                let error = SqlError::new(SqlState::ConnectionFailure, message);
                match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
            SourceError::Record { message, partition, offset } => {
                SqlError::new(SqlState::InvalidTextRepresentation, message)
                    .with_detail(format!("the record is at offset {offset} of partition {partition}"))
                    .with_hint("declare the source with on_error = 'quarantine' to set such records aside")
            }
            SourceError::Lost { message } => SqlError::new(SqlState::IoError, message),
            SourceError::Internal(message) => SqlError::internal(message),
        }
    }
}
