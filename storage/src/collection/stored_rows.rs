//! Rows of a shard that lie in files, found by their keys.
//!
//! Takes time, so never under the shard's lock: who looks takes a clone of the rows and goes on without.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::error::ArrowError;
use freshet_types::Keys;
use freshet_types::delta::take_rows;

use super::identity::Identity;
use super::rows::RowLog;
use super::segment::Position;
use super::shard::{FoundInFiles, KeySet};
use crate::tiers::{StoredChunk, Wanted};

/// The positions, in files, of live rows that are equal to the rows `numbers` of `rows`; `whole_rows` are all of these as
/// keys, `hashes` those of what identifies them.
pub(super) fn find_equal(
    log: &RowLog,
    identity: &Arc<Identity>,
    rows: &RecordBatch,
    whole_rows: &Keys,
    hashes: &[u64],
    numbers: &[usize],
) -> Result<FoundInFiles, ArrowError> {
    let indices: UInt32Array = numbers.iter().map(|row| u32::try_from(*row).ok()).collect();
    let sought = take_rows(rows, &indices)?;
    let columns = identity.columns(rows.num_columns());
    let values = columns.iter().map(|column| sought.column(*column).clone()).collect();
    let hashes = numbers.iter().map(|row| hashes[*row]).collect();
    let wanted = wanted(identity, columns, values, hashes);
    let (found, positions) = candidates(log, log.end(), &wanted)?;
    let stored = identity.whole_rows(&log.gather(&positions, None)?)?;
    let mut equal = FoundInFiles::new();
    for (index, (number, position)) in found.into_iter().zip(positions).enumerate() {
        if stored.equal(index, whole_rows, numbers[number]) {
            equal.entry(numbers[number]).or_default().push(position);
        }
    }
    Ok(equal)
}

/// The live rows in files, before `end`, that have one of `keys`, whose columns are `values`.
pub(super) fn lookup(
    log: &RowLog,
    end: Position,
    identity: &Arc<Identity>,
    values: &[ArrayRef],
    keys: &Keys,
) -> Result<RecordBatch, ArrowError> {
    let columns = identity.columns(log.schema().fields().len());
    let wanted = wanted(identity, columns, values.to_vec(), keys.hashes());
    let (_, mut positions) = candidates(log, end, &wanted)?;
    positions.sort_unstable();
    positions.dedup();
    let rows = log.gather(&positions, None)?;
    KeySet::new(keys).filter(&rows, &identity.keys(&rows)?)
}

fn wanted(identity: &Arc<Identity>, columns: Vec<usize>, values: Vec<ArrayRef>, hashes: Vec<u64>) -> Wanted {
    let identity = identity.clone();
    let hash_rows = move |rows: &RecordBatch| Ok(identity.keys_of_columns(rows.columns(), rows.num_rows())?.hashes());
    Wanted { columns: columns.into(), values: values.into(), hashes: hashes.into(), hash_rows: Arc::new(hash_rows) }
}

/// The numbers of wanted rows, and where in files, before `end`, live rows with their hashes are.
fn candidates(log: &RowLog, end: Position, wanted: &Wanted) -> Result<(Vec<usize>, Vec<Position>), ArrowError> {
    let alive = log.segments_before(end).filter(|(segment, _)| segment.dead() < segment.rows());
    let chunks = alive.flat_map(|(segment, until)| segment.chunks().iter().map(move |chunk| (segment, until, chunk)));
    let (places, stored): (Vec<_>, Vec<_>) = chunks
        .filter_map(|(segment, until, chunk)| Some(((segment, until, chunk.start()), chunk.stored()?.clone())))
        .unzip();
    let mut found = (Vec::new(), Vec::new());
    for ((segment, until, start), rows) in places.into_iter().zip(StoredChunk::find_blocking(stored, wanted)?) {
        for (number, row) in rows {
            let offset = start + row as usize;
            if offset < until && segment.is_live(offset) {
                found.0.push(number);
                found.1.push(Position::new(segment.id, offset));
            }
        }
    }
    Ok(found)
}
