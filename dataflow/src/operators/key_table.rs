//! Keys and their slots: the table that grouping, joining and duplicate removal share.
//!
//! A slot is a small number that stands for a key while it is in the table; what belongs to a key lies in the caller's
//! columns at its slot. A slot that is let go is given to a later key. A single integer key lies in the
//! table itself; other keys are bytes in Arrow's row format.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use freshet_types::keys::{IntKeys, hash_bytes, hash_int};
use freshet_types::{KeyEncoder, Keys, RowTable};
use hashbrown::HashTable;

/// The slot of a key that is not in the table.
pub const NO_SLOT: u32 = u32::MAX;

pub struct KeyTable {
    encoder: KeyEncoder,
    types: Vec<DataType>,
    filed: Filed,
    slots: Slots,
}

enum Filed {
    /// Keys without columns: there is one.
    Unit(Option<u32>),
    Ints {
        table: HashTable<(i64, u32)>,
        null: Option<u32>,
        /// The key of each slot; without meaning at the slot of NULL.
        keys: Vec<i64>,
    },
    Rows {
        table: RowTable,
        keys: Vec<Box<[u8]>>,
        /// Bytes of all keys.
        key_bytes: usize,
        converter: RowConverter,
    },
}

/// Hands out slots.
#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    /// All slots ever handed out are below this.
    end: u32,
}

impl Slots {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let slot = self.end;
            assert!(slot < NO_SLOT, "a worker's memory ends before its slot numbers do");
            self.end += 1;
            slot
        })
    }
}

impl KeyTable {
    /// # Errors
    /// If a type cannot be a key.
    pub fn new(types: Vec<DataType>) -> Result<Self, ArrowError> {
        let encoder = KeyEncoder::new(&types)?;
        let filed = match types.as_slice() {
            [] => Filed::Unit(None),
            [only] if encoder.encode(&[arrow::array::new_empty_array(only)], 0)?.as_ints().is_some() => {
                Filed::Ints { table: HashTable::new(), null: None, keys: Vec::new() }
            }
            _ => {
                let fields = types.iter().cloned().map(SortField::new).collect();
                let converter = RowConverter::new(fields)?;
                Filed::Rows { table: RowTable::default(), keys: Vec::new(), key_bytes: 0, converter }
            }
        };
        Ok(Self { encoder, types, filed, slots: Slots::default() })
    }

    /// All slots are below this.
    pub fn slot_end(&self) -> usize {
        self.slots.end as usize
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.slots.end as usize - self.slots.free.len()
    }

    /// The slots of all keys, in order.
    pub fn filed_slots(&self) -> Vec<u32> {
        let mut is_free = vec![false; self.slot_end()];
        self.slots.free.iter().for_each(|slot| is_free[*slot as usize] = true);
        (0..self.slots.end).zip(is_free).filter(|(_, is_free)| !is_free).map(|(slot, _)| slot).collect()
    }

    /// The hashes of keys, whether or not they are in the table.
    ///
    /// # Errors
    /// If the columns are not of the table's types.
    pub fn hashes(&self, columns: &[ArrayRef], row_count: usize) -> Result<Vec<u64>, ArrowError> {
        Ok(self.encoder.encode(columns, row_count)?.hashes())
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        /// What an allocation takes beside its bytes, and rounding up.
        const ALLOCATION_BYTES: usize = 16;
        let filed = match &self.filed {
            Filed::Unit(_) => 0,
            Filed::Ints { table, keys, .. } => {
                table.capacity() * (size_of::<(i64, u32)>() + 1) + keys.capacity() * size_of::<i64>()
            }
            Filed::Rows { table, keys, key_bytes, .. } => {
                let allocations = table.len() * ALLOCATION_BYTES + key_bytes;
                table.memory_bytes() + keys.capacity() * size_of::<Box<[u8]>>() + allocations
            }
        };
        filed + self.slots.free.capacity() * size_of::<u32>()
    }

    /// The slot of each row's key, which is filed if it is new. `slots` is emptied first.
    ///
    /// # Errors
    /// If the columns are not of the table's types.
    pub fn file(&mut self, columns: &[ArrayRef], row_count: usize, slots: &mut Vec<u32>) -> Result<(), ArrowError> {
        let keys = self.encoder.encode(columns, row_count)?;
        slots.clear();
        slots.reserve(row_count);
        let next = &mut self.slots;
        match &mut self.filed {
            Filed::Unit(slot) => {
                if row_count > 0 {
                    slots.resize(row_count, *slot.get_or_insert_with(|| next.take()));
                }
            }
            Filed::Ints { table, null, keys: filed } => {
                let mut slot_of = |key: i64| {
                    let hash = hash_int(key);
                    if let Some((_, slot)) = table.find(hash, |(filed, _)| *filed == key) {
                        return *slot;
                    }
                    let slot = next.take();
                    table.insert_unique(hash, (key, slot), |(filed, _)| hash_int(*filed));
                    put(filed, slot, key);
                    slot
                };
                match int_keys(&keys) {
                    IntKeys { values, nulls: None } => slots.extend(values.iter().map(|key| slot_of(*key))),
                    IntKeys { values, nulls: Some(nulls) } => {
                        for (key, valid) in values.iter().zip(nulls) {
                            slots.push(if valid { slot_of(*key) } else { *null.get_or_insert(NO_SLOT) });
                        }
                        file_null(null, next, filed, slots);
                    }
                }
            }
            Filed::Rows { table, keys: filed, key_bytes, .. } => {
                for (row, hash) in keys.hashes().into_iter().enumerate() {
                    let bytes = row_bytes(&keys, row);
                    let found = table.find(hash, |slot| *filed[slot] == *bytes);
                    slots.push(found.map_or_else(
                        || {
                            let slot = next.take();
                            *key_bytes += bytes.len();
                            table.insert(hash, slot as usize);
                            put(filed, slot, bytes.into());
                            slot
                        },
                        |slot| u32::try_from(slot).expect("slots are handed out as u32"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The slot of each row's key, or [`NO_SLOT`]. `slots` is emptied first.
    ///
    /// # Errors
    /// If the columns are not of the table's types.
    pub fn find(&self, columns: &[ArrayRef], row_count: usize, slots: &mut Vec<u32>) -> Result<(), ArrowError> {
        let keys = self.encoder.encode(columns, row_count)?;
        slots.clear();
        match &self.filed {
            Filed::Unit(slot) => slots.resize(row_count, slot.unwrap_or(NO_SLOT)),
            Filed::Ints { table, null, .. } => {
                let slot_of =
                    |key: i64| table.find(hash_int(key), |(filed, _)| *filed == key).map_or(NO_SLOT, |(_, slot)| *slot);
                match int_keys(&keys) {
                    IntKeys { values, nulls: None } => slots.extend(values.iter().map(|key| slot_of(*key))),
                    IntKeys { values, nulls: Some(nulls) } => slots.extend(
                        values
                            .iter()
                            .zip(nulls)
                            .map(|(key, valid)| if valid { slot_of(*key) } else { null.unwrap_or(NO_SLOT) }),
                    ),
                }
            }
            Filed::Rows { table, keys: filed, .. } => {
                for (row, hash) in keys.hashes().into_iter().enumerate() {
                    let bytes = row_bytes(&keys, row);
                    let found = table.find(hash, |slot| *filed[slot] == *bytes);
                    slots.push(found.map_or(NO_SLOT, |slot| u32::try_from(slot).expect("slots are handed out as u32")));
                }
            }
        }
        Ok(())
    }

    /// Takes the keys at `slots`, each of which is in the table, out of it.
    pub fn remove(&mut self, slots: &[u32]) {
        for slot in slots {
            match &mut self.filed {
                Filed::Unit(filed) => *filed = None,
                Filed::Ints { null, .. } if *null == Some(*slot) => *null = None,
                Filed::Ints { table, keys, .. } => {
                    let key = keys[*slot as usize];
                    if let Ok(entry) = table.find_entry(hash_int(key), |(filed, _)| *filed == key) {
                        entry.remove();
                    }
                }
                Filed::Rows { table, keys, key_bytes, .. } => {
                    let bytes = std::mem::take(&mut keys[*slot as usize]);
                    *key_bytes -= bytes.len();
                    table.remove(hash_bytes(&bytes), |filed| filed == *slot as usize);
                }
            }
            self.slots.free.push(*slot);
        }
    }

    /// The keys at `slots` as columns.
    ///
    /// # Errors
    /// If a key cannot be made a value again, which would be a bug.
    pub fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns: Vec<ArrayRef> = match &self.filed {
            Filed::Unit(_) => vec![],
            Filed::Ints { null: None, keys, .. } => {
                vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| keys[*slot as usize])))]
            }
            Filed::Ints { null: Some(null), keys, .. } => {
                let key = |slot: &u32| (slot != null).then(|| keys[*slot as usize]);
                vec![Arc::new(Int64Array::from_iter(slots.iter().map(key)))]
            }
            Filed::Rows { keys, converter, .. } => {
                let parser = converter.parser();
                converter.convert_rows(slots.iter().map(|slot| parser.parse(&keys[*slot as usize])))?
            }
        };
        let with_type = |(column, data_type): (ArrayRef, &DataType)| {
            if column.data_type() == data_type { Ok(column) } else { cast(&column, data_type) }
        };
        columns.into_iter().zip(&self.types).map(with_type).collect()
    }
}

fn put<T: Default>(column: &mut Vec<T>, slot: u32, value: T) {
    let slot = slot as usize;
    if slot >= column.len() {
        column.resize_with(slot + 1, T::default);
    }
    column[slot] = value;
}

/// Gives NULL its slot, if rows have asked for it with a stand-in.
fn file_null(null: &mut Option<u32>, next: &mut Slots, keys: &mut Vec<i64>, slots: &mut [u32]) {
    if *null == Some(NO_SLOT) {
        let slot = next.take();
        put(keys, slot, 0);
        *null = Some(slot);
        slots.iter_mut().filter(|asked| **asked == NO_SLOT).for_each(|asked| *asked = slot);
    }
}

fn int_keys(keys: &Keys) -> IntKeys<'_> {
    keys.as_ints().expect("an encoder makes keys of one kind")
}

fn row_bytes(keys: &Keys, row: usize) -> &[u8] {
    keys.bytes(row).expect("an encoder makes keys of one kind")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray};

    use super::*;

    fn check(types: Vec<DataType>, columns: Vec<ArrayRef>, expected: &[u32]) {
        let mut table = KeyTable::new(types).unwrap();
        let (mut slots, mut found) = (Vec::new(), Vec::new());
        table.find(&columns, expected.len(), &mut found).unwrap();
        assert!(found.iter().all(|slot| *slot == NO_SLOT));
        table.file(&columns, expected.len(), &mut slots).unwrap();
        assert_eq!(slots, expected);
        table.find(&columns, expected.len(), &mut found).unwrap();
        assert_eq!(found, expected);
        assert_eq!(table.columns(&slots).unwrap(), columns);
        table.remove(&[0]);
        table.find(&columns, expected.len(), &mut found).unwrap();
        let without_0: Vec<u32> = expected.iter().map(|slot| if *slot == 0 { NO_SLOT } else { *slot }).collect();
        assert_eq!(found, without_0);
        table.file(&columns, expected.len(), &mut slots).unwrap();
        assert_eq!(slots, expected, "the free slot is used again");
        assert_eq!(table.columns(&slots).unwrap(), columns);
        let all: std::collections::BTreeSet<u32> = expected.iter().copied().collect();
        assert_eq!(table.filed_slots(), all.iter().copied().collect::<Vec<_>>());
        assert_eq!(table.len(), all.len());
    }

    #[test]
    fn each_kind_of_key_finds_its_slot() {
        let ints = Arc::new(Int64Array::from(vec![7, 8, 7, -1]));
        check(vec![DataType::Int64], vec![ints], &[0, 1, 0, 2]);
        let with_nulls = Arc::new(Int32Array::from(vec![Some(0), None, Some(0), None, Some(3)]));
        check(vec![DataType::Int32], vec![with_nulls], &[0, 1, 0, 1, 2].map(null_last));
        let names = Arc::new(StringArray::from(vec![Some("a"), None, Some("a"), Some("")]));
        check(vec![DataType::Utf8], vec![names.clone()], &[0, 1, 0, 2]);
        let more = Arc::new(Int64Array::from(vec![1, 1, 2, 1]));
        check(vec![DataType::Utf8, DataType::Int64], vec![names, more], &[0, 1, 2, 3]);
        check(vec![], vec![], &[0, 0]);
    }

    /// Among integers NULL gets its slot after the other keys of its batch.
    fn null_last(slot: u32) -> u32 {
        [0, 2, 1][slot as usize]
    }
}
