//! `min(x)` and `max(x)`: one value a group if nothing is ever retracted, else all values of the group in order.

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::accumulators::{Accumulator, Failures, Update};
use super::count::add_weight;
use super::ordered::{Form, form_of, from_bytes, from_int64, from_int128, to_bytes, to_int64, to_int128};
use crate::operators::OperatorError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Least,
    Greatest,
}

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
}

/// Min or max over an input with retractions.
pub struct ExtremumOfMultiset {
    direction: Direction,
    data_type: DataType,
    values: Multisets,
}

/// How often each value occurs in each group.
enum Multisets {
    Int64(Vec<BTreeMap<i64, i64>>),
    Int128(Vec<BTreeMap<i128, i64>>),
    Bytes(Vec<BTreeMap<Vec<u8>, i64>>),
}

impl ExtremumOfMultiset {
    /// `None` if the type has no order.
    pub fn new(direction: Direction, data_type: &DataType) -> Option<Self> {
        let values = match form_of(data_type)? {
            Form::Int64 => Multisets::Int64(Vec::new()),
            Form::Int128 => Multisets::Int128(Vec::new()),
            Form::Bytes => Multisets::Bytes(Vec::new()),
        };
        Some(Self { direction, data_type: data_type.clone(), values })
    }
}

/// Adds `weight` copies of `value`. Counts may be negative until the epoch is complete.
fn count<Q>(multiset: &mut BTreeMap<Q::Owned, i64>, value: &Q, weight: i64) -> Result<(), OperatorError>
where
    Q: ToOwned<Owned: Ord> + Ord + ?Sized,
{
    if weight == 0 {
        return Ok(());
    }
    let Some(copies) = multiset.get_mut(value) else {
        multiset.insert(value.to_owned(), weight);
        return Ok(());
    };
    add_weight(copies, weight)?;
    if *copies == 0 {
        multiset.remove(value);
    }
    Ok(())
}

fn best<K: Ord>(multiset: &BTreeMap<K, i64>, direction: Direction) -> Result<Option<&K>, OperatorError> {
    let found = match direction {
        Direction::Least => multiset.first_key_value(),
        Direction::Greatest => multiset.last_key_value(),
    };
    match found {
        Some((_, copies)) if *copies < 0 => {
            Err(OperatorError::BrokenInvariant("a value was deleted from a group that is not in it".to_string()))
        }
        found => Ok(found.map(|(value, _)| value)),
    }
}

impl Accumulator for ExtremumOfMultiset {
    fn grow(&mut self, slots: usize) {
        match &mut self.values {
            Multisets::Int64(sets) => sets.resize_with(slots, BTreeMap::new),
            Multisets::Int128(sets) => sets.resize_with(slots, BTreeMap::new),
            Multisets::Bytes(sets) => sets.resize_with(slots, BTreeMap::new),
        }
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        match &mut self.values {
            Multisets::Int64(sets) => {
                let values = to_int64(update.values())?;
                update.each(|slot, row, weight| count(&mut sets[slot], &values[row], weight))
            }
            Multisets::Int128(sets) => {
                let values = to_int128(update.values());
                update.each(|slot, row, weight| count(&mut sets[slot], &values[row], weight))
            }
            Multisets::Bytes(sets) => {
                let values = to_bytes(update.values())?;
                update.each(|slot, row, weight| count(&mut sets[slot], values.value(row), weight))
            }
        }
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        let direction = self.direction;
        Ok(match &self.values {
            Multisets::Int64(sets) => {
                let results = slots.iter().map(|slot| Ok(best(&sets[*slot as usize], direction)?.copied()));
                from_int64(results.collect::<Result<_, OperatorError>>()?, &self.data_type)?
            }
            Multisets::Int128(sets) => {
                let results = slots.iter().map(|slot| Ok(best(&sets[*slot as usize], direction)?.copied()));
                from_int128(results.collect::<Result<_, OperatorError>>()?, &self.data_type)
            }
            Multisets::Bytes(sets) => {
                let results = slots.iter().map(|slot| Ok(best(&sets[*slot as usize], direction)?.map(Vec::as_slice)));
                let results = results.collect::<Result<Vec<_>, OperatorError>>()?;
                from_bytes(results.into_iter(), &self.data_type)?
            }
        })
    }

    fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            match &mut self.values {
                Multisets::Int64(sets) => sets[*slot as usize].clear(),
                Multisets::Int128(sets) => sets[*slot as usize].clear(),
                Multisets::Bytes(sets) => sets[*slot as usize].clear(),
            }
        }
    }
}
