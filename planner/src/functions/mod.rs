//! Functions behind operators that Postgres has and the query engine has not, or has with another meaning.

mod arithmetic;
mod bytea;
mod half_even;
mod interval;
mod numeric_division;
mod undefined;

pub(crate) use arithmetic::{check_overflow, operator_of};
pub(crate) use bytea::cast_bytea;
pub(crate) use half_even::round_half_even;
pub(crate) use interval::{divide_interval, multiply_interval};
pub(crate) use numeric_division::divide_numeric;
pub(crate) use undefined::undefined_function;
