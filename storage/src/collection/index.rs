//! Finds rows by the hash of what identifies them: the key, or the whole row.
//!
//! Only live rows are in it. A hash mostly stands for one row; equal rows, and different ones whose hashes
//! collide, share an entry with their positions in ascending order. The rows themselves are not looked
//! at here: who asks compares them.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::segment::Position;

/// From hashes to the positions of live rows.
#[derive(Debug, Default)]
pub(super) struct RowIndex {
    table: HashTable<Slot>,
    /// The positions of hashes that stand for several rows. Lists of freed slots stay, empty.
    shared: Vec<Vec<Position>>,
    free: Vec<usize>,
}

/// The hash stays beside the position, so that growing never looks at a row.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    rows: Rows,
}

/// A position; or with [`SHARED`] set in its bits, the number of a list in `RowIndex::shared`. An enum
/// would make a slot half as big again.
#[derive(Debug, Clone, Copy)]
struct Rows(Position);

const SHARED: u64 = 1 << 63;

impl Rows {
    fn list(number: usize) -> Self {
        Self(Position::from_bits(SHARED | number as u64))
    }

    fn as_list(self) -> Option<usize> {
        let bits = self.0.to_bits();
        (bits & SHARED != 0).then_some((bits & !SHARED) as usize)
    }
}

impl RowIndex {
    /// An index with room for `rows` rows of different hashes.
    pub fn with_capacity(rows: usize) -> Self {
        Self { table: HashTable::with_capacity(rows), ..Self::default() }
    }

    pub fn memory_bytes(&self) -> usize {
        let lists: usize = self.shared.iter().map(|list| size_of_val(list) + list.capacity() * 8).sum();
        self.table.capacity() * (size_of::<Slot>() + 1) + lists
    }

    /// The positions filed under `hash`.
    pub fn positions(&self, hash: u64) -> &[Position] {
        match self.table.find(hash, |slot| slot.hash == hash) {
            None => &[],
            Some(slot) => match slot.rows.as_list() {
                Some(list) => &self.shared[list],
                None => std::slice::from_ref(&slot.rows.0),
            },
        }
    }

    /// Files a row; says whether there was one with this hash.
    pub fn insert(&mut self, hash: u64, position: Position) -> bool {
        match self.table.entry(hash, |slot| slot.hash == hash, |slot| slot.hash) {
            Entry::Vacant(entry) => {
                entry.insert(Slot { hash, rows: Rows(position) });
                false
            }
            Entry::Occupied(mut entry) => {
                let rows = &mut entry.get_mut().rows;
                let list = rows.as_list().unwrap_or_else(|| {
                    let number = self.free.pop().unwrap_or_else(|| {
                        self.shared.push(Vec::new());
                        self.shared.len() - 1
                    });
                    self.shared[number].push(rows.0);
                    *rows = Rows::list(number);
                    number
                });
                let list = &mut self.shared[list];
                // New rows come last; only one that is put back has a place before the end.
                let place = list.partition_point(|other| *other < position);
                list.insert(place, position);
                true
            }
        }
    }

    /// Takes out the last of the rows filed under `hash`.
    pub fn pop(&mut self, hash: u64) -> Option<Position> {
        let position = *self.positions(hash).last()?;
        self.remove(hash, position);
        Some(position)
    }

    /// Takes out one row, which must be there.
    pub fn remove(&mut self, hash: u64, position: Position) {
        let Ok(mut entry) = self.table.find_entry(hash, |slot| slot.hash == hash) else {
            debug_assert!(false, "a row to remove is in the index");
            return;
        };
        let Some(number) = entry.get().rows.as_list() else {
            debug_assert_eq!(entry.get().rows.0, position);
            entry.remove();
            return;
        };
        let list = &mut self.shared[number];
        if let Ok(place) = list.binary_search(&position) {
            list.remove(place);
        }
        if let [last] = list[..] {
            entry.get_mut().rows = Rows(last);
            *list = Vec::new();
            self.free.push(number);
        }
    }

    /// Follows a row from `from` to `to`. Rows of one hash must keep their order.
    pub fn relocate(&mut self, hash: u64, from: Position, to: Position) {
        let Some(slot) = self.table.find_mut(hash, |slot| slot.hash == hash) else {
            debug_assert!(false, "a row that moves is in the index");
            return;
        };
        match slot.rows.as_list() {
            None => slot.rows = Rows(to),
            Some(number) => {
                let list = &mut self.shared[number];
                if let Ok(place) = list.binary_search(&from) {
                    list[place] = to;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: usize) -> Position {
        Position::new(2, offset)
    }

    #[test]
    fn rows_of_one_hash_share_an_entry_in_order() {
        let mut index = RowIndex::default();
        assert!(!index.insert(7, at(1)));
        assert!(index.insert(7, at(5)));
        assert!(index.insert(7, at(3)));
        assert!(!index.insert(8, at(4)));
        assert_eq!(index.positions(7), [at(1), at(3), at(5)]);
        assert_eq!(index.pop(7), Some(at(5)));
        index.remove(7, at(1));
        assert_eq!(index.positions(7), [at(3)]);
        assert_eq!(index.pop(7), Some(at(3)));
        assert_eq!(index.pop(7), None);
        assert_eq!(index.positions(8), [at(4)]);
    }

    #[test]
    fn lists_are_used_again() {
        let mut index = RowIndex::default();
        for round in 0..10 {
            index.insert(round, at(1));
            index.insert(round, at(2));
            index.pop(round);
        }
        assert_eq!(index.shared.len(), 1);
    }

    #[test]
    fn rows_that_move_are_found_at_their_new_place() {
        let mut index = RowIndex::default();
        index.insert(7, at(10));
        index.insert(9, at(11));
        index.insert(9, at(12));
        index.relocate(7, at(10), at(0));
        index.relocate(9, at(11), at(1));
        index.relocate(9, at(12), at(2));
        assert_eq!(index.positions(7), [at(0)]);
        assert_eq!(index.positions(9), [at(1), at(2)]);
    }
}
