//! A collection at one epoch.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use freshet_types::{Epoch, Keys};

use super::segment::Segment;
use super::shard::{KeySet, RowsAt};
use super::{CollectionError, Inner};

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

impl Snapshot {
    pub(super) fn new(collection: Arc<Inner>, epoch: Epoch, shards: Vec<RowsAt>) -> Self {
        Self { collection, epoch, shards: shards.into() }
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

    /// Like [`Snapshot::batches`], a segment at a time as the iterator goes on. No batch is empty.
    pub fn scan(&self, projection: Option<&[usize]>) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<> {
        let projection = projection.map(<[usize]>::to_vec);
        // The iterator keeps the segments, and so outlives the snapshot.
        let live = self.shards.iter().filter(|shard| shard.live > 0);
        let segments: Vec<(Segment, usize)> = live
            .flat_map(|shard| shard.rows.segments_before(shard.end))
            .map(|(segment, end)| (segment.clone(), end))
            .collect();
        segments
            .into_iter()
            .flat_map(move |(segment, end)| segment.live_batches(end, projection.as_deref()).collect::<Vec<_>>())
            .filter(|batch| batch.as_ref().map_or(true, |rows| rows.num_rows() > 0))
    }

    /// The live rows of which the key columns equal one row of `keys` (columns in the order of the key),
    /// each once, through the key index. NULL equals NULL.
    ///
    /// # Errors
    /// If the collection has no key, or the types of `keys` are not those of the key columns.
    pub fn lookup(&self, keys: &[ArrayRef]) -> Result<RecordBatch, CollectionError> {
        let Inner { description, identity, .. } = &*self.collection;
        let no_key = || CollectionError::NoKey { collection: description.name.clone() };
        let key = identity.key().ok_or_else(no_key)?;
        let types_agree = keys.len() == key.len()
            && keys
                .iter()
                .zip(key)
                .all(|(column, index)| column.data_type() == description.schema.field(*index).data_type());
        if !types_agree {
            return Err(no_key());
        }
        // Without key columns there is at most one row, which every look-up finds.
        let row_count = keys.first().map_or(1, |column| column.len());
        let keys = identity.keys_of_columns(keys, row_count)?;
        let found = (0..self.shards.len()).map(|shard| self.lookup_shard(shard, &keys));
        let found = found.collect::<Result<Vec<_>, _>>()?;
        Ok(concat_batches(&description.schema, &found)?)
    }

    fn lookup_shard(&self, number: usize, keys: &Keys) -> Result<RecordBatch, ArrowError> {
        let Inner { description, identity, shards, .. } = &*self.collection;
        if self.shards[number].live == 0 {
            return Ok(RecordBatch::new_empty(description.schema.clone()));
        }
        {
            let mut shard = shards[number].lock();
            if shard.history.since <= self.epoch {
                if description.append_only {
                    shard.complete_index(identity)?;
                }
                return shard.lookup(self.epoch, identity, keys);
            }
        }
        // The collection does not remember this epoch any more, only this snapshot does.
        let wanted = KeySet::new(keys);
        let rows = &self.shards[number];
        let batches = rows.rows.segments_before(rows.end).flat_map(|(segment, end)| segment.live_batches(end, None));
        let found = batches.map(|rows| {
            let rows = rows?;
            wanted.filter(&rows, &identity.keys(&rows)?)
        });
        concat_batches(&description.schema, &found.collect::<Result<Vec<_>, _>>()?)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({:?} at {})", self.name(), self.epoch)
    }
}
