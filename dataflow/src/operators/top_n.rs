//! `ORDER BY … LIMIT … OFFSET`, `DISTINCT ON`: the first rows of each partition.
//!
//! Input          deltas, exchanged by the columns of the partition.
//! Output         the rows that enter and leave what is given.
//! State          the rows of each partition in order ([`bands`]); of an append-only input only those given and skipped.
//! On retraction  the next row takes the place.
//! Cost           time O(log rows of the partition) a changed row, memory O(rows).
//!
//! Rows that the order does not tell apart stand in the order of all their columns, so that the same rows give the same
//! result.

mod bands;

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use freshet_planner::plan::SortKey;
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::Delta;

use self::bands::{Bands, RowBytes, signed};
use crate::memory::StateMemory;
use crate::operators::aggregate::gather;
use crate::operators::ids::Ids;
use crate::operators::key_table::KeyTable;
use crate::operators::state::{self, SavedParts, State, Telling};
use crate::operators::{Operator, OperatorError, Output};

pub struct TopN {
    schema: SchemaRef,
    partition: Vec<usize>,
    offset: u64,
    limit: Option<u64>,
    append_only: bool,
    encoding: Encoding,
    partitions: KeyTable,
    /// By the slot of the partition.
    bands: Vec<Option<Bands>>,
    rows: Rows,
    /// The changes of this epoch.
    waiting: Vec<Delta>,
}

/// Rows as bytes of the same order.
struct Encoding {
    converter: RowConverter,
    /// The columns in the order in which they are compared.
    columns: Vec<usize>,
}

/// The rows of all partitions, by their ids.
#[derive(Default)]
struct Rows {
    rows: Vec<Option<RowBytes>>,
    counts: Vec<i64>,
    ids: Ids,
    /// Of all rows.
    bytes: usize,
}

/// What a row takes beside its bytes: the counts of the shared bytes, its place in a tree and in the list of rows.
const ROW_BYTES: usize = 16 + 48 + 24;

impl Rows {
    fn add(&mut self, row: RowBytes, count: i64) -> u32 {
        let id = self.ids.assign();
        self.put(id, row, count);
        id
    }

    /// Adds a row under an id.
    fn put(&mut self, id: u32, row: RowBytes, count: i64) {
        let at = id as usize;
        if at >= self.rows.len() {
            self.rows.resize(at + 1, None);
            self.counts.resize(at + 1, 0);
        }
        self.bytes += row.len() + ROW_BYTES;
        self.rows[at] = Some(row);
        self.counts[at] = count;
    }

    fn touch(&mut self, id: u32) {
        self.ids.changes.touch(id);
    }

    /// Copies of a row are gone.
    fn forget(&mut self, id: u32, copies: u64) {
        let count = &mut self.counts[id as usize];
        *count -= signed(copies);
        if *count > 0 {
            return self.touch(id);
        }
        if let Some(row) = self.rows[id as usize].take() {
            self.bytes -= row.len() + ROW_BYTES;
            self.ids.release(id);
        }
    }

    fn memory_bytes(&self) -> usize {
        let by_row = self.rows.capacity() * size_of::<RowBytes>() + 8 * self.counts.capacity();
        self.bytes + by_row + self.ids.memory_bytes()
    }
}

impl Encoding {
    fn new(schema: &SchemaRef, order: &[SortKey]) -> Result<Self, OperatorError> {
        let mut columns: Vec<usize> = Vec::new();
        let mut fields = Vec::new();
        let ascending = (0..schema.fields().len()).map(|column| (column, SortOptions::default()));
        for (column, options) in order.iter().map(|key| (key.column, key.options)).chain(ascending) {
            if !columns.contains(&column) {
                columns.push(column);
                fields.push(SortField::new_with_options(schema.field(column).data_type().clone(), options));
            }
        }
        Ok(Self { converter: RowConverter::new(fields)?, columns })
    }

    fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<RowBytes>, OperatorError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|column| columns[*column].clone()).collect();
        Ok(self.converter.convert_columns(&columns)?.iter().map(|row| RowBytes::from(row.as_ref())).collect())
    }

    fn decode<'a>(&self, rows: impl Iterator<Item = &'a RowBytes>) -> Result<Vec<ArrayRef>, OperatorError> {
        let parser = self.converter.parser();
        let compared = self.converter.convert_rows(rows.map(|row| parser.parse(row)))?;
        let mut columns = compared.clone();
        self.columns.iter().zip(compared).for_each(|(at, column)| columns[*at] = column);
        Ok(columns)
    }
}

impl TopN {
    /// # Errors
    /// If rows of a type cannot be sorted.
    pub fn new(
        schema: SchemaRef,
        partition: &[usize],
        order: &[SortKey],
        (offset, limit): (u64, Option<u64>),
        append_only: bool,
    ) -> Result<Self, OperatorError> {
        if schema.fields().is_empty() {
            return Err(OperatorError::Unsupported("rows without columns cannot be sorted".to_string()));
        }
        let types: Vec<DataType> = partition.iter().map(|column| schema.field(*column).data_type().clone()).collect();
        Ok(Self {
            encoding: Encoding::new(&schema, order)?,
            schema,
            partition: partition.to_vec(),
            offset,
            limit,
            append_only,
            partitions: KeyTable::new(types)?,
            bands: Vec::new(),
            rows: Rows::default(),
            waiting: Vec::new(),
        })
    }

    /// The slots of the partitions of rows.
    fn file(&mut self, columns: &[ArrayRef], row_count: usize) -> Result<Vec<u32>, OperatorError> {
        let keys: Vec<ArrayRef> = self.partition.iter().map(|column| columns[*column].clone()).collect();
        let mut slots = Vec::new();
        self.partitions.file(&keys, row_count, &mut slots)?;
        self.bands.resize_with(self.partitions.slot_end(), || None);
        Ok(slots)
    }

    fn insert(&mut self, slot: u32, row: RowBytes, copies: i64, given: &mut HashMap<RowBytes, i64>) {
        let bands = self.bands[slot as usize].get_or_insert_with(|| Bands::new(self.offset, self.limit));
        let id = match bands.id(&row) {
            Some(id) => {
                self.rows.counts[id as usize] += copies;
                id
            }
            None => self.rows.add(row.clone(), copies),
        };
        self.rows.touch(id);
        bands.insert(row, copies.unsigned_abs(), id, &mut |row, copies| note(given, row, copies));
    }

    fn delete(
        &mut self,
        slot: u32,
        row: &RowBytes,
        copies: i64,
        given: &mut HashMap<RowBytes, i64>,
    ) -> Result<(), OperatorError> {
        let missing = || OperatorError::BrokenInvariant("more copies of a row were deleted than inserted".to_string());
        let bands = self.bands[slot as usize].as_mut().ok_or_else(missing)?;
        let id = bands.id(row).ok_or_else(missing)?;
        if bands.remove(row, copies.unsigned_abs(), &mut |row, copies| note(given, row, copies)) > 0 {
            return Err(missing());
        }
        self.rows.forget(id, copies.unsigned_abs());
        Ok(())
    }

    /// What is left of partitions after an epoch: nothing of those without rows, and of rows that are never deleted only
    /// those that count.
    fn tidy(&mut self, mut slots: Vec<u32>) {
        slots.sort_unstable();
        slots.dedup();
        for slot in &slots {
            if let Some(bands) = self.bands[*slot as usize].as_mut().filter(|_| self.append_only) {
                bands.take_rest().for_each(|(_, copies, id)| self.rows.forget(id, copies));
            }
        }
        slots.retain(|slot| self.bands[*slot as usize].as_ref().is_none_or(Bands::is_empty));
        slots.iter().for_each(|slot| self.bands[*slot as usize] = None);
        self.partitions.remove(&slots);
    }

    fn batch(&self, rows: &[(RowBytes, i64)]) -> Result<Delta, OperatorError> {
        let columns = self.encoding.decode(rows.iter().map(|(row, _)| row))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Delta::new(batch, rows.iter().map(|(_, copies)| *copies).collect::<Vec<i64>>()))
    }
}

fn note(given: &mut HashMap<RowBytes, i64>, row: &RowBytes, copies: i64) {
    let sum = given.entry(row.clone()).or_default();
    *sum += copies;
    if *sum == 0 {
        given.remove(row);
    }
}

impl Operator for TopN {
    fn absorb(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<(), OperatorError> {
        self.waiting.push(delta);
        Ok(())
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let delta = Delta::concat(&self.schema, &waiting)?.consolidate()?;
        let slots = self.file(delta.columns(), delta.len())?;
        let (rows, weights) = (self.encoding.encode(delta.columns())?, delta.weight_column());
        let mut given = HashMap::new();
        let changes = || slots.iter().zip(&rows).zip(weights.iter());
        for ((slot, row), weight) in changes().filter(|(_, weight)| **weight > 0) {
            self.insert(*slot, row.clone(), *weight, &mut given);
        }
        for ((slot, row), weight) in changes().filter(|(_, weight)| **weight < 0) {
            self.delete(*slot, row, *weight, &mut given)?;
        }
        self.tidy(slots);
        let (come, gone): (Vec<_>, Vec<_>) = given.into_iter().partition(|(_, copies)| *copies > 0);
        out.push(self.batch(&gone)?);
        out.push(self.batch(&come)?);
        Ok(())
    }

    fn memory(&self) -> StateMemory {
        let partitions = self.partitions.memory_bytes() + self.bands.capacity() * size_of::<Option<Bands>>();
        StateMemory::fixed(self.rows.memory_bytes() + partitions)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

/// One table: the rows, and how often each is there.
impl State for TopN {
    fn track(&mut self) {
        self.rows.ids.changes.track();
    }

    fn table_count(&mut self) -> usize {
        1
    }

    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        let ids = self.rows.ids.changes.take();
        let row = |id: &u32| self.rows.rows[*id as usize].as_ref().expect("a changed row is there");
        let mut columns = self.encoding.decode(ids.changed.iter().map(row))?;
        columns.push(gather(&self.rows.counts, &ids.changed));
        let types = columns.iter().map(|column| column.data_type().clone());
        Ok(vec![ids.with_rows(&state::schema(types), columns)?])
    }

    fn restore(&mut self, mut tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError> {
        let saved = tables.pop().ok_or_else(state::not_of_this_operator)?;
        let width = self.schema.fields().len();
        for saved in saved {
            let StateRows { ids, rows } = saved?;
            let columns = &rows.columns()[..width];
            let slots = self.file(columns, ids.len())?;
            self.rows.ids.restored(&ids, telling);
            let counts = rows.column(width).as_primitive::<Int64Type>().values();
            for (((id, slot), row), count) in ids.iter().zip(slots).zip(self.encoding.encode(columns)?).zip(counts) {
                self.rows.put(*id, row.clone(), *count);
                if telling == Telling::All {
                    self.rows.touch(*id);
                }
                let bands = self.bands[slot as usize].get_or_insert_with(|| Bands::new(self.offset, self.limit));
                // It was given in another life.
                bands.insert(row, count.unsigned_abs(), *id, &mut |_, _| {});
            }
        }
        self.rows.ids.all_restored();
        Ok(())
    }
}
