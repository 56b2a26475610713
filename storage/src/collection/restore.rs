//! How a collection leaves for a checkpoint, and how it comes back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use freshet_types::Epoch;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::identity::Identity;
use super::progress::Progress;
use super::rows::RowLog;
use super::segment::Segment;
use super::shard::Shard;
use super::{Collection, CollectionDescription, CollectionError, Inner};

/// A segment of which the rows before an offset belong to some epoch, with the rows marked that lived then.
pub(crate) type SegmentAt = (Segment, usize);

impl Collection {
    /// The segments of each shard as they were at `epoch`. The locks are held only for as long as it takes to clone.
    ///
    /// # Errors
    /// If the epoch is not readable.
    pub(crate) fn segments_at(&self, epoch: Epoch) -> Result<Vec<Vec<SegmentAt>>, CollectionError> {
        let snapshot = self.snapshot(epoch)?;
        let shards = snapshot.shards().iter();
        Ok(shards
            .map(|shard| shard.rows.segments_before(shard.end).map(|(segment, end)| (segment.clone(), end)).collect())
            .collect())
    }

    /// The collection that had the rows `shards` at `epoch`, which is all that can be read of it. The index is made
    /// here, on a thread a shard.
    ///
    /// # Errors
    /// If rows or keys of the schema cannot be compared.
    pub(crate) fn restored(
        description: CollectionDescription,
        shards: Vec<RowLog>,
        epoch: Epoch,
    ) -> Result<Arc<Self>, CollectionError> {
        let identity = Arc::new(Identity::new(&description)?);
        let count = shards.len();
        let filed = (!description.append_only).then_some(&*identity);
        let shards = std::thread::scope(|scope| {
            let threads: Vec<_> =
                shards.into_iter().map(|rows| scope.spawn(move || Shard::restored(rows, epoch, filed))).collect();
            let shards = threads.into_iter().map(|thread| match thread.join() {
                Ok(shard) => shard.map(Mutex::new),
                Err(panic) => std::panic::resume_unwind(panic),
            });
            shards.collect::<Result<Vec<_>, _>>()
        })?;
        let inner = Inner {
            identity,
            shards,
            progress: Arc::new(Mutex::new(Progress::starting_at(epoch, count))),
            upper: watch::Sender::new(epoch),
            has_writer: (0..count).map(|_| AtomicBool::new(false)).collect(),
            is_moving: (0..count).map(|_| AtomicBool::new(false)).collect(),
            description,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }
}
