//! `DISTINCT` inside an aggregate: `count(DISTINCT x)`, `sum(DISTINCT x)`.
//!
//! Counts the copies of each value in each group, and lets the aggregate see a value when its first copy comes and
//! its last one goes.

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use freshet_storage::checkpoint::TableChange;
use freshet_types::KeyEncoder;
use freshet_types::keys::{hash_bytes, hash_int};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::accumulators::{Accumulator, Failures, SavedColumns, Update};
use super::count::add_weight;
use super::entries::{Arriving, Entries, HeapBytes, Ledger};
use crate::operators::OperatorError;
use crate::operators::ids::Ids;
use crate::operators::spilled_table::SpilledTable;

pub struct DistinctValues {
    data_type: DataType,
    encoder: KeyEncoder,
    values: Values,
    inner: Box<dyn Accumulator>,
}

/// The values of all groups, in the form that keys of their type have.
enum Values {
    Ints(Counted<i64>),
    Others(Counted<Box<[u8]>>, RowConverter),
}

/// Counts copies.
struct Counted<V> {
    table: HashTable<Copies<V>>,
    hash: fn(&V) -> u64,
    ledger: Ledger<V>,
    /// What the values hold beside themselves.
    heap_bytes: usize,
}

/// How often a value occurs in the group at `slot`.
struct Copies<V> {
    slot: u32,
    value: V,
    count: i64,
    id: u32,
}

/// Spreads the groups of one value over the table.
fn hash_in_group(hash: u64, slot: u32) -> u64 {
    hash ^ hash_int(i64::from(slot))
}

impl<V: Clone + HeapBytes> Counted<V> {
    fn new(hash: fn(&V) -> u64) -> Self {
        Self { table: HashTable::new(), hash, ledger: Ledger::default(), heap_bytes: 0 }
    }

    /// Adds `weight` copies of the value that has this hash; says whether the value came or went. Counts may be negative
    /// until the epoch is complete.
    #[inline]
    fn count(
        &mut self,
        slot: usize,
        (hash, weight): (u64, i64),
        is_equal: impl Fn(&V) -> bool,
        value: impl Fn() -> V,
    ) -> Result<i64, OperatorError> {
        let slot = u32::try_from(slot).expect("slots are handed out as u32");
        let Self { table, hash: hash_of, ledger, heap_bytes } = self;
        let entry = table.entry(
            hash_in_group(hash, slot),
            |copies| copies.slot == slot && is_equal(&copies.value),
            |copies| hash_in_group(hash_of(&copies.value), copies.slot),
        );
        let mut entry = match entry {
            Entry::Occupied(entry) => {
                ledger.touch(entry.get().id, slot, value);
                entry
            }
            Entry::Vacant(_) if weight == 0 => return Ok(0),
            Entry::Vacant(entry) => {
                let id = ledger.add(slot, &value);
                let value = value();
                *heap_bytes += value.heap_bytes();
                entry.insert(Copies { slot, value, count: 0, id })
            }
        };
        let copies = entry.get_mut();
        let was_there = copies.count > 0;
        add_weight(&mut copies.count, weight)?;
        let is_there = copies.count > 0;
        if copies.count == 0 {
            ledger.remove(copies.id);
            *heap_bytes -= copies.value.heap_bytes();
            entry.remove();
        }
        Ok(i64::from(is_there) - i64::from(was_there))
    }

    /// Bytes held, for budgets.
    fn memory_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<Copies<V>>() + 1) + self.heap_bytes + self.ledger.memory_bytes()
    }

    fn empty(&mut self) {
        (self.table, self.heap_bytes) = (HashTable::new(), 0);
    }

    fn copies_of(&self, slot: u32, value: &V, is_equal: impl Fn(&V) -> bool) -> i64 {
        let hash = hash_in_group((self.hash)(value), slot);
        let found = self.table.find(hash, |copies| copies.slot == slot && is_equal(&copies.value));
        found.expect("a changed entry is there").count
    }

    fn come(&mut self, id: u32, (slot, value, count): (u32, V, i64), is_untold: bool) {
        if is_untold {
            self.ledger.touch(id, slot, || value.clone());
        }
        let (hash, hash_of) = (hash_in_group((self.hash)(&value), slot), self.hash);
        let rehash = |copies: &Copies<V>| hash_in_group(hash_of(&copies.value), copies.slot);
        self.heap_bytes += value.heap_bytes();
        self.table.insert_unique(hash, Copies { slot, value, count, id }, rehash);
    }

    /// All entries leave for the disk; `values` makes a column of some.
    fn leave(
        &mut self,
        groups: &[u32],
        disk: &mut SpilledTable,
        values: impl Fn(&mut dyn Iterator<Item = &V>) -> Result<ArrayRef, OperatorError>,
    ) -> Result<(), OperatorError> {
        let table = std::mem::take(&mut self.table);
        let entries: Vec<(u32, &V, i64, u32)> =
            table.iter().map(|copies| (copies.slot, &copies.value, copies.count, copies.id)).collect();
        self.heap_bytes = 0;
        self.ledger.leave(&entries, groups, disk, |some| values(some))
    }

    fn changes(
        &mut self,
        groups: &[u32],
        values: impl Fn(&mut dyn Iterator<Item = &V>) -> Result<ArrayRef, OperatorError>,
    ) -> Result<TableChange, OperatorError>
    where
        V: PartialEq,
    {
        let changed = self.ledger.take();
        let copies = changed.each().map(|(slot, value)| self.copies_of(slot, value, |other| other == value)).collect();
        let values = values(&mut changed.values.iter())?;
        changed.with_values(groups, values, copies)
    }
}

/// The column of `data_type` that has these integers.
fn int_column(values: &mut dyn Iterator<Item = &i64>, data_type: &DataType) -> Result<ArrayRef, OperatorError> {
    Ok(cast(&Int64Array::from_iter_values(values.copied()), data_type)?)
}

/// The column that has these values in row format.
fn row_column(
    values: &mut dyn Iterator<Item = &Box<[u8]>>,
    converter: &RowConverter,
) -> Result<ArrayRef, OperatorError> {
    let parser = converter.parser();
    Ok(converter.convert_rows(values.map(|value| parser.parse(value)))?.remove(0))
}

impl DistinctValues {
    /// # Errors
    /// If values of the type cannot be told apart.
    pub fn new(data_type: &DataType, inner: Box<dyn Accumulator>) -> Result<Self, OperatorError> {
        let encoder = KeyEncoder::new(std::slice::from_ref(data_type))?;
        let nothing = encoder.encode(&[arrow::array::new_empty_array(data_type)], 0)?;
        let values = if nothing.as_ints().is_some() {
            Values::Ints(Counted::new(|value| hash_int(*value)))
        } else {
            let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
            Values::Others(Counted::new(|value| hash_bytes(value)), converter)
        };
        Ok(Self { data_type: data_type.clone(), encoder, values, inner })
    }

    /// Changes the copies of each row's value; gives the rows with which a value came (+1) or went (-1).
    fn transitions(&mut self, update: Update<'_>) -> Result<(Vec<u32>, Vec<i64>), OperatorError> {
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        let mut note = |row: usize, change: i64| {
            if change != 0 {
                rows.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
                weights.push(change);
            }
        };
        let keys = self.encoder.encode(std::slice::from_ref(update.values()), update.slots.len())?;
        match &mut self.values {
            Values::Ints(counted) => {
                let ints = keys.as_ints().expect("an encoder makes keys of one kind");
                update.each(|slot, row, weight| {
                    let value = ints.values[row];
                    let change = counted.count(slot, (hash_int(value), weight), |other| *other == value, || value);
                    note(row, change?);
                    Ok(())
                })?;
            }
            Values::Others(counted, _) => update.each(|slot, row, weight| {
                let value = keys.bytes(row).expect("an encoder makes keys of one kind");
                let change =
                    counted.count(slot, (hash_bytes(value), weight), |other| **other == *value, || value.into());
                note(row, change?);
                Ok(())
            })?,
        }
        Ok((rows, weights))
    }
}

impl Accumulator for DistinctValues {
    fn grow(&mut self, slots: usize) {
        self.inner.grow(slots);
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let (rows, weights) = self.transitions(update)?;
        let slots: Vec<u32> = rows.iter().map(|row| update.slots[*row as usize]).collect();
        let values: ArrayRef = take(update.values(), &UInt32Array::from(rows), None)?;
        debug_assert_eq!(values.null_count(), 0);
        self.inner.update(Update { slots: &slots, values: Some(&values), weights: Some(&weights) })
    }

    fn evaluate(&self, slots: &[u32], failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        self.inner.evaluate(slots, failures)
    }

    /// The values of a group without rows are gone already.
    fn clear(&mut self, slots: &[u32]) {
        self.inner.clear(slots);
    }

    fn empty(&mut self) {
        match &mut self.values {
            Values::Ints(counted) => counted.empty(),
            Values::Others(counted, _) => counted.empty(),
        }
        self.inner.empty();
    }

    fn memory_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Ints(counted) => counted.memory_bytes(),
            Values::Others(counted, _) => counted.memory_bytes(),
        };
        values + self.inner.memory_bytes()
    }

    fn id_bytes(&self) -> usize {
        match &self.values {
            Values::Ints(counted) => counted.ledger.ids.memory_bytes(),
            Values::Others(counted, _) => counted.ledger.ids.memory_bytes(),
        }
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        self.inner.save(slots)
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        self.inner.load(slots, columns)
    }

    fn entries(&mut self) -> Option<&mut dyn Entries> {
        Some(self)
    }
}

impl Entries for DistinctValues {
    fn value_type(&self) -> &DataType {
        &self.data_type
    }

    fn ids(&mut self) -> &mut Ids {
        match &mut self.values {
            Values::Ints(counted) => &mut counted.ledger.ids,
            Values::Others(counted, _) => &mut counted.ledger.ids,
        }
    }

    fn changes(&mut self, groups: &[u32]) -> Result<TableChange, OperatorError> {
        match &mut self.values {
            Values::Ints(counted) => counted.changes(groups, |values| int_column(values, &self.data_type)),
            Values::Others(counted, converter) => counted.changes(groups, |values| row_column(values, converter)),
        }
    }

    fn come(&mut self, arriving: &Arriving<'_>) -> Result<(), OperatorError> {
        let keys = self.encoder.encode(std::slice::from_ref(arriving.values), arriving.ids.len())?;
        match &mut self.values {
            Values::Ints(counted) => {
                let ints = keys.as_ints().expect("an encoder makes keys of one kind");
                for (row, id, slot, count, is_untold) in arriving.rows() {
                    counted.come(id, (slot, ints.values[row], count), is_untold);
                }
            }
            Values::Others(counted, _) => {
                for (row, id, slot, count, is_untold) in arriving.rows() {
                    let value = keys.bytes(row).expect("an encoder makes keys of one kind");
                    counted.come(id, (slot, value.into(), count), is_untold);
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, groups: &[u32], disk: &mut SpilledTable) -> Result<(), OperatorError> {
        match &mut self.values {
            Values::Ints(counted) => counted.leave(groups, disk, |values| int_column(values, &self.data_type)),
            Values::Others(counted, converter) => counted.leave(groups, disk, |values| row_column(values, converter)),
        }
    }
}
