//! The rows of one side of a join, found by key.
//!
//! Rows lie in a [`RowLog`]; the rows of a key form a list, doubly linked by row number, so that a row leaves it in constant
//! time however many share its key. If rows can be retracted, a second table finds a row by the hash of all its
//! columns. A row that is gone leaves a hole in the log; when holes outnumber rows, the log is written anew.
//!
//! When memory has no room for them, all rows of the log go to the disk at once ([`super::spilled`]), and the log begins
//! anew: rows are then looked up in both. A row on the disk that loses some of its copies comes back to the log.
//!
//! A deletion that arrives before its insertion, within an epoch, is kept as a row of negative weight and
//! settled at the end of the epoch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DynComparator, RecordBatch, RecordBatchOptions, UInt32Array, make_comparator,
};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_storage::spill::{NewRows, SpillFolder};
use freshet_types::{Delta, KeyEncoder, Weights};
use hashbrown::HashTable;

use super::row_ids::{NO_ID, RowIds, ToTell};
use super::row_log::RowLog;
use super::spilled::Spilled;
use crate::limits;
use crate::memory::StateMemory;
use crate::operators::OperatorError;
use crate::operators::aggregate::gather;
use crate::operators::key_table::{KeyTable, NO_SLOT};
use crate::operators::state::{self, ChangedIds, Room, SavedParts, Telling};

/// The end of a list.
pub const NO_ROW: u32 = u32::MAX;

/// Holes in the log below this number are never worth a rewrite.
const HOLES_MIN: usize = 65_536;

pub struct Arrangement {
    schema: SchemaRef,
    /// The columns of the key.
    on: Vec<usize>,
    keys: KeyTable,
    log: RowLog,
    /// The first row of each key's list, by slot.
    heads: Vec<u32>,
    /// The neighbours of each row in its list, and its weight (zero: a hole), by row number.
    next: Vec<u32>,
    previous: Vec<u32>,
    weights: Vec<i64>,
    holes: usize,
    /// Finds rows to delete; `None` if none ever is.
    by_content: Option<ContentIndex>,
    /// Rows of negative weight.
    debts: Vec<u32>,
    ids: RowIds,
    /// The rows that are not in memory.
    spilled: Option<Spilled>,
}

/// Finds rows by all their columns.
struct ContentIndex {
    encoder: KeyEncoder,
    table: HashTable<u32>,
    /// By row number.
    hashes: Vec<u64>,
}

/// Pairs of rows found by a probe, and their weights.
pub struct Matches {
    /// The rows of the probing delta.
    pub probing: Vec<u32>,
    /// The columns of the rows of the arrangement.
    pub found: Vec<ArrayRef>,
    pub weights: Vec<i64>,
}

/// Pairs with rows in memory.
#[derive(Default)]
struct Pairs {
    probing: Vec<u32>,
    found: Vec<u32>,
    weights: Vec<i64>,
}

/// Takes the pairs that a probe finds, in parts.
pub type Give<'a> = dyn FnMut(Matches) -> Result<(), OperatorError> + 'a;

/// Compares rows of a batch with rows of chunks of the log, which it meets one after the other.
struct Equality<'a> {
    columns: &'a [ArrayRef],
    by_chunk: HashMap<usize, Vec<DynComparator>>,
}

impl Equality<'_> {
    /// Called once for each pair of equal hashes, so not a hot loop: a dynamic call a column is fine.
    fn holds(&mut self, row: usize, log: &RowLog, logged: u32) -> Result<bool, ArrowError> {
        let (chunk, place) = log.find(logged);
        let comparators = match self.by_chunk.entry(log.chunk_number(logged)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let pairs = self.columns.iter().zip(chunk.columns());
                let compare = |(a, b): (&ArrayRef, &ArrayRef)| make_comparator(a, b, SortOptions::default());
                entry.insert(pairs.map(compare).collect::<Result<_, _>>()?)
            }
        };
        Ok(comparators.iter().all(|compare| compare(row, place).is_eq()))
    }
}

impl Arrangement {
    /// Of rows of `schema`, by the columns `on`.
    ///
    /// # Errors
    /// If a type cannot be a key, or, unless the rows are `append_only`, cannot be compared.
    pub fn new(schema: SchemaRef, on: &[usize], append_only: bool) -> Result<Self, OperatorError> {
        let types: Vec<DataType> = on.iter().map(|column| schema.field(*column).data_type().clone()).collect();
        let by_content = if append_only {
            None
        } else {
            let encoder = KeyEncoder::for_schema(&schema)?;
            Some(ContentIndex { encoder, table: HashTable::new(), hashes: Vec::new() })
        };
        Ok(Self {
            keys: KeyTable::new(types)?,
            log: RowLog::new(schema.clone()),
            schema,
            on: on.to_vec(),
            heads: Vec::new(),
            next: Vec::new(),
            previous: Vec::new(),
            weights: Vec::new(),
            holes: 0,
            by_content,
            debts: Vec::new(),
            ids: RowIds::default(),
            spilled: None,
        })
    }

    /// What is held in memory and on the disk.
    pub fn memory(&self) -> StateMemory {
        let links = 4 * (self.heads.capacity() + self.next.capacity() + self.previous.capacity());
        let content = self.by_content.as_ref().map_or(0, |index| {
            index.hashes.capacity() * size_of::<u64>() + index.table.capacity() * (size_of::<u32>() + 1)
        });
        let rows = links + 8 * self.weights.capacity() + content + self.ids.row_bytes();
        let spillable_bytes = self.keys.memory_bytes() + self.log.memory_bytes() + rows;
        let (index_bytes, disk_bytes) = self.spilled.as_ref().map_or((0, 0), Spilled::bytes);
        let memory_bytes = spillable_bytes + index_bytes + self.ids.memory_bytes();
        StateMemory { memory_bytes, spillable_bytes, disk_bytes }
    }

    /// Finds the rows that have the keys of the rows of `delta`; hands them to `give` in parts of at most `part_rows`.
    pub fn probe(
        &self,
        delta: &Delta,
        keys: &[ArrayRef],
        part_rows: usize,
        give: &mut Give<'_>,
    ) -> Result<(), OperatorError> {
        let mut pairs = Pairs::default();
        let mut give_pairs = |pairs: &mut Pairs| {
            let Pairs { probing, found, weights } = std::mem::take(pairs);
            if found.is_empty() { Ok(()) } else { give(Matches { probing, found: self.log.gather(&found)?, weights }) }
        };
        let mut slots = Vec::new();
        self.keys.find(keys, delta.len(), &mut slots)?;
        for (row, slot) in (0_u32..).zip(slots).filter(|(_, slot)| *slot != NO_SLOT) {
            let weight = delta.weight(row as usize);
            let mut found = self.heads[slot as usize];
            while found != NO_ROW {
                pairs.probing.push(row);
                pairs.found.push(found);
                let product = weight.checked_mul(self.weights[found as usize]);
                pairs.weights.push(product.ok_or_else(OperatorError::weight_overflow)?);
                if pairs.found.len() == part_rows {
                    give_pairs(&mut pairs)?;
                }
                found = self.next[found as usize];
            }
        }
        give_pairs(&mut pairs)?;
        match &self.spilled {
            Some(spilled) => spilled.probe(delta, keys, part_rows, give),
            None => Ok(()),
        }
    }

    /// Takes in the rows of `delta`, whose keys are `keys`.
    pub fn add(&mut self, delta: &Delta, keys: &[ArrayRef]) -> Result<(), OperatorError> {
        let delta = delta.with_schema(&self.schema)?;
        if let Some(spilled) = &mut self.spilled {
            spilled.work(delta.len())?;
        }
        let Some(index) = &self.by_content else {
            if !delta.is_inserts() && delta.weight_column().iter().any(|weight| *weight < 0) {
                return Err(OperatorError::BrokenInvariant("a row of an append-only input was deleted".to_string()));
            }
            return self.append(delta.rows().clone(), &delta.weight_column(), keys, &[], None);
        };
        let hashes = index.encoder.encode(delta.columns(), delta.len())?.hashes();
        let Weights::Each(weights) = delta.weights() else {
            return self.append(delta.rows().clone(), &delta.weight_column(), keys, &hashes, None);
        };
        let missing = self.delete(delta.columns(), weights, keys, &hashes)?;
        // What is left is to be appended: insertions, and deletions that found nothing yet.
        let left = |row: usize| if weights[row] < 0 { missing.get(&row).copied().unwrap_or(0) } else { weights[row] };
        let rows: Vec<usize> = (0..delta.len()).filter(|row| left(*row) != 0).collect();
        let indices: UInt32Array = rows.iter().map(|row| u32::try_from(*row).expect("a batch is small")).collect();
        let keys = keys.iter().map(|key| arrow::compute::take(key, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<i64> = rows.iter().map(|row| left(*row)).collect();
        let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row]).collect();
        self.append(take_record_batch(delta.rows(), &indices)?, &weights, &keys, &hashes, None)
    }

    /// Appends rows, which have `ids` if they have been told.
    fn append(
        &mut self,
        rows: RecordBatch,
        weights: &[i64],
        keys: &[ArrayRef],
        hashes: &[u64],
        ids: Option<&[u32]>,
    ) -> Result<(), OperatorError> {
        let mut slots = Vec::new();
        self.keys.file(keys, rows.num_rows(), &mut slots)?;
        self.heads.resize(self.keys.slot_end(), NO_ROW);
        let first = self.log.len();
        if first + rows.num_rows() >= NO_ROW as usize {
            return Err(OperatorError::Unsupported("one side of a join has more than 4 billion rows".to_string()));
        }
        self.log.append(rows)?;
        for (offset, (slot, weight)) in slots.iter().zip(weights).enumerate() {
            let row = u32::try_from(first + offset).expect("checked above");
            self.link(row, *slot, *weight);
            self.ids.push(ids.map_or(NO_ID, |ids| ids[offset]));
            if let (Some(index), Some(hash)) = (&mut self.by_content, hashes.get(offset)) {
                index.hashes.push(*hash);
                index.table.insert_unique(*hash, row, |filed| index.hashes[*filed as usize]);
            }
        }
        Ok(())
    }

    /// Puts the newest row at the head of its key's list.
    fn link(&mut self, row: u32, slot: u32, weight: i64) {
        let head = std::mem::replace(&mut self.heads[slot as usize], row);
        if head != NO_ROW {
            self.previous[head as usize] = row;
        }
        self.next.push(head);
        self.previous.push(NO_ROW);
        self.weights.push(weight);
        if weight < 0 {
            self.debts.push(row);
        }
    }

    /// Takes a row out of its lists. Its place in the log becomes a hole.
    fn unlink(&mut self, row: u32, slot: u32) {
        let (next, previous) = (self.next[row as usize], self.previous[row as usize]);
        if next != NO_ROW {
            self.previous[next as usize] = previous;
        }
        if previous != NO_ROW {
            self.next[previous as usize] = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NO_ROW {
                self.keys.remove(&[slot]);
            }
        }
        self.weights[row as usize] = 0;
        self.holes += 1;
        self.ids.remove(row);
        if let Some(index) = &mut self.by_content
            && let Ok(entry) = index.table.find_entry(index.hashes[row as usize], |filed| *filed == row)
        {
            entry.remove();
        }
    }

    /// Deletes copies of the rows of negative weight. Gives the weight that found no copy, for each row with such.
    fn delete(
        &mut self,
        columns: &[ArrayRef],
        weights: &[i64],
        keys: &[ArrayRef],
        hashes: &[u64],
    ) -> Result<HashMap<usize, i64>, OperatorError> {
        let mut equality = Equality { columns, by_chunk: HashMap::new() };
        let mut slots = Vec::new();
        self.keys.find(keys, weights.len(), &mut slots)?;
        let mut missing = HashMap::new();
        for (row, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight < 0) {
            let mut left = *weight;
            while left < 0
                && let Some(found) = self.find_copy(&mut equality, row, hashes[row])?
            {
                let copies = self.weights[found as usize];
                let rest = copies.checked_add(left).ok_or_else(OperatorError::weight_overflow)?;
                if rest > 0 {
                    self.weights[found as usize] = rest;
                    self.ids.touch(found);
                } else {
                    self.unlink(found, slots[row]);
                }
                left = rest.min(0);
            }
            if left < 0 {
                missing.insert(row, left);
            }
        }
        self.delete_spilled(columns, keys, hashes, &mut missing)?;
        Ok(missing)
    }

    /// Deletes copies of rows on the disk, and takes those that were there out of `missing`.
    fn delete_spilled(
        &mut self,
        columns: &[ArrayRef],
        keys: &[ArrayRef],
        hashes: &[u64],
        missing: &mut HashMap<usize, i64>,
    ) -> Result<(), OperatorError> {
        let (Some(spilled), Some(index)) = (&mut self.spilled, &self.by_content) else { return Ok(()) };
        if missing.is_empty() {
            return Ok(());
        }
        let taken = spilled.take_copies((columns, keys, hashes), missing, &index.encoder)?;
        taken.gone.into_iter().for_each(|id| self.ids.let_go(id));
        let Some(rest) = taken.rest else { return Ok(()) };
        let keys: Vec<ArrayRef> = self.on.iter().map(|column| rest.columns[*column].clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rest.ids.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), rest.columns, &options)?;
        self.append(rows, &rest.weights, &keys, &rest.contents, Some(&rest.ids))
    }

    /// A row of positive weight that equals row `row` of the columns that are compared.
    fn find_copy(&self, equality: &mut Equality<'_>, row: usize, hash: u64) -> Result<Option<u32>, OperatorError> {
        let Some(index) = &self.by_content else { return Ok(None) };
        for found in index.table.iter_hash(hash) {
            let is_candidate = index.hashes[*found as usize] == hash && self.weights[*found as usize] > 0;
            if is_candidate && equality.holds(row, &self.log, *found)? {
                return Ok(Some(*found));
            }
        }
        Ok(None)
    }

    /// The epoch is complete: every deletion must have met its row by now.
    pub fn settle(&mut self) -> Result<(), OperatorError> {
        let debts = std::mem::take(&mut self.debts);
        if !debts.is_empty() {
            let columns = self.log.gather(&debts)?;
            let keys: Vec<ArrayRef> = self.on.iter().map(|column| columns[*column].clone()).collect();
            let weights: Vec<i64> = debts.iter().map(|row| self.weights[*row as usize]).collect();
            let index = self.by_content.as_ref().expect("only rows that can be retracted have negative weights");
            let hashes: Vec<u64> = debts.iter().map(|row| index.hashes[*row as usize]).collect();
            // First the deletions, while their keys are still filed; then the rows that stood for them.
            let missing = self.delete(&columns, &weights, &keys, &hashes)?;
            if !missing.is_empty() {
                let message = "a row was deleted from a side of a join that is not in it";
                return Err(OperatorError::BrokenInvariant(message.to_string()));
            }
            let mut slots = Vec::new();
            self.keys.find(&keys, debts.len(), &mut slots)?;
            for (row, slot) in debts.into_iter().zip(slots) {
                self.unlink(row, slot);
            }
        }
        if self.holes >= HOLES_MIN && self.holes > self.log.len() / 2 { self.rewrite() } else { Ok(()) }
    }

    /// See [`crate::operators::state::State`].
    pub fn track(&mut self) {
        self.ids.track();
    }

    /// What has changed: rows under their ids, their weights last.
    pub fn changes(&mut self) -> Result<TableChange, OperatorError> {
        let weights = &self.weights;
        let ToTell { reset, gone, rows, ids } = self.ids.take(|row| weights[row as usize] != 0);
        let mut columns = self.log.gather(&rows)?;
        columns.push(gather(&self.weights, &rows));
        let schema = state::schema(columns.iter().map(|column| column.data_type().clone()));
        let mut change = ChangedIds { reset, gone, changed: ids }.with_rows(&schema, columns)?;
        change.spilled = self.spilled.as_mut().and_then(|spilled| spilled.take_untold(&schema));
        Ok(change)
    }

    /// Takes in saved rows, in parts of which no more are in memory at a time than there is room for.
    pub fn restore(
        &mut self,
        saved: SavedParts<'_>,
        telling: Telling,
        room: Option<&Room>,
    ) -> Result<(), OperatorError> {
        let width = self.schema.fields().len();
        for saved in saved {
            let StateRows { ids, rows } = saved?;
            let weights = rows.column(width).as_primitive::<Int64Type>().values();
            for first in (0..rows.num_rows()).step_by(limits::BATCH_ROWS_MAX) {
                let length = limits::BATCH_ROWS_MAX.min(rows.num_rows() - first);
                let columns = rows.columns()[..width].iter().map(|column| column.slice(first, length)).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(length));
                let part = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
                let ids = (telling == Telling::OnlyChanges).then(|| &ids[first..first + length]);
                self.restore_part(part, &weights[first..first + length], ids)?;
                if let Some(ids) = ids {
                    self.ids.came_back(ids);
                }
                if let Some(Room { bytes_max, folder }) = room
                    && self.memory().spillable_bytes > *bytes_max
                {
                    self.spill(folder)?;
                }
            }
        }
        match telling {
            Telling::OnlyChanges => self.ids.all_came_back(),
            Telling::All => self.ids.reset(),
        }
        Ok(())
    }

    fn restore_part(&mut self, rows: RecordBatch, weights: &[i64], ids: Option<&[u32]>) -> Result<(), OperatorError> {
        let keys: Vec<ArrayRef> = self.on.iter().map(|column| rows.column(*column).clone()).collect();
        let hashes = match &self.by_content {
            Some(index) => index.encoder.encode(rows.columns(), rows.num_rows())?.hashes(),
            None => Vec::new(),
        };
        self.append(rows, weights, &keys, &hashes, ids)
    }

    /// The rows of the log that there are.
    fn live_rows(&self) -> Vec<u32> {
        let numbers = 0..u32::try_from(self.log.len()).expect("rows are numbered as u32");
        numbers.filter(|row| self.weights[*row as usize] != 0).collect()
    }

    /// Moves all rows of the log to the disk; unless some of them stand for deletions that have not met their rows.
    pub fn spill(&mut self, folder: &Arc<SpillFolder>) -> Result<(), OperatorError> {
        if !self.debts.is_empty() {
            return Ok(());
        }
        let live = self.live_rows();
        let types: Vec<DataType> =
            self.on.iter().map(|column| self.schema.field(*column).data_type().clone()).collect();
        if self.spilled.is_none() {
            let is_deleted_from = self.by_content.is_some();
            self.spilled = Some(Spilled::new(folder, self.schema.clone(), &self.on, &types, is_deleted_from)?);
        }
        let Some(spilled) = &mut self.spilled else { return Ok(()) };
        let content_hashes = self.by_content.as_ref().map(|index| &index.hashes[..]);
        let (hashes, order) = spilled.order(&self.log, &live, content_hashes)?;
        let (log, weights, ids) = (&self.log, &self.weights, &mut self.ids);
        let parts = order.chunks(limits::BATCH_ROWS_MAX).map(|part| {
            let rows: Vec<u32> = part.iter().map(|place| live[*place as usize]).collect();
            let (ids, untold) = ids.leave(&rows);
            Ok(NewRows {
                hashes: part.iter().map(|place| hashes[*place as usize]).collect(),
                contents: content_hashes.map(|hashes| rows.iter().map(|row| hashes[*row as usize]).collect()),
                ids,
                weights: rows.iter().map(|row| weights[*row as usize]).collect(),
                columns: log.gather(&rows)?,
                untold,
            })
        });
        spilled.add(live.len(), parts)?;
        self.ids.left();
        self.keys = KeyTable::new(types)?;
        self.log = RowLog::new(self.schema.clone());
        (self.heads, self.next, self.previous) = (Vec::new(), Vec::new(), Vec::new());
        (self.weights, self.holes) = (Vec::new(), 0);
        if let Some(index) = &mut self.by_content {
            (index.table, index.hashes) = (HashTable::new(), Vec::new());
        }
        Ok(())
    }

    /// Writes the log anew without holes.
    fn rewrite(&mut self) -> Result<(), OperatorError> {
        let mut slot_of_row = vec![NO_SLOT; self.log.len()];
        for (slot, head) in (0_u32..).zip(&self.heads) {
            let mut row = *head;
            while row != NO_ROW {
                slot_of_row[row as usize] = slot;
                row = self.next[row as usize];
            }
        }
        let live = self.live_rows();
        let old_log = std::mem::replace(&mut self.log, RowLog::new(self.schema.clone()));
        for part in live.chunks(HOLES_MIN) {
            let options = RecordBatchOptions::new().with_row_count(Some(part.len()));
            let columns = old_log.gather(part)?;
            self.log.append(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)?;
        }
        let old_weights = std::mem::take(&mut self.weights);
        let old_hashes = self.by_content.as_mut().map(|index| {
            index.table.clear();
            std::mem::take(&mut index.hashes)
        });
        self.next.clear();
        self.previous.clear();
        self.holes = 0;
        self.ids.renumber(&live);
        self.heads.fill(NO_ROW);
        for (new, old) in (0_u32..).zip(live) {
            self.link(new, slot_of_row[old as usize], old_weights[old as usize]);
            if let (Some(index), Some(hashes)) = (&mut self.by_content, &old_hashes) {
                index.hashes.push(hashes[old as usize]);
                index.table.insert_unique(hashes[old as usize], new, |filed| index.hashes[*filed as usize]);
            }
        }
        Ok(())
    }
}
