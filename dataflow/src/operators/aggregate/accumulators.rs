//! Accumulators: the state of one aggregate over all groups, as columns over slots.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{filter, is_not_null};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Schema};
use freshet_planner::plan::{self, AggregateFunction};
use freshet_types::{Delta, Weights};

use super::boolean::{BooleanAggregate, Quantifier};
use super::count::Count;
use super::distinct_values::DistinctValues;
use super::entries::Entries;
use super::extremum::{Direction, Extremum, ExtremumOfMultiset};
use super::moments::Spread;
use super::sum::{DecimalAggregate, FloatAggregate, IntSum, Total};
use super::variance::Variance;
use crate::operators::OperatorError;
use crate::operators::state::not_of_this_operator;

/// The rows of a batch that take part in an aggregate.
#[derive(Clone, Copy)]
pub struct Update<'a> {
    /// The group of each row.
    pub slots: &'a [u32],
    /// The argument, without NULLs; `None` for `count(*)`.
    pub values: Option<&'a ArrayRef>,
    /// The weight of each row; `None`: +1 each.
    pub weights: Option<&'a [i64]>,
}

impl<'a> Update<'a> {
    pub fn values(&self) -> &'a ArrayRef {
        self.values.expect("only count(*) has no argument")
    }

    /// Calls `add(slot, row, weight)` for each row, with a constant weight where that is known.
    #[inline]
    pub fn each(
        &self,
        mut add: impl FnMut(usize, usize, i64) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        match self.weights {
            None => self.slots.iter().enumerate().try_for_each(|(row, slot)| add(*slot as usize, row, 1)),
            Some(weights) => {
                let rows = self.slots.iter().zip(weights).enumerate();
                rows.into_iter().try_for_each(|(row, (slot, weight))| add(*slot as usize, row, *weight))
            }
        }
    }
}

/// Groups without a result, by their place among those asked for, and why. They are few.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Failures(BTreeMap<usize, &'static str>);

impl Failures {
    /// What failed first is what is told.
    pub fn add(&mut self, place: usize, reason: &'static str) {
        self.0.entry(place).or_insert(reason);
    }

    pub fn get(&self, place: usize) -> Option<&'static str> {
        self.0.get(&place).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds failures of groups that stand after `places` others.
    pub fn append(&mut self, places: usize, others: Failures) {
        self.0.extend(others.0.into_iter().map(|(place, reason)| (places + place, reason)));
    }

    /// Whether each of `places` groups has a result.
    pub fn successes(&self, places: usize) -> BooleanBuffer {
        BooleanBuffer::from_iter((0..places).map(|place| !self.0.contains_key(&place)))
    }

    pub fn retain(&mut self, keep: impl Fn(usize, &'static str) -> bool) {
        self.0.retain(|place, reason| keep(*place, reason));
    }

    pub fn places(&self) -> impl Iterator<Item = (usize, &'static str)> {
        self.0.iter().map(|(place, reason)| (*place, *reason))
    }
}

/// The state of an aggregate for every group. A slot that was never used, or was cleared, is an empty group.
pub trait Accumulator {
    /// Makes room for slots below `slots`.
    fn grow(&mut self, slots: usize);

    /// # Errors
    /// If a sum leaves its range for good.
    fn update(&mut self, update: Update<'_>) -> Result<(), OperatorError>;

    /// The results of the groups at `slots`. One that does not fit its type is NULL, and told to `failures`.
    ///
    /// # Errors
    /// If the state contradicts itself.
    fn evaluate(&self, slots: &[u32], failures: &mut Failures) -> Result<ArrayRef, OperatorError>;

    fn clear(&mut self, slots: &[u32]);

    /// Forgets all groups, and gives back what they take. What is known of ids stays.
    fn empty(&mut self);

    /// Bytes held for groups in memory, for budgets; takes no time.
    fn memory_bytes(&self) -> usize;

    /// Bytes held for the ids of entries.
    fn id_bytes(&self) -> usize {
        0
    }

    /// The state of the groups at `slots` as columns, but for what [`Accumulator::entries`] tells.
    ///
    /// # Errors
    /// If columns cannot be made of it, which would be a bug.
    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError>;

    /// Takes in what was saved, for groups that are empty; there is room for them. Takes its columns off `columns`.
    ///
    /// # Errors
    /// If the columns are not of this accumulator.
    fn load(&mut self, slots: &[u32], columns: &mut SavedColumns<'_>) -> Result<(), OperatorError>;

    /// What there is beside the columns; whether there is any does not change.
    fn entries(&mut self) -> Option<&mut dyn Entries> {
        None
    }
}

/// The columns of saved groups, of which each accumulator takes its own.
pub struct SavedColumns<'a>(pub std::slice::Iter<'a, ArrayRef>);

impl<'a> SavedColumns<'a> {
    pub fn take(&mut self) -> Result<&'a ArrayRef, OperatorError> {
        self.0.next().ok_or_else(not_of_this_operator)
    }

    /// The next `count` columns.
    pub fn several(&mut self, count: usize) -> Result<&'a [ArrayRef], OperatorError> {
        let (taken, rest) = self.0.as_slice().split_at_checked(count).ok_or_else(not_of_this_operator)?;
        self.0 = rest.iter();
        Ok(taken)
    }

    /// The next column, which has numbers.
    pub fn numbers<T: ArrowPrimitiveType>(&mut self) -> Result<&'a PrimitiveArray<T>, OperatorError> {
        self.take()?.as_primitive_opt::<T>().ok_or_else(not_of_this_operator)
    }
}

/// A column of numbers.
pub fn column<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

/// One aggregate of an operator: which rows take part, and what is made of them.
pub struct AggregateState {
    argument: Option<usize>,
    filter: Option<usize>,
    kind: Kind,
}

enum Kind {
    /// `count(*)`, which the operator keeps anyway.
    RowCount,
    Accumulated(Box<dyn Accumulator>),
}

impl AggregateState {
    /// # Errors
    /// If the aggregate does not exist for its type.
    pub fn new(aggregate: &plan::Aggregate, input: &plan::Node) -> Result<Self, OperatorError> {
        let plan::Aggregate { argument, filter, .. } = *aggregate;
        let kind = match (argument, filter) {
            (None, None) => Kind::RowCount,
            _ => Kind::Accumulated(accumulator(aggregate, &input.schema, input.properties.append_only)?),
        };
        Ok(Self { argument, filter, kind })
    }

    pub fn grow(&mut self, slots: usize) {
        if let Kind::Accumulated(accumulator) = &mut self.kind {
            accumulator.grow(slots);
        }
    }

    /// Adds the rows of `delta`, whose groups are `slots`.
    pub fn update(&mut self, slots: &[u32], delta: &Delta) -> Result<(), OperatorError> {
        let Kind::Accumulated(accumulator) = &mut self.kind else { return Ok(()) };
        let values = self.argument.map(|column| &delta.columns()[column]);
        let weights = match delta.weights() {
            Weights::Inserts => None,
            Weights::Each(weights) => Some(weights),
        };
        let filter_column = self.filter.map(|column| &delta.columns()[column]);
        let Some(mask) = taking_part(values, filter_column)? else {
            return accumulator.update(Update { slots, values, weights: weights.map(|weights| &weights[..]) });
        };
        let slots = filter(&UInt32Array::from(slots.to_vec()), &mask)?;
        let slots = slots.as_any().downcast_ref::<UInt32Array>().expect("filter keeps the type").values();
        let values = values.map(|values| filter(values, &mask)).transpose()?;
        let weights = weights.map(|weights| filter(&Int64Array::new(weights.clone(), None), &mask)).transpose()?;
        let weights = weights.as_ref().map(|weights| {
            let weights = weights.as_any().downcast_ref::<Int64Array>().expect("filter keeps the type");
            &weights.values()[..]
        });
        accumulator.update(Update { slots, values: values.as_ref(), weights })
    }

    pub fn evaluate(
        &self,
        slots: &[u32],
        row_counts: &[i64],
        failures: &mut Failures,
    ) -> Result<ArrayRef, OperatorError> {
        match &self.kind {
            Kind::RowCount => Ok(super::count::gather(row_counts, slots)),
            Kind::Accumulated(accumulator) => accumulator.evaluate(slots, failures),
        }
    }

    pub fn clear(&mut self, slots: &[u32]) {
        if let Kind::Accumulated(accumulator) = &mut self.kind {
            accumulator.clear(slots);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match &self.kind {
            Kind::RowCount => 0,
            Kind::Accumulated(accumulator) => accumulator.memory_bytes(),
        }
    }

    /// Bytes held for the ids of entries, wherever these are.
    pub fn id_bytes(&self) -> usize {
        match &self.kind {
            Kind::RowCount => 0,
            Kind::Accumulated(accumulator) => accumulator.id_bytes(),
        }
    }

    pub fn empty(&mut self) {
        if let Kind::Accumulated(accumulator) = &mut self.kind {
            accumulator.empty();
        }
    }

    /// The saved columns of the groups at `slots`.
    pub fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        match &self.kind {
            Kind::RowCount => Ok(Vec::new()),
            Kind::Accumulated(accumulator) => accumulator.save(slots),
        }
    }

    /// What keeps the state, unless the operator does.
    pub fn accumulator(&mut self) -> Option<&mut dyn Accumulator> {
        match &mut self.kind {
            Kind::RowCount => None,
            Kind::Accumulated(accumulator) => Some(&mut **accumulator),
        }
    }
}

/// The rows whose value is not NULL and whose filter is true; `None`: all.
fn taking_part(
    values: Option<&ArrayRef>,
    filter_column: Option<&ArrayRef>,
) -> Result<Option<BooleanArray>, OperatorError> {
    let valid = match values {
        Some(values) if values.null_count() > 0 => Some(is_not_null(values)?),
        _ => None,
    };
    let Some(filter_column) = filter_column else { return Ok(valid) };
    let wanted = filter_column.as_any().downcast_ref::<BooleanArray>();
    let wanted = wanted.ok_or_else(|| OperatorError::Unsupported("a filter must be a boolean".to_string()))?;
    let mut mask = match wanted.nulls().map(NullBuffer::inner) {
        Some(not_null) => wanted.values() & not_null,
        None => wanted.values().clone(),
    };
    if let Some(valid) = valid {
        mask = &mask & valid.values();
    }
    Ok(Some(BooleanArray::new(mask, None)))
}

fn accumulator(
    aggregate: &plan::Aggregate,
    schema: &Schema,
    append_only: bool,
) -> Result<Box<dyn Accumulator>, OperatorError> {
    let argument_type = aggregate.argument.map_or(DataType::Null, |column| schema.field(column).data_type().clone());
    // Duplicates change neither the least nor the greatest value.
    let is_extremum = matches!(aggregate.function, AggregateFunction::Min | AggregateFunction::Max);
    if aggregate.distinct && !is_extremum {
        let each_once = plan::Aggregate { distinct: false, ..aggregate.clone() };
        let inner = accumulator(&each_once, schema, append_only)?;
        return Ok(Box::new(DistinctValues::new(&argument_type, inner)?));
    }
    let unsupported = || {
        let function = aggregate.function;
        OperatorError::Unsupported(format!("{function}({argument_type}) cannot be maintained"))
    };
    Ok(match (aggregate.function, &argument_type, &aggregate.output_type) {
        (AggregateFunction::Count, _, _) => Box::new(Count::default()),
        (AggregateFunction::Sum, DataType::Int64, _) => Box::new(IntSum::default()),
        (AggregateFunction::Sum, DataType::Float64, _) => Box::new(FloatAggregate::new(Total::Sum)),
        (AggregateFunction::Avg, DataType::Float64, _) => Box::new(FloatAggregate::new(Total::Average)),
        (AggregateFunction::Sum, DataType::Decimal128(_, scale), DataType::Decimal128(precision, to_scale)) => {
            Box::new(DecimalAggregate::new(Total::Sum, *scale, *precision, *to_scale)?)
        }
        (AggregateFunction::Avg, DataType::Decimal128(_, scale), DataType::Decimal128(precision, to_scale)) => {
            Box::new(DecimalAggregate::new(Total::Average, *scale, *precision, *to_scale)?)
        }
        (AggregateFunction::VarianceSample, DataType::Float64, _) => Box::new(Variance::new(Spread::VarianceSample)),
        (AggregateFunction::VariancePopulation, DataType::Float64, _) => {
            Box::new(Variance::new(Spread::VariancePopulation))
        }
        (AggregateFunction::StddevSample, DataType::Float64, _) => Box::new(Variance::new(Spread::StddevSample)),
        (AggregateFunction::StddevPopulation, DataType::Float64, _) => {
            Box::new(Variance::new(Spread::StddevPopulation))
        }
        (AggregateFunction::BoolAnd, DataType::Boolean, _) => Box::new(BooleanAggregate::new(Quantifier::All)),
        (AggregateFunction::BoolOr, DataType::Boolean, _) => Box::new(BooleanAggregate::new(Quantifier::Any)),
        (AggregateFunction::Min | AggregateFunction::Max, _, _) => {
            let min = aggregate.function == AggregateFunction::Min;
            let direction = if min { Direction::Least } else { Direction::Greatest };
            let made: Option<Box<dyn Accumulator>> = if append_only {
                Extremum::new(direction, &argument_type).map(|made| Box::new(made) as _)
            } else {
                ExtremumOfMultiset::new(direction, &argument_type).map(|made| Box::new(made) as _)
            };
            made.ok_or_else(unsupported)?
        }
        _ => return Err(unsupported()),
    })
}
