//! Inner equi-join: pairs of rows that agree in the `on` columns and pass the residual predicate.
//!
//! Input          two ports, left and right, each exchanged by its `on` columns.
//! Output         for each changed row, its pairs with the rows of the other side; weights multiply.
//! State          the rows of both sides, indexed by key: see [`arrangement`]; on the disk where memory has no room.
//! On retraction  the row's pairs are retracted, and the row leaves its arrangement.
//! Cost           time O(changed rows + pairs), memory O(rows of both sides).
//!
//! A delta is paired with what the other side holds at that moment, and then joins its own side. Whatever the order
//! in which the deltas of an epoch arrive, each pair of rows meets exactly once: when the later one comes.
//! A key with a NULL equals nothing, unless asked for, so such rows are dropped at the door. Without `on` columns every row pairs with
//! every row.

mod arrangement;
mod row_ids;
mod row_log;
mod spilled;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::common::NullEquality;
use datafusion::physical_expr::PhysicalExpr;
use freshet_planner::plan::Node;
use freshet_storage::checkpoint::TableChange;
use freshet_storage::spill::SpillFolder;
use freshet_types::Delta;

pub use self::arrangement::Arrangement;
use self::arrangement::Matches;
use crate::expressions::{evaluate_predicate, salvage};
use crate::limits;
use crate::memory::StateMemory;
use crate::operators::state::{self, Room, SavedParts, State, Telling};
use crate::operators::{Operator, OperatorError, Output};

pub struct Join {
    /// Left and right.
    sides: [Side; 2],
    null_equality: NullEquality,
    residual: Option<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// While saved rows come back.
    room: Option<Room>,
}

struct Side {
    on: Vec<usize>,
    rows: Arrangement,
}

impl Join {
    /// # Errors
    /// If the columns that are compared have different types, or cannot be keys.
    pub fn new(
        left: &Node,
        right: &Node,
        (on, null_equality): (&[(usize, usize)], NullEquality),
        residual: Option<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        same_types((left, right), on)?;
        let (left_on, right_on): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let side = |node: &Node, on: Vec<usize>| {
            let rows = Arrangement::new(node.schema.clone(), &on, node.properties.append_only)?;
            Ok::<_, OperatorError>(Side { on, rows })
        };
        let sides = [side(left, left_on)?, side(right, right_on)?];
        Ok(Self { sides, null_equality, residual, schema, room: None })
    }

    /// The rows of the left side (0) or the right one (1).
    pub fn side(&self, side: usize) -> &Arrangement {
        &self.sides[side].rows
    }

    /// Gives the pairs of the rows of `delta`, which came in through `port`, with the rows of the other side.
    fn pair(&self, port: usize, delta: &Delta, keys: &[ArrayRef], out: &mut Output) -> Result<(), OperatorError> {
        let other = &self.sides[1 - port].rows;
        other.probe(delta, keys, limits::BATCH_ROWS_MAX, &mut |matches| self.give(port, delta, matches, out))
    }

    fn give(&self, port: usize, delta: &Delta, matches: Matches, out: &mut Output) -> Result<(), OperatorError> {
        let indices = UInt32Array::from(matches.probing);
        let of_delta = delta.columns().iter().map(|column| take(column, &indices, None));
        let of_delta = of_delta.collect::<Result<Vec<_>, _>>()?;
        let (mut columns, right) = if port == 0 { (of_delta, matches.found) } else { (matches.found, of_delta) };
        columns.extend(right);
        let options = RecordBatchOptions::new().with_row_count(Some(matches.weights.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let pairs = weighted(rows, matches.weights);
        let Some(residual) = &self.residual else {
            out.push(pairs);
            return Ok(());
        };
        let mut keep = |part: &Delta| Ok(part.filter(&evaluate_predicate(residual, part.rows())?)?);
        for kept in salvage(&pairs, out.errors(), &mut keep)? {
            out.push(kept);
        }
        Ok(())
    }
}

/// Which rows have no NULL in the columns `on`; `None`: all.
pub fn without_null(delta: &Delta, on: &[usize]) -> Option<BooleanBuffer> {
    let columns = on.iter().map(|column| delta.columns()[*column].logical_nulls());
    let nulls = columns.fold(None, |all: Option<NullBuffer>, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()));
    nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.into_inner())
}

/// Rows with their weights, which need not be said if each is there once.
pub fn weighted(rows: RecordBatch, weights: Vec<i64>) -> Delta {
    if weights.iter().all(|weight| *weight == 1) { Delta::inserts(rows) } else { Delta::new(rows, weights) }
}

/// # Errors
/// If columns that are compared have different types.
pub fn same_types((left, right): (&Node, &Node), on: &[(usize, usize)]) -> Result<(), OperatorError> {
    for (left_column, right_column) in on {
        let left_type = left.schema.field(*left_column).data_type();
        let right_type = right.schema.field(*right_column).data_type();
        if left_type != right_type {
            return Err(OperatorError::Unsupported(format!("cannot join {left_type} with {right_type}")));
        }
    }
    Ok(())
}

impl Operator for Join {
    fn absorb(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<(), OperatorError> {
        let delta = match without_null(&delta, &self.sides[port].on) {
            Some(valid) if self.null_equality == NullEquality::NullEqualsNothing => {
                delta.filter(&BooleanArray::new(valid, None))?
            }
            _ => delta,
        };
        if delta.is_empty() {
            return Ok(());
        }
        let keys: Vec<ArrayRef> = self.sides[port].on.iter().map(|column| delta.columns()[*column].clone()).collect();
        self.pair(port, &delta, &keys, out)?;
        self.sides[port].rows.add(&delta, &keys)
    }

    fn flush(&mut self, _out: &mut Output) -> Result<(), OperatorError> {
        self.sides.iter_mut().try_for_each(|side| side.rows.settle())
    }

    fn memory(&self) -> StateMemory {
        let [left, right] = self.sides.each_ref().map(|side| side.rows.memory());
        StateMemory {
            memory_bytes: left.memory_bytes + right.memory_bytes,
            spillable_bytes: left.spillable_bytes + right.spillable_bytes,
            disk_bytes: left.disk_bytes + right.disk_bytes,
        }
    }

    /// The side that holds more goes first. The other one is next if that is not enough.
    fn spill(&mut self, folder: &Arc<SpillFolder>) -> Result<(), OperatorError> {
        let larger = self.sides.iter_mut().max_by_key(|side| side.rows.memory().spillable_bytes);
        larger.map_or(Ok(()), |side| side.rows.spill(folder))
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

/// A table a side: its rows and their weights.
impl State for Join {
    fn track(&mut self) {
        self.sides.iter_mut().for_each(|side| side.rows.track());
    }

    fn keep_within(&mut self, room: &Room) {
        self.room = Some(room.clone());
    }

    fn table_count(&mut self) -> usize {
        self.sides.len()
    }

    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        self.sides.iter_mut().map(|side| side.rows.changes()).collect()
    }

    fn restore(&mut self, tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError> {
        if tables.len() != self.sides.len() {
            return Err(state::not_of_this_operator());
        }
        let room = self.room.take();
        let mut sides = self.sides.iter_mut().zip(tables);
        sides.try_for_each(|(side, saved)| side.rows.restore(saved, telling, room.as_ref()))
    }
}
