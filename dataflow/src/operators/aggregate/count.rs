//! `count(x)`, and `count(*) FILTER (…)`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::Int64Type;

use super::accumulators::{Accumulator, Failures, SavedColumns, Update};
use crate::operators::OperatorError;

#[derive(Default)]
pub struct Count {
    counts: Vec<i64>,
}

/// The entries of `column` at `slots`.
pub fn gather(column: &[i64], slots: &[u32]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| column[*slot as usize])))
}

/// Adds `weight` to a count of rows.
#[inline]
pub fn add_weight(count: &mut i64, weight: i64) -> Result<(), OperatorError> {
    *count = count.checked_add(weight).ok_or_else(OperatorError::weight_overflow)?;
    Ok(())
}

impl Accumulator for Count {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        update.each(|slot, _, weight| add_weight(&mut self.counts[slot], weight))
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        Ok(gather(&self.counts, slots))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.counts[*slot as usize] = 0);
    }

    fn empty(&mut self) {
        self.counts = Vec::new();
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(vec![gather(&self.counts, slots)])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let counts = columns.numbers::<Int64Type>()?.values();
        slots.iter().zip(counts).for_each(|(slot, count)| self.counts[*slot as usize] = *count);
        Ok(())
    }
}
