//! `DISTINCT` inside an aggregate: `count(DISTINCT x)`, `sum(DISTINCT x)`.
//!
//! Counts the copies of each value in each group, and lets the aggregate see a value when its first copy comes and
//! its last one goes.

use arrow::array::UInt32Array;
use arrow::array::{Array, ArrayRef};
use arrow::compute::take;
use arrow::datatypes::DataType;
use freshet_types::KeyEncoder;
use freshet_types::keys::{hash_bytes, hash_int};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::accumulators::{Accumulator, Failures, Update};
use super::count::add_weight;
use crate::operators::OperatorError;

pub struct DistinctValues {
    encoder: KeyEncoder,
    ints: HashTable<Copies<i64>>,
    others: HashTable<Copies<Box<[u8]>>>,
    inner: Box<dyn Accumulator>,
}

/// How often a value occurs in the group at `slot`.
struct Copies<V> {
    slot: u32,
    value: V,
    count: i64,
}

/// Spreads the groups of one value over the table.
fn hash_in_group(hash: u64, slot: u32) -> u64 {
    hash ^ hash_int(i64::from(slot))
}

impl DistinctValues {
    /// # Errors
    /// If values of the type cannot be told apart.
    pub fn new(data_type: &DataType, inner: Box<dyn Accumulator>) -> Result<Self, OperatorError> {
        let encoder = KeyEncoder::new(std::slice::from_ref(data_type))?;
        Ok(Self { encoder, ints: HashTable::new(), others: HashTable::new(), inner })
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
        if let Some(ints) = keys.as_ints() {
            update.each(|slot, row, weight| {
                let (slot, value) = (slot_number(slot), ints.values[row]);
                let entry = self.ints.entry(
                    hash_in_group(hash_int(value), slot),
                    |copies| copies.value == value && copies.slot == slot,
                    |copies| hash_in_group(hash_int(copies.value), copies.slot),
                );
                note(row, count(entry, weight, || Copies { slot, value, count: 0 })?);
                Ok(())
            })?;
        } else {
            update.each(|slot, row, weight| {
                let (slot, value) = (slot_number(slot), keys.bytes(row).expect("keys are integers or bytes"));
                let entry = self.others.entry(
                    hash_in_group(hash_bytes(value), slot),
                    |copies| *copies.value == *value && copies.slot == slot,
                    |copies| hash_in_group(hash_bytes(&copies.value), copies.slot),
                );
                note(row, count(entry, weight, || Copies { slot, value: value.into(), count: 0 })?);
                Ok(())
            })?;
        }
        Ok((rows, weights))
    }
}

fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).expect("slots are handed out as u32")
}

/// Adds `weight` copies; says whether the value came or went. Counts may be negative until the epoch is complete.
fn count<V>(entry: Entry<'_, Copies<V>>, weight: i64, new: impl FnOnce() -> Copies<V>) -> Result<i64, OperatorError> {
    let mut entry = match entry {
        Entry::Occupied(entry) => entry,
        Entry::Vacant(_) if weight == 0 => return Ok(0),
        Entry::Vacant(entry) => entry.insert(new()),
    };
    let copies = entry.get_mut();
    let was_there = copies.count > 0;
    add_weight(&mut copies.count, weight)?;
    let is_there = copies.count > 0;
    if copies.count == 0 {
        entry.remove();
    }
    Ok(i64::from(is_there) - i64::from(was_there))
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
}
