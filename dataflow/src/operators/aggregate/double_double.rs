//! Sums of floats with twice the precision of an `f64`, so that adding and taking away leaves no trace.
//!
//! A number is the unevaluated sum of two `f64`s, of which the second is the rounding error of the first: 106 bits.
//! After Dekker, "A floating-point technique for extending the available precision" (1971), and Knuth's two-sum.

use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DoubleDouble {
    high: f64,
    low: f64,
}

/// The sum of `a` and `b`, and its rounding error.
#[inline]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// The product of `a` and `b`, and its rounding error. Exact unless a factor is beyond 2^996.
#[inline]
pub fn two_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let scaled = x * 134_217_729.0;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let (product, (a_high, a_low), (b_high, b_low)) = (a * b, split(a), split(b));
    let error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, if error.is_finite() { error } else { 0.0 })
}

impl DoubleDouble {
    pub fn value(self) -> f64 {
        self.high + self.low
    }

    /// The two parts, of which [`DoubleDouble::from_parts`] makes the same number again.
    pub fn parts(self) -> (f64, f64) {
        (self.high, self.low)
    }

    pub fn from_parts(high: f64, low: f64) -> Self {
        Self { high, low }
    }

    /// `a * b`, exactly.
    #[inline]
    pub fn product(a: f64, b: f64) -> Self {
        let (high, low) = two_product(a, b);
        Self { high, low }
    }

    #[inline]
    pub fn add(&mut self, value: f64) {
        let (high, error) = two_sum(self.high, value);
        let low = self.low + error;
        self.high = high + low;
        self.low = low - (self.high - high);
    }

    /// Adds `value` as often as `weight` says.
    #[inline]
    pub fn add_weighted(&mut self, value: f64, weight: i64) {
        match weight {
            1 => self.add(value),
            -1 => self.add(-value),
            // Weights beyond 2^53 are rounded: nobody has that many copies of a row.
            _ => *self += Self::product(value, weight as f64),
        }
    }
}

impl AddAssign for DoubleDouble {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.add(other.high);
        self.add(other.low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_survive_large_ones() {
        let mut sum = DoubleDouble::default();
        for value in [0.1, 1e20, 0.2, -1e20] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 0.30000000000000004);
        sum.add_weighted(0.1, -1);
        sum.add_weighted(0.1, -2);
        assert!(sum.value().abs() < 1e-10);
    }
}
