//! How a collection leaves for a checkpoint, and how it comes back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{RecordBatch, UInt32Array};
use freshet_types::delta::take_rows;
use freshet_types::{Delta, Epoch};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::changes::Deletions;
use super::history_policy::HistoryUse;
use super::identity::Identity;
use super::past::{PastVersions, RestoreError, SegmentVersions, StoredShard};
use super::progress::Progress;
use super::rows::RowLog;
use super::segment::Segment;
use super::shard::Shard;
use super::{Collection, CollectionDescription, CollectionError, Inner};

/// A segment of which the rows before an offset belong to some epoch, with the rows marked that lived then.
pub(crate) type SegmentAt = (Segment, usize);

/// A shard as a checkpoint takes it.
pub(crate) struct ShardAt {
    pub segments: Vec<SegmentAt>,
    pub past: PastVersions,
}

/// The shard of each row of a batch, less than the number of shards asked for.
pub type ShardOf<'a> = &'a (dyn Fn(&RecordBatch) -> Vec<usize> + Sync);

impl Collection {
    /// The segments of each shard as they were at `epoch`, and the versions up to then. `versions_after` tells of a shard, by
    /// its number and segments, after which epoch the versions are wanted. The locks are held only for as long as it takes
    /// to clone.
    ///
    /// # Errors
    /// If the epoch is not readable.
    pub(crate) fn shards_at(
        &self,
        epoch: Epoch,
        versions_after: impl Fn(usize, &[Segment]) -> Epoch,
    ) -> Result<Vec<ShardAt>, CollectionError> {
        let _hold = self.inner.check_readable(epoch, epoch)?;
        let taken = self.inner.shards.iter().enumerate().map(|(number, shard)| {
            let shard = shard.lock();
            let after = versions_after(number, shard.rows.segments());
            (shard.at(epoch), PastVersions::new(&shard, after, epoch))
        });
        Ok(taken
            .map(|(rows, past)| {
                let rows = rows.restore();
                let segments = rows.rows.segments_before(rows.end);
                ShardAt { segments: segments.map(|(segment, end)| (segment.clone(), end)).collect(), past }
            })
            .collect())
    }

    /// The collection that had the rows and versions `shards` at `epoch`. The index is made here, on a thread a shard.
    ///
    /// # Errors
    /// If rows or keys of the schema cannot be compared, or what is known of the past cannot be true.
    pub(crate) fn restored(
        description: CollectionDescription,
        shards: Vec<StoredShard>,
        epoch: Epoch,
    ) -> Result<Arc<Self>, RestoreError> {
        let identity = Arc::new(Identity::new(&description)?);
        let count = shards.len();
        let since = shards.iter().map(|shard| shard.since).max().unwrap_or(epoch);
        let is_filed = !description.append_only;
        let restore = |stored: StoredShard| {
            let (rows, history) = stored.into_parts(&identity)?;
            let mut shard = Shard::restored(rows, history, is_filed.then_some(&*identity))?;
            // Who writes the shard finds by itself what is worth compacting.
            shard.fold(since, &mut std::collections::BTreeSet::new());
            Ok::<_, RestoreError>(Mutex::new(shard))
        };
        let shards = std::thread::scope(|scope| {
            let threads: Vec<_> = shards.into_iter().map(|stored| scope.spawn(|| restore(stored))).collect();
            let shards = threads.into_iter().map(|thread| match thread.join() {
                Ok(shard) => shard,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            shards.collect::<Result<Vec<_>, _>>()
        })?;
        let inner = Inner {
            identity,
            shards,
            progress: Arc::new(Mutex::new(Progress::restored(since, epoch, count))),
            history: HistoryUse::new(description.history.clone()),
            upper: watch::Sender::new(epoch),
            has_writer: (0..count).map(|_| AtomicBool::new(false)).collect(),
            is_moving: (0..count).map(|_| AtomicBool::new(false)).collect(),
            description,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// The same collection with its rows, dead ones too, in so many shards as `shard_of` tells: its oldest version
    /// is spread, and what happened since happens again.
    ///
    /// # Errors
    /// If rows cannot be compared.
    pub(crate) fn spread(
        &self,
        description: CollectionDescription,
        shards: usize,
        shard_of: ShardOf<'_>,
    ) -> Result<Arc<Self>, CollectionError> {
        let (since, upper) = (self.since(), self.upper());
        let empty = || RowLog::new(description.schema.clone());
        let mut logs: Vec<RowLog> = (0..shards).map(|_| empty()).collect();
        let oldest = self.snapshot(since)?;
        for (segment, end) in oldest.shards().iter().flat_map(|shard| shard.rows.segments_before(shard.end)) {
            for rows in segment.live_batches(end, None) {
                let rows = rows?;
                for (log, places) in logs.iter_mut().zip(places(&rows, shards, shard_of)) {
                    let runs = log.append(&take_rows(&rows, &UInt32Array::from(places))?)?;
                    runs.first().iter().for_each(|(first, _)| log.written(first.segment(), segment.written_ms));
                }
            }
        }
        let stored = logs.into_iter().map(|rows| StoredShard { rows, since, versions: SegmentVersions::new() });
        let spread = Self::restored(description, stored.collect(), since).map_err(|error| match error {
            RestoreError::Arrow(error) => error,
            RestoreError::Misfit(misfit) => arrow::error::ArrowError::ComputeError(misfit.to_string()),
        })?;
        let mut writers: Vec<_> = (0..shards).map(|shard| spread.writer(shard)).collect();
        // Of an epoch, rows that had expired leave first.
        let expired = self.changes_with(Deletions::Expired, since, upper)?.into_iter();
        let others = self.changes_with(Deletions::Unexpired, since, upper)?.into_iter();
        let mut changes: Vec<(Epoch, Deletions, Delta)> =
            expired.map(|(epoch, delta)| (epoch, Deletions::Expired, delta)).collect();
        changes.extend(others.map(|(epoch, delta)| (epoch, Deletions::Unexpired, delta)));
        changes.sort_by_key(|(epoch, ..)| *epoch);
        for (epoch, deletions, delta) in changes {
            let parts = places(delta.rows(), shards, shard_of);
            for (writer, places) in writers.iter_mut().zip(parts) {
                let part: Delta = delta.take(&UInt32Array::from(places))?;
                match deletions {
                    Deletions::Expired => writer.apply_expired(epoch, &part)?,
                    _ => writer.apply(epoch, &part)?,
                }
            }
        }
        writers.iter_mut().for_each(|writer| writer.advance_upper(upper));
        drop(writers);
        Ok(spread)
    }
}

/// The rows of a batch that go to each shard.
fn places(rows: &RecordBatch, shards: usize, shard_of: ShardOf<'_>) -> Vec<Vec<u32>> {
    let mut places = vec![Vec::new(); shards];
    for (row, shard) in (0..).zip(shard_of(rows)) {
        places[shard].push(row);
    }
    places
}
