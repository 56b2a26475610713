//! `SELECT DISTINCT`, `UNION`: each distinct row once.
//!
//! Input          deltas, exchanged by the whole row (or a part of it).
//! Output         per changed row and epoch: one insertion when it comes, one retraction when it goes.
//! State          one count per distinct row.
//! On retraction  the count goes down; at zero the row goes.
//! Cost           time O(changed rows), memory O(distinct rows).

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::Delta;

use crate::memory::StateMemory;
use crate::operators::aggregate::gather;
use crate::operators::key_table::KeyTable;
use crate::operators::state::{self, Changes, State, Telling};
use crate::operators::{Operator, OperatorError, Output};

pub struct Distinct {
    schema: SchemaRef,
    rows: KeyTable,
    counts: Vec<i64>,
    /// Whether a slot is in `touched`.
    marks: Vec<bool>,
    /// Rows whose count changed in this epoch, and whether they were there before.
    touched: Vec<(u32, bool)>,
    changes: Changes,
    /// The slot of each row of a batch; kept for its memory.
    slots: Vec<u32>,
}

impl Distinct {
    /// # Errors
    /// If rows of a type cannot be compared.
    pub fn new(schema: SchemaRef) -> Result<Self, OperatorError> {
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        Ok(Self {
            schema,
            rows: KeyTable::new(types)?,
            counts: Vec::new(),
            marks: Vec::new(),
            touched: Vec::new(),
            changes: Changes::default(),
            slots: Vec::new(),
        })
    }

    fn add(&mut self, slot: u32, weight: i64) -> Result<(), OperatorError> {
        let count = &mut self.counts[slot as usize];
        if !self.marks[slot as usize] {
            self.marks[slot as usize] = true;
            self.touched.push((slot, *count > 0));
        }
        *count = count.checked_add(weight).ok_or_else(OperatorError::weight_overflow)?;
        Ok(())
    }

    fn batch(&self, slots: &[u32]) -> Result<RecordBatch, OperatorError> {
        let columns: Vec<ArrayRef> = self.rows.columns(slots)?;
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

impl Operator for Distinct {
    fn absorb(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<(), OperatorError> {
        self.rows.file(delta.columns(), delta.len(), &mut self.slots)?;
        self.counts.resize(self.rows.slot_end(), 0);
        self.marks.resize(self.rows.slot_end(), false);
        let slots = std::mem::take(&mut self.slots);
        for (slot, weight) in slots.iter().zip(delta.weight_column().iter()) {
            self.add(*slot, *weight)?;
        }
        self.slots = slots;
        Ok(())
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        let (mut gone, mut come, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, was_there) in std::mem::take(&mut self.touched) {
            self.marks[slot as usize] = false;
            let count = self.counts[slot as usize];
            match (was_there, count) {
                (_, ..=-1) => {
                    let message = "more copies of a row were deleted than inserted";
                    return Err(OperatorError::BrokenInvariant(message.to_string()));
                }
                (true, 0) => gone.push(slot),
                (false, 1..) => come.push(slot),
                _ => {}
            }
            if count == 0 {
                dead.push(slot);
                self.changes.remove(slot);
            } else {
                self.changes.touch(slot);
            }
        }
        out.push(Delta::deletes(self.batch(&gone)?));
        out.push(Delta::inserts(self.batch(&come)?));
        self.rows.remove(&dead);
        Ok(())
    }

    fn memory(&self) -> StateMemory {
        let columns = self.counts.capacity() * 8 + self.marks.capacity();
        StateMemory::fixed(self.rows.memory_bytes() + columns + self.changes.memory_bytes())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

/// One table: the rows, and how often each is there.
impl State for Distinct {
    fn track(&mut self) {
        self.changes.track();
    }

    fn table_count(&mut self) -> usize {
        1
    }

    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        let ids = self.changes.take();
        let mut columns = self.rows.columns(&ids.changed)?;
        columns.push(gather(&self.counts, &ids.changed));
        let types = columns.iter().map(|column| column.data_type().clone());
        Ok(vec![ids.with_rows(&state::schema(types), columns)?])
    }

    fn restore(&mut self, tables: &[Vec<StateRows>], telling: Telling) -> Result<(), OperatorError> {
        let [saved] = tables else { return Err(state::not_of_this_operator()) };
        let width = self.schema.fields().len();
        let parts: Vec<_> = saved.iter().map(|part| (&part.ids[..], part.rows.columns()[..width].to_vec())).collect();
        self.rows.restore(&parts)?;
        self.counts.resize(self.rows.slot_end(), 0);
        self.marks.resize(self.rows.slot_end(), false);
        for part in saved {
            let counts = part.rows.column(width).as_primitive::<Int64Type>().values();
            part.ids.iter().zip(counts).for_each(|(slot, count)| self.counts[*slot as usize] = *count);
            self.changes.restored(part.ids.iter().copied(), telling);
        }
        Ok(())
    }
}
