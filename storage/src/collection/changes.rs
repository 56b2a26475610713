//! The changes of a shard between two epochs, read from its history.
//!
//! The time is that of the rows that changed, whatever the size of the collection: inserted rows lie between two
//! positions, deleted ones are listed by their epoch. A row inserted and deleted in one epoch is no change.

use std::collections::BTreeMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use freshet_types::{Delta, Epoch};

use super::history::Version;
use super::rows::RowLog;
use super::segment::Position;
use super::shard::Shard;

/// Which deletions count as changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletions {
    All,
    /// All but those of rows that had expired.
    Unexpired,
    /// Those of rows that had expired; and no insertion counts either.
    Expired,
}

/// What a shard knows of the epochs after one and up to another, taken under its lock.
pub(super) struct ShardChanges {
    rows: RowLog,
    /// Where the rows inserted by the first of `versions` start.
    start: Position,
    versions: Vec<Version>,
}

impl ShardChanges {
    pub fn new(shard: &Shard, after: Epoch, through: Epoch) -> Self {
        let (version, later) = shard.history.at(after);
        let versions = later.take_while(|version| version.epoch <= through).cloned().collect();
        Self { rows: shard.rows.clone(), start: version.end, versions }
    }

    /// Adds the parts of each epoch's delta to `parts`.
    pub fn collect(&self, deletions: Deletions, parts: &mut BTreeMap<Epoch, Vec<Delta>>) -> Result<(), ArrowError> {
        let mut start = self.start;
        for version in &self.versions {
            let deltas = parts.entry(version.epoch).or_default();
            let is_before = |position: &Position| *position < start;
            let mut same_epoch: Vec<Position> = version.deleted().iter().copied().filter(|p| !is_before(p)).collect();
            same_epoch.sort_unstable();
            let told = match deletions {
                Deletions::All => version.deleted(),
                Deletions::Unexpired => &version.deleted()[version.expired()..],
                Deletions::Expired => &version.deleted()[..version.expired()],
            };
            let before: Vec<Position> = told.iter().copied().filter(is_before).collect();
            for slice in self.rows.slices(start, version.end) {
                let (position, rows) = slice?;
                let rows = without(rows, position, &same_epoch)?;
                if rows.num_rows() > 0 && deletions != Deletions::Expired {
                    deltas.push(Delta::inserts(rows));
                }
            }
            if !before.is_empty() {
                deltas.push(Delta::deletes(self.rows.gather(&before, None)?));
            }
            start = version.end;
        }
        Ok(())
    }
}

/// The rows from position `start` on without those at `left_out`, which is sorted.
fn without(rows: RecordBatch, start: Position, left_out: &[Position]) -> Result<RecordBatch, ArrowError> {
    let first = left_out.partition_point(|position| *position < start);
    let end = left_out.partition_point(|position| *position < start.plus(rows.num_rows()));
    if first == end {
        return Ok(rows);
    }
    let mut kept = vec![true; rows.num_rows()];
    for position in &left_out[first..end] {
        kept[position.offset() - start.offset()] = false;
    }
    arrow::compute::filter_record_batch(&rows, &BooleanArray::from(kept))
}
