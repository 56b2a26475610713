//! Which keys are there on one side of a join: a count a key, and what held at the beginning of the epoch.

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::Delta;

use crate::operators::OperatorError;
use crate::operators::aggregate::gather;
use crate::operators::ids::GroupIds;
use crate::operators::key_table::{KeyTable, NO_SLOT};
use crate::operators::state::{self, SavedParts, Telling};

pub struct KeyPresence {
    schema: SchemaRef,
    keys: KeyTable,
    /// How many rows have each key, by slot.
    counts: Vec<i64>,
    /// Whether there were any when the epoch began.
    were_there: Vec<bool>,
    /// Whether a slot is in `touched`.
    marks: Vec<bool>,
    touched: Vec<u32>,
    ids: GroupIds,
    /// The slot of each row of a batch; kept for its memory.
    slots: Vec<u32>,
}

/// The keys that an epoch brought and took.
pub struct ChangedKeys {
    pub come: Keys,
    pub gone: Keys,
}

/// Keys as columns.
pub struct Keys(RecordBatch);

impl Keys {
    /// All of them, at most `rows_max` at a time.
    pub fn batches(&self, rows_max: usize) -> impl Iterator<Item = RecordBatch> {
        let rows = self.0.num_rows();
        (0..rows).step_by(rows_max).map(move |start| self.0.slice(start, rows_max.min(rows - start)))
    }
}

impl KeyPresence {
    /// # Errors
    /// If a type cannot be a key.
    pub fn new(types: Vec<DataType>) -> Result<Self, OperatorError> {
        Ok(Self {
            schema: state::schema(types.iter().cloned()),
            keys: KeyTable::new(types)?,
            counts: Vec::new(),
            were_there: Vec::new(),
            marks: Vec::new(),
            touched: Vec::new(),
            ids: GroupIds::default(),
            slots: Vec::new(),
        })
    }

    /// For each of `row_count` keys, whether it was there when the epoch began.
    pub fn was_there(&mut self, keys: &[ArrayRef], row_count: usize) -> Result<BooleanBuffer, OperatorError> {
        self.keys.find(keys, row_count, &mut self.slots)?;
        let was_there = |slot: &u32| *slot != NO_SLOT && self.were_there[*slot as usize];
        Ok(self.slots.iter().map(was_there).collect())
    }

    /// Counts the rows of `delta`, whose keys are `keys`.
    pub fn count(&mut self, keys: &[ArrayRef], delta: &Delta) -> Result<(), OperatorError> {
        self.keys.file(keys, delta.len(), &mut self.slots)?;
        self.grow();
        for (slot, weight) in self.slots.iter().zip(delta.weight_column().iter()) {
            let at = *slot as usize;
            if !std::mem::replace(&mut self.marks[at], true) {
                self.touched.push(*slot);
            }
            self.counts[at] = self.counts[at].checked_add(*weight).ok_or_else(OperatorError::weight_overflow)?;
        }
        Ok(())
    }

    fn grow(&mut self) {
        let slots = self.keys.slot_end();
        self.counts.resize(slots, 0);
        self.were_there.resize(slots, false);
        self.marks.resize(slots, false);
        self.ids.grow(slots);
    }

    /// Ends the epoch.
    ///
    /// # Errors
    /// If more rows of a key were deleted than inserted.
    pub fn settle(&mut self) -> Result<ChangedKeys, OperatorError> {
        let (mut come, mut gone, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for slot in std::mem::take(&mut self.touched) {
            let at = slot as usize;
            self.marks[at] = false;
            let count = self.counts[at];
            if count < 0 {
                let message = "more rows of a join were deleted than inserted";
                return Err(OperatorError::BrokenInvariant(message.to_string()));
            }
            match (std::mem::replace(&mut self.were_there[at], count > 0), count > 0) {
                (false, true) => come.push(slot),
                (true, false) => gone.push(slot),
                _ => {}
            }
            if count == 0 {
                dead.push(slot);
                self.ids.remove(slot);
            } else {
                self.ids.touch(slot);
            }
        }
        let changed = ChangedKeys { come: self.columns(&come)?, gone: self.columns(&gone)? };
        self.keys.remove(&dead);
        Ok(changed)
    }

    fn columns(&self, slots: &[u32]) -> Result<Keys, OperatorError> {
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let columns = self.keys.columns(slots)?;
        Ok(Keys(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?))
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let columns = 8 * self.counts.capacity() + self.were_there.capacity() + self.marks.capacity();
        self.keys.memory_bytes() + columns + self.ids.ids.memory_bytes() + self.ids.slot_bytes()
    }

    /// See [`crate::operators::state::State`].
    pub fn track(&mut self) {
        self.ids.ids.changes.track();
    }

    /// What has changed: the keys, and how many rows have each.
    pub fn changes(&mut self) -> Result<TableChange, OperatorError> {
        let (ids, slots) = self.ids.take();
        let mut columns = self.keys.columns(&slots)?;
        columns.push(gather(&self.counts, &slots));
        let types = columns.iter().map(|column| column.data_type().clone());
        ids.with_rows(&state::schema(types), columns)
    }

    pub fn restore(&mut self, saved: SavedParts<'_>, telling: Telling) -> Result<(), OperatorError> {
        let width = self.schema.fields().len();
        for saved in saved {
            let StateRows { ids, rows } = saved?;
            self.keys.file(&rows.columns()[..width], ids.len(), &mut self.slots)?;
            self.grow();
            self.ids.ids.restored(&ids, telling);
            let counts = rows.column(width).as_primitive::<Int64Type>().values();
            for ((slot, id), count) in self.slots.iter().zip(&ids).zip(counts) {
                self.counts[*slot as usize] = *count;
                self.were_there[*slot as usize] = true;
                self.ids.come(*slot, *id, telling == Telling::All);
            }
        }
        self.ids.ids.all_restored();
        Ok(())
    }
}
