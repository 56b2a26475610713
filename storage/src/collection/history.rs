//! The recent past of a shard: one [`Version`] for each epoch that changed it.
//!
//! A version says how far the rows went at the end of its epoch and which rows that epoch deleted. With
//! the rows as they are now, this gives the rows at any epoch `e` that is not before `since`: they are
//! those before the end of the last version up to `e` that live now or were deleted by a version
//! after `e`. Versions up to `since` are folded into one, the base.

use std::collections::VecDeque;
use std::sync::Arc;

use freshet_types::Epoch;

use super::limits::VERSIONS_PER_TRIM;
use super::segment::Position;

/// What one epoch did to a shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    pub epoch: Epoch,
    /// The position after the last row inserted up to this epoch.
    pub end: Position,
    /// How many rows live at the end of this epoch.
    pub live: usize,
    /// `None` if it deleted nothing: most versions of a relation to which rows are only added do.
    deleted: Option<Arc<Deleted>>,
}

/// The rows that an epoch deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct Deleted {
    pub positions: Vec<Position>,
    /// The hash of each row's key, by which a look-up in the past finds it; empty without a key.
    pub hashes: Vec<u64>,
    /// The first so many were deleted because they had expired.
    pub expired: usize,
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub since: Epoch,
    base: Version,
    later: VecDeque<Version>,
    /// How many rows `later` deleted, and how many of its versions deleted any.
    deletions: usize,
    deleting: usize,
}

impl Version {
    /// A version after which the rows before `end` are there, of which `live` live.
    pub fn new(epoch: Epoch, end: Position, live: usize, deleted: Deleted) -> Self {
        let deleted = (!deleted.positions.is_empty()).then(|| Arc::new(deleted));
        Self { epoch, end, live, deleted }
    }

    /// The rows that it deleted.
    pub fn deleted(&self) -> &[Position] {
        self.deleted.as_ref().map_or(&[], |deleted| &deleted.positions)
    }

    /// The first so many of these had expired.
    pub fn expired(&self) -> usize {
        self.deleted.as_ref().map_or(0, |deleted| deleted.expired)
    }

    pub fn deleted_shared(&self) -> Option<Arc<Deleted>> {
        self.deleted.clone()
    }

    /// The rows that it deleted, each with the hash of its key.
    pub fn deleted_keys(&self) -> impl Iterator<Item = (Position, u64)> {
        let deleted = self.deleted.iter();
        deleted.flat_map(|deleted| deleted.positions.iter().copied().zip(deleted.hashes.iter().copied()))
    }

    /// Has the rows that it deleted follow others that moved.
    pub fn relocate(&mut self, new_place: impl Fn(Position) -> Option<Position>) {
        let moved = |position: &Position| new_place(*position).is_some();
        if let Some(deleted) = self.deleted.as_mut().filter(|deleted| deleted.positions.iter().any(moved)) {
            for position in &mut Arc::make_mut(deleted).positions {
                *position = new_place(*position).unwrap_or(*position);
            }
        }
    }

    fn bytes(&self, row_bytes: usize) -> usize {
        bytes(1, usize::from(self.deleted.is_some()), self.deleted().len(), row_bytes)
    }
}

/// What so many versions take, of which some deleted rows of so many bytes each. The rows count: without the
/// history they would be gone.
fn bytes(versions: usize, deleting: usize, deletions: usize, row_bytes: usize) -> usize {
    const COUNTERS: usize = 2 * size_of::<usize>();
    const PLACE: usize = size_of::<Position>() + size_of::<u64>();
    versions * size_of::<Version>() + deleting * (COUNTERS + size_of::<Deleted>()) + deletions * (PLACE + row_bytes)
}

impl History {
    /// The history of rows that were not there before `epoch`.
    pub fn starting_at(epoch: Epoch, end: Position, live: usize) -> Self {
        Self { since: epoch, base: Version::new(epoch, end, live, Deleted::default()), ..Self::default() }
    }

    /// Adds a version after all that there are.
    pub fn push(&mut self, version: Version) {
        debug_assert!(self.last().epoch < version.epoch);
        self.deletions += version.deleted().len();
        self.deleting += usize::from(version.deleted.is_some());
        self.later.push_back(version);
    }

    fn last(&self) -> &Version {
        self.later.back().unwrap_or(&self.base)
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
        let last = self.last();
        if self.later.is_empty() || last.epoch < epoch {
            let version = Version { epoch, end: last.end, live: last.live, deleted: None };
            self.later.push_back(version);
        }
        self.later.back_mut().expect("one was pushed if there was none")
    }

    /// Notes that `epoch` deleted rows, after which `live` live; `hashes` of their keys, if there is a key.
    pub fn delete(&mut self, epoch: Epoch, live: usize, positions: &[Position], hashes: Option<&[u64]>) {
        if positions.is_empty() {
            return;
        }
        let version = self.open(epoch);
        version.live = live;
        let is_first = version.deleted.is_none();
        let deleted = Arc::make_mut(version.deleted.get_or_insert_default());
        deleted.positions.extend_from_slice(positions);
        deleted.hashes.extend_from_slice(hashes.unwrap_or_default());
        self.deletions += positions.len();
        self.deleting += usize::from(is_first);
    }

    /// Notes that the last `count` deletions of `epoch` were of rows that had expired.
    pub fn mark_expired(&mut self, epoch: Epoch, count: usize) {
        if count == 0 {
            return;
        }
        let Some(deleted) = self.open(epoch).deleted.as_mut().map(Arc::make_mut) else { return };
        let first = deleted.expired;
        deleted.positions[first..].rotate_right(count);
        if let Some(hashes) = deleted.hashes.get_mut(first..) {
            hashes.rotate_right(count.min(hashes.len()));
        }
        deleted.expired += count;
    }

    /// How many rows `epoch` has deleted so far, if it is the last one.
    pub fn deletions_at(&self, epoch: Epoch) -> usize {
        let last = self.last();
        if last.epoch == epoch { last.deleted().len() } else { 0 }
    }

    /// Takes back the last `count` deletions of `epoch`, none of which had expired; gives the rows.
    pub fn undo_delete(&mut self, epoch: Epoch, count: usize) -> Vec<Position> {
        let version = self.open(epoch);
        let Some(shared) = &mut version.deleted else { return Vec::new() };
        let deleted = Arc::make_mut(shared);
        let kept = deleted.positions.len() - count;
        let revived = deleted.positions.split_off(kept);
        deleted.hashes.truncate(kept);
        version.live += revived.len();
        if kept == 0 {
            version.deleted = None;
            self.deleting -= 1;
        }
        self.deletions -= revived.len();
        revived
    }

    /// Moves `since` forward; gives the versions that no reader can ask for any more.
    pub fn fold(&mut self, since: Epoch) -> Vec<Version> {
        self.since = self.since.max(since);
        let count = self.later.partition_point(|version| version.epoch <= self.since);
        let folded: Vec<Version> = self.later.drain(..count).collect();
        if let Some(last) = folded.last() {
            self.base = Version { deleted: None, ..last.clone() };
        }
        self.deletions -= folded.iter().map(|version| version.deleted().len()).sum::<usize>();
        self.deleting -= folded.iter().filter(|version| version.deleted.is_some()).count();
        folded
    }

    /// How many deletions are remembered.
    pub fn deletions(&self) -> usize {
        self.deletions
    }

    /// What the history takes, with the rows of `row_bytes` each that it alone keeps.
    pub fn bytes(&self, row_bytes: usize) -> usize {
        bytes(self.later.len(), self.deleting, self.deletions, row_bytes)
    }

    /// The earliest `since`, up to `latest`, with which the history takes at most `bytes_max`. Looks at a bounded number of
    /// versions, so that it may have to be asked again.
    pub fn since_within(&self, bytes_max: usize, row_bytes: usize, latest: Epoch) -> Epoch {
        let mut excess = self.bytes(row_bytes).saturating_sub(bytes_max);
        let mut since = self.since;
        for version in self.later.iter().take(VERSIONS_PER_TRIM).take_while(|version| version.epoch <= latest) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(version.bytes(row_bytes));
            since = version.epoch;
        }
        since
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

    #[test]
    fn the_oldest_versions_go_until_what_is_left_fits() {
        let mut history = History::default();
        let places: Vec<Position> = (0..10).map(|offset| Position::new(0, offset)).collect();
        for epoch in 1..=10 {
            history.delete(Epoch(epoch), 0, &places, None);
        }
        let all = history.bytes(100);
        assert!(all > 100 * 100, "the deleted rows count");
        assert_eq!(history.since_within(all, 100, Epoch(10)), Epoch::ZERO);
        assert_eq!(history.since_within(all / 2, 100, Epoch(10)), Epoch(5));
        assert_eq!(history.since_within(0, 100, Epoch(7)), Epoch(7));
        history.fold(Epoch(5));
        assert_eq!(history.bytes(100), all / 2);
        assert_eq!(history.undo_delete(Epoch(10), 10).len(), 10);
        assert_eq!(history.deletions(), 40);
        history.fold(Epoch(10));
        assert_eq!(history.bytes(100), 0);
    }
}
