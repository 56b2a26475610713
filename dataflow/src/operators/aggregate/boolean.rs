//! `bool_and(x)` and `bool_or(x)`: how many values are true, how many false.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::Int64Type;

use super::accumulators::{Accumulator, Failures, SavedColumns, Update, column};
use super::count::add_weight;
use crate::operators::OperatorError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    All,
    Any,
}

pub struct BooleanAggregate {
    quantifier: Quantifier,
    /// The number of (false, true) values.
    counts: Vec<[i64; 2]>,
}

impl BooleanAggregate {
    pub fn new(quantifier: Quantifier) -> Self {
        Self { quantifier, counts: Vec::new() }
    }
}

impl Accumulator for BooleanAggregate {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, [0; 2]);
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let values = update.values().as_boolean().values();
        update.each(|slot, row, weight| add_weight(&mut self.counts[slot][usize::from(values.value(row))], weight))
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        let result = |slot: &u32| match (self.counts[*slot as usize], self.quantifier) {
            ([0, 0], _) => None,
            ([falses, _], Quantifier::All) => Some(falses == 0),
            ([_, trues], Quantifier::Any) => Some(trues != 0),
        };
        Ok(Arc::new(slots.iter().map(result).collect::<BooleanArray>()))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.counts[*slot as usize] = [0; 2]);
    }

    fn empty(&mut self) {
        self.counts = Vec::new();
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<[i64; 2]>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let counts = |index: usize| slots.iter().map(move |slot| self.counts[*slot as usize][index]);
        Ok(vec![column::<Int64Type>(counts(0)), column::<Int64Type>(counts(1))])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        for index in [0, 1] {
            let counts = columns.numbers::<Int64Type>()?.values();
            slots.iter().zip(counts).for_each(|(slot, count)| self.counts[*slot as usize][index] = *count);
        }
        Ok(())
    }
}
