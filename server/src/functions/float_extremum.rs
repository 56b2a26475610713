//! `min` and `max` of floats with NaN as the greatest number, as in Postgres; the engine's own lets it win or lose by
//! where it stands.
//!
//! Floats are taken as integers of the same order, and the engine finds the extreme of those. Everything else is the
//! engine's `min` and `max`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array};
use arrow::compute::unary;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    StatisticsArgs,
};
use datafusion::scalar::ScalarValue;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Extremum {
    engines: Arc<AggregateUDF>,
}

impl Extremum {
    pub fn least() -> Self {
        Self { engines: min_udaf() }
    }

    pub fn greatest() -> Self {
        Self { engines: max_udaf() }
    }
}

/// What the engine is told: the same, of integers.
fn of_integers(arguments: AccumulatorArgs<'_>) -> AccumulatorArgs<'_> {
    let return_field = Arc::new(arguments.return_field.as_ref().clone().with_data_type(DataType::Int64));
    AccumulatorArgs { return_field, ..arguments }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

impl AggregateUDFImpl for Extremum {
    fn name(&self) -> &str {
        self.engines.name()
    }

    fn signature(&self) -> &Signature {
        self.engines.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.engines.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.engines.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_float(arguments.return_type()) {
            return self.engines.state_fields(arguments);
        }
        Ok(vec![Arc::new(Field::new(format!("{}[extreme]", arguments.name), DataType::Int64, true))])
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = arguments.return_type().clone();
        if !is_float(&data_type) {
            return self.engines.accumulator(arguments);
        }
        let inner = self.engines.accumulator(of_integers(arguments))?;
        Ok(Box::new(OfFloats { inner, data_type }))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = arguments.return_type().clone();
        if !is_float(&data_type) {
            return self.engines.create_sliding_accumulator(arguments);
        }
        let inner = self.engines.create_sliding_accumulator(of_integers(arguments))?;
        Ok(Box::new(OfFloats { inner, data_type }))
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.engines.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = arguments.return_type().clone();
        if !is_float(&data_type) {
            return self.engines.create_groups_accumulator(arguments);
        }
        let inner = self.engines.create_groups_accumulator(of_integers(arguments))?;
        Ok(Box::new(GroupsOfFloats { inner, data_type }))
    }

    fn is_descending(&self) -> Option<bool> {
        self.engines.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, arguments: &StatisticsArgs) -> Option<ScalarValue> {
        // Statistics leave NaN out.
        if is_float(arguments.return_type) { None } else { self.engines.value_from_stats(arguments) }
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.engines.inner().set_monotonicity(data_type)
    }
}

/// The bits of a float as an integer of the same order, NaN above all others, whatever its bits.
fn order_of(value: f64) -> i64 {
    let bits = if value.is_nan() { f64::NAN } else { value }.to_bits().cast_signed();
    flipped(bits)
}

fn of_order(order: i64) -> f64 {
    f64::from_bits(flipped(order).cast_unsigned())
}

/// Negative floats sort the other way round than their bits. Flipping is undone by flipping.
fn flipped(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

fn orders(values: &ArrayRef) -> Result<ArrayRef> {
    let orders: Int64Array = match values.data_type() {
        DataType::Float64 => unary(values.as_primitive::<Float64Type>(), order_of),
        DataType::Float32 => unary(values.as_primitive::<Float32Type>(), |value| order_of(f64::from(value))),
        other => return internal_err!("{other} is no float"),
    };
    Ok(Arc::new(orders))
}

fn floats(orders: &ArrayRef, data_type: &DataType) -> ArrayRef {
    let orders = orders.as_primitive::<Int64Type>();
    match data_type {
        // It was one before, so nothing is lost.
        DataType::Float32 => {
            Arc::new(unary::<_, _, Float32Type>(orders, |order| of_order(order) as f32) as Float32Array)
        }
        _ => Arc::new(unary::<_, _, Float64Type>(orders, of_order) as Float64Array),
    }
}

#[derive(Debug)]
struct OfFloats {
    inner: Box<dyn Accumulator>,
    data_type: DataType,
}

impl Accumulator for OfFloats {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&[orders(&values[0])?])
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&[orders(&values[0])?])
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let order = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&floats(&order, &self.data_type), 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

struct GroupsOfFloats {
    inner: Box<dyn GroupsAccumulator>,
    data_type: DataType,
}

impl GroupsAccumulator for GroupsOfFloats {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(&[orders(&values[0])?], groups, filter, total_groups)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(floats(&self.inner.evaluate(emit_to)?, &self.data_type))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&[orders(&values[0])?], filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
