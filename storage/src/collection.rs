//! A collection: a multiset of rows at rest, readable at any recent epoch while it is written.
//!
//! Tables, results of views, and operator state are collections. Rows lie in *shards*, one for each
//! dataflow worker, so that workers write without waiting for each other. Within a shard
//!
//! * rows are appended to [segments](segment) in the order of their epochs, so the rows inserted up to
//!   an epoch are those before some position;
//! * a deleted row stays where it is and loses its bit in the segment's bitmap of live rows;
//! * the [history] remembers, for each recent epoch, where its rows end and which rows it deleted.
//!
//! So the collection at epoch `e`, for any `e` in `[since, upper]`, is exactly
//!
//! ```text
//! rows(e) = { row before end(e) : it lives now, or was deleted after e }
//! ```
//!
//! and the change of epoch `e` is what lies between `end(e - 1)` and `end(e)`, less what `e` deleted. Bitmaps and
//! segments are copy-on-write: a [`Snapshot`] is a few reference counts, a reader never blocks a
//! writer, nor a writer a reader. As `since` follows `upper`, [as far behind as is wanted](history_policy), history is forgotten, and segments that
//! are mostly dead are [compacted](compaction).
//!
//! Rows that nobody changes may lie [in files](tiering) of the warm and cold tiers instead of memory. All of the above
//! holds for them as well: they have positions, and bits in the bitmap of live rows.
//!
//! A collection does not know where its rows come from, who reads them, or what is durable.

mod changes;
mod compaction;
mod expiry;
mod history;
mod history_policy;
mod identity;
mod index;
pub(crate) mod limits;
pub(crate) mod past;
mod progress;
pub(crate) mod restore;
mod retention;
pub(crate) mod rows;
pub(crate) mod segment;
mod shard;
mod snapshot;
mod stored_rows;
#[cfg(test)]
mod tests;
mod tiering;
mod uid;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use freshet_types::{Delta, Epoch};
use parking_lot::Mutex;
use tokio::sync::watch;

use changes::ShardChanges;
use history_policy::HistoryUse;
use identity::Identity;
use progress::Progress;
use rows::RowLog;
use shard::Shard;

pub use changes::Deletions;
pub use expiry::{Expired, ExpiredRows};
pub use history_policy::{HistoryBudget, HistoryPolicy, RECENT_HISTORY_MS};
pub use progress::Hold;
pub use retention::{Retention, horizon_us};
pub use snapshot::{Snapshot, StoredPart};
pub use tiering::{Moved, TierPolicy, TierStats};
pub use writer::ShardWriter;

/// What a collection holds and how it is filed.
#[derive(Debug, Clone)]
pub struct CollectionDescription {
    /// Names the collection in logs and errors.
    pub name: String,
    pub schema: SchemaRef,
    /// Columns whose values no two live rows share; `None`: a multiset of whole rows.
    pub key: Option<Vec<usize>>,
    /// Rows are only ever inserted, so that no index is needed to find a row to delete.
    pub append_only: bool,
    /// How far `since` stays behind `upper`.
    pub history: HistoryPolicy,
    /// Until when rows are kept, if not for ever. Then it is not `append_only`.
    pub retention: Option<Retention>,
}

impl CollectionDescription {
    /// A collection whose rows may be deleted, and of whose past no more is kept than everybody needs.
    pub fn new(name: impl Into<String>, schema: SchemaRef, key: Option<Vec<usize>>) -> Self {
        Self { name: name.into(), schema, key, append_only: false, history: HistoryPolicy::recent(), retention: None }
    }
}

/// What a collection keeps of its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryStatus {
    /// The oldest readable epoch.
    pub since: Epoch,
    /// The last one.
    pub upper: Epoch,
    /// What the versions take, with the dead rows that they alone keep.
    pub bytes: usize,
    /// Whether there is less than was asked for, so that it takes no more memory than it may.
    pub is_trimmed: bool,
}

/// Rows in shards, one for each dataflow worker.
pub struct Collection {
    inner: Arc<Inner>,
}

/// What a collection shares with its writers and snapshots.
struct Inner {
    description: CollectionDescription,
    identity: Arc<Identity>,
    shards: Vec<Mutex<Shard>>,
    progress: Arc<Mutex<Progress>>,
    history: HistoryUse,
    upper: watch::Sender<Epoch>,
    /// Which shards have a writer.
    has_writer: Vec<AtomicBool>,
    /// In which shards rows are being moved.
    is_moving: Vec<AtomicBool>,
}

/// Why a collection could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    #[error("epoch {wanted} is not readable: readable are {since} to {upper}")]
    NotReadable { wanted: Epoch, since: Epoch, upper: Epoch },
    #[error("a row was deleted from \"{collection}\" that is not in it: {row}")]
    NoSuchRow { collection: String, row: String },
    #[error("a row was inserted into \"{collection}\" whose key is already there: {row}")]
    DuplicateKey { collection: String, row: String },
    #[error("a change of \"{collection}\" at epoch {epoch} came after {upper}")]
    OutOfOrder { collection: String, epoch: Epoch, upper: Epoch },
    #[error("\"{collection}\" cannot be looked up by these columns")]
    NoKey { collection: String },
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl Collection {
    /// An empty collection.
    ///
    /// # Errors
    /// If rows or keys of the schema cannot be compared.
    pub fn new(description: CollectionDescription, shards: usize) -> Result<Arc<Self>, CollectionError> {
        let identity = Arc::new(Identity::new(&description)?);
        let empty = || Mutex::new(Shard::new(RowLog::new(description.schema.clone())));
        let inner = Inner {
            identity,
            shards: (0..shards).map(|_| empty()).collect(),
            progress: Arc::new(Mutex::new(Progress::new(shards))),
            history: HistoryUse::new(description.history.clone()),
            upper: watch::Sender::new(Epoch::ZERO),
            has_writer: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            is_moving: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            description,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    pub fn description(&self) -> &CollectionDescription {
        &self.inner.description
    }

    pub fn shard_count(&self) -> usize {
        self.inner.shards.len()
    }

    /// The writer of shard `shard`.
    ///
    /// # Panics
    /// If it has one: two writers of one shard are a bug.
    pub fn writer(self: &Arc<Self>, shard: usize) -> ShardWriter {
        let has_writer = self.inner.has_writer[shard].swap(true, Ordering::SeqCst);
        assert!(!has_writer, "a shard has one writer");
        ShardWriter::new(self.inner.clone(), shard)
    }

    /// The last epoch at which all shards are complete: what queries may read.
    pub fn upper(&self) -> Epoch {
        *self.inner.upper.borrow()
    }

    /// Told whenever the upper moves.
    pub fn watch_upper(&self) -> watch::Receiver<Epoch> {
        self.inner.upper.subscribe()
    }

    /// The oldest epoch that can still be read.
    pub fn since(&self) -> Epoch {
        self.inner.progress.lock().since()
    }

    /// Lets go of versions before `since`; never moves back, never past the upper or a [`Hold`]. What only they
    /// needed is freed as the writers go on.
    pub fn advance_since(&self, since: Epoch) {
        self.inner.progress.lock().advance_since(since);
    }

    /// Says that the collection did not exist before `epoch`: it is not readable there, even as empty.
    pub fn begin_at(&self, epoch: Epoch) {
        self.inner.progress.lock().begin_at(epoch);
    }

    /// Lets go of all versions but those of the last [`RECENT_HISTORY_MS`], to save memory.
    pub fn give_up_history(&self) {
        let mut progress = self.inner.progress.lock();
        let wanted = progress.upper().minus_millis(self.inner.description.history.ms.min(RECENT_HISTORY_MS));
        progress.trim(wanted);
    }

    /// What is kept of its past.
    pub fn history(&self) -> HistoryStatus {
        let progress = self.inner.progress.lock();
        let wanted = progress.upper().minus_millis(self.inner.description.history.ms);
        HistoryStatus {
            since: progress.since(),
            upper: progress.upper(),
            bytes: self.inner.history.bytes(),
            is_trimmed: progress.trimmed() > wanted,
        }
    }

    /// Keeps `epoch` and later ones readable until the hold is dropped.
    ///
    /// # Errors
    /// If `epoch` is before `since`.
    pub fn hold(&self, epoch: Epoch) -> Result<Hold, CollectionError> {
        Hold::new(&self.inner.progress, epoch).ok_or_else(|| self.inner.not_readable(epoch))
    }

    /// The rows at epoch `at`.
    ///
    /// # Errors
    /// If `at` is not between `since` and `upper`.
    pub fn snapshot(&self, at: Epoch) -> Result<Snapshot, CollectionError> {
        let _hold = self.inner.check_readable(at, at)?;
        let past = self.inner.shards.iter().map(|shard| shard.lock().at(at));
        let shards = past.map(shard::PastRows::restore).collect();
        Ok(Snapshot::new(self.inner.clone(), at, shards))
    }

    /// The changes of all epochs `e` with `after < e <= through`, one consolidated delta an epoch, in order. Epochs
    /// without changes are left out.
    ///
    /// # Errors
    /// If `after` is before `since`, or `through` after `upper`.
    pub fn changes(&self, after: Epoch, through: Epoch) -> Result<Vec<(Epoch, Delta)>, CollectionError> {
        self.changes_with(Deletions::All, after, through)
    }

    /// [`Collection::changes`] with some deletions only.
    ///
    /// # Errors
    /// As there.
    pub fn changes_with(
        &self,
        deletions: Deletions,
        after: Epoch,
        through: Epoch,
    ) -> Result<Vec<(Epoch, Delta)>, CollectionError> {
        let _hold = self.inner.check_readable(after, through)?;
        let mut parts = BTreeMap::new();
        for shard in &self.inner.shards {
            let changes = ShardChanges::new(&shard.lock(), after, through);
            changes.collect(deletions, &mut parts)?;
        }
        let mut changes = Vec::with_capacity(parts.len());
        for (epoch, parts) in parts {
            let delta = Delta::concat(&self.inner.description.schema, &parts)?.consolidate()?;
            if !delta.is_empty() {
                changes.push((epoch, delta));
            }
        }
        Ok(changes)
    }

    /// Live rows, those of epochs after the upper included.
    pub fn row_count(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.lock().live()).sum()
    }

    pub fn segment_count(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.lock().rows.segments().len()).sum()
    }

    /// Bytes held by rows, history and index.
    pub fn memory_bytes(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.lock().memory_bytes()).sum()
    }
}

impl Inner {
    /// Checks that all epochs from `first` to `last` are readable, and keeps them so.
    fn check_readable(&self, first: Epoch, last: Epoch) -> Result<Hold, CollectionError> {
        let hold = Hold::new(&self.progress, first).ok_or_else(|| self.not_readable(first))?;
        for epoch in [first, last] {
            if !self.progress.lock().is_readable(epoch) {
                return Err(self.not_readable(epoch));
            }
        }
        Ok(hold)
    }

    fn not_readable(&self, wanted: Epoch) -> CollectionError {
        let progress = self.progress.lock();
        CollectionError::NotReadable { wanted, since: progress.since(), upper: progress.upper() }
    }

    /// Moves the upper of a shard, and with it perhaps that of the collection, and `since`. Gives the latter.
    fn advance_upper(&self, shard: usize, upper: Epoch) -> Epoch {
        let mut progress = self.progress.lock();
        let upper = progress.advance_upper(shard, upper);
        let since = progress.advance_since(upper.minus_millis(self.description.history.ms));
        // Told while the lock is held, so that two shards cannot publish in the wrong order.
        self.upper.send_if_modified(|published| std::mem::replace(published, upper) != upper);
        since
    }

    /// Moves `since` up if the history of `shard` takes more than it may. Gives where it is.
    fn trim(&self, shard: &Shard, since: Epoch) -> Epoch {
        let own = shard.history_bytes();
        let allowance = self.history.allowance(own);
        if own <= allowance {
            return since;
        }
        let mut progress = self.progress.lock();
        let latest = progress.upper().minus_millis(self.description.history.ms.min(RECENT_HISTORY_MS));
        progress.trim(shard.since_within(allowance, latest))
    }
}
