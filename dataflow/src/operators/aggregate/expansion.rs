//! Sums of floats with four times the precision of an `f64`: what is added can be taken away, though it was 10^50 times
//! as large as what stays, and nothing of it is left.
//!
//! A number is the unevaluated sum of four `f64`s, each the rounding errors of the one before: 212 bits. After
//! Shewchuk, "Adaptive precision floating-point arithmetic" (1997), cut off behind the fourth.

use super::double_double::{two_product, two_sum};

pub const PARTS: usize = 4;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Expansion {
    parts: [f64; PARTS],
}

impl Expansion {
    pub fn parts(self) -> [f64; PARTS] {
        self.parts
    }

    pub fn from_parts(parts: [f64; PARTS]) -> Self {
        Self { parts }
    }

    /// The nearest `f64`, or one beside it.
    pub fn value(self) -> f64 {
        self.parts.iter().rev().sum()
    }

    #[inline]
    pub fn add(&mut self, value: f64) {
        let mut rest = value;
        for part in &mut self.parts {
            (*part, rest) = two_sum(*part, rest);
        }
    }

    /// Adds `a * b`, exactly.
    #[inline]
    pub fn add_product(&mut self, a: f64, b: f64) {
        let (product, error) = two_product(a, b);
        self.add(product);
        self.add(error);
    }

    pub fn times(self, factor: f64) -> Self {
        let mut product = Self::default();
        self.parts.iter().for_each(|part| product.add_product(*part, factor));
        product
    }

    pub fn squared(self) -> Self {
        let mut square = Self::default();
        for a in self.parts {
            self.parts.iter().for_each(|b| square.add_product(a, *b));
        }
        square
    }

    pub fn plus(mut self, other: Self) -> Self {
        other.parts.iter().for_each(|part| self.add(*part));
        self
    }

    pub fn minus(mut self, other: Self) -> Self {
        other.parts.iter().for_each(|part| self.add(-part));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_what_was_taken_away() {
        let mut sum = Expansion::default();
        for value in [0.1, 1e40, -7.0, 3e-20, -1e40] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 0.1 - 7.0 + 3e-20);
        for value in [-0.1, 7.0, -3e-20] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 0.0);
    }

    #[test]
    fn products_are_exact() {
        let mut number = Expansion::default();
        number.add_product(1e16, 1.0);
        number.add(0.5);
        let mut expected = Expansion::default();
        expected.add_product(1e16, 1e16);
        expected.add(1e16);
        expected.add(0.25);
        assert_eq!(number.squared().minus(expected).value(), 0.0);
        assert_eq!(number.times(-3.0).minus(number).value(), -4.0 * 1e16 - 2.0);
    }
}
