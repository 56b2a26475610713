//! What the last checkpoint left, to be brought back relation by relation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;
use freshet_types::{Epoch, RelationId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::change::StateRows;
use super::file::CheckpointFiles;
use super::manifest::{Head, Manifest, Part, Piece, PieceId, StoredSegment};
use super::state_log::{ReturningLog, StateLog, live_rows};
use super::{segments, versions};
use crate::StorageError;
use crate::collection::past::{SegmentVersions, StoredShard};
use crate::collection::restore::ShardOf;
use crate::collection::rows::RowLog;
use crate::collection::segment::Segment;
use crate::collection::{Collection, CollectionDescription, HistoryPolicy};

/// State tables that are brought back at once.
const TABLES_AT_ONCE: usize = 4;

/// State tables that were brought back, on their way to [`super::Checkpoints`].
pub(super) type Returned = Arc<Mutex<BTreeMap<PieceId, StateLog>>>;

/// Bytes that are held of a state table that was brought back, until they are asked for.
const HELD_BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 8 << 20 };

/// When rows go to other shards than those that they were in.
#[derive(Clone, Copy)]
pub enum Redistribute<'a> {
    /// If there are as many shards now as there were, each stays as it is.
    IfShardsDiffer(ShardOf<'a>),
    Always(ShardOf<'a>),
}

/// The last checkpoint. While this is there, no file that it needs is deleted.
pub struct Recovered {
    pub epoch: Epoch,
    /// What was handed to the commit of the checkpoint.
    pub meta: String,
    files: CheckpointFiles,
    /// What nobody has asked for yet.
    pieces: Mutex<BTreeMap<PieceId, Piece>>,
    sinces: BTreeMap<PieceId, Epoch>,
    returned: Returned,
    /// Held by every recovered checkpoint; [`super::Checkpoints`] looks at it before it deletes files.
    pin: Arc<()>,
}

/// The rows of a state table as they are stored, in parts. While it is there, its files are.
pub struct StoredTable {
    id: PieceId,
    files: CheckpointFiles,
    pub(super) parts: Vec<TablePart>,
    _pin: Arc<()>,
}

pub(super) enum TablePart {
    Held(Vec<StateRows>),
    /// A segment and its uid.
    Stored(u64, StoredSegment),
}

impl StoredTable {
    /// Reads all segments; gives the log that they make.
    async fn bring_back(&mut self, piece: Piece) -> Result<Option<StateLog>, StorageError> {
        let mut segments: Vec<(u64, StoredSegment)> = piece.into_iter().collect();
        segments.sort_by_key(|(_, segment)| segment.id);
        let (mut log, mut held_bytes) = (ReturningLog::default(), 0);
        // Some are read ahead; boxed, as in [`segments::load`].
        for ahead in segments.chunks(segments::READS_MAX) {
            let reads: Vec<BoxFuture<'_, Result<Segment, StorageError>>> = ahead
                .iter()
                .map(|(uid, stored)| segments::load_segment(&self.files, self.id, *uid, stored).boxed())
                .collect();
            let read: Vec<Segment> = futures::future::try_join_all(reads).await?;
            let sizes: Vec<usize> = read.iter().map(Segment::memory_bytes).collect();
            // It looks at each row.
            let pushed = tokio::task::spawn_blocking(move || {
                let rows = read.into_iter().map(|segment| log.push(segment)).collect::<Result<Vec<_>, ArrowError>>();
                rows.map(|rows| (log, rows))
            });
            let pushed = pushed.await.map_err(|error| StorageError::Io { reason: error.to_string() })?;
            let rows;
            (log, rows) = pushed.map_err(|error| self.damaged(error))?;
            for ((rows, bytes), (uid, stored)) in rows.into_iter().zip(sizes).zip(ahead) {
                held_bytes += bytes;
                self.parts.push(match held_bytes <= HELD_BYTES_MAX {
                    true => TablePart::Held(rows),
                    false => TablePart::Stored(*uid, stored.clone()),
                });
            }
        }
        Ok(log.finish())
    }

    fn damaged(&self, error: ArrowError) -> StorageError {
        let reason = match error {
            ArrowError::InvalidArgumentError(reason) => reason,
            other => other.to_string(),
        };
        StorageError::Damaged { name: self.id.to_string(), reason }
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The rows of a part.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn read(&self, part: usize) -> Result<Vec<StateRows>, StorageError> {
        match &self.parts[part] {
            TablePart::Held(rows) => Ok(rows.clone()),
            TablePart::Stored(uid, stored) => {
                let segment = segments::load_segment(&self.files, self.id, *uid, stored).await?;
                live_rows(&segment, None).map_err(|error| self.damaged(error))
            }
        }
    }
}

impl fmt::Debug for StoredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} parts", self.id, self.parts.len())
    }
}

impl Recovered {
    pub(super) fn new(
        head: Head,
        manifest: &Manifest,
        files: CheckpointFiles,
        returned: Returned,
        pin: Arc<()>,
    ) -> Self {
        let pieces = Mutex::new(manifest.pieces.clone());
        let sinces = manifest.sinces.clone();
        Self { epoch: head.epoch, meta: head.meta, files, pieces, sinces, returned, pin }
    }

    /// The relations that have not been asked for.
    pub fn relations(&self) -> Vec<RelationId> {
        let relations: BTreeSet<RelationId> = self.pieces.lock().keys().map(|id| id.relation).collect();
        relations.into_iter().collect()
    }

    /// How many shards the collection of a relation has; `None` if none is stored, or it was brought back.
    pub fn shards(&self, relation: RelationId) -> Option<usize> {
        let pieces = self.pieces.lock();
        let shards = pieces.keys().filter(|id| id.relation == relation && matches!(id.part, Part::Rows { .. })).count();
        (shards > 0).then_some(shards)
    }

    /// One more than the greatest number of a worker that has state of a relation; not of state that was brought back.
    pub fn workers(&self, relation: RelationId) -> usize {
        let pieces = self.pieces.lock();
        let workers = pieces.keys().filter(|id| id.relation == relation).filter_map(|id| match id.part {
            Part::State { worker, .. } => Some(worker as usize + 1),
            Part::Rows { .. } => None,
        });
        workers.max().unwrap_or(0)
    }

    /// Brings back the collection of a relation, readable up to the checkpoint's epoch from where it was; once, and `None`
    /// after that. Rows whose shard changes are all written anew by the next checkpoint.
    ///
    /// # Errors
    /// If a part is damaged, or the rows have other types than `description` says.
    pub async fn collection(
        &self,
        relation: RelationId,
        description: CollectionDescription,
        shards: usize,
        redistribute: Redistribute<'_>,
    ) -> Result<Option<Arc<Collection>>, StorageError> {
        let stored = self.take(|id| id.relation == relation && matches!(id.part, Part::Rows { .. }));
        if stored.is_empty() {
            return Ok(None);
        }
        let mut stored_shards = Vec::with_capacity(stored.len());
        for (id, piece) in &stored {
            let segments = segments::load(&self.files, *id, piece).await?;
            let segments = segments.into_iter().map(|segment| with_schema(segment, *id, &description));
            let rows = RowLog::of_segments(description.schema.clone(), segments.collect::<Result<_, _>>()?);
            let known_since = self.sinces.get(id).copied().unwrap_or(self.epoch);
            let (since, versions) = match versions::load(&self.files, *id, piece).await {
                Ok(versions) => (known_since, versions),
                // The rows are there all the same.
                Err(error @ StorageError::Damaged { .. }) => {
                    tracing::warn!(%error, "what is kept of the past cannot be read, and is forgotten");
                    (self.epoch, SegmentVersions::new())
                }
                Err(error) => return Err(error),
            };
            stored_shards.push(StoredShard { rows, since, versions });
        }
        let damaged = |reason: String| StorageError::Damaged { name: format!("the collection of {relation}"), reason };
        let epoch = self.epoch;
        let stays = matches!(redistribute, Redistribute::IfShardsDiffer(_)) && stored_shards.len() == shards;
        let as_stored = match stays {
            true => description.clone(),
            // Nobody looks for a row in it.
            false => CollectionDescription {
                key: None,
                append_only: true,
                history: HistoryPolicy::recent(),
                ..description.clone()
            },
        };
        // Hashing all keys takes seconds, which the threads that serve connections should not be kept for.
        let restored = tokio::task::spawn_blocking(move || Collection::restored(as_stored, stored_shards, epoch)).await;
        let restored = restored.map_err(|error| StorageError::Io { reason: error.to_string() })?;
        let restored = restored.map_err(|error| damaged(error.to_string()))?;
        let (Redistribute::IfShardsDiffer(shard_of) | Redistribute::Always(shard_of)) = redistribute;
        match stays {
            true => Ok(Some(restored)),
            false => {
                let spread = restored.spread(description, shards, shard_of);
                Ok(Some(spread.map_err(|error| damaged(error.to_string()))?))
            }
        }
    }

    /// Brings back the state of a relation's operators, by worker and table; once, and nothing after that. All is read, and
    /// found to be whole; of large tables, most is not held but read again when it is asked for.
    ///
    /// # Errors
    /// If a part is damaged.
    pub async fn state(&self, relation: RelationId) -> Result<Vec<(Part, StoredTable)>, StorageError> {
        let stored = self.take(|id| id.relation == relation && matches!(id.part, Part::State { .. }));
        // Boxed: as with the segments of a piece.
        let tables: Vec<BoxFuture<'_, _>> =
            stored.into_iter().map(|(id, piece)| self.table(id, piece).boxed()).collect();
        let brought_back = futures::stream::iter(tables).buffered(TABLES_AT_ONCE);
        brought_back.map_ok(|table| (table.id.part, table)).try_collect().await
    }

    async fn table(&self, id: PieceId, piece: Piece) -> Result<StoredTable, StorageError> {
        let mut table = StoredTable { id, files: self.files.clone(), parts: Vec::new(), _pin: self.pin.clone() };
        let log = table.bring_back(piece).await?;
        // The columns of a table are not known before its first row.
        self.returned.lock().extend(log.map(|log| (id, log)));
        Ok(table)
    }

    fn take(&self, wanted: impl Fn(&PieceId) -> bool) -> BTreeMap<PieceId, Piece> {
        let mut pieces = self.pieces.lock();
        let (taken, left) = std::mem::take(&mut *pieces).into_iter().partition(|(id, _)| wanted(id));
        *pieces = left;
        taken
    }
}

/// The segment with the schema of its collection, which has the same types.
fn with_schema(segment: Segment, id: PieceId, description: &CollectionDescription) -> Result<Segment, StorageError> {
    let typed = segment.with_schema(&description.schema).map_rows(|rows| {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(description.schema.clone(), rows.columns().to_vec(), &options)
    });
    typed.map_err(|error| StorageError::Damaged { name: id.to_string(), reason: error.to_string() })
}
