//! `var_samp`, `var_pop`, `stddev_samp`, `stddev_pop`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;

use super::accumulators::{Accumulator, Failures, SavedColumns, Update};
use super::moments::{Moments, Spread};
use crate::operators::OperatorError;

pub struct Variance {
    spread: Spread,
    groups: Vec<Moments>,
}

impl Variance {
    pub fn new(spread: Spread) -> Self {
        Self { spread, groups: Vec::new() }
    }

    fn at(&self, slots: &[u32]) -> impl Iterator<Item = Moments> + Clone {
        slots.iter().map(|slot| self.groups[*slot as usize])
    }
}

impl Accumulator for Variance {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots, Moments::default());
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let values = update.values().as_primitive::<Float64Type>().values();
        update.each(|slot, row, weight| self.groups[slot].add(values[row], weight))
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        Ok(Arc::new(self.at(slots).map(|moments| moments.spread(self.spread)).collect::<Float64Array>()))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.groups[*slot as usize] = Moments::default());
    }

    fn empty(&mut self) {
        self.groups = Vec::new();
    }

    fn memory_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Moments>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(Moments::columns(self.at(slots)))
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let saved = Moments::from_columns(columns.several(Moments::COLUMNS)?)?;
        slots.iter().zip(saved).for_each(|(slot, moments)| self.groups[*slot as usize] = moments);
        Ok(())
    }
}
