//! A collection at one epoch.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use freshet_types::{Epoch, Keys};

use super::segment::Segment;
use super::shard::{KeySet, RowsAt};
use super::{CollectionError, Inner, stored_rows};
use crate::tiers::StoredChunk;

/// The rows of a collection at one epoch.
///
/// Holding it keeps them readable, and costs a writer nothing but copy-on-write. A clone is another
/// handle to the same rows.
#[derive(Clone)]
pub struct Snapshot {
    collection: Arc<Inner>,
    epoch: Epoch,
    shards: Arc<[RowsAt]>,
}

/// Rows of a snapshot in a file.
#[derive(Debug, Clone)]
pub struct StoredPart {
    pub chunk: Arc<StoredChunk>,
    /// Which of them live; `None` if all do.
    pub live: Option<BooleanBuffer>,
}

impl Snapshot {
    pub(super) fn new(collection: Arc<Inner>, epoch: Epoch, shards: Vec<RowsAt>) -> Self {
        Self { collection, epoch, shards: shards.into() }
    }

    pub(super) fn shards(&self) -> &[RowsAt] {
        &self.shards
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The name of the collection.
    pub fn name(&self) -> &str {
        &self.collection.description.name
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.collection.description.schema
    }

    /// The columns of the key, by which [`Snapshot::lookup`] finds rows.
    pub fn key(&self) -> Option<&[usize]> {
        self.collection.identity.key()
    }

    /// The number of live rows; takes no time.
    pub fn row_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.live).sum()
    }

    /// The live rows, of the columns in `projection` (all if `None`), in batches of at most 64k rows.
    ///
    /// # Errors
    /// If a column of `projection` does not exist.
    pub fn batches(&self, projection: Option<&[usize]>) -> Result<Vec<RecordBatch>, CollectionError> {
        Ok(self.scan(projection).collect::<Result<_, _>>()?)
    }

    /// Whether any rows lie in files.
    pub fn has_stored(&self) -> bool {
        self.shards.iter().any(|shard| shard.rows.has_stored())
    }

    /// The number of segments in memory, and their bytes.
    pub fn memory_size(&self) -> (usize, usize) {
        let segments = self.shards.iter().flat_map(|shard| shard.rows.segments_before(shard.end));
        let sizes = segments.filter(|(segment, _)| !segment.is_stored()).map(|(segment, _)| segment.memory_bytes());
        sizes.fold((0, 0), |(count, total), bytes| (count + 1, total + bytes))
    }

    /// The live rows that lie in files, chunk by chunk.
    pub fn stored(&self) -> Vec<StoredPart> {
        let mut parts = Vec::new();
        for shard in self.shards.iter().filter(|shard| shard.live > 0) {
            for (segment, end) in shard.rows.segments_before(shard.end) {
                for chunk in segment.chunks().iter().filter(|chunk| chunk.start() < end) {
                    let Some(stored) = chunk.stored() else { continue };
                    let live = segment.live_mask(chunk, end).map(|mask| mask.values().clone());
                    if live.as_ref().is_none_or(|live| live.count_set_bits() > 0) {
                        parts.push(StoredPart { chunk: stored.clone(), live });
                    }
                }
            }
        }
        parts
    }

    /// Like [`Snapshot::scan`], of the rows in memory alone.
    pub fn scan_memory(
        &self,
        projection: Option<&[usize]>,
    ) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<> {
        self.scan_where(projection, |segment| !segment.is_stored())
    }

    /// Like [`Snapshot::batches`], a segment at a time as the iterator goes on. No batch is empty. Waits for files.
    pub fn scan(&self, projection: Option<&[usize]>) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<> {
        self.scan_where(projection, |_| true)
    }

    fn scan_where(
        &self,
        projection: Option<&[usize]>,
        wanted: fn(&Segment) -> bool,
    ) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<> {
        let projection = projection.map(<[usize]>::to_vec);
        // The iterator keeps the segments, and so outlives the snapshot.
        let live = self.shards.iter().filter(|shard| shard.live > 0);
        let segments: Vec<(Segment, usize)> = live
            .flat_map(|shard| shard.rows.segments_before(shard.end))
            .filter(|(segment, _)| wanted(segment))
            .map(|(segment, end)| (segment.clone(), end))
            .collect();
        segments
            .into_iter()
            .flat_map(move |(segment, end)| {
                // A chunk at a time: those in files are not read before they are wanted.
                let projection = projection.clone();
                let chunks = segment.chunks().len();
                (0..chunks).filter_map(move |chunk| segment.live_batch(chunk, end, projection.as_deref()))
            })
            .filter(|batch| batch.as_ref().map_or(true, |rows| rows.num_rows() > 0))
    }

    /// The live rows of which the key columns equal one row of `values` (columns in the order of the key),
    /// each once, through the key index. NULL equals NULL.
    ///
    /// # Errors
    /// If the collection has no key, or the types of `values` are not those of the key columns; or a file cannot be read.
    pub fn lookup(&self, values: &[ArrayRef]) -> Result<RecordBatch, CollectionError> {
        let Inner { description, identity, .. } = &*self.collection;
        let no_key = || CollectionError::NoKey { collection: description.name.clone() };
        let key = identity.key().ok_or_else(no_key)?;
        let types_agree = values.len() == key.len()
            && values
                .iter()
                .zip(key)
                .all(|(column, index)| column.data_type() == description.schema.field(*index).data_type());
        if !types_agree {
            return Err(no_key());
        }
        // Without key columns there is at most one row, which every look-up finds.
        let row_count = values.first().map_or(1, |column| column.len());
        let keys = identity.keys_of_columns(values, row_count)?;
        let mut found = Vec::with_capacity(self.shards.len());
        for shard in 0..self.shards.len() {
            found.extend(self.lookup_shard(shard, values, &keys)?);
        }
        Ok(concat_batches(&description.schema, &found)?)
    }

    fn lookup_shard(&self, number: usize, values: &[ArrayRef], keys: &Keys) -> Result<Vec<RecordBatch>, ArrowError> {
        let Inner { description, identity, shards, .. } = &*self.collection;
        if self.shards[number].live == 0 {
            return Ok(Vec::new());
        }
        let found = {
            let mut shard = shards[number].lock();
            if shard.history.since <= self.epoch {
                if description.append_only {
                    shard.complete_index(identity)?;
                }
                let in_memory = shard.lookup(self.epoch, identity, keys)?;
                // At the same moment: a row that leaves memory between the two would be in neither.
                Some((in_memory, shard.rows.has_stored().then(|| shard.at(self.epoch))))
            } else {
                None
            }
        };
        if let Some((in_memory, stored)) = found {
            let mut found = vec![in_memory];
            if let Some(stored) = stored {
                let RowsAt { rows, end, .. } = stored.restore();
                found.push(stored_rows::lookup(&rows, end, identity, values, keys)?);
            }
            return Ok(found);
        }
        // The collection does not remember this epoch any more, only this snapshot does.
        let wanted = KeySet::new(keys);
        let rows = &self.shards[number];
        let segments = rows.rows.segments_before(rows.end).filter(|(segment, _)| !segment.is_stored());
        let batches = segments.flat_map(|(segment, end)| segment.live_batches(end, None));
        let found = batches.map(|rows| {
            let rows = rows?;
            wanted.filter(&rows, &identity.keys(&rows)?)
        });
        let mut found = found.collect::<Result<Vec<_>, _>>()?;
        found.push(stored_rows::lookup(&rows.rows, rows.end, identity, values, keys)?);
        Ok(found)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({:?} at {})", self.name(), self.epoch)
    }
}
