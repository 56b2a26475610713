//! Functions that Postgres has and the query engine has not, or has with another meaning.

mod bytes;
mod current_epoch;
mod float_extremum;
mod pg_sleep;
mod pg_typeof;
mod ranking;
mod settings;
mod sum;
mod time_zone;
mod to_char;
mod variance;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::nullif;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::functions::math::signum;
use datafusion::logical_expr::async_udf::AsyncScalarUDF;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Adds the functions to what queries can call; those of the same name are replaced.
pub fn register(state: &mut SessionState) -> Result<()> {
    state.register_udaf(AggregateUDF::from(sum::CheckedSum::default()).into())?;
    state.register_udaf(AggregateUDF::from(float_extremum::Extremum::least()).into())?;
    state.register_udaf(AggregateUDF::from(float_extremum::Extremum::greatest()).into())?;
    for function in variance::all() {
        state.register_udaf(function.into())?;
    }
    for function in ranking::all() {
        state.register_udwf(function.into())?;
    }
    // Postgres' name of it.
    state.register_udf(ScalarUDF::clone(&signum()).with_aliases(["sign"]).into())?;
    for function in bytes::all().into_iter().chain(settings::all()) {
        state.register_udf(function.into())?;
    }
    let sleep = AsyncScalarUDF::new(Arc::new(pg_sleep::PgSleep::default()));
    state.register_udf(sleep.into_scalar_udf().into())?;
    state.register_udf(ScalarUDF::from(to_char::ToChar::default()).into())?;
    state.register_udf(ScalarUDF::from(time_zone::AtTimeZone::default()).into())?;
    state.register_udf(ScalarUDF::from(current_epoch::CurrentEpoch::default()).into())?;
    state.register_udf(ScalarUDF::from(pg_typeof::PgTypeof::default()).into())?;
    Ok(())
}

/// The values, NULL where the filter is not true.
fn masked(values: &ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
    let Some(filter) = filter else { return Ok(values.clone()) };
    let kept = match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    };
    Ok(nullif(values, &BooleanArray::new(!&kept, None))?)
}
