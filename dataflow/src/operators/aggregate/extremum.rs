//! `min(x)` and `max(x)`: one value a group if nothing is ever retracted, else all values of the group in order.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::compute::{filter, is_not_null};
use arrow::datatypes::DataType;
use freshet_storage::checkpoint::{StateRows, TableChange};

use super::accumulators::{Accumulator, Failures, SavedColumns, Update};
use super::count::add_weight;
use super::entries::{ChangedEntries, Entries, HeapBytes, Ledger, saved_columns};
use super::ordered::{Form, form_of, from_bytes, from_int64, from_int128, to_bytes, to_int64, to_int128};
use crate::operators::OperatorError;
use crate::operators::state::Telling;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Least,
    Greatest,
}

/// What a text takes beside its place, for budgets: a guess.
const SHORT_TEXT_BYTES: usize = 32;

/// Min or max over an append-only input.
pub struct Extremum {
    direction: Direction,
    data_type: DataType,
    best: Best,
}

/// The best value of each group so far.
enum Best {
    Int64(Vec<Option<i64>>),
    Int128(Vec<Option<i128>>),
    Bytes(Vec<Option<Box<[u8]>>>),
}

impl Extremum {
    /// `None` if the type has no order.
    pub fn new(direction: Direction, data_type: &DataType) -> Option<Self> {
        let best = match form_of(data_type)? {
            Form::Int64 => Best::Int64(Vec::new()),
            Form::Int128 => Best::Int128(Vec::new()),
            Form::Bytes => Best::Bytes(Vec::new()),
        };
        Some(Self { direction, data_type: data_type.clone(), best })
    }
}

fn improve<T: Ord + Copy>(best: &mut [Option<T>], slots: &[u32], values: &[T], direction: Direction) {
    let rows = slots.iter().zip(values);
    match direction {
        Direction::Greatest => rows.for_each(|(slot, value)| {
            let best = &mut best[*slot as usize];
            *best = Some(best.map_or(*value, |best| best.max(*value)));
        }),
        Direction::Least => rows.for_each(|(slot, value)| {
            let best = &mut best[*slot as usize];
            *best = Some(best.map_or(*value, |best| best.min(*value)));
        }),
    }
}

impl Accumulator for Extremum {
    fn grow(&mut self, slots: usize) {
        match &mut self.best {
            Best::Int64(best) => best.resize(slots, None),
            Best::Int128(best) => best.resize(slots, None),
            Best::Bytes(best) => best.resize(slots, None),
        }
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        if update.weights.is_some_and(|weights| weights.iter().any(|weight| *weight < 0)) {
            return Err(OperatorError::BrokenInvariant("a row of an append-only input was deleted".to_string()));
        }
        match &mut self.best {
            Best::Int64(best) => improve(best, update.slots, &to_int64(update.values())?, self.direction),
            Best::Int128(best) => improve(best, update.slots, &to_int128(update.values()), self.direction),
            Best::Bytes(best) => {
                let values = to_bytes(update.values())?;
                for (row, slot) in update.slots.iter().enumerate() {
                    let (best, value) = (&mut best[*slot as usize], values.value(row));
                    let is_better = best.as_deref().is_none_or(|best| match self.direction {
                        Direction::Least => value < best,
                        Direction::Greatest => value > best,
                    });
                    if is_better {
                        *best = Some(value.into());
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        Ok(match &self.best {
            Best::Int64(best) => from_int64(slots.iter().map(|slot| best[*slot as usize]).collect(), &self.data_type)?,
            Best::Int128(best) => from_int128(slots.iter().map(|slot| best[*slot as usize]).collect(), &self.data_type),
            Best::Bytes(best) => from_bytes(slots.iter().map(|slot| best[*slot as usize].as_deref()), &self.data_type)?,
        })
    }

    fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            match &mut self.best {
                Best::Int64(best) => best[*slot as usize] = None,
                Best::Int128(best) => best[*slot as usize] = None,
                Best::Bytes(best) => best[*slot as usize] = None,
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.best {
            Best::Int64(best) => best.capacity() * size_of::<Option<i64>>(),
            Best::Int128(best) => best.capacity() * size_of::<Option<i128>>(),
            // What a text takes differs; a short one is taken for granted.
            Best::Bytes(best) => best.capacity() * (size_of::<Option<Box<[u8]>>>() + SHORT_TEXT_BYTES),
        }
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(vec![self.evaluate(slots, &mut Failures::default())?])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let values = columns.take()?;
        let valid = is_not_null(values)?;
        let slots: Vec<u32> = valid.values().set_indices().map(|row| slots[row]).collect();
        let values = filter(values, &valid)?;
        self.update(Update { slots: &slots, values: Some(&values), weights: None })
    }
}

/// Min or max over an input with retractions.
pub struct ExtremumOfMultiset {
    direction: Direction,
    data_type: DataType,
    values: Multisets,
}

/// How often each value occurs in each group.
enum Multisets {
    Int64(Multiset<i64>),
    Int128(Multiset<i128>),
    Bytes(Multiset<Vec<u8>>),
}

struct Multiset<V> {
    groups: Vec<BTreeMap<V, Copies>>,
    ledger: Ledger<V>,
    /// What the values hold beside themselves.
    heap_bytes: usize,
}

/// How often a value occurs in a group.
struct Copies {
    count: i64,
    id: u32,
}

impl ExtremumOfMultiset {
    /// `None` if the type has no order.
    pub fn new(direction: Direction, data_type: &DataType) -> Option<Self> {
        let values = match form_of(data_type)? {
            Form::Int64 => Multisets::Int64(Multiset::default()),
            Form::Int128 => Multisets::Int128(Multiset::default()),
            Form::Bytes => Multisets::Bytes(Multiset::default()),
        };
        Some(Self { direction, data_type: data_type.clone(), values })
    }
}

impl<V> Default for Multiset<V> {
    fn default() -> Self {
        Self { groups: Vec::new(), ledger: Ledger::default(), heap_bytes: 0 }
    }
}

impl<V: Ord + Clone + HeapBytes> Multiset<V> {
    /// Bytes held, for budgets: an estimate, since a tree does not tell.
    fn memory_bytes(&self) -> usize {
        /// A node of a tree has room for so many; the one node of a small tree counts whatever is in it.
        const NODE_ENTRIES: usize = 11;
        let entry = size_of::<V>() + size_of::<Copies>();
        let groups = self.groups.len() * (size_of::<BTreeMap<V, Copies>>() + NODE_ENTRIES * entry);
        // Nodes are two thirds full.
        let further = self.ledger.len().saturating_sub(self.groups.len() * NODE_ENTRIES) * entry * 3 / 2;
        groups + further + self.heap_bytes + self.ledger.memory_bytes()
    }

    /// Adds `weight` copies of `value`. Counts may be negative until the epoch is complete.
    fn count<Q>(&mut self, slot: usize, value: &Q, weight: i64) -> Result<(), OperatorError>
    where
        V: Borrow<Q>,
        Q: ToOwned<Owned = V> + Ord + ?Sized,
    {
        if weight == 0 {
            return Ok(());
        }
        let group = u32::try_from(slot).expect("slots are handed out as u32");
        let Some(copies) = self.groups[slot].get_mut(value) else {
            let id = self.ledger.add(group, || value.to_owned());
            let value = value.to_owned();
            self.heap_bytes += value.heap_bytes();
            self.groups[slot].insert(value, Copies { count: weight, id });
            return Ok(());
        };
        self.ledger.touch(copies.id, group, || value.to_owned());
        add_weight(&mut copies.count, weight)?;
        if copies.count == 0 {
            self.ledger.remove(copies.id);
            let gone = self.groups[slot].remove_entry(value);
            self.heap_bytes -= gone.map_or(0, |(value, _)| value.heap_bytes());
        }
        Ok(())
    }

    fn best(&self, slot: u32, direction: Direction) -> Result<Option<&V>, OperatorError> {
        let group = &self.groups[slot as usize];
        let found = match direction {
            Direction::Least => group.first_key_value(),
            Direction::Greatest => group.last_key_value(),
        };
        match found {
            Some((_, Copies { count: ..0, .. })) => {
                Err(OperatorError::BrokenInvariant("a value was deleted from a group that is not in it".to_string()))
            }
            found => Ok(found.map(|(value, _)| value)),
        }
    }

    /// The values of a group without rows are gone already.
    fn clear(&mut self, slots: &[u32]) {
        debug_assert!(slots.iter().all(|slot| self.groups[*slot as usize].is_empty()));
    }

    /// The changed entries, and how often each is there.
    fn changes(&mut self) -> (ChangedEntries<V>, Vec<i64>) {
        let changed = self.ledger.take();
        let counts = changed
            .each()
            .map(|(slot, value)| self.groups[slot as usize].get(value).expect("a changed entry is there").count);
        let counts = counts.collect();
        (changed, counts)
    }

    fn restore(
        &mut self,
        part: &StateRows,
        values: impl Iterator<Item = V>,
        telling: Telling,
    ) -> Result<(), OperatorError> {
        let (slots, _, counts) = saved_columns(part)?;
        for (((id, slot), count), value) in part.ids.iter().zip(slots).zip(counts).zip(values) {
            self.ledger.restore(*id, *slot, telling, || value.clone());
            self.heap_bytes += value.heap_bytes();
            self.groups[*slot as usize].insert(value, Copies { count: *count, id: *id });
        }
        Ok(())
    }
}

impl Accumulator for ExtremumOfMultiset {
    fn grow(&mut self, slots: usize) {
        match &mut self.values {
            Multisets::Int64(sets) => sets.groups.resize_with(slots, BTreeMap::new),
            Multisets::Int128(sets) => sets.groups.resize_with(slots, BTreeMap::new),
            Multisets::Bytes(sets) => sets.groups.resize_with(slots, BTreeMap::new),
        }
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        match &mut self.values {
            Multisets::Int64(sets) => {
                let values = to_int64(update.values())?;
                update.each(|slot, row, weight| sets.count(slot, &values[row], weight))
            }
            Multisets::Int128(sets) => {
                let values = to_int128(update.values());
                update.each(|slot, row, weight| sets.count(slot, &values[row], weight))
            }
            Multisets::Bytes(sets) => {
                let values = to_bytes(update.values())?;
                update.each(|slot, row, weight| sets.count(slot, values.value(row), weight))
            }
        }
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        let direction = self.direction;
        Ok(match &self.values {
            Multisets::Int64(sets) => {
                let results = slots.iter().map(|slot| Ok(sets.best(*slot, direction)?.copied()));
                from_int64(results.collect::<Result<_, OperatorError>>()?, &self.data_type)?
            }
            Multisets::Int128(sets) => {
                let results = slots.iter().map(|slot| Ok(sets.best(*slot, direction)?.copied()));
                from_int128(results.collect::<Result<_, OperatorError>>()?, &self.data_type)
            }
            Multisets::Bytes(sets) => {
                let results = slots.iter().map(|slot| Ok(sets.best(*slot, direction)?.map(Vec::as_slice)));
                let results = results.collect::<Result<Vec<_>, OperatorError>>()?;
                from_bytes(results.into_iter(), &self.data_type)?
            }
        })
    }

    fn clear(&mut self, slots: &[u32]) {
        match &mut self.values {
            Multisets::Int64(sets) => sets.clear(slots),
            Multisets::Int128(sets) => sets.clear(slots),
            Multisets::Bytes(sets) => sets.clear(slots),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.values {
            Multisets::Int64(sets) => sets.memory_bytes(),
            Multisets::Int128(sets) => sets.memory_bytes(),
            Multisets::Bytes(sets) => sets.memory_bytes(),
        }
    }

    /// All is in the entries.
    fn save(&self, _slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(vec![])
    }

    fn load(&mut self, _slots: &[u32], _columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn entries(&mut self) -> Option<&mut dyn Entries> {
        Some(self)
    }
}

impl Entries for ExtremumOfMultiset {
    fn track(&mut self) {
        match &mut self.values {
            Multisets::Int64(sets) => sets.ledger.track(),
            Multisets::Int128(sets) => sets.ledger.track(),
            Multisets::Bytes(sets) => sets.ledger.track(),
        }
    }

    fn changes(&mut self) -> Result<TableChange, OperatorError> {
        match &mut self.values {
            Multisets::Int64(sets) => {
                let (changed, counts) = sets.changes();
                let values = changed.values.iter().map(|value| Some(*value)).collect();
                changed.with_values(from_int64(values, &self.data_type)?, counts)
            }
            Multisets::Int128(sets) => {
                let (changed, counts) = sets.changes();
                let values = changed.values.iter().map(|value| Some(*value)).collect();
                changed.with_values(from_int128(values, &self.data_type), counts)
            }
            Multisets::Bytes(sets) => {
                let (changed, counts) = sets.changes();
                let values = from_bytes(changed.values.iter().map(|value| Some(&value[..])), &self.data_type)?;
                changed.with_values(values, counts)
            }
        }
    }

    fn restore(&mut self, saved: &[StateRows], telling: Telling) -> Result<(), OperatorError> {
        for part in saved {
            let (_, values, _) = saved_columns(part)?;
            match &mut self.values {
                Multisets::Int64(sets) => sets.restore(part, to_int64(values)?.iter().copied(), telling)?,
                Multisets::Int128(sets) => sets.restore(part, to_int128(values).iter().copied(), telling)?,
                Multisets::Bytes(sets) => {
                    let values = to_bytes(values)?;
                    sets.restore(part, values.iter().flatten().map(<[u8]>::to_vec), telling)?;
                }
            }
        }
        match &mut self.values {
            Multisets::Int64(sets) => sets.ledger.restored(saved),
            Multisets::Int128(sets) => sets.ledger.restored(saved),
            Multisets::Bytes(sets) => sets.ledger.restored(saved),
        }
        Ok(())
    }
}
