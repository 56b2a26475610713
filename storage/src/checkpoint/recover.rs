//! What the last checkpoint left, to be brought back relation by relation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use freshet_types::delta::take_rows;
use freshet_types::{Epoch, RelationId};
use parking_lot::Mutex;

use super::change::StateRows;
use super::file::CheckpointFiles;
use super::manifest::{Head, Manifest, Part, Piece, PieceId};
use super::segments;
use super::state_log::StateLog;
use crate::StorageError;
use crate::collection::rows::RowLog;
use crate::collection::segment::Segment;
use crate::collection::{Collection, CollectionDescription};

/// State tables that were brought back, on their way to [`super::Checkpoints`].
pub(super) type Returned = Arc<Mutex<BTreeMap<PieceId, StateLog>>>;

/// The shard of each row of a batch, less than the number of shards asked for.
pub type ShardOf<'a> = &'a (dyn Fn(&RecordBatch) -> Vec<usize> + Sync);

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
        Self { epoch: head.epoch, meta: head.meta, files, pieces, returned, _pin: pin }
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

    /// Brings back the collection of a relation, readable at the checkpoint's epoch alone; once, and `None` after that.
    /// Rows whose shard changes are all written anew by the next checkpoint.
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
        let mut logs = Vec::with_capacity(stored.len());
        for (id, piece) in &stored {
            let segments = segments::load(&self.files, *id, piece).await?;
            let segments = segments.into_iter().map(|segment| with_schema(segment, *id, &description));
            logs.push(RowLog::of_segments(description.schema.clone(), segments.collect::<Result<_, _>>()?));
        }
        let logs = match redistribute {
            Redistribute::IfShardsDiffer(_) if logs.len() == shards => logs,
            Redistribute::IfShardsDiffer(shard_of) | Redistribute::Always(shard_of) => spread(logs, shards, shard_of)?,
        };
        let epoch = self.epoch;
        // Hashing all keys takes seconds, which the threads that serve connections should not be kept for.
        let restored = tokio::task::spawn_blocking(move || Collection::restored(description, logs, epoch)).await;
        let restored = restored.map_err(|error| StorageError::Io { reason: error.to_string() })?;
        Ok(Some(restored.map_err(|error| StorageError::Damaged {
            name: format!("the collection of {relation}"),
            reason: error.to_string(),
        })?))
    }

    /// Brings back the state of a relation's operators, by worker and table; once, and nothing after that.
    ///
    /// # Errors
    /// If a part is damaged.
    pub async fn state(&self, relation: RelationId) -> Result<Vec<(Part, Vec<StateRows>)>, StorageError> {
        let stored = self.take(|id| id.relation == relation && matches!(id.part, Part::State { .. }));
        let mut tables = Vec::with_capacity(stored.len());
        for (id, piece) in &stored {
            let segments = segments::load(&self.files, *id, piece).await?;
            let is_empty = segments.is_empty();
            let restored = StateLog::restored(segments);
            let damaged = |reason| StorageError::Damaged { name: id.to_string(), reason };
            match restored.map_err(|error| damaged(error.to_string()))? {
                Some((log, rows)) => {
                    self.returned.lock().insert(*id, log);
                    tables.push((id.part, rows));
                }
                // Its schema is not known before its first row.
                None if is_empty => tables.push((id.part, Vec::new())),
                None => return Err(damaged("its segments do not have the same columns".to_owned())),
            }
        }
        Ok(tables)
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

/// The live rows of `logs`, in as many logs as there are shards.
fn spread(logs: Vec<RowLog>, shards: usize, shard_of: ShardOf<'_>) -> Result<Vec<RowLog>, StorageError> {
    let Some(schema) = logs.first().map(|log| log.schema().clone()) else {
        return Ok(Vec::new());
    };
    let mut spread: Vec<RowLog> = (0..shards).map(|_| RowLog::new(schema.clone())).collect();
    for segment in logs.iter().flat_map(|log| log.segments()) {
        for rows in segment.live_batches(segment.rows(), None) {
            let rows = rows?;
            let mut places = vec![Vec::<u32>::new(); shards];
            for (row, shard) in (0..).zip(shard_of(&rows)) {
                places[shard].push(row);
            }
            for (log, places) in spread.iter_mut().zip(places).filter(|(_, places)| !places.is_empty()) {
                let runs = log.append(&take_rows(&rows, &UInt32Array::from(places))?)?;
                if let Some((first, _)) = runs.first() {
                    log.written(first.segment(), segment.written_ms);
                }
            }
        }
    }
    Ok(spread)
}
