//! `var_samp`, `var_pop`, `stddev_samp`, `stddev_pop` with as many digits as a view's: the engine's own lose them where
//! values lie close together far from zero.

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion::scalar::ScalarValue;
use freshet_dataflow::operators::OperatorError;
use freshet_dataflow::operators::aggregate::{Moments, Spread};

use super::masked;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ExactVariance {
    /// Whose names and types it has.
    engines: Arc<AggregateUDF>,
    spread: Spread,
}

pub fn all() -> [AggregateUDF; 4] {
    // Postgres' name of it.
    let var_samp = AggregateUDF::clone(&var_samp_udaf()).with_aliases(["variance"]);
    [
        (Arc::new(var_samp), Spread::VarianceSample),
        (var_pop_udaf(), Spread::VariancePopulation),
        (stddev_udaf(), Spread::StddevSample),
        (stddev_pop_udaf(), Spread::StddevPopulation),
    ]
    .map(|(engines, spread)| AggregateUDF::from(ExactVariance { engines, spread }))
}

impl AggregateUDFImpl for ExactVariance {
    fn name(&self) -> &str {
        self.engines.name()
    }

    fn aliases(&self) -> &[String] {
        self.engines.aliases()
    }

    fn signature(&self) -> &Signature {
        self.engines.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.engines.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field =
            |name: &str, data_type| Arc::new(Field::new(format!("{}[{name}]", arguments.name), data_type, true));
        if arguments.is_distinct {
            return Ok(vec![field("values", DataType::new_list(DataType::Float64, true))]);
        }
        let columns = Moments::columns(std::iter::empty());
        let fields = columns.iter().enumerate();
        Ok(fields.map(|(at, column)| field(&format!("moments {at}"), column.data_type().clone())).collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if arguments.is_distinct {
            return Ok(Box::new(OfDistinct { spread: self.spread, seen: HashSet::new() }));
        }
        Ok(Box::new(OfAll { spread: self.spread, moments: Moments::default() }))
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        !arguments.is_distinct
    }

    fn create_groups_accumulator(&self, _arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(OfGroups { spread: self.spread, groups: Vec::new() }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn failed(error: OperatorError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[derive(Debug)]
struct OfAll {
    spread: Spread,
    moments: Moments,
}

impl OfAll {
    fn change(&mut self, values: &ArrayRef, weight: i64) -> Result<()> {
        let mut values = values.as_primitive::<Float64Type>().iter().flatten();
        values.try_for_each(|value| self.moments.add(value, weight)).map_err(failed)
    }
}

impl Accumulator for OfAll {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.moments.spread(self.spread)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = Moments::columns(std::iter::once(self.moments));
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let parts = Moments::from_columns(states).map_err(failed)?;
        parts.iter().try_for_each(|part| self.moments.merge(part)).map_err(failed)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// `var_pop(DISTINCT x)` and the like.
#[derive(Debug)]
struct OfDistinct {
    spread: Spread,
    /// The bits of the values; -0 is 0, and all NaN are one.
    seen: HashSet<u64>,
}

impl OfDistinct {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.seen.iter().map(|bits| f64::from_bits(*bits))
    }
}

impl Accumulator for OfDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let same = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
        self.seen.extend(values[0].as_primitive::<Float64Type>().iter().flatten().map(|value| same(value).to_bits()));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut moments = Moments::default();
        self.values().try_for_each(|value| moments.add(value, 1)).map_err(failed)?;
        Ok(ScalarValue::Float64(moments.spread(self.spread)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values().map(ScalarValue::from).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let mut lists = states[0].as_list::<i32>().iter().flatten();
        lists.try_for_each(|values| self.update_batch(&[values]))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.seen.capacity() * size_of::<u64>()
    }
}

/// The moments of all groups.
#[derive(Debug)]
struct OfGroups {
    spread: Spread,
    groups: Vec<Moments>,
}

impl GroupsAccumulator for OfGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.groups.resize(total_groups, Moments::default());
        let values = masked(&values[0], filter)?;
        let mut rows = groups.iter().zip(values.as_primitive::<Float64Type>());
        rows.try_for_each(|(group, value)| value.map_or(Ok(()), |value| self.groups[*group].add(value, 1)))
            .map_err(failed)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.groups.resize(total_groups, Moments::default());
        let parts = Moments::from_columns(states).map_err(failed)?;
        groups.iter().zip(&parts).try_for_each(|(group, part)| self.groups[*group].merge(part)).map_err(failed)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(Arc::new(groups.iter().map(|moments| moments.spread(self.spread)).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(Moments::columns(emit_to.take_needed(&mut self.groups).into_iter()))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut each = Self { spread: self.spread, groups: Vec::new() };
        let rows: Vec<usize> = (0..values[0].len()).collect();
        each.update_batch(values, &rows, filter, rows.len())?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Moments>()
    }
}
