//! The entries of a multiset a group, as rows of a state table: group, value, number of copies.
//!
//! Each entry has an id of its own for as long as it is there, so that a checkpoint need tell only of those that changed.
//! In memory an entry is filed under the slot of its group; elsewhere it names the group by its id. Entries go to the disk
//! with their group and come back with it, found by the hash of that id, which no other id has.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use std::sync::Arc;

use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_types::keys::hash_int;

use crate::operators::OperatorError;
use crate::operators::ids::Ids;
use crate::operators::spilled_table::{SpilledPart, SpilledTable};
use crate::operators::state;

/// The state table of an aggregate that keeps a multiset a group.
pub trait Entries {
    fn value_type(&self) -> &DataType;

    fn ids(&mut self) -> &mut Ids;

    /// What has changed in memory. `groups` are the ids of groups by slot.
    fn changes(&mut self, groups: &[u32]) -> Result<TableChange, OperatorError>;

    /// Entries come from elsewhere, each of which has an id.
    fn come(&mut self, arriving: &Arriving<'_>) -> Result<(), OperatorError>;

    /// All entries leave for the disk. `groups` are the ids of groups by slot.
    fn leave(&mut self, groups: &[u32], disk: &mut SpilledTable) -> Result<(), OperatorError>;
}

/// Entries on their way to memory.
pub struct Arriving<'a> {
    pub ids: &'a [u32],
    pub slots: &'a [u32],
    pub values: &'a ArrayRef,
    pub copies: &'a [i64],
    /// Whether a checkpoint has yet to be told of each.
    pub untold: &'a [bool],
}

impl Arriving<'_> {
    /// The number of each row, its id, slot and number of copies, and whether it is untold.
    pub fn rows(&self) -> impl Iterator<Item = (usize, u32, u32, i64, bool)> {
        (0..self.ids.len()).map(|row| (row, self.ids[row], self.slots[row], self.copies[row], self.untold[row]))
    }
}

/// The schema of entries on the disk: group and value.
pub fn disk_schema(value_type: &DataType) -> SchemaRef {
    state::schema([DataType::UInt32, value_type.clone()])
}

/// The hash by which the entries of a group are found.
pub fn hash_of_group(id: u32) -> u64 {
    hash_int(i64::from(id))
}

/// What a value holds beside itself, for budgets.
pub trait HeapBytes {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl HeapBytes for i64 {}
impl HeapBytes for i128 {}

/// What an allocation takes beside its bytes, and rounding up.
const ALLOCATION_BYTES: usize = 16;

impl HeapBytes for Vec<u8> {
    fn heap_bytes(&self) -> usize {
        self.len() + ALLOCATION_BYTES
    }
}

impl HeapBytes for Box<[u8]> {
    fn heap_bytes(&self) -> usize {
        self.len() + ALLOCATION_BYTES
    }
}

/// The ids of entries, and which entries have changed. Entries are found by group and value.
pub struct Ledger<V> {
    pub ids: Ids,
    /// The changed entries in memory.
    changed: HashMap<u32, (u32, V)>,
}

impl<V> Default for Ledger<V> {
    fn default() -> Self {
        Self { ids: Ids::default(), changed: HashMap::new() }
    }
}

/// A change to tell of: rows without their numbers of copies.
pub struct ChangedEntries<V> {
    ids: state::ChangedIds,
    /// The slots of their groups.
    slots: Vec<u32>,
    pub values: Vec<V>,
}

impl<V> Ledger<V> {
    /// A new entry; gives its id.
    pub fn add(&mut self, slot: u32, value: impl FnOnce() -> V) -> u32 {
        let id = self.ids.assign();
        self.touch(id, slot, value);
        id
    }

    /// The number of copies of an entry has changed.
    #[inline]
    pub fn touch(&mut self, id: u32, slot: u32, value: impl FnOnce() -> V) {
        if self.ids.changes.touch(id) {
            self.changed.insert(id, (slot, value()));
        }
    }

    /// Bytes held for entries in memory.
    pub fn memory_bytes(&self) -> usize {
        self.changed.capacity() * size_of::<(u32, (u32, V))>()
    }

    /// An entry is gone.
    pub fn remove(&mut self, id: u32) {
        self.ids.release(id);
        self.changed.remove(&id);
    }

    pub fn take(&mut self) -> ChangedEntries<V> {
        let mut changed = std::mem::take(&mut self.changed);
        let ids = self.ids.changes.take();
        let entry = |id| changed.remove(id).expect("a changed entry is kept until it is told or gone");
        let (slots, values) = ids.changed.iter().map(entry).unzip();
        ChangedEntries { ids, slots, values }
    }

    /// Writes all entries to the disk, each with its slot, value, number of copies and id. `values` makes a column of some.
    pub fn leave<'a>(
        &mut self,
        entries: &[(u32, &'a V, i64, u32)],
        groups: &[u32],
        disk: &mut SpilledTable,
        values: impl Fn(&mut dyn Iterator<Item = &'a V>) -> Result<ArrayRef, OperatorError>,
    ) -> Result<(), OperatorError> {
        let hashes: Vec<u64> = entries.iter().map(|(slot, ..)| hash_of_group(groups[*slot as usize])).collect();
        disk.add(&hashes, |places| {
            let leaving = || places.iter().map(|place| &entries[*place as usize]);
            let group_ids = state::id_column(leaving().map(|(slot, ..)| groups[*slot as usize]).collect());
            Ok(SpilledPart {
                ids: leaving().map(|(_, _, _, id)| *id).collect(),
                weights: leaving().map(|(_, _, copies, _)| *copies).collect(),
                untold: leaving().map(|(_, _, _, id)| self.ids.changes.leave(*id)).collect(),
                columns: vec![group_ids, values(&mut leaving().map(|(_, value, ..)| *value))?],
            })
        })?;
        self.ids.changes.left();
        self.changed = HashMap::new();
        Ok(())
    }
}

impl<V> ChangedEntries<V> {
    /// The slots of the groups, and the values, to look up how many copies there are.
    pub fn each(&self) -> impl Iterator<Item = (u32, &V)> {
        self.slots.iter().copied().zip(&self.values)
    }

    pub fn with_values(self, groups: &[u32], values: ArrayRef, copies: Vec<i64>) -> Result<TableChange, OperatorError> {
        let groups = state::id_column(self.slots.iter().map(|slot| groups[*slot as usize]).collect());
        let columns = vec![groups, values, Arc::new(Int64Array::from(copies)) as ArrayRef];
        let types = columns.iter().map(|column| column.data_type().clone());
        self.ids.with_rows(&state::schema(types), columns)
    }
}

/// The groups, values and numbers of copies of saved rows.
pub fn saved_columns(saved: &StateRows) -> Result<(&[u32], &ArrayRef, &[i64]), OperatorError> {
    let [groups, values, copies] = saved.rows.columns() else { return Err(state::not_of_this_operator()) };
    Ok((state::ids_of_column(groups), values, copies.as_primitive::<Int64Type>().values()))
}
