//! How many pairs each row of one side of a join has that pass the residual predicate.
//!
//! Equal rows are counted as one: if there are `n` of them, and `m` rows of the other side match, there are `n * m`
//! pairs, so that none is left exactly if nothing matches.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Int64Type, SchemaRef};
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::Delta;

use crate::operators::OperatorError;
use crate::operators::ids::GroupIds;
use crate::operators::key_table::KeyTable;
use crate::operators::state::{self, SavedParts, Telling};

pub struct RowMatches {
    schema: SchemaRef,
    rows: KeyTable,
    /// How often each row is there, and in how many pairs, by slot.
    counts: Vec<Counts>,
    marks: Vec<bool>,
    /// Rows that changed in this epoch, and their counts before.
    touched: Vec<(u32, Counts)>,
    ids: GroupIds,
    /// The slot of each row of a batch; kept for its memory.
    slots: Vec<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    copies: i64,
    pairs: i64,
}

/// The rows that an epoch changed, by whether they have a partner.
pub struct ChangedRows {
    pub with: Delta,
    pub without: Delta,
}

impl RowMatches {
    /// # Errors
    /// If rows of a type cannot be compared.
    pub fn new(schema: SchemaRef) -> Result<Self, OperatorError> {
        let types = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        Ok(Self {
            schema,
            rows: KeyTable::new(types)?,
            counts: Vec::new(),
            marks: Vec::new(),
            touched: Vec::new(),
            ids: GroupIds::default(),
            slots: Vec::new(),
        })
    }

    pub fn count_rows(&mut self, delta: &Delta) -> Result<(), OperatorError> {
        self.count(delta.columns(), &delta.weight_column(), |counts| &mut counts.copies)
    }

    /// Counts pairs, of which `columns` are this side's.
    pub fn count_pairs(&mut self, columns: &[ArrayRef], weights: &[i64]) -> Result<(), OperatorError> {
        self.count(columns, weights, |counts| &mut counts.pairs)
    }

    fn count(
        &mut self,
        columns: &[ArrayRef],
        weights: &[i64],
        counted: impl Fn(&mut Counts) -> &mut i64,
    ) -> Result<(), OperatorError> {
        self.rows.file(columns, weights.len(), &mut self.slots)?;
        self.grow();
        for (slot, weight) in self.slots.iter().zip(weights) {
            let counts = &mut self.counts[*slot as usize];
            if !std::mem::replace(&mut self.marks[*slot as usize], true) {
                self.touched.push((*slot, *counts));
            }
            let count = counted(counts);
            *count = count.checked_add(*weight).ok_or_else(OperatorError::weight_overflow)?;
        }
        Ok(())
    }

    fn grow(&mut self) {
        self.counts.resize(self.rows.slot_end(), Counts::default());
        self.marks.resize(self.rows.slot_end(), false);
        self.ids.grow(self.rows.slot_end());
    }

    /// Ends the epoch.
    ///
    /// # Errors
    /// If more rows were deleted than inserted.
    pub fn settle(&mut self) -> Result<ChangedRows, OperatorError> {
        let mut dead = Vec::new();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for (slot, before) in std::mem::take(&mut self.touched) {
            self.marks[slot as usize] = false;
            let now = self.counts[slot as usize];
            if now.copies < 0 || now.pairs < 0 {
                let message = "more rows of a join were deleted than inserted";
                return Err(OperatorError::BrokenInvariant(message.to_string()));
            }
            let copies =
                |counts: Counts, has_pairs: bool| if (counts.pairs > 0) == has_pairs { counts.copies } else { 0 };
            for (changed, has_pairs) in [(&mut with, true), (&mut without, false)] {
                let weight = copies(now, has_pairs) - copies(before, has_pairs);
                if weight != 0 {
                    changed.push((slot, weight));
                }
            }
            if now.copies == 0 {
                dead.push(slot);
                self.ids.remove(slot);
            } else if now != before {
                self.ids.touch(slot);
            }
        }
        let changed = ChangedRows { with: self.delta(&with)?, without: self.delta(&without)? };
        self.rows.remove(&dead);
        Ok(changed)
    }

    fn delta(&self, rows: &[(u32, i64)]) -> Result<Delta, OperatorError> {
        let (slots, weights): (Vec<u32>, Vec<i64>) = rows.iter().copied().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let columns = self.rows.columns(&slots)?;
        Ok(Delta::new(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?, weights))
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let columns = size_of::<Counts>() * self.counts.capacity() + self.marks.capacity();
        self.rows.memory_bytes() + columns + self.ids.ids.memory_bytes() + self.ids.slot_bytes()
    }

    /// See [`crate::operators::state::State`].
    pub fn track(&mut self) {
        self.ids.ids.changes.track();
    }

    /// What has changed: the rows, how often each is there, and in how many pairs.
    pub fn changes(&mut self) -> Result<TableChange, OperatorError> {
        let (ids, slots) = self.ids.take();
        let mut columns = self.rows.columns(&slots)?;
        for count in [|counts: &Counts| counts.copies, |counts: &Counts| counts.pairs] {
            let counts = slots.iter().map(|slot| count(&self.counts[*slot as usize]));
            columns.push(Arc::new(Int64Array::from_iter_values(counts)));
        }
        let types = columns.iter().map(|column| column.data_type().clone());
        ids.with_rows(&state::schema(types), columns)
    }

    pub fn restore(&mut self, saved: SavedParts<'_>, telling: Telling) -> Result<(), OperatorError> {
        let width = self.schema.fields().len();
        for saved in saved {
            let StateRows { ids, rows } = saved?;
            self.rows.file(&rows.columns()[..width], ids.len(), &mut self.slots)?;
            self.grow();
            self.ids.ids.restored(&ids, telling);
            let counts = |at: usize| rows.column(width + at).as_primitive::<Int64Type>().values();
            for ((slot, id), (copies, pairs)) in self.slots.iter().zip(&ids).zip(counts(0).iter().zip(counts(1))) {
                self.counts[*slot as usize] = Counts { copies: *copies, pairs: *pairs };
                self.ids.come(*slot, *id, telling == Telling::All);
            }
        }
        self.ids.ids.all_restored();
        Ok(())
    }
}
