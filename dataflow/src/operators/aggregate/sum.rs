//! `sum(x)` and `avg(x)`.
//!
//! Sums of integers are kept in 128 bits, those of decimals in 256: only a result that does not fit its type is an
//! error, which is that group's alone and goes when the result fits again. Sums of floats are kept in double-double; NaN and infinities are counted apart, so that they can be retracted.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type, i256};

use super::accumulators::{Accumulator, Failures, SavedColumns, Update, column};
use super::count::add_weight;
use super::double_double::DoubleDouble;
use crate::operators::OperatorError;

/// What is asked of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    Sum,
    Average,
}

const BIGINT_OUT_OF_RANGE: &str = "bigint out of range";
const NUMERIC_OVERFLOW: &str = "value overflows numeric format";

#[derive(Debug, Clone, Copy, Default)]
struct IntTotal {
    /// More terms than a `u64` counts would have to be added before this could overflow.
    sum: i128,
    count: i64,
}

/// `sum` of BIGINT.
#[derive(Default)]
pub struct IntSum {
    sums: Vec<IntTotal>,
}

impl Accumulator for IntSum {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, IntTotal::default());
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let values = update.values().as_primitive::<Int64Type>().values();
        update.each(|slot, row, weight| {
            let total = &mut self.sums[slot];
            let sum = total.sum.checked_add(i128::from(values[row]) * i128::from(weight));
            total.sum = sum.ok_or(OperatorError::OutOfRange("numeric"))?;
            add_weight(&mut total.count, weight)
        })
    }

    fn evaluate(&self, slots: &[u32], failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        let results = slots.iter().enumerate().map(|(at, slot)| {
            let IntTotal { sum, count } = self.sums[*slot as usize];
            if count == 0 {
                return None;
            }
            let sum = i64::try_from(sum).ok();
            if sum.is_none() {
                failures.add(at, BIGINT_OUT_OF_RANGE);
            }
            sum
        });
        Ok(Arc::new(results.collect::<Int64Array>()))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.sums[*slot as usize] = IntTotal::default());
    }

    fn empty(&mut self) {
        self.sums = Vec::new();
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<IntTotal>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let at = |slot: &u32| self.sums[*slot as usize];
        let sums = column::<Decimal128Type>(slots.iter().map(|slot| at(slot).sum));
        Ok(vec![sums, column::<Int64Type>(slots.iter().map(|slot| at(slot).count))])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let (sums, counts) = (columns.numbers::<Decimal128Type>()?.values(), columns.numbers::<Int64Type>()?.values());
        for ((slot, sum), count) in slots.iter().zip(sums).zip(counts) {
            self.sums[*slot as usize] = IntTotal { sum: *sum, count: *count };
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct DecimalTotal {
    sum: i256,
    count: i64,
}

/// `sum` and `avg` of NUMERIC.
pub struct DecimalAggregate {
    total: Total,
    precision: u8,
    scale: i8,
    /// What brings a sum to the scale of the result.
    factor: i256,
    sums: Vec<DecimalTotal>,
}

impl DecimalAggregate {
    /// Over values of scale `from_scale`, with results of `precision` and `scale`.
    pub fn new(total: Total, from_scale: i8, precision: u8, scale: i8) -> Result<Self, OperatorError> {
        let digits = u32::try_from(i16::from(scale) - i16::from(from_scale)).ok();
        let factor = digits.and_then(|digits| 10_i128.checked_pow(digits)).map(i256::from_i128);
        let factor = factor.ok_or_else(|| {
            OperatorError::Unsupported("the result of an aggregate has fewer decimal places than its values".into())
        })?;
        Ok(Self { total, precision, scale, factor, sums: Vec::new() })
    }

    /// `None` if it does not fit.
    fn result(&self, DecimalTotal { sum, count }: DecimalTotal) -> Option<i128> {
        let scaled = sum.checked_mul(self.factor)?;
        let result = match self.total {
            Total::Sum => scaled,
            // Towards zero, as DataFusion does.
            Total::Average => scaled.checked_div(i256::from_i128(i128::from(count)))?,
        };
        let result = result.to_i128()?;
        Decimal128Type::validate_decimal_precision(result, self.precision, self.scale).is_ok().then_some(result)
    }
}

impl Accumulator for DecimalAggregate {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, DecimalTotal::default());
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let values = update.values().as_primitive::<Decimal128Type>().values();
        update.each(|slot, row, weight| {
            let (value, total) = (i256::from_i128(values[row]), &mut self.sums[slot]);
            let term = match weight {
                1 => value,
                -1 => value.wrapping_neg(),
                // 128 bits by 64 bits fit 256.
                _ => value.wrapping_mul(i256::from_i128(i128::from(weight))),
            };
            total.sum = total.sum.checked_add(term).ok_or(OperatorError::OutOfRange("numeric"))?;
            add_weight(&mut total.count, weight)
        })
    }

    fn evaluate(&self, slots: &[u32], failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        let results = slots.iter().enumerate().map(|(at, slot)| {
            let total = self.sums[*slot as usize];
            if total.count == 0 {
                return None;
            }
            let result = self.result(total);
            if result.is_none() {
                failures.add(at, NUMERIC_OVERFLOW);
            }
            result
        });
        let array = results.collect::<Decimal128Array>();
        Ok(Arc::new(array.with_precision_and_scale(self.precision, self.scale)?))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.sums[*slot as usize] = DecimalTotal::default());
    }

    fn empty(&mut self) {
        self.sums = Vec::new();
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<DecimalTotal>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let at = |slot: &u32| self.sums[*slot as usize];
        let sums = column::<Decimal256Type>(slots.iter().map(|slot| at(slot).sum));
        Ok(vec![sums, column::<Int64Type>(slots.iter().map(|slot| at(slot).count))])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let (sums, counts) = (columns.numbers::<Decimal256Type>()?.values(), columns.numbers::<Int64Type>()?.values());
        for ((slot, sum), count) in slots.iter().zip(sums).zip(counts) {
            self.sums[*slot as usize] = DecimalTotal { sum: *sum, count: *count };
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct FloatSum {
    finite: DoubleDouble,
    /// Of all values, finite or not.
    count: i64,
}

/// How many values of a group are no numbers to add up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct NotFinite {
    nan: i64,
    infinity: i64,
    minus_infinity: i64,
}

/// `sum` and `avg` of DOUBLE PRECISION.
pub struct FloatAggregate {
    total: Total,
    sums: Vec<FloatSum>,
    /// Groups with such values, which are few.
    not_finite: HashMap<usize, NotFinite>,
}

impl FloatAggregate {
    pub fn new(total: Total) -> Self {
        Self { total, sums: Vec::new(), not_finite: HashMap::new() }
    }

    fn sum(&self, slot: usize) -> f64 {
        match self.not_finite.get(&slot) {
            None => self.sums[slot].finite.value(),
            Some(NotFinite { nan: 0, infinity: _, minus_infinity: 0 }) => f64::INFINITY,
            Some(NotFinite { nan: 0, infinity: 0, minus_infinity: _ }) => f64::NEG_INFINITY,
            Some(_) => f64::NAN,
        }
    }
}

impl Accumulator for FloatAggregate {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, FloatSum::default());
    }

    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError> {
        let values = update.values().as_primitive::<Float64Type>().values();
        update.each(|slot, row, weight| {
            let (value, sum) = (values[row], &mut self.sums[slot]);
            add_weight(&mut sum.count, weight)?;
            if value.is_finite() {
                sum.finite.add_weighted(value, weight);
                return Ok(());
            }
            let counts = self.not_finite.entry(slot).or_default();
            let count = match value {
                f64::INFINITY => &mut counts.infinity,
                f64::NEG_INFINITY => &mut counts.minus_infinity,
                _ => &mut counts.nan,
            };
            add_weight(count, weight)?;
            if *counts == NotFinite::default() {
                self.not_finite.remove(&slot);
            }
            Ok(())
        })
    }

    fn evaluate(&self, slots: &[u32], _failures: &mut Failures) -> Result<ArrayRef, OperatorError> {
        let result = |slot: &u32| {
            let slot = *slot as usize;
            match (self.sums[slot].count, self.total) {
                (0, _) => None,
                (_, Total::Sum) => Some(self.sum(slot)),
                (count, Total::Average) => Some(self.sum(slot) / count as f64),
            }
        };
        Ok(Arc::new(slots.iter().map(result).collect::<Float64Array>()))
    }

    fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            self.sums[*slot as usize] = FloatSum::default();
            self.not_finite.remove(&(*slot as usize));
        }
    }

    fn empty(&mut self) {
        self.sums = Vec::new();
        self.not_finite = HashMap::new();
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<FloatSum>() + self.not_finite.capacity() * size_of::<(usize, NotFinite)>()
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let finite = |slot: &u32| self.sums[*slot as usize].finite.parts();
        let others = |slot: &u32| self.not_finite.get(&(*slot as usize)).copied().unwrap_or_default();
        Ok(vec![
            column::<Float64Type>(slots.iter().map(|slot| finite(slot).0)),
            column::<Float64Type>(slots.iter().map(|slot| finite(slot).1)),
            column::<Int64Type>(slots.iter().map(|slot| self.sums[*slot as usize].count)),
            column::<Int64Type>(slots.iter().map(|slot| others(slot).nan)),
            column::<Int64Type>(slots.iter().map(|slot| others(slot).infinity)),
            column::<Int64Type>(slots.iter().map(|slot| others(slot).minus_infinity)),
        ])
    }

    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError> {
        let (high, low) = (columns.numbers::<Float64Type>()?, columns.numbers::<Float64Type>()?);
        let counts = columns.numbers::<Int64Type>()?;
        let (nan, infinity) = (columns.numbers::<Int64Type>()?, columns.numbers::<Int64Type>()?);
        let minus_infinity = columns.numbers::<Int64Type>()?;
        for (row, slot) in slots.iter().enumerate() {
            let finite = DoubleDouble::from_parts(high.value(row), low.value(row));
            self.sums[*slot as usize] = FloatSum { finite, count: counts.value(row) };
            let others = NotFinite {
                nan: nan.value(row),
                infinity: infinity.value(row),
                minus_infinity: minus_infinity.value(row),
            };
            if others != NotFinite::default() {
                self.not_finite.insert(*slot as usize, others);
            }
        }
        Ok(())
    }
}
