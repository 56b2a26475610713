//! `sum` of integers and decimals that fails where the result does not fit: the engine's own wraps.
//!
//! Sums are kept in 128 bits; a partial sum travels as a decimal. Everything else is the engine's `sum`.

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Field, FieldRef};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use super::masked;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    engines: Arc<AggregateUDF>,
}

impl Default for CheckedSum {
    fn default() -> Self {
        Self { engines: sum_udaf() }
    }
}

fn is_checked(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Decimal128(..))
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.engines.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.engines.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_checked(arguments.return_type()) {
            return self.engines.state_fields(arguments);
        }
        let item = state_type(arguments.return_type());
        let data_type = if arguments.is_distinct { DataType::new_list(item, true) } else { item };
        Ok(vec![Arc::new(Field::new(format!("{}[sum]", arguments.name), data_type, true))])
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !is_checked(arguments.return_type()) {
            return self.engines.accumulator(arguments);
        }
        let result_type = arguments.return_type().clone();
        if arguments.is_distinct {
            return Ok(Box::new(DistinctSum { values: HashSet::new(), result_type }));
        }
        Ok(Box::new(Sum { sum: 0, count: 0, result_type }))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_checked(arguments.return_type()) {
            return self.accumulator(arguments);
        }
        self.engines.create_sliding_accumulator(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        match is_checked(arguments.return_type()) {
            true => !arguments.is_distinct,
            false => self.engines.groups_accumulator_supported(arguments),
        }
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if !is_checked(arguments.return_type()) {
            return self.engines.create_groups_accumulator(arguments);
        }
        Ok(Box::new(GroupSums { sums: Vec::new(), seen: Vec::new(), result_type: arguments.return_type().clone() }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn set_monotonicity(&self, _data_type: &DataType) -> SetMonotonicity {
        SetMonotonicity::NotMonotonic
    }
}

/// The type of a partial sum.
fn state_type(result_type: &DataType) -> DataType {
    let scale = if let DataType::Decimal128(_, scale) = result_type { *scale } else { 0 };
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale)
}

/// The numbers of an argument, or of partial sums.
fn numbers(array: &ArrayRef) -> Result<Decimal128Array> {
    let array = match array.data_type() {
        DataType::Decimal128(..) => array.clone(),
        integer if integer.is_integer() => cast(array, &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))?,
        other => return internal_err!("a checked sum of {other}"),
    };
    Ok(array.as_primitive::<Decimal128Type>().clone())
}

fn out_of_range(result_type: &DataType) -> DataFusionError {
    let message = match result_type {
        DataType::Int64 => "bigint out of range",
        _ => "value overflows numeric format",
    };
    DataFusionError::External(Box::new(SqlError::new(SqlState::NumericValueOutOfRange, message)))
}

/// Sums as a column of the result's type.
fn results(sums: Vec<i128>, nulls: Option<NullBuffer>, result_type: &DataType) -> Result<ArrayRef> {
    let is_valid = |at: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at));
    let too_large = || out_of_range(result_type);
    match result_type {
        DataType::Int64 => {
            let narrow = |(at, sum): (usize, i128)| match i64::try_from(sum) {
                Ok(sum) => Ok(sum),
                Err(_) if is_valid(at) => Err(too_large()),
                Err(_) => Ok(0),
            };
            let sums = sums.into_iter().enumerate().map(narrow).collect::<Result<Vec<i64>>>()?;
            Ok(Arc::new(Int64Array::new(sums.into(), nulls)))
        }
        DataType::Decimal128(precision, scale) => {
            let fits = |sum: i128| Decimal128Type::validate_decimal_precision(sum, *precision, *scale).is_ok();
            if sums.iter().enumerate().any(|(at, sum)| is_valid(at) && !fits(*sum)) {
                return Err(too_large());
            }
            Ok(Arc::new(Decimal128Array::new(sums.into(), nulls).with_precision_and_scale(*precision, *scale)?))
        }
        other => exec_err!("a checked sum of {other}"),
    }
}

fn result(sum: Option<i128>, result_type: &DataType) -> Result<ScalarValue> {
    let nulls = sum.is_none().then(|| NullBuffer::new_null(1));
    ScalarValue::try_from_array(&results(vec![sum.unwrap_or(0)], nulls, result_type)?, 0)
}

#[derive(Debug)]
struct Sum {
    sum: i128,
    /// How many numbers it is of.
    count: u64,
    result_type: DataType,
}

impl Sum {
    fn change(&mut self, values: &ArrayRef, change: fn(i128, i128) -> Option<i128>) -> Result<u64> {
        let values = numbers(values)?;
        for value in values.iter().flatten() {
            self.sum = change(self.sum, value).ok_or_else(|| out_of_range(&self.result_type))?;
        }
        Ok((values.len() - values.null_count()) as u64)
    }
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += self.change(&values[0], i128::checked_add)?;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= self.change(&values[0], i128::checked_sub)?;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        result((self.count > 0).then_some(self.sum), &self.result_type)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let DataType::Decimal128(precision, scale) = state_type(&self.result_type) else {
            return internal_err!("a partial sum is a decimal");
        };
        Ok(vec![ScalarValue::Decimal128((self.count > 0).then_some(self.sum), precision, scale)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// `sum(DISTINCT x)`
#[derive(Debug)]
struct DistinctSum {
    values: HashSet<i128>,
    result_type: DataType,
}

impl Accumulator for DistinctSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(numbers(&values[0])?.iter().flatten());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.values.iter().try_fold(0_i128, |sum, value| sum.checked_add(*value));
        let sum = sum.ok_or_else(|| out_of_range(&self.result_type))?;
        result((!self.values.is_empty()).then_some(sum), &self.result_type)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let item = state_type(&self.result_type);
        let DataType::Decimal128(precision, scale) = item else { return internal_err!("a partial sum is a decimal") };
        let values = self.values.iter().map(|value| ScalarValue::Decimal128(Some(*value), precision, scale));
        let values: Vec<ScalarValue> = values.collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &item))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<i128>()
    }
}

/// The sums of all groups.
#[derive(Debug)]
struct GroupSums {
    sums: Vec<i128>,
    /// Whether a group has had a number.
    seen: Vec<bool>,
    result_type: DataType,
}

impl GroupSums {
    fn take(&mut self, emit_to: EmitTo) -> (Vec<i128>, Option<NullBuffer>) {
        let (sums, seen) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.seen));
        let nulls = seen.contains(&false).then(|| NullBuffer::from(seen));
        (sums, nulls)
    }

    fn state_array(&self, sums: Vec<i128>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let array = Decimal128Array::new(sums.into(), nulls).with_data_type(state_type(&self.result_type));
        Ok(Arc::new(array))
    }
}

impl GroupsAccumulator for GroupSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_groups, 0);
        self.seen.resize(total_groups, false);
        let values = numbers(&masked(&values[0], filter)?)?;
        let too_large = || out_of_range(&self.result_type);
        let mut add = |group: usize, value: i128| {
            self.seen[group] = true;
            self.sums[group] = self.sums[group].checked_add(value)?;
            Some(())
        };
        match values.nulls() {
            None => groups.iter().zip(values.values()).try_for_each(|(group, value)| add(*group, *value)),
            Some(nulls) => nulls.valid_indices().try_for_each(|row| add(groups[row], values.value(row))),
        }
        .ok_or_else(too_large)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, nulls) = self.take(emit_to);
        results(sums, nulls, &self.result_type)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, nulls) = self.take(emit_to);
        Ok(vec![self.state_array(sums, nulls)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = numbers(&masked(&values[0], filter)?)?;
        let (_, sums, nulls) = values.into_parts();
        Ok(vec![self.state_array(sums.to_vec(), nulls)?])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}
