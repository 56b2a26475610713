//! Which epochs of a collection may be read: from `since` to `upper`.

use std::collections::BTreeMap;
use std::sync::Arc;

use freshet_types::Epoch;
use parking_lot::Mutex;

/// The bounds of what may be read, and who keeps the lower one back.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last complete epoch of each shard.
    uppers: Vec<Epoch>,
    since: Epoch,
    /// Where `since` would be if nobody held it.
    since_wanted: Epoch,
    /// What there was before this is nobody's business: the collection is not older.
    beginning: Epoch,
    /// Where `since` was put to save memory.
    trimmed: Epoch,
    /// How many hold each epoch.
    holds: BTreeMap<Epoch, usize>,
}

impl Progress {
    pub fn new(shards: usize) -> Self {
        Self::restored(Epoch::ZERO, Epoch::ZERO, shards)
    }

    /// Readable from `since` to `upper`.
    pub fn restored(since: Epoch, upper: Epoch, shards: usize) -> Self {
        Self {
            uppers: vec![upper; shards],
            since,
            since_wanted: since,
            beginning: Epoch::ZERO,
            trimmed: Epoch::ZERO,
            holds: BTreeMap::new(),
        }
    }

    /// Makes nothing before `epoch` readable, now or once the upper is there.
    pub fn begin_at(&mut self, epoch: Epoch) {
        self.beginning = self.beginning.max(epoch);
        self.advance_since(epoch);
    }

    /// Moves `since` towards `wanted` to save memory; gives where it is.
    pub fn trim(&mut self, wanted: Epoch) -> Epoch {
        self.trimmed = self.trimmed.max(wanted);
        self.advance_since(wanted)
    }

    /// Where `since` was put to save memory; zero if it never was.
    pub fn trimmed(&self) -> Epoch {
        self.trimmed
    }

    pub fn shard_upper(&self, shard: usize) -> Epoch {
        self.uppers[shard]
    }

    pub fn upper(&self) -> Epoch {
        self.uppers.iter().copied().min().unwrap_or_default()
    }

    pub fn since(&self) -> Epoch {
        self.since
    }

    /// Moves the upper of a shard; gives the upper of all.
    pub fn advance_upper(&mut self, shard: usize, upper: Epoch) -> Epoch {
        self.uppers[shard] = self.uppers[shard].max(upper);
        self.upper()
    }

    /// Moves `since` towards `wanted`, as far as the upper and holds allow; gives where it is.
    pub fn advance_since(&mut self, wanted: Epoch) -> Epoch {
        self.since_wanted = self.since_wanted.max(wanted.max(self.beginning).min(self.upper()));
        let held = self.holds.keys().next().copied().unwrap_or(self.since_wanted);
        self.since = self.since.max(self.since_wanted.min(held));
        self.since
    }

    pub fn is_readable(&self, epoch: Epoch) -> bool {
        self.since <= epoch && epoch <= self.upper()
    }
}

/// Keeps an epoch, and those after it, readable until it is dropped.
#[derive(Debug)]
pub struct Hold {
    epoch: Epoch,
    progress: Arc<Mutex<Progress>>,
}

impl Hold {
    /// `None` if the epoch is not readable any more.
    pub(super) fn new(progress: &Arc<Mutex<Progress>>, epoch: Epoch) -> Option<Self> {
        let mut locked = progress.lock();
        if epoch < locked.since {
            return None;
        }
        *locked.holds.entry(epoch).or_default() += 1;
        Some(Self { epoch, progress: progress.clone() })
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Lets go of the epochs before `epoch`; never moves back.
    pub fn advance(&mut self, epoch: Epoch) {
        if epoch <= self.epoch {
            return;
        }
        let mut progress = self.progress.lock();
        *progress.holds.entry(epoch).or_default() += 1;
        progress.release(self.epoch);
        self.epoch = epoch;
    }
}

impl Progress {
    fn release(&mut self, epoch: Epoch) {
        if let Some(count) = self.holds.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&epoch);
            }
        }
        self.advance_since(self.since_wanted);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.progress.lock().release(self.epoch);
    }
}
