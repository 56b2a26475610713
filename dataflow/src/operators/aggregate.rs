//! Grouped aggregation: `GROUP BY key` to one row per live group.
//!
//! Input          deltas, exchanged by group key.
//! Output         per changed group and epoch: at most one retraction and one insertion.
//! State          one slot per live group: key, count of rows, accumulators; on the disk where memory has no room.
//! On retraction  count and sum subtract; min and max read the group's multiset.
//! On failure     a group with a result that does not fit its type has no row, and is an error of the view until it fits.
//! Cost           time O(changed rows), memory O(live groups).
//!
//! The last output of a group is not stored: it is computed from the accumulators just before the first change of an
//! epoch, for all groups that a batch touches at once. A group whose count reaches zero is gone and its slot free.
//! Without keys there is one group that never goes: its row is there from the first epoch on, over no input too.

mod accumulators;
mod boolean;
mod count;
mod disk;
mod distinct_values;
mod double_double;
mod entries;
mod expansion;
mod extremum;
mod moments;
mod ordered;
mod sum;
mod variance;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{concat, filter};
use arrow::datatypes::{DataType, SchemaRef};
use freshet_planner::plan;
use freshet_storage::checkpoint::TableChange;
use freshet_storage::spill::SpillFolder;
use freshet_types::{Delta, Weights};

use self::accumulators::{AggregateState, Failures};
pub(crate) use self::count::gather;
use self::disk::Disk;
use self::entries::Entries;
pub use self::moments::{Moments, Spread};
use crate::RowError;
use crate::expressions::cells_text;
use crate::memory::StateMemory;
use crate::operators::ids::GroupIds;
use crate::operators::key_table::KeyTable;
use crate::operators::state::{Room, SavedParts, State, Telling};
use crate::operators::{Operator, OperatorError, Output};

pub struct Aggregate {
    keys: Vec<usize>,
    key_types: Vec<DataType>,
    schema: SchemaRef,
    groups: KeyTable,
    /// The number of input rows of each group.
    counts: Vec<i64>,
    aggregates: Vec<AggregateState>,
    touched: Touched,
    ids: GroupIds,
    /// The groups that are not in memory.
    disk: Option<Disk>,
    /// While saved rows come back.
    room: Option<Room>,
    /// The one group without keys, and whether its row has been given.
    global: Global,
    /// The slot of each row of a batch; kept for its memory.
    slots: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    /// There are keys, or the one group belongs to another worker.
    No,
    NotGiven,
    Given,
}

/// The groups that changed in the current epoch.
#[derive(Default)]
struct Touched {
    /// Whether a slot is in one of the lists below.
    marks: Vec<bool>,
    /// Groups whose row was given in an earlier epoch, and the aggregate columns of these rows, in pieces.
    old: Vec<u32>,
    old_columns: Vec<Vec<ArrayRef>>,
    /// Those among them that had no row, because a result did not fit its type.
    old_failures: Failures,
    /// Groups that came up in this epoch.
    new: Vec<u32>,
}

/// Whether this worker keeps the one group of an aggregate without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnsGlobalGroup {
    Yes,
    No,
}

impl Aggregate {
    /// `schema` has the key columns, then one column an aggregate.
    ///
    /// # Errors
    /// If an aggregate does not exist for its type.
    pub fn new(
        input: &plan::Node,
        keys: &[usize],
        aggregates: &[plan::Aggregate],
        schema: SchemaRef,
        owns_global: OwnsGlobalGroup,
    ) -> Result<Self, OperatorError> {
        let key_types: Vec<DataType> = keys.iter().map(|key| input.schema.field(*key).data_type().clone()).collect();
        let is_global = keys.is_empty() && owns_global == OwnsGlobalGroup::Yes;
        Ok(Self {
            keys: keys.to_vec(),
            schema,
            groups: KeyTable::new(key_types.clone())?,
            key_types,
            counts: Vec::new(),
            aggregates: aggregates.iter().map(|a| AggregateState::new(a, input)).collect::<Result<_, _>>()?,
            touched: Touched::default(),
            ids: GroupIds::default(),
            disk: None,
            room: None,
            global: if is_global { Global::NotGiven } else { Global::No },
            slots: Vec::new(),
        })
    }

    /// Makes room for the slots that the group table has handed out.
    fn grow(&mut self) {
        let slots = self.groups.slot_end();
        if slots > self.counts.len() {
            self.counts.resize(slots, 0);
            self.touched.marks.resize(slots, false);
            self.ids.grow(slots);
            self.aggregates.iter_mut().for_each(|aggregate| aggregate.grow(slots));
        }
    }

    /// Notes which groups change, and the rows that stand for them until now.
    fn touch(&mut self) -> Result<(), OperatorError> {
        let first_new_old = self.touched.old.len();
        for slot in &self.slots {
            let mark = &mut self.touched.marks[*slot as usize];
            if !*mark {
                *mark = true;
                let was_given = self.counts[*slot as usize] != 0 || self.global == Global::Given;
                let list = if was_given { &mut self.touched.old } else { &mut self.touched.new };
                list.push(*slot);
            }
        }
        let old = &self.touched.old[first_new_old..];
        if !old.is_empty() {
            let mut failures = Failures::default();
            self.touched.old_columns.push(self.evaluate(old, &mut failures)?);
            self.touched.old_failures.append(first_new_old, failures);
        }
        Ok(())
    }

    fn count(&mut self, weights: &Weights) -> Result<(), OperatorError> {
        match weights {
            Weights::Inserts => self.slots.iter().for_each(|slot| self.counts[*slot as usize] += 1),
            Weights::Each(weights) => {
                for (slot, weight) in self.slots.iter().zip(weights.iter()) {
                    let count = &mut self.counts[*slot as usize];
                    *count = count.checked_add(*weight).ok_or_else(OperatorError::weight_overflow)?;
                }
            }
        }
        Ok(())
    }

    /// The aggregate columns of the groups at `slots`.
    fn evaluate(&self, slots: &[u32], failures: &mut Failures) -> Result<Vec<ArrayRef>, OperatorError> {
        self.aggregates.iter().map(|aggregate| aggregate.evaluate(slots, &self.counts, failures)).collect()
    }

    fn is_live(&self, slot: u32) -> bool {
        self.counts[slot as usize] > 0 || self.global != Global::No
    }

    /// The rows of the groups at `slots`, whose aggregate columns are `values`.
    fn rows(&self, slots: &[u32], values: Vec<ArrayRef>) -> Result<RecordBatch, OperatorError> {
        let mut columns = self.groups.columns(slots)?;
        columns.extend(values);
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Gives the retractions and the new rows of groups that had a row before.
    fn revise(&self, touched: &Touched, out: &mut Output) -> Result<(), OperatorError> {
        let Touched { old, old_columns, old_failures, .. } = touched;
        let old_values = join_pieces(old_columns, self.aggregates.len())?;
        let mut new_failures = Failures::default();
        let new_values = self.evaluate(old, &mut new_failures)?;
        let live = BooleanBuffer::from_iter(old.iter().map(|slot| self.is_live(*slot)));
        let mut changed = !&live;
        for (old_value, new_value) in old_values.iter().zip(&new_values) {
            changed = &changed | distinct(old_value, new_value)?.values();
        }
        let mut revised = &changed & &live;
        if !old_failures.is_empty() || !new_failures.is_empty() {
            // A group that fails has no row, before or after.
            let (had_row, has_row) = (old_failures.successes(old.len()), new_failures.successes(old.len()));
            let (came, went) = (&!&had_row & &has_row, &had_row & &!&has_row);
            (changed, revised) = (&(&changed | &went) & &had_row, &(&(&revised | &came) & &has_row) & &live);
            new_failures.retain(|place, _| live.value(place));
            let (mut gone, mut come) = (old_failures.clone(), new_failures.clone());
            gone.retain(|place, reason| new_failures.get(place) != Some(reason));
            come.retain(|place, reason| old_failures.get(place) != Some(reason));
            self.report(old, &gone, -1, out)?;
            self.report(old, &come, 1, out)?;
        }
        let (changed, revised) = (BooleanArray::new(changed, None), BooleanArray::new(revised, None));
        let retractions = self.rows(&filter_slots(old, &changed), filter_columns(&old_values, &changed)?)?;
        out.push(Delta::deletes(retractions));
        let insertions = self.rows(&filter_slots(old, &revised), filter_columns(&new_values, &revised)?)?;
        out.push(Delta::inserts(insertions));
        Ok(())
    }

    /// Gives the rows of groups that had none before.
    fn introduce(&self, born: &[u32], out: &mut Output) -> Result<(), OperatorError> {
        let mut failures = Failures::default();
        let mut values = self.evaluate(born, &mut failures)?;
        if failures.is_empty() {
            out.push(Delta::inserts(self.rows(born, values)?));
            return Ok(());
        }
        self.report(born, &failures, 1, out)?;
        let succeeded = BooleanArray::new(failures.successes(born.len()), None);
        values = filter_columns(&values, &succeeded)?;
        out.push(Delta::inserts(self.rows(&filter_slots(born, &succeeded), values)?));
        Ok(())
    }

    /// Adds the failing groups among those at `slots` to the errors of the view, or takes them away.
    fn report(&self, slots: &[u32], failures: &Failures, weight: i64, out: &mut Output) -> Result<(), OperatorError> {
        for (place, reason) in failures.places() {
            let keys = self.groups.columns(&slots[place..=place])?;
            let names = self.schema.fields().iter().map(|field| field.name().as_str());
            let row = if keys.is_empty() { "all rows".to_owned() } else { cells_text(names.zip(&keys)) };
            out.errors().add(|| RowError { message: reason.to_owned(), row, weight });
        }
        Ok(())
    }

    /// Frees what is kept for groups without rows.
    fn forget_dead(&mut self, touched: impl Iterator<Item = u32>) {
        let dead: Vec<u32> = touched.filter(|slot| !self.is_live(*slot)).collect();
        self.groups.remove(&dead);
        dead.iter().for_each(|slot| self.ids.remove(*slot));
        self.aggregates.iter_mut().for_each(|aggregate| aggregate.clear(&dead));
    }

    fn entries(&mut self) -> impl Iterator<Item = &mut dyn Entries> {
        self.aggregates.iter_mut().filter_map(|aggregate| aggregate.accumulator()?.entries())
    }

    fn check_counts(&self, slots: &[u32]) -> Result<(), OperatorError> {
        match slots.iter().find(|slot| self.counts[**slot as usize] < 0) {
            Some(_) => {
                Err(OperatorError::BrokenInvariant("more rows of a group were deleted than inserted".to_string()))
            }
            None => Ok(()),
        }
    }
}

impl Operator for Aggregate {
    fn absorb(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<(), OperatorError> {
        let key_columns: Vec<ArrayRef> = self.keys.iter().map(|key| delta.columns()[*key].clone()).collect();
        self.fetch(&key_columns, delta.len())?;
        self.groups.file(&key_columns, delta.len(), &mut self.slots)?;
        self.grow();
        self.touch()?;
        self.count(delta.weights())?;
        for aggregate in &mut self.aggregates {
            aggregate.update(&self.slots, &delta)?;
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        self.fetch_open()?;
        if self.global == Global::NotGiven && self.touched.new.is_empty() {
            // The one group is there without any row.
            self.groups.file(&[], 1, &mut self.slots)?;
            self.grow();
            self.touch()?;
        }
        let touched = std::mem::take(&mut self.touched).keep_marks(&mut self.touched);
        self.check_counts(&touched.old)?;
        self.check_counts(&touched.new)?;
        if !touched.old.is_empty() {
            self.revise(&touched, out)?;
        }
        let Touched { old, new, .. } = touched;
        let born: Vec<u32> = new.iter().copied().filter(|slot| self.is_live(*slot)).collect();
        if !born.is_empty() {
            self.introduce(&born, out)?;
        }
        if self.global == Global::NotGiven {
            self.global = Global::Given;
        }
        for slot in old.iter().chain(&new) {
            self.touched.marks[*slot as usize] = false;
            self.ids.touch(*slot);
        }
        self.forget_dead(old.into_iter().chain(new));
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::has_open)
    }

    fn memory(&self) -> StateMemory {
        let columns = self.counts.capacity() * 8 + self.touched.marks.capacity() + self.ids.slot_bytes();
        let aggregates: usize = self.aggregates.iter().map(AggregateState::memory_bytes).sum();
        let groups = self.groups.memory_bytes() + columns + aggregates;
        let (index_bytes, disk_bytes) = self.disk.as_ref().map_or((0, 0), Disk::bytes);
        let ids: usize = self.aggregates.iter().map(AggregateState::id_bytes).sum();
        StateMemory {
            memory_bytes: groups + index_bytes + ids + self.ids.ids.memory_bytes(),
            // The one group without keys is in every batch.
            spillable_bytes: if self.keys.is_empty() { 0 } else { groups },
            disk_bytes,
        }
    }

    fn spill(&mut self, folder: &Arc<SpillFolder>) -> Result<(), OperatorError> {
        self.leave(folder)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

/// The first table has a row a group: key, number of rows, accumulators. Each aggregate that keeps a multiset a group
/// has a table of its own beside it.
impl State for Aggregate {
    fn track(&mut self) {
        self.ids.ids.changes.track();
        self.entries().for_each(|entries| entries.ids().changes.track());
    }

    fn keep_within(&mut self, room: &Room) {
        self.room = Some(room.clone());
    }

    fn table_count(&mut self) -> usize {
        1 + self.entries().count()
    }

    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        self.tell()
    }

    fn restore(&mut self, tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError> {
        self.come_back(tables, telling)
    }
}

impl Touched {
    /// Leaves the marks, which are reset one by one, in `next`.
    fn keep_marks(mut self, next: &mut Touched) -> Self {
        next.marks = std::mem::take(&mut self.marks);
        self
    }
}

fn join_pieces(pieces: &[Vec<ArrayRef>], columns: usize) -> Result<Vec<ArrayRef>, OperatorError> {
    let join = |column: usize| {
        let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece[column].as_ref()).collect();
        Ok(concat(&pieces)?)
    };
    (0..columns).map(join).collect()
}

fn filter_slots(slots: &[u32], mask: &BooleanArray) -> Vec<u32> {
    mask.values().set_indices().map(|index| slots[index]).collect()
}

fn filter_columns(columns: &[ArrayRef], mask: &BooleanArray) -> Result<Vec<ArrayRef>, OperatorError> {
    if mask.true_count() == mask.len() {
        return Ok(columns.to_vec());
    }
    columns.iter().map(|column| Ok(filter(column, mask)?)).collect()
}
