//! Rows in groups: each different row once, with its count now and at the beginning of the epoch.

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::Delta;

use crate::operators::OperatorError;
use crate::operators::aggregate::gather;
use crate::operators::ids::GroupIds;
use crate::operators::key_table::{KeyTable, NO_SLOT};
use crate::operators::state::{self, SavedParts, Telling};

pub struct GroupedRows {
    schema: SchemaRef,
    /// The columns that rows of a group agree in.
    group_columns: Vec<usize>,
    rows: KeyTable,
    /// How often each row is there, and how often it was when the epoch began, by slot.
    counts: Vec<i64>,
    counts_before: Vec<i64>,
    /// Where each row stands, by slot.
    places: Vec<Place>,
    groups: KeyTable,
    /// The slots of the rows of each group.
    members: Vec<Vec<u32>>,
    touched_rows: Marked,
    touched_groups: Marked,
    ids: GroupIds,
    row_slots: Vec<u32>,
    group_slots: Vec<u32>,
}

/// A group, and the place in its list. The group of a row that is not there is [`NO_SLOT`].
#[derive(Debug, Clone, Copy)]
struct Place {
    group: u32,
    index: u32,
}

const NOWHERE: Place = Place { group: NO_SLOT, index: 0 };

/// A set of slots.
#[derive(Default)]
struct Marked {
    marks: Vec<bool>,
    slots: Vec<u32>,
}

impl Marked {
    fn add(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.marks[slot as usize], true) {
            self.slots.push(slot);
        }
    }

    fn take(&mut self) -> Vec<u32> {
        self.slots.iter().for_each(|slot| self.marks[*slot as usize] = false);
        std::mem::take(&mut self.slots)
    }
}

impl GroupedRows {
    /// # Errors
    /// If rows of a type cannot be compared.
    pub fn new(schema: SchemaRef, group_columns: &[usize]) -> Result<Self, OperatorError> {
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let group_types = group_columns.iter().map(|column| types[*column].clone()).collect();
        Ok(Self {
            group_columns: group_columns.to_vec(),
            schema,
            rows: KeyTable::new(types)?,
            counts: Vec::new(),
            counts_before: Vec::new(),
            places: Vec::new(),
            groups: KeyTable::new(group_types)?,
            members: Vec::new(),
            touched_rows: Marked::default(),
            touched_groups: Marked::default(),
            ids: GroupIds::default(),
            row_slots: Vec::new(),
            group_slots: Vec::new(),
        })
    }

    pub fn count(&mut self, delta: &Delta) -> Result<(), OperatorError> {
        self.rows.file(delta.columns(), delta.len(), &mut self.row_slots)?;
        self.file_groups(delta.columns(), delta.len())?;
        let (row_slots, group_slots) = (std::mem::take(&mut self.row_slots), std::mem::take(&mut self.group_slots));
        for ((row, group), weight) in row_slots.iter().zip(&group_slots).zip(delta.weight_column().iter()) {
            self.join_group(*row, *group);
            self.touched_rows.add(*row);
            self.touched_groups.add(*group);
            let count = &mut self.counts[*row as usize];
            *count = count.checked_add(*weight).ok_or_else(OperatorError::weight_overflow)?;
        }
        (self.row_slots, self.group_slots) = (row_slots, group_slots);
        Ok(())
    }

    /// Finds the groups of rows, and makes room for all slots.
    fn file_groups(&mut self, columns: &[ArrayRef], row_count: usize) -> Result<(), OperatorError> {
        let group_columns: Vec<ArrayRef> = self.group_columns.iter().map(|column| columns[*column].clone()).collect();
        self.groups.file(&group_columns, row_count, &mut self.group_slots)?;
        let (rows, groups) = (self.rows.slot_end(), self.groups.slot_end());
        self.counts.resize(rows, 0);
        self.counts_before.resize(rows, 0);
        self.ids.grow(rows);
        self.places.resize(rows, NOWHERE);
        self.touched_rows.marks.resize(rows, false);
        self.members.resize(groups, Vec::new());
        self.touched_groups.marks.resize(groups, false);
        Ok(())
    }

    fn join_group(&mut self, row: u32, group: u32) {
        let place = &mut self.places[row as usize];
        if place.group == NO_SLOT {
            let members = &mut self.members[group as usize];
            *place = Place { group, index: u32::try_from(members.len()).expect("slots are u32") };
            members.push(row);
        }
    }

    /// The groups in which rows have come or gone in this epoch.
    pub fn changed_groups(&self) -> Vec<u32> {
        self.touched_groups.slots.clone()
    }

    /// The rows of a group when the epoch began, and those of now, each as often as it is there.
    ///
    /// # Errors
    /// If more rows were deleted than inserted.
    pub fn before_and_now(&self, group: u32) -> Result<(RecordBatch, RecordBatch), OperatorError> {
        let members = &self.members[group as usize];
        Ok((self.batch(members, &self.counts_before)?, self.batch(members, &self.counts)?))
    }

    fn batch(&self, members: &[u32], counts: &[i64]) -> Result<RecordBatch, OperatorError> {
        let mut slots = Vec::with_capacity(members.len());
        for slot in members {
            let copies = usize::try_from(counts[*slot as usize]);
            let copies = copies.map_err(|_| {
                OperatorError::BrokenInvariant("more rows of a group were deleted than inserted".to_string())
            })?;
            slots.extend(std::iter::repeat_n(*slot, copies));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), self.rows.columns(&slots)?, &options)?)
    }

    /// The columns of the group that `rows`, of which there is one at least, are of.
    pub fn group_of(&self, rows: &RecordBatch) -> Result<RecordBatch, OperatorError> {
        Ok(rows.slice(0, 1).project(&self.group_columns)?)
    }

    /// Ends the epoch.
    pub fn settle(&mut self) -> Result<(), OperatorError> {
        let mut dead = Vec::new();
        for row in self.touched_rows.take() {
            let count = self.counts[row as usize];
            self.counts_before[row as usize] = count;
            if count == 0 {
                self.leave_group(row);
                self.ids.remove(row);
                dead.push(row);
            } else {
                self.ids.touch(row);
            }
        }
        self.rows.remove(&dead);
        let mut empty = self.touched_groups.take();
        empty.retain(|group| self.members[*group as usize].is_empty());
        empty.iter().for_each(|group| self.members[*group as usize] = Vec::new());
        self.groups.remove(&empty);
        Ok(())
    }

    fn leave_group(&mut self, row: u32) {
        let Place { group, index } = std::mem::replace(&mut self.places[row as usize], NOWHERE);
        let members = &mut self.members[group as usize];
        members.swap_remove(index as usize);
        if let Some(moved) = members.get(index as usize) {
            self.places[*moved as usize].index = index;
        }
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let by_row = 8 * (self.counts.capacity() + self.counts_before.capacity())
            + self.places.capacity() * size_of::<Place>()
            + self.touched_rows.marks.capacity()
            + self.ids.slot_bytes();
        // The lists of the groups have a place for each row, and may have room for as many more.
        let lists = self.members.capacity() * size_of::<Vec<u32>>() + 2 * 4 * self.rows.slot_end();
        self.rows.memory_bytes() + self.groups.memory_bytes() + by_row + lists + self.ids.ids.memory_bytes()
    }

    /// See [`crate::operators::state::State`].
    pub fn track(&mut self) {
        self.ids.ids.changes.track();
    }

    /// What has changed: the rows, and how often each is there.
    pub fn changes(&mut self) -> Result<TableChange, OperatorError> {
        let (ids, slots) = self.ids.take();
        let mut columns = self.rows.columns(&slots)?;
        columns.push(gather(&self.counts, &slots));
        let types = columns.iter().map(|column| column.data_type().clone());
        ids.with_rows(&state::schema(types), columns)
    }

    pub fn restore(&mut self, saved: SavedParts<'_>, telling: Telling) -> Result<(), OperatorError> {
        let width = self.schema.fields().len();
        for saved in saved {
            let StateRows { ids, rows } = saved?;
            let columns = &rows.columns()[..width];
            self.rows.file(columns, ids.len(), &mut self.row_slots)?;
            self.file_groups(columns, ids.len())?;
            self.ids.ids.restored(&ids, telling);
            let counts = rows.column(width).as_primitive::<Int64Type>().values();
            let (row_slots, group_slots) = (std::mem::take(&mut self.row_slots), std::mem::take(&mut self.group_slots));
            for (((row, group), id), count) in row_slots.iter().zip(&group_slots).zip(&ids).zip(counts) {
                self.join_group(*row, *group);
                self.counts[*row as usize] = *count;
                self.counts_before[*row as usize] = *count;
                self.ids.come(*row, *id, telling == Telling::All);
            }
            (self.row_slots, self.group_slots) = (row_slots, group_slots);
        }
        self.ids.ids.all_restored();
        Ok(())
    }
}
