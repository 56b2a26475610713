//! The count, the sum and the sum of squares of numbers, from which their variance follows.
//!
//! The sums are [`Expansion`]s, in which so few digits are lost that no digits of the result are, where values lie close
//! together far from zero, or far larger ones have come and gone. They can be subtracted from, so that a retraction
//! leaves what a run over the remaining values would give. Values that are no numbers, or whose squares are too large,
//! are counted apart.

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{Float64Type, Int64Type};

use super::accumulators::{SavedColumns, column};
use super::count::add_weight;
use super::expansion::{Expansion, PARTS};
use crate::operators::OperatorError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spread {
    VarianceSample,
    VariancePopulation,
    StddevSample,
    StddevPopulation,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Moments {
    /// Of all values, finite or not.
    count: i64,
    sum: Expansion,
    squares: Expansion,
    /// How many values are infinite or NaN.
    not_finite: i64,
    /// How many have a square that is infinite.
    huge: i64,
}

/// Sums of squares of smaller values are finite.
const HUGE: f64 = 1e140;

impl Moments {
    /// How many columns [`Moments::columns`] gives.
    pub const COLUMNS: usize = 3 + 2 * PARTS;

    /// Adds a value `weight` times, or takes it away.
    ///
    /// # Errors
    /// If there are more than 2^63 values.
    #[inline]
    pub fn add(&mut self, value: f64, weight: i64) -> Result<(), OperatorError> {
        add_weight(&mut self.count, weight)?;
        if value.abs() < HUGE {
            self.add_number(value, weight);
            return Ok(());
        }
        add_weight(if value.is_finite() { &mut self.huge } else { &mut self.not_finite }, weight)
    }

    #[inline]
    fn add_number(&mut self, value: f64, weight: i64) {
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
        self.squares = self.squares.plus(square.times(weight));
    }

    /// Adds the values of another part of the input.
    ///
    /// # Errors
    /// If there are more than 2^63 values.
    pub fn merge(&mut self, other: &Self) -> Result<(), OperatorError> {
        add_weight(&mut self.count, other.count)?;
        add_weight(&mut self.not_finite, other.not_finite)?;
        add_weight(&mut self.huge, other.huge)?;
        self.sum = self.sum.plus(other.sum);
        self.squares = self.squares.plus(other.squares);
        Ok(())
    }

    /// `None`: there are too few values.
    pub fn spread(&self, spread: Spread) -> Option<f64> {
        let is_sample = matches!(spread, Spread::VarianceSample | Spread::StddevSample);
        let variance = match (self.count, is_sample) {
            (0, _) | (1, true) => return None,
            _ if self.not_finite != 0 => f64::NAN,
            (1, false) => 0.0,
            _ if self.huge != 0 => f64::INFINITY,
            (count, true) => self.squared_distances() / (count - 1) as f64,
            (count, false) => self.squared_distances() / count as f64,
        };
        Some(match spread {
            Spread::VarianceSample | Spread::VariancePopulation => variance,
            Spread::StddevSample | Spread::StddevPopulation => variance.sqrt(),
        })
    }

    /// The sum of the squared distances from the mean.
    fn squared_distances(&self) -> f64 {
        let count = self.count as f64;
        let distances = self.squares.times(count).minus(self.sum.squared()).value() / count;
        // Rounding may leave a trace below zero.
        distances.max(0.0)
    }

    /// [`Moments::COLUMNS`] columns of BIGINT and DOUBLE, without NULLs, a row for each of `groups`.
    pub fn columns(groups: impl Iterator<Item = Self> + Clone) -> Vec<ArrayRef> {
        let counts = |of: fn(&Self) -> i64| column::<Int64Type>(groups.clone().map(|moments| of(&moments)));
        let parts = |of: fn(&Self) -> Expansion| {
            let groups = &groups;
            (0..PARTS).map(move |part| column::<Float64Type>(groups.clone().map(|moments| of(&moments).parts()[part])))
        };
        let mut columns = vec![counts(|moments| moments.count)];
        columns.extend(parts(|moments| moments.sum));
        columns.extend(parts(|moments| moments.squares));
        columns.push(counts(|moments| moments.not_finite));
        columns.push(counts(|moments| moments.huge));
        columns
    }

    /// What [`Moments::columns`] was made of.
    ///
    /// # Errors
    /// If these are other columns.
    pub fn from_columns(columns: &[ArrayRef]) -> Result<Vec<Self>, OperatorError> {
        let mut columns = SavedColumns(columns.iter());
        let counts = columns.numbers::<Int64Type>()?;
        let mut parts = || (0..PARTS).map(|_| columns.numbers::<Float64Type>()).collect::<Result<Vec<_>, _>>();
        let (sums, squares) = (parts()?, parts()?);
        let (not_finite, huge) = (columns.numbers::<Int64Type>()?, columns.numbers::<Int64Type>()?);
        let number =
            |parts: &[&Float64Array], row| Expansion::from_parts(std::array::from_fn(|at| parts[at].value(row)));
        let moments = |row| Self {
            count: counts.value(row),
            sum: number(&sums, row),
            squares: number(&squares, row),
            not_finite: not_finite.value(row),
            huge: huge.value(row),
        };
        Ok((0..counts.len()).map(moments).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value, 1).expect("a few"));
        moments
    }

    #[test]
    fn parts_merge_to_what_the_whole_is() {
        let (left, right) = ([1e10, 1e10 + 1.0, f64::INFINITY], [1e10, 1e150]);
        let mut merged = of(&left);
        merged.merge(&of(&right)).expect("a few");
        for gone in [f64::INFINITY, 1e150] {
            merged.add(gone, -1).expect("was there");
        }
        // The mean is 1e10 + 1/3; the distances from it are 1/3, 2/3 and 1/3.
        assert_eq!(merged.spread(Spread::VariancePopulation), Some(2.0 / 3.0 / 3.0));
        assert_eq!(merged.spread(Spread::VarianceSample), Some(2.0 / 3.0 / 2.0));
    }

    #[test]
    fn columns_bring_back_what_they_were_made_of() {
        let groups = [of(&[]), of(&[1.0, 2.0, 4.0]), of(&[f64::NAN]), of(&[1e150, 1.0])];
        let columns = Moments::columns(groups.iter().copied());
        assert_eq!(columns.len(), Moments::COLUMNS);
        let restored = Moments::from_columns(&columns).expect("its columns");
        let told = |groups: &[Moments]| format!("{groups:?}");
        assert_eq!(told(&restored), told(&groups));
    }
}
