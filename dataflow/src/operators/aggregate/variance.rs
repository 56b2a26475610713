//! `var_samp`, `var_pop`, `stddev_samp`, `stddev_pop`.
//!
//! Kept are the sums of `x - s` and of `(x - s)²` in double-double, where the shift `s` is the first value of the group:
//! the variance does not depend on it, and no digits cancel where values lie close together far from zero. The sums can
//! be subtracted from, so that a retraction leaves what a run over the remaining values would give.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{Float64Type, Int64Type};

use super::accumulators::{Accumulator, Failures, SavedColumns, Update, column};
use super::count::add_weight;
use super::double_double::DoubleDouble;
use crate::operators::OperatorError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    VarianceSample,
    VariancePopulation,
    StddevSample,
    StddevPopulation,
}

#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    /// Of all values, finite or not.
    count: i64,
    shift: Option<f64>,
    sum: DoubleDouble,
    squares: DoubleDouble,
}

impl Moments {
    fn add(&mut self, value: f64, weight: i64) {
        let shift = *self.shift.get_or_insert(value);
        let shifted = DoubleDouble::difference(value, shift);
        let (term, square) = (shifted, shifted.squared());
        match weight {
            1 => {
                self.sum += term;
                self.squares += square;
            }
            _ => {
                self.sum += term.times(weight as f64);
                self.squares += square.times(weight as f64);
            }
        }
    }

    /// The sum of the squared distances from the mean.
    fn squared_distances(&self) -> f64 {
        let of_mean = self.sum.squared().divided_by(self.count as f64);
        let distances = (self.squares - of_mean).value();
        // Rounding may leave a trace below zero. NaN stays.
        if distances < 0.0 { 0.0 } else { distances }
    }
}

pub struct Variance {
    spread: Spread,
    groups: Vec<Moments>,
    /// How many values of a group are NaN or infinite, in the few groups that have such.
    not_finite: HashMap<usize, i64>,
}

impl Variance {
    pub fn new(spread: Spread) -> Self {
        Self { spread, groups: Vec::new(), not_finite: HashMap::new() }
    }

    fn result(&self, slot: usize) -> Option<f64> {
        let moments = &self.groups[slot];
        let is_sample = matches!(self.spread, Spread::VarianceSample | Spread::StddevSample);
        let variance = match (moments.count, is_sample) {
            (0, _) | (1, true) => return None,
            _ if self.not_finite.contains_key(&slot) => f64::NAN,
            (1, false) => 0.0,
            (count, true) => moments.squared_distances() / (count - 1) as f64,
            (count, false) => moments.squared_distances() / count as f64,
        };
        Some(match self.spread {
            Spread::VarianceSample | Spread::VariancePopulation => variance,
            Spread::StddevSample | Spread::StddevPopulation => variance.sqrt(),
        })
    }
}

impl Accumulator for Variance {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots, Moments::default());
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let values = update.values().as_primitive::<Float64Type>().values();
        update.each(|slot, row, weight| {
            let moments = &mut self.groups[slot];
            add_weight(&mut moments.count, weight)?;
            if values[row].is_finite() {
                moments.add(values[row], weight);
                return Ok(());
            }
            let count = self.not_finite.entry(slot).or_default();
            add_weight(count, weight)?;
            if *count == 0 {
                self.not_finite.remove(&slot);
            }
            Ok(())
        })
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        Ok(Arc::new(slots.iter().map(|slot| self.result(*slot as usize)).collect::<Float64Array>()))
    }

    fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            self.groups[*slot as usize] = Moments::default();
            self.not_finite.remove(&(*slot as usize));
        }
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let at = |slot: &u32| &self.groups[*slot as usize];
        let not_finite = |slot: &u32| self.not_finite.get(&(*slot as usize)).copied().unwrap_or_default();
        Ok(vec![
            column::<Int64Type>(slots.iter().map(|slot| at(slot).count)),
            Arc::new(slots.iter().map(|slot| at(slot).shift).collect::<Float64Array>()),
            column::<Float64Type>(slots.iter().map(|slot| at(slot).sum.parts().0)),
            column::<Float64Type>(slots.iter().map(|slot| at(slot).sum.parts().1)),
            column::<Float64Type>(slots.iter().map(|slot| at(slot).squares.parts().0)),
            column::<Float64Type>(slots.iter().map(|slot| at(slot).squares.parts().1)),
            column::<Int64Type>(slots.iter().map(not_finite)),
        ])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let counts = columns.numbers::<Int64Type>()?;
        let shifts = columns.numbers::<Float64Type>()?;
        let sums = (columns.numbers::<Float64Type>()?, columns.numbers::<Float64Type>()?);
        let squares = (columns.numbers::<Float64Type>()?, columns.numbers::<Float64Type>()?);
        let not_finite = columns.numbers::<Int64Type>()?;
        for (row, slot) in slots.iter().enumerate() {
            self.groups[*slot as usize] = Moments {
                count: counts.value(row),
                shift: shifts.is_valid(row).then(|| shifts.value(row)),
                sum: DoubleDouble::from_parts(sums.0.value(row), sums.1.value(row)),
                squares: DoubleDouble::from_parts(squares.0.value(row), squares.1.value(row)),
            };
            if not_finite.value(row) != 0 {
                self.not_finite.insert(*slot as usize, not_finite.value(row));
            }
        }
        Ok(())
    }
}
