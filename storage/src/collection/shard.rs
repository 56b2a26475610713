//! One shard of a collection: its rows, their recent history, and the index that finds them.
//!
//! It lives in a mutex that its one writer takes for a few thousand rows at a time, and readers for as long
//! as it takes to clone it. Invariants, between calls:
//!
//! * the rows at any epoch from `since` on are exact (see [`super::history`]), whatever a writer has
//!   begun for a later epoch, even if that failed half-way;
//! * the index, if kept, holds exactly the live rows that are in memory. Those in files are found by
//!   [their files](super::stored_rows), which takes time, so never under the lock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use freshet_types::{Epoch, Keys, RowTable};

use super::history::{Deleted, History, Version};
use super::identity::Identity;
use super::index::RowIndex;
use super::rows::{RowLog, Run};
use super::segment::Position;

#[derive(Debug)]
pub(super) struct Shard {
    pub rows: RowLog,
    pub history: History,
    pub index: RowIndex,
    /// Changes whenever rows move: what was found without the lock may be elsewhere.
    pub generation: u64,
    /// Rows before this are in the index, for a collection whose index is made by its first look-up.
    indexed_until: Position,
    live: usize,
    /// What a row takes on the average, as far as the history needs to know.
    row_bytes: usize,
    /// Rows appended since that was last worked out.
    appended: usize,
}

/// What became of deletions.
pub(super) enum Deletion {
    Done,
    /// These rows, by their numbers, were not found, or only others with their hashes; nothing was deleted.
    NotFound(Vec<usize>),
}

/// The positions in files of rows that are equal to some rows, by the numbers of these.
pub(super) type FoundInFiles = HashMap<usize, Vec<Position>>;

/// The rows of a shard at one epoch, on their own.
#[derive(Debug, Clone)]
pub(super) struct RowsAt {
    pub rows: RowLog,
    /// Rows from here on came later.
    pub end: Position,
    pub live: usize,
}

/// What a shard knows of an epoch, taken under its lock; made into [`RowsAt`] without it.
pub(super) struct PastRows {
    rows: RowsAt,
    deleted_since: Vec<Arc<Deleted>>,
}

impl Shard {
    pub fn new(rows: RowLog) -> Self {
        let (history, index) = (History::default(), RowIndex::default());
        let (indexed_until, live, row_bytes, appended) = (Position::default(), 0, 0, 0);
        Self { rows, history, index, generation: 0, indexed_until, live, row_bytes, appended }
    }

    /// The rows of `rows` with their history; `identity` by which to find them, if they are to be found at once.
    pub fn restored(rows: RowLog, history: History, identity: Option<&Identity>) -> Result<Self, ArrowError> {
        let live = rows.live();
        let in_memory = rows.segments().iter().filter(|segment| !segment.is_stored());
        let indexed: usize = in_memory.map(|segment| segment.rows() - segment.dead()).sum();
        let index = RowIndex::with_capacity(if identity.is_some() { indexed } else { 0 });
        let mut shard = Self { history, index, live, ..Self::new(rows) };
        shard.weigh_rows();
        if let Some(identity) = identity {
            shard.complete_index(identity)?;
        }
        Ok(shard)
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.index.memory_bytes() + self.history.bytes(0)
    }

    /// What the history takes, with the dead rows that it alone keeps.
    pub fn history_bytes(&self) -> usize {
        self.history.bytes(self.row_bytes)
    }

    /// The earliest `since`, up to `latest`, with which the history takes at most `bytes_max`.
    pub fn since_within(&self, bytes_max: usize, latest: Epoch) -> Epoch {
        self.history.since_within(bytes_max, self.row_bytes, latest)
    }

    fn weigh_rows(&mut self) {
        self.appended = 0;
        // Rows in files take no memory, dead or alive.
        let in_memory = self.rows.segments().iter().filter(|segment| !segment.is_stored());
        let rows: usize = in_memory.map(|segment| segment.rows()).sum();
        self.row_bytes = self.rows.memory_bytes().checked_div(rows).unwrap_or(0);
    }

    /// Appends the rows that `epoch` inserts; says where they are. They are not in the index yet.
    pub fn append(&mut self, epoch: Epoch, rows: &RecordBatch) -> Result<Vec<Run>, ArrowError> {
        let runs = self.rows.append(rows)?;
        if let Some((first, _)) = runs.first() {
            self.rows.written(first.segment(), epoch.millis());
        }
        self.live += rows.num_rows();
        let version = self.history.open(epoch);
        version.end = self.rows.end();
        version.live = self.live;
        self.appended += rows.num_rows();
        // An average moves slowly: it is looked at again when an eighth of the rows are new.
        if 8 * self.appended >= self.rows.len() {
            self.weigh_rows();
        }
        Ok(runs)
    }

    /// Files the rows from `start` on, which have these hashes. Gives the first that has the key of another in memory:
    /// to ask the files for each new row would cost more than a check of what operators and tables have made sure of.
    pub fn file(
        &mut self,
        identity: &Identity,
        start: Position,
        hashes: &[u64],
    ) -> Result<Option<Position>, ArrowError> {
        let mut suspects = Vec::new();
        for (offset, hash) in hashes.iter().enumerate() {
            if self.index.insert(*hash, start.plus(offset)) && identity.key().is_some() {
                suspects.push((*hash, start.plus(offset)));
            }
        }
        for (hash, position) in suspects {
            if self.rows_with_hash(identity, hash, position)?.len() > 1 {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// The rows filed under `hash` whose key is that of the row at `position`, which is one of them.
    fn rows_with_hash(&self, identity: &Identity, hash: u64, position: Position) -> Result<Vec<Position>, ArrowError> {
        let filed = self.index.positions(hash);
        let keys = identity.keys(&self.rows.gather(filed, None)?)?;
        let own = filed.iter().position(|other| *other == position).expect("the row was filed under its hash");
        let equal = (0..filed.len()).filter(|row| keys.equal(*row, &keys, own));
        Ok(equal.map(|row| filed[row]).collect())
    }

    /// Deletes a live row equal to each of the rows `range` of `wanted`, whose keys have the hashes `hashes`: one in
    /// memory, or else one of those in `files`, which were found since the rows last moved. All or nothing.
    pub fn delete(
        &mut self,
        epoch: Epoch,
        identity: &Identity,
        wanted: &Keys,
        range: Range<usize>,
        hashes: &[u64],
        files: &FoundInFiles,
    ) -> Result<Deletion, ArrowError> {
        let mut found: Vec<Option<Position>> = hashes.iter().map(|hash| self.index.pop(*hash)).collect();
        self.settle_collisions(identity, wanted, range.start, hashes, &mut found)?;
        let mut taken: HashSet<Position> = HashSet::new();
        let mut missing = Vec::new();
        for (row, found) in found.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
            let candidates = files.get(&(range.start + row)).map_or(&[][..], Vec::as_slice);
            let candidate = candidates.iter().find(|place| !taken.contains(*place) && self.rows.is_live(**place));
            match candidate {
                Some(position) => {
                    taken.insert(*position);
                    *found = Some(*position);
                }
                None => missing.push(range.start + row),
            }
        }
        if !missing.is_empty() {
            for (found, hash) in found.iter().zip(hashes) {
                found.iter().for_each(|position| self.put_back(*position, *hash));
            }
            return Ok(Deletion::NotFound(missing));
        }
        let found: Vec<Position> = found.into_iter().flatten().collect();
        self.delete_at(epoch, &found, identity.key().map(|_| hashes));
        Ok(Deletion::Done)
    }

    /// Compares the rows `found` by hash with the rows `wanted`, and replaces each that differs by one that does not, if
    /// there is one in memory.
    ///
    /// Equal hashes of different rows happen once in 2^64 tries, so all rows are compared in one
    /// vectorised pass that almost always finds nothing to do.
    fn settle_collisions(
        &mut self,
        identity: &Identity,
        wanted: &Keys,
        first_wanted: usize,
        hashes: &[u64],
        found: &mut [Option<Position>],
    ) -> Result<(), ArrowError> {
        let (rows, positions): (Vec<usize>, Vec<Position>) =
            found.iter().enumerate().filter_map(|(row, found)| Some((row, (*found)?))).unzip();
        let stored = identity.whole_rows(&self.rows.gather(&positions, None)?)?;
        let wrong: Vec<usize> = (0..rows.len())
            .filter(|index| !stored.equal(*index, wanted, first_wanted + rows[*index]))
            .map(|index| rows[index])
            .collect();
        for row in &wrong {
            if let Some(position) = found[*row].take() {
                self.index.insert(hashes[*row], position);
            }
        }
        for row in &wrong {
            let filed = self.index.positions(hashes[*row]);
            let stored = identity.whole_rows(&self.rows.gather(filed, None)?)?;
            let right = (0..filed.len()).find(|i| stored.equal(*i, wanted, first_wanted + row));
            if let Some(right) = right {
                let position = filed[right];
                found[*row] = Some(position);
                self.index.remove(hashes[*row], position);
            }
        }
        Ok(())
    }

    /// Files a row that turned out not to be deleted.
    fn put_back(&mut self, position: Position, hash: u64) {
        if !self.rows.is_stored(position) {
            self.index.insert(hash, position);
        }
    }

    /// Deletes live rows; `hashes` of their keys, if there is a key. They stay in the index.
    pub fn delete_at(&mut self, epoch: Epoch, positions: &[Position], hashes: Option<&[u64]>) {
        self.rows.delete(positions);
        self.live -= positions.len();
        self.history.delete(epoch, self.live, positions, hashes);
    }

    /// How many rows `epoch` has deleted so far.
    pub fn deletions_at(&self, epoch: Epoch) -> usize {
        self.history.deletions_at(epoch)
    }

    /// Undoes the last deletions of `epoch`, those of the rows with these hashes.
    pub fn undo_deletes(&mut self, epoch: Epoch, hashes: &[u64]) {
        let revived = self.history.undo_delete(epoch, hashes.len());
        self.live += revived.len();
        self.rows.revive(&revived);
        for (position, hash) in revived.into_iter().zip(hashes) {
            self.put_back(position, *hash);
        }
    }

    /// Takes a row that has left memory out of the index, if it was there.
    pub fn forget(&mut self, hash: u64, position: Position, append_only: bool) {
        if !append_only || position < self.indexed_until {
            self.index.remove(hash, position);
        }
    }

    /// Lets go of what only epochs before `since` need. Puts segments worth compacting into `wasteful`.
    pub fn fold(&mut self, since: Epoch, wasteful: &mut BTreeSet<u64>) {
        for version in self.history.fold(since) {
            self.rows.bury(version.deleted(), wasteful);
        }
    }

    /// The rows at `epoch`, which is readable.
    pub fn at(&self, epoch: Epoch) -> PastRows {
        let (version, after) = self.history.at(epoch);
        let rows = RowsAt { rows: self.rows.clone(), end: version.end, live: version.live };
        PastRows { rows, deleted_since: after.filter_map(Version::deleted_shared).collect() }
    }

    /// The rows in memory at `epoch` that have one of `keys`, in the order of their insertion.
    pub fn lookup(&mut self, epoch: Epoch, identity: &Identity, keys: &Keys) -> Result<RecordBatch, ArrowError> {
        let wanted = KeySet::new(keys);
        let (version, after) = self.history.at(epoch);
        let end = version.end;
        let filed = wanted.hashes.iter().flat_map(|hash| self.index.positions(*hash)).copied();
        // Rows deleted after `epoch` are not in the index any more. They are few: queries read recent epochs.
        let deleted_since = after.flat_map(Version::deleted_keys);
        let departed = deleted_since.filter(|(_, hash)| wanted.has_hash(*hash)).map(|(position, _)| position);
        let is_here = |position: &Position| *position < end && !self.rows.is_stored(*position);
        let mut candidates: Vec<Position> = filed.chain(departed).filter(is_here).collect();
        candidates.sort_unstable();
        candidates.dedup();
        let rows = self.rows.gather(&candidates, None)?;
        wanted.filter(&rows, &identity.keys(&rows)?)
    }

    /// Files all live rows that are not in the index yet: the first look-up in an append-only collection makes it.
    pub fn complete_index(&mut self, identity: &Identity) -> Result<(), ArrowError> {
        let end = self.rows.end();
        for (segment, from, until) in self.rows.segments_between(self.indexed_until, end) {
            if segment.is_stored() {
                continue;
            }
            for slice in segment.slices(from, until) {
                let (start, rows) = slice?;
                for (offset, hash) in (start..).zip(identity.keys(&rows)?.hashes()) {
                    if segment.is_live(offset) {
                        self.index.insert(hash, Position::new(segment.id, offset));
                    }
                }
            }
        }
        self.indexed_until = end;
        Ok(())
    }
}

impl PastRows {
    /// Brings the rows back to their epoch.
    pub fn restore(self) -> RowsAt {
        let Self { mut rows, deleted_since } = self;
        for deleted in deleted_since {
            rows.rows.revive(&deleted.positions);
        }
        rows
    }
}

/// Keys to look up.
pub(super) struct KeySet<'a> {
    keys: &'a Keys,
    pub hashes: Vec<u64>,
    table: RowTable,
}

impl<'a> KeySet<'a> {
    pub fn new(keys: &'a Keys) -> Self {
        let hashes = keys.hashes();
        let mut table = RowTable::with_capacity(hashes.len());
        for (row, hash) in hashes.iter().enumerate() {
            table.insert(*hash, row);
        }
        Self { keys, hashes, table }
    }

    fn has_hash(&self, hash: u64) -> bool {
        self.table.find(hash, |_| true).is_some()
    }

    /// Those of `rows`, which have the keys `row_keys`, that have one of these keys.
    pub fn filter(&self, rows: &RecordBatch, row_keys: &Keys) -> Result<RecordBatch, ArrowError> {
        let hashes = row_keys.hashes();
        let mask = hashes
            .iter()
            .enumerate()
            .map(|(row, hash)| Some(self.table.find(*hash, |wanted| self.keys.equal(wanted, row_keys, row)).is_some()));
        arrow::compute::filter_record_batch(rows, &mask.collect())
    }
}
