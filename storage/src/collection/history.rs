//! The recent past of a shard: one [`Version`] for each epoch that changed it.
//!
//! A version says how far the rows went at the end of its epoch and which rows that epoch deleted. With
//! the rows as they are now, this gives the rows at any epoch `e` that is not before `since`: they are
//! those before the end of the last version up to `e` that live now or were deleted by a version
//! after `e`. Versions up to `since` are folded into one, the base.

use std::collections::VecDeque;
use std::sync::Arc;

use freshet_types::Epoch;

use super::segment::Position;

/// What one epoch did to a shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    pub epoch: Epoch,
    /// The position after the last row inserted up to this epoch.
    pub end: Position,
    /// How many rows live at the end of this epoch.
    pub live: usize,
    pub deleted: Arc<Deleted>,
}

/// The rows that an epoch deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct Deleted {
    pub positions: Vec<Position>,
    /// The hash of each row's key, by which a look-up in the past finds it; empty without a key.
    pub hashes: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub since: Epoch,
    base: Version,
    later: VecDeque<Version>,
}

impl History {
    /// The history of rows that were not there before `epoch`.
    pub fn starting_at(epoch: Epoch, end: Position, live: usize) -> Self {
        let base = Version { epoch, end, live, deleted: Arc::default() };
        Self { since: epoch, base, later: VecDeque::new() }
    }

    /// The state at the end of `epoch`, and the versions after it.
    pub fn at(&self, epoch: Epoch) -> (&Version, impl Iterator<Item = &Version> + Clone) {
        let after = self.later.partition_point(|version| version.epoch <= epoch);
        let version = after.checked_sub(1).map_or(&self.base, |index| &self.later[index]);
        (version, self.later.range(after..))
    }

    /// The versions that any reader may still ask for, and later ones.
    pub fn later(&self) -> impl Iterator<Item = &Version> {
        self.later.iter()
    }

    pub fn later_mut(&mut self) -> impl Iterator<Item = &mut Version> {
        self.later.iter_mut()
    }

    pub fn base_end(&self) -> Position {
        self.base.end
    }

    /// The version of `epoch`, which is not before the last one.
    pub fn open(&mut self, epoch: Epoch) -> &mut Version {
        let last = self.later.back().unwrap_or(&self.base);
        if self.later.is_empty() || last.epoch < epoch {
            let version = Version { epoch, end: last.end, live: last.live, deleted: Arc::default() };
            self.later.push_back(version);
        }
        self.later.back_mut().expect("one was pushed if there was none")
    }

    /// Moves `since` forward; gives the versions that no reader can ask for any more.
    pub fn fold(&mut self, since: Epoch) -> Vec<Version> {
        self.since = self.since.max(since);
        let count = self.later.partition_point(|version| version.epoch <= self.since);
        let folded: Vec<Version> = self.later.drain(..count).collect();
        if let Some(last) = folded.last() {
            self.base = Version { deleted: Arc::default(), ..last.clone() };
        }
        folded
    }

    /// How many deletions are remembered.
    pub fn deletions(&self) -> usize {
        self.later.iter().map(|version| version.deleted.positions.len()).sum()
    }

    pub fn memory_bytes(&self) -> usize {
        let deleted =
            |version: &Version| 8 * (version.deleted.positions.capacity() + version.deleted.hashes.capacity());
        self.later.iter().map(|version| size_of::<Version>() + deleted(version)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_and_folded_by_epoch() {
        let mut history = History::default();
        for (epoch, end) in [(10, 1), (20, 2), (30, 3)] {
            history.open(Epoch(epoch)).end = Position::new(0, end);
        }
        assert_eq!(history.at(Epoch(9)).0.end, Position::new(0, 0));
        assert_eq!(history.at(Epoch(29)).0.end, Position::new(0, 2));
        assert_eq!(history.at(Epoch(29)).1.map(|version| version.epoch).collect::<Vec<_>>(), [Epoch(30)]);
        assert_eq!(history.fold(Epoch(25)).len(), 2);
        assert_eq!((history.base_end(), history.since), (Position::new(0, 2), Epoch(25)));
        assert_eq!(history.at(Epoch(25)).0.end, Position::new(0, 2));
        assert!(history.fold(Epoch(5)).is_empty());
        assert_eq!(history.since, Epoch(25));
    }
}
