//! Functions behind operators that Postgres has and the query engine has not, or has with another meaning.

mod arithmetic;
mod interval;
mod numeric_division;

pub(crate) use arithmetic::{check_overflow, operator_of};
pub(crate) use interval::scale_interval;
pub(crate) use numeric_division::divide_numeric;
