//! The entries of a multiset a group, as rows of a state table: group, value, number of copies.
//!
//! Each entry has an id of its own for as long as it is there, so that a checkpoint need tell only of those that changed.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use std::sync::Arc;

use freshet_storage::checkpoint::{StateRows, TableChange};

use crate::operators::OperatorError;
use crate::operators::state::{self, Changes, Telling};

/// The state table of an aggregate that keeps a multiset a group.
pub trait Entries {
    /// See [`crate::operators::state::State`].
    fn track(&mut self);
    fn changes(&mut self) -> Result<TableChange, OperatorError>;
    /// The groups have been restored before.
    fn restore(&mut self, saved: &[StateRows], telling: Telling) -> Result<(), OperatorError>;
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

/// Hands out the ids of entries, and remembers which entries have changed. Entries are found by group and value.
pub struct Ledger<V> {
    changes: Changes,
    free: Vec<u32>,
    /// All ids ever handed out are below this.
    end: u32,
    /// The changed entries that are there.
    changed: HashMap<u32, (u32, V)>,
}

impl<V> Default for Ledger<V> {
    fn default() -> Self {
        Self { changes: Changes::default(), free: Vec::new(), end: 0, changed: HashMap::new() }
    }
}

/// A change to tell of: rows without their numbers of copies.
pub struct ChangedEntries<V> {
    ids: state::ChangedIds,
    groups: Vec<u32>,
    pub values: Vec<V>,
}

impl<V> Ledger<V> {
    pub fn track(&mut self) {
        self.changes.track();
    }

    /// A new entry; gives its id.
    pub fn add(&mut self, group: u32, value: impl FnOnce() -> V) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        });
        self.touch(id, group, value);
        id
    }

    /// The number of copies of an entry has changed.
    #[inline]
    pub fn touch(&mut self, id: u32, group: u32, value: impl FnOnce() -> V) {
        if self.changes.touch(id) {
            self.changed.insert(id, (group, value()));
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.end as usize - self.free.len()
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let changed = self.changed.capacity() * size_of::<(u32, (u32, V))>();
        self.changes.memory_bytes() + self.free.capacity() * size_of::<u32>() + changed
    }

    /// An entry is gone.
    pub fn remove(&mut self, id: u32) {
        self.changes.remove(id);
        self.changed.remove(&id);
        self.free.push(id);
    }

    pub fn take(&mut self) -> ChangedEntries<V> {
        let mut changed = std::mem::take(&mut self.changed);
        let ids = self.changes.take();
        let entry = |id| changed.remove(id).expect("a changed entry is kept until it is told or gone");
        let (groups, values) = ids.changed.iter().map(entry).unzip();
        ChangedEntries { ids, groups, values }
    }

    /// A saved entry is there again; all are said before [`Ledger::restored`].
    pub fn restore(&mut self, id: u32, group: u32, telling: Telling, value: impl FnOnce() -> V) {
        self.end = self.end.max(id + 1);
        self.changes.restored(std::iter::once(id), telling);
        if telling == Telling::All {
            self.changed.insert(id, (group, value()));
        }
    }

    /// All saved entries are there: other ids below the last one are free.
    pub fn restored(&mut self, saved: &[StateRows]) {
        let mut used = vec![false; self.end as usize];
        saved.iter().flat_map(|part| &part.ids).for_each(|id| used[*id as usize] = true);
        self.free = (0..).zip(used).filter(|(_, used)| !used).map(|(id, _)| id).collect();
    }
}

impl<V> ChangedEntries<V> {
    /// The groups and values, to look up how many copies there are.
    pub fn each(&self) -> impl Iterator<Item = (u32, &V)> {
        self.groups.iter().copied().zip(&self.values)
    }

    pub fn with_values(self, values: ArrayRef, copies: Vec<i64>) -> Result<TableChange, OperatorError> {
        let columns = vec![state::id_column(self.groups), values, Arc::new(Int64Array::from(copies)) as ArrayRef];
        let types = columns.iter().map(|column| column.data_type().clone());
        self.ids.with_rows(&state::schema(types), columns)
    }
}

/// The groups, values and numbers of copies of saved rows.
pub fn saved_columns(saved: &StateRows) -> Result<(&[u32], &ArrayRef, &[i64]), OperatorError> {
    let [groups, values, copies] = saved.rows.columns() else { return Err(state::not_of_this_operator()) };
    Ok((state::ids_of_column(groups), values, copies.as_primitive::<Int64Type>().values()))
}
