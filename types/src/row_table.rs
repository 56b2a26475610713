//! An open-addressing hash table from a hash to a slot number.
//!
//! It stores only slots and hashes; what a slot means, and whether two slots are equal, is the caller's.
//! This is the shape that grouping, joining and indexing share: keys lie in columns, and the table
//! points at them. The hash stays beside the slot, so growing never looks at a key.

use hashbrown::HashTable;

/// Maps hashes to slots; slots are handed in by the caller.
#[derive(Debug, Default, Clone)]
pub struct RowTable {
    table: HashTable<(u64, usize)>,
}

impl RowTable {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { table: HashTable::with_capacity(capacity) }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The slot with this hash for which `is_equal` holds; else `new_slot`, which is then filed.
    #[inline]
    pub fn find_or_insert(&mut self, hash: u64, new_slot: usize, mut is_equal: impl FnMut(usize) -> bool) -> usize {
        let found = self.table.entry(hash, |(h, slot)| *h == hash && is_equal(*slot), |(h, _)| *h);
        found.or_insert((hash, new_slot)).get().1
    }

    #[inline]
    pub fn find(&self, hash: u64, mut is_equal: impl FnMut(usize) -> bool) -> Option<usize> {
        self.table.find(hash, |(h, slot)| *h == hash && is_equal(*slot)).map(|(_, slot)| *slot)
    }

    /// Files `slot`, even if an equal one is there.
    pub fn insert(&mut self, hash: u64, slot: usize) {
        self.table.insert_unique(hash, (hash, slot), |(h, _)| *h);
    }

    /// Takes out the slot with this hash for which `is_equal` holds.
    pub fn remove(&mut self, hash: u64, mut is_equal: impl FnMut(usize) -> bool) -> Option<usize> {
        let entry = self.table.find_entry(hash, |(h, slot)| *h == hash && is_equal(*slot)).ok()?;
        Some(entry.remove().0.1)
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<(u64, usize)>() + 1)
    }
}
