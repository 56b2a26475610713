//! `var_samp`, `var_pop`, `stddev_samp`, `stddev_pop`.
//!
//! Kept are the sums of `x` and of `x²` as [`Expansion`]s, in which so few digits are lost that no digits of the result
//! are, where values lie close together far from zero, or far larger ones have come and gone. The sums can be subtracted
//! from, so that a retraction leaves what a run over the remaining values would give. Values that are no numbers, or
//! whose squares are too large, are counted apart.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{Float64Type, Int64Type};

use super::accumulators::{Accumulator, Failures, SavedColumns, Update, column};
use super::count::add_weight;
use super::expansion::{Expansion, PARTS};
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
    sum: Expansion,
    squares: Expansion,
}

/// Values of a group that are not added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Apart {
    not_finite: i64,
    /// Their squares are.
    huge: i64,
}

/// Sums of squares of smaller values are finite.
const HUGE: f64 = 1e140;

impl Moments {
    #[inline]
    fn add(&mut self, value: f64, weight: i64) {
        if weight == 1 {
            self.sum.add(value);
            self.squares.add_product(value, value);
            return;
        }
        // Weights beyond 2^53 are rounded: nobody has that many copies of a row.
        let weight = weight as f64;
        self.sum.add_product(value, weight);
        let mut square = Expansion::default();
        square.add_product(value, value);
        self.squares = self.squares.minus(square.times(-weight));
    }

    /// The sum of the squared distances from the mean.
    fn squared_distances(&self) -> f64 {
        let count = self.count as f64;
        let distances = self.squares.times(count).minus(self.sum.squared()).value() / count;
        // Rounding may leave a trace below zero.
        distances.max(0.0)
    }
}

pub struct Variance {
    spread: Spread,
    groups: Vec<Moments>,
    /// For the few groups that have such values.
    apart: HashMap<usize, Apart>,
}

impl Variance {
    pub fn new(spread: Spread) -> Self {
        Self { spread, groups: Vec::new(), apart: HashMap::new() }
    }

    fn result(&self, slot: usize) -> Option<f64> {
        let moments = &self.groups[slot];
        let is_sample = matches!(self.spread, Spread::VarianceSample | Spread::StddevSample);
        let variance = match (moments.count, is_sample) {
            (0, _) | (1, true) => return None,
            _ if self.apart.get(&slot).is_some_and(|apart| apart.not_finite != 0) => f64::NAN,
            (1, false) => 0.0,
            _ if self.apart.contains_key(&slot) => f64::INFINITY,
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
            let value = values[row];
            if value.abs() < HUGE {
                moments.add(value, weight);
                return Ok(());
            }
            let apart = self.apart.entry(slot).or_default();
            add_weight(if value.is_finite() { &mut apart.huge } else { &mut apart.not_finite }, weight)?;
            if *apart == Apart::default() {
                self.apart.remove(&slot);
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
            self.apart.remove(&(*slot as usize));
        }
    }

    fn empty(&mut self) {
        (self.groups, self.apart) = (Vec::new(), HashMap::new());
    }

    fn memory_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Moments>() + self.apart.capacity() * size_of::<(usize, Apart)>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let at = |slot: &u32| &self.groups[*slot as usize];
        let apart = |slot: &u32| self.apart.get(&(*slot as usize)).copied().unwrap_or_default();
        let parts = |sum: fn(&Moments) -> Expansion| {
            (0..PARTS).map(move |part| column::<Float64Type>(slots.iter().map(|slot| sum(at(slot)).parts()[part])))
        };
        let mut columns = vec![column::<Int64Type>(slots.iter().map(|slot| at(slot).count))];
        columns.extend(parts(|moments| moments.sum));
        columns.extend(parts(|moments| moments.squares));
        columns.push(column::<Int64Type>(slots.iter().map(|slot| apart(slot).not_finite)));
        columns.push(column::<Int64Type>(slots.iter().map(|slot| apart(slot).huge)));
        Ok(columns)
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let counts = columns.numbers::<Int64Type>()?;
        let mut parts = || (0..PARTS).map(|_| columns.numbers::<Float64Type>()).collect::<Result<Vec<_>, _>>();
        let (sums, squares) = (parts()?, parts()?);
        let (not_finite, huge) = (columns.numbers::<Int64Type>()?, columns.numbers::<Int64Type>()?);
        for (row, slot) in slots.iter().enumerate() {
            let of =
                |parts: &[&Float64Array]| Expansion::from_parts(std::array::from_fn(|part| parts[part].value(row)));
            self.groups[*slot as usize] = Moments { count: counts.value(row), sum: of(&sums), squares: of(&squares) };
            let apart = Apart { not_finite: not_finite.value(row), huge: huge.value(row) };
            if apart != Apart::default() {
                self.apart.insert(*slot as usize, apart);
            }
        }
        Ok(())
    }
}
