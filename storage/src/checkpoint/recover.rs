//! What the last checkpoint left, to be brought back relation by relation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use freshet_types::{Epoch, RelationId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::change::StateRows;
use super::file::CheckpointFiles;
use super::manifest::{Head, Manifest, Part, Piece, PieceId};
use super::state_log::StateLog;
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
    _pin: Arc<()>,
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
        Self { epoch: head.epoch, meta: head.meta, files, pieces, sinces, returned, _pin: pin }
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

    /// Brings back the state of a relation's operators, by worker and table; once, and nothing after that.
    ///
    /// # Errors
    /// If a part is damaged.
    pub async fn state(&self, relation: RelationId) -> Result<Vec<(Part, Vec<StateRows>)>, StorageError> {
        let stored = self.take(|id| id.relation == relation && matches!(id.part, Part::State { .. }));
        // Boxed: as with the segments of a piece.
        let brought_back: Vec<BoxFuture<'_, _>> =
            stored.iter().map(|(id, piece)| self.table(*id, piece).boxed()).collect();
        let mut tables = Vec::with_capacity(stored.len());
        let mut brought_back = futures::stream::iter(brought_back).buffered(TABLES_AT_ONCE);
        while let Some((id, table)) = brought_back.try_next().await? {
            let rows = table.map(|(log, rows)| {
                self.returned.lock().insert(id, log);
                rows
            });
            tables.push((id.part, rows.unwrap_or_default()));
        }
        Ok(tables)
    }

    /// A state table with its rows; `None` if it never had any, so that its schema is not known.
    async fn table(
        &self,
        id: PieceId,
        piece: &Piece,
    ) -> Result<(PieceId, Option<(StateLog, Vec<StateRows>)>), StorageError> {
        let segments = segments::load(&self.files, id, piece).await?;
        if segments.is_empty() {
            return Ok((id, None));
        }
        // It looks at each row.
        let restored = tokio::task::spawn_blocking(move || StateLog::restored(segments)).await;
        let restored = restored.map_err(|error| StorageError::Io { reason: error.to_string() })?;
        let damaged = |reason| StorageError::Damaged { name: id.to_string(), reason };
        let table = restored.map_err(|error| damaged(error.to_string()))?;
        let table = table.ok_or_else(|| damaged("its segments do not have the same columns".to_owned()))?;
        Ok((id, Some(table)))
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
