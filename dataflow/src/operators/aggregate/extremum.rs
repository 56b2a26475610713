//! `min(x)` and `max(x)`: one value a group if nothing is ever retracted, else all values of the group in order.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::compute::{filter, is_not_null};
use arrow::datatypes::DataType;
use freshet_storage::checkpoint::TableChange;

use super::accumulators::{Accumulator, Failures, SavedColumns, Update};
use super::count::add_weight;
use super::entries::{Arriving, Entries, HeapBytes, Ledger};
use super::ordered::{Form, form_of, from_bytes, from_int64, from_int128, to_bytes, to_int64, to_int128};
use crate::operators::OperatorError;
use crate::operators::ids::Ids;
use crate::operators::spilled_table::SpilledTable;

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

    fn empty(&mut self) {
        match &mut self.best {
            Best::Int64(best) => *best = Vec::new(),
            Best::Int128(best) => *best = Vec::new(),
            Best::Bytes(best) => *best = Vec::new(),
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
    /// Of all groups.
    entries: usize,
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
        Self { groups: Vec::new(), entries: 0, ledger: Ledger::default(), heap_bytes: 0 }
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
        let further = self.entries.saturating_sub(self.groups.len() * NODE_ENTRIES) * entry * 3 / 2;
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
            self.entries += 1;
            self.groups[slot].insert(value, Copies { count: weight, id });
            return Ok(());
        };
        self.ledger.touch(copies.id, group, || value.to_owned());
        add_weight(&mut copies.count, weight)?;
        if copies.count == 0 {
            self.ledger.remove(copies.id);
            let gone = self.groups[slot].remove_entry(value);
            self.entries -= 1;
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

    /// What has changed; `column` makes a column of values.
    fn changes(
        &mut self,
        groups: &[u32],
        column: impl Fn(&mut dyn Iterator<Item = &V>) -> Result<ArrayRef, OperatorError>,
    ) -> Result<TableChange, OperatorError> {
        let changed = self.ledger.take();
        let copies_of = |slot: u32, value| self.groups[slot as usize].get(value).expect("a changed entry is there");
        let counts = changed.each().map(|(slot, value)| copies_of(slot, value).count).collect();
        let values = column(&mut changed.values.iter())?;
        changed.with_values(groups, values, counts)
    }

    fn come(&mut self, arriving: &Arriving<'_>, values: impl Iterator<Item = V>) {
        for ((_, id, slot, count, is_untold), value) in arriving.rows().zip(values) {
            if is_untold {
                self.ledger.touch(id, slot, || value.clone());
            }
            self.heap_bytes += value.heap_bytes();
            self.entries += 1;
            self.groups[slot as usize].insert(value, Copies { count, id });
        }
    }

    /// All entries leave for the disk; `column` makes a column of values.
    fn leave(
        &mut self,
        groups: &[u32],
        disk: &mut SpilledTable,
        column: impl Fn(&mut dyn Iterator<Item = &V>) -> Result<ArrayRef, OperatorError>,
    ) -> Result<(), OperatorError> {
        let sets = std::mem::take(&mut self.groups);
        (self.entries, self.heap_bytes) = (0, 0);
        let entries: Vec<(u32, &V, i64, u32)> = (0_u32..)
            .zip(&sets)
            .flat_map(|(slot, set)| set.iter().map(move |(value, copies)| (slot, value, copies.count, copies.id)))
            .collect();
        self.ledger.leave(&entries, groups, disk, |some| column(some))
    }

    fn empty(&mut self) {
        (self.groups, self.entries, self.heap_bytes) = (Vec::new(), 0, 0);
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

    fn empty(&mut self) {
        match &mut self.values {
            Multisets::Int64(sets) => sets.empty(),
            Multisets::Int128(sets) => sets.empty(),
            Multisets::Bytes(sets) => sets.empty(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.values {
            Multisets::Int64(sets) => sets.memory_bytes(),
            Multisets::Int128(sets) => sets.memory_bytes(),
            Multisets::Bytes(sets) => sets.memory_bytes(),
        }
    }

    fn id_bytes(&self) -> usize {
        match &self.values {
            Multisets::Int64(sets) => sets.ledger.ids.memory_bytes(),
            Multisets::Int128(sets) => sets.ledger.ids.memory_bytes(),
            Multisets::Bytes(sets) => sets.ledger.ids.memory_bytes(),
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
    fn value_type(&self) -> &DataType {
        &self.data_type
    }

    fn ids(&mut self) -> &mut Ids {
        match &mut self.values {
            Multisets::Int64(sets) => &mut sets.ledger.ids,
            Multisets::Int128(sets) => &mut sets.ledger.ids,
            Multisets::Bytes(sets) => &mut sets.ledger.ids,
        }
    }

    fn changes(&mut self, groups: &[u32]) -> Result<TableChange, OperatorError> {
        let data_type = &self.data_type;
        match &mut self.values {
            Multisets::Int64(sets) => sets.changes(groups, |values| int64_column(values, data_type)),
            Multisets::Int128(sets) => sets.changes(groups, |values| int128_column(values, data_type)),
            Multisets::Bytes(sets) => sets.changes(groups, |values| bytes_column(values, data_type)),
        }
    }

    fn come(&mut self, arriving: &Arriving<'_>) -> Result<(), OperatorError> {
        match &mut self.values {
            Multisets::Int64(sets) => sets.come(arriving, to_int64(arriving.values)?.iter().copied()),
            Multisets::Int128(sets) => sets.come(arriving, to_int128(arriving.values).iter().copied()),
            Multisets::Bytes(sets) => {
                let values = to_bytes(arriving.values)?;
                sets.come(arriving, values.iter().flatten().map(<[u8]>::to_vec));
            }
        }
        Ok(())
    }

    fn leave(&mut self, groups: &[u32], disk: &mut SpilledTable) -> Result<(), OperatorError> {
        let data_type = &self.data_type;
        match &mut self.values {
            Multisets::Int64(sets) => sets.leave(groups, disk, |values| int64_column(values, data_type)),
            Multisets::Int128(sets) => sets.leave(groups, disk, |values| int128_column(values, data_type)),
            Multisets::Bytes(sets) => sets.leave(groups, disk, |values| bytes_column(values, data_type)),
        }
    }
}

fn int64_column(values: &mut dyn Iterator<Item = &i64>, data_type: &DataType) -> Result<ArrayRef, OperatorError> {
    Ok(from_int64(values.map(|value| Some(*value)).collect(), data_type)?)
}

fn int128_column(values: &mut dyn Iterator<Item = &i128>, data_type: &DataType) -> Result<ArrayRef, OperatorError> {
    Ok(from_int128(values.map(|value| Some(*value)).collect(), data_type))
}

fn bytes_column(values: &mut dyn Iterator<Item = &Vec<u8>>, data_type: &DataType) -> Result<ArrayRef, OperatorError> {
    Ok(from_bytes(values.map(|value| Some(&value[..])), data_type)?)
}
