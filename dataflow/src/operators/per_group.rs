//! Functions of whole groups, which one row more or less may change anywhere: window functions.
//!
//! Input          deltas, exchanged by the columns of the group.
//! Output         per changed group and epoch: the rows by which its result differs.
//! State          each row once, with its count, in the list of its group.
//! On retraction  the row leaves its group.
//! On failure     a group on which the function fails has no rows, and is an error of the view until it does not.
//! Cost           time O(rows of changed groups), memory O(rows).
//!
//! The last result of a group is not stored: both results of a changed group are computed at the end of the epoch, from
//! its rows before and after it.

mod rows;
mod window;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use freshet_storage::checkpoint::TableChange;
use freshet_types::Delta;

use self::rows::GroupedRows;
pub use self::window::WindowFunctions;
use crate::RowError;
use crate::expressions::{cells_text, message};
use crate::memory::StateMemory;
use crate::operators::state::{self, SavedParts, State, Telling};
use crate::operators::{Operator, OperatorError, Output};

/// What is made of the rows of a group.
pub trait GroupFunction {
    /// The result, for a group that has rows. The same rows give the same result, in whatever order they stand.
    ///
    /// # Errors
    /// If an expression fails on the rows.
    fn evaluate(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError>;
}

pub struct PerGroup {
    rows: GroupedRows,
    function: Box<dyn GroupFunction>,
    schema: SchemaRef,
}

impl PerGroup {
    /// `schema` is that of the results.
    ///
    /// # Errors
    /// If rows of a type cannot be compared.
    pub fn new(
        input: &SchemaRef,
        group: &[usize],
        function: Box<dyn GroupFunction>,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        Ok(Self { rows: GroupedRows::new(input.clone(), group)?, function, schema })
    }

    /// The result for the rows of a group, or why there is none.
    fn result(&self, rows: &RecordBatch) -> Result<RecordBatch, String> {
        if rows.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let result = self.function.evaluate(rows).map_err(|error| message(&error))?;
        result.with_schema(self.schema.clone()).map_err(|error| error.to_string())
    }

    fn report(&self, group: &RecordBatch, message: &str, weight: i64, out: &mut Output) {
        let schema = group.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let cells = cells_text(names.zip(group.columns()));
        let row = if cells.is_empty() { "all rows".to_owned() } else { cells };
        out.errors().add(|| RowError { message: message.to_owned(), row, weight });
    }
}

impl Operator for PerGroup {
    fn absorb(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<(), OperatorError> {
        self.rows.count(&delta)
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        let mut changes = Vec::new();
        for group in self.rows.changed_groups() {
            let (before, now) = self.rows.before_and_now(group)?;
            let results = (self.result(&before), self.result(&now));
            if results.0.as_ref().err() != results.1.as_ref().err() {
                for (result, rows, weight) in [(&results.0, &before, -1), (&results.1, &now, 1)] {
                    if let Err(message) = result {
                        self.report(&self.rows.group_of(rows)?, message, weight, out);
                    }
                }
            }
            changes.extend(results.0.ok().map(Delta::deletes));
            changes.extend(results.1.ok().map(Delta::inserts));
        }
        self.rows.settle()?;
        if !changes.is_empty() {
            out.push(Delta::concat(&self.schema, &changes)?.consolidate()?);
        }
        Ok(())
    }

    fn memory(&self) -> StateMemory {
        StateMemory::fixed(self.rows.memory_bytes())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

/// One table: the rows, and how often each is there.
impl State for PerGroup {
    fn track(&mut self) {
        self.rows.track();
    }

    fn table_count(&mut self) -> usize {
        1
    }

    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        Ok(vec![self.rows.changes()?])
    }

    fn restore(&mut self, mut tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError> {
        let saved = tables.pop().ok_or_else(state::not_of_this_operator)?;
        self.rows.restore(saved, telling)
    }
}
