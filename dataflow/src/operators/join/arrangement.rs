//! The rows of one side of a join, found by key.
//!
//! Rows lie in a [`RowLog`]; the rows of a key form a list, doubly linked by row number, so that a row leaves it in constant
//! time however many share its key. If rows can be retracted, a second table finds a row by the hash of all its
//! columns. A row that is gone leaves a hole in the log; when holes outnumber rows, the log is written anew.
//!
//! A deletion that arrives before its insertion, within an epoch, is kept as a row of negative weight and
//! settled at the end of the epoch.

use std::collections::HashMap;

use arrow::array::{
    Array, ArrayRef, AsArray, DynComparator, RecordBatch, RecordBatchOptions, UInt32Array, make_comparator,
};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::{Delta, KeyEncoder, Weights};
use hashbrown::HashTable;

use super::row_log::RowLog;
use crate::operators::OperatorError;
use crate::operators::aggregate::gather;
use crate::operators::key_table::{KeyTable, NO_SLOT};
use crate::operators::state::{self, Changes, Telling};

/// The end of a list.
const NO_ROW: u32 = u32::MAX;

/// Holes in the log below this number are never worth a rewrite.
const HOLES_MIN: usize = 65_536;

pub struct Arrangement {
    schema: SchemaRef,
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
    changes: Changes,
}

/// Finds rows by all their columns.
struct ContentIndex {
    encoder: KeyEncoder,
    table: HashTable<u32>,
    /// By row number.
    hashes: Vec<u64>,
}

/// Pairs of rows found by a probe.
#[derive(Default)]
pub struct Matches {
    /// The rows of the probing delta.
    pub probing: Vec<u32>,
    /// The rows of the arrangement.
    pub found: Vec<u32>,
    pub weights: Vec<i64>,
}

impl Matches {
    fn clear(&mut self) {
        self.probing.clear();
        self.found.clear();
        self.weights.clear();
    }
}

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
            heads: Vec::new(),
            next: Vec::new(),
            previous: Vec::new(),
            weights: Vec::new(),
            holes: 0,
            by_content,
            debts: Vec::new(),
            changes: Changes::default(),
        })
    }

    /// Finds the rows that have the keys of the rows of `delta`; hands them to `give` in parts of at most `part_rows`.
    pub fn probe(
        &self,
        delta: &Delta,
        keys: &[ArrayRef],
        matches: &mut Matches,
        part_rows: usize,
        give: &mut impl FnMut(&Matches) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let mut slots = Vec::new();
        self.keys.find(keys, delta.len(), &mut slots)?;
        for (row, slot) in (0_u32..).zip(slots).filter(|(_, slot)| *slot != NO_SLOT) {
            let weight = delta.weight(row as usize);
            let mut found = self.heads[slot as usize];
            while found != NO_ROW {
                matches.probing.push(row);
                matches.found.push(found);
                let product = weight.checked_mul(self.weights[found as usize]);
                matches.weights.push(product.ok_or_else(OperatorError::weight_overflow)?);
                if matches.found.len() == part_rows {
                    give(matches)?;
                    matches.clear();
                }
                found = self.next[found as usize];
            }
        }
        if matches.found.is_empty() { Ok(()) } else { give(matches) }
    }

    /// The columns of `rows`.
    pub fn gather(&self, rows: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.log.gather(rows)
    }

    /// Takes in the rows of `delta`, whose keys are `keys`.
    pub fn add(&mut self, delta: &Delta, keys: &[ArrayRef]) -> Result<(), OperatorError> {
        let delta = delta.with_schema(&self.schema)?;
        let Some(index) = &self.by_content else {
            if !delta.is_inserts() && delta.weight_column().iter().any(|weight| *weight < 0) {
                return Err(OperatorError::BrokenInvariant("a row of an append-only input was deleted".to_string()));
            }
            return self.append(delta.rows().clone(), &delta.weight_column(), keys, &[]);
        };
        let hashes = index.encoder.encode(delta.columns(), delta.len())?.hashes();
        let Weights::Each(weights) = delta.weights() else {
            return self.append(delta.rows().clone(), &delta.weight_column(), keys, &hashes);
        };
        let missing = self.delete(delta.columns(), weights, keys, &hashes)?;
        // What is left is to be appended: insertions, and deletions that found nothing yet.
        let left = |row: usize| if weights[row] < 0 { missing.get(&row).copied().unwrap_or(0) } else { weights[row] };
        let rows: Vec<usize> = (0..delta.len()).filter(|row| left(*row) != 0).collect();
        let indices: UInt32Array = rows.iter().map(|row| u32::try_from(*row).expect("a batch is small")).collect();
        let keys = keys.iter().map(|key| arrow::compute::take(key, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<i64> = rows.iter().map(|row| left(*row)).collect();
        let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row]).collect();
        self.append(take_record_batch(delta.rows(), &indices)?, &weights, &keys, &hashes)
    }

    fn append(
        &mut self,
        rows: RecordBatch,
        weights: &[i64],
        keys: &[ArrayRef],
        hashes: &[u64],
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
        self.changes.touch(row);
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
        self.changes.remove(row);
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
                    self.changes.touch(found);
                } else {
                    self.unlink(found, slots[row]);
                }
                left = rest.min(0);
            }
            if left < 0 {
                missing.insert(row, left);
            }
        }
        Ok(missing)
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
    pub fn settle(&mut self, on: &[usize]) -> Result<(), OperatorError> {
        let debts = std::mem::take(&mut self.debts);
        if !debts.is_empty() {
            let columns = self.log.gather(&debts)?;
            let keys: Vec<ArrayRef> = on.iter().map(|column| columns[*column].clone()).collect();
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
        self.changes.track();
    }

    /// What has changed: rows under their numbers, their weights last.
    pub fn changes(&mut self) -> Result<TableChange, OperatorError> {
        let ids = self.changes.take();
        let mut columns = self.log.gather(&ids.changed)?;
        columns.push(gather(&self.weights, &ids.changed));
        let types = columns.iter().map(|column| column.data_type().clone());
        ids.with_rows(&state::schema(types), columns)
    }

    /// Takes in saved rows, with holes where numbers are missing. Their keys are in the columns `on`.
    pub fn restore(&mut self, saved: &[StateRows], on: &[usize], telling: Telling) -> Result<(), OperatorError> {
        let Some(last) = saved.iter().flat_map(|part| &part.ids).max() else { return Ok(()) };
        let width = self.schema.fields().len();
        let parts: Vec<&RecordBatch> = saved.iter().map(|part| &part.rows).collect();
        let rows = concat_batches(&parts[0].schema(), parts)?;
        // A hole is a row like another, but of no weight.
        let mut place = vec![0_u32; *last as usize + 1];
        let mut weights = vec![0; place.len()];
        let saved_weights = rows.column(width).as_primitive::<Int64Type>().values();
        for (index, id) in (0_u32..).zip(saved.iter().flat_map(|part| &part.ids)) {
            place[*id as usize] = index;
            weights[*id as usize] = saved_weights[index as usize];
        }
        let mut first = 0;
        for part in place.chunks(HOLES_MIN) {
            let weights = &weights[first..first + part.len()];
            first += part.len();
            self.restore_part(&take_columns(&rows.columns()[..width], part)?, weights, on)?;
        }
        self.changes.restored(saved.iter().flat_map(|part| part.ids.iter().copied()), telling);
        Ok(())
    }

    fn restore_part(&mut self, columns: &[ArrayRef], weights: &[i64], on: &[usize]) -> Result<(), OperatorError> {
        let live: Vec<u32> = (0_u32..).zip(weights).filter(|(_, weight)| **weight != 0).map(|(row, _)| row).collect();
        let keys = take_columns(on.iter().map(|column| &columns[*column]), &live)?;
        let mut slots = Vec::new();
        self.keys.file(&keys, live.len(), &mut slots)?;
        self.heads.resize(self.keys.slot_end(), NO_ROW);
        let hashes = match &self.by_content {
            Some(index) => index.encoder.encode(columns, weights.len())?.hashes(),
            None => Vec::new(),
        };
        let first = u32::try_from(self.log.len()).expect("rows are numbered as u32");
        let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
        self.log.append(RecordBatch::try_new_with_options(self.schema.clone(), columns.to_vec(), &options)?)?;
        let mut live = live.into_iter().zip(slots).peekable();
        for (row, weight) in (0_u32..).zip(weights) {
            let slot = live.next_if(|(next, _)| *next == row).map(|(_, slot)| slot);
            match slot {
                Some(slot) => self.link(first + row, slot, *weight),
                None => self.leave_hole(),
            }
            if let Some(index) = &mut self.by_content {
                index.hashes.push(hashes[row as usize]);
                if slot.is_some() {
                    index.table.insert_unique(hashes[row as usize], first + row, |filed| index.hashes[*filed as usize]);
                }
            }
        }
        Ok(())
    }

    fn leave_hole(&mut self) {
        self.next.push(NO_ROW);
        self.previous.push(NO_ROW);
        self.weights.push(0);
        self.holes += 1;
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
        let numbers = 0..u32::try_from(self.log.len()).expect("rows are numbered as u32");
        let live: Vec<u32> = numbers.filter(|row| self.weights[*row as usize] != 0).collect();
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
        self.changes.reset();
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

fn take_columns<'a>(
    columns: impl IntoIterator<Item = &'a ArrayRef>,
    rows: &[u32],
) -> Result<Vec<ArrayRef>, ArrowError> {
    let rows = UInt32Array::from(rows.to_vec());
    columns.into_iter().map(|column| arrow::compute::take(column, &rows, None)).collect()
}
