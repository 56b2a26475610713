//! State tables: what an operator remembers, as rows under ids.
//!
//! An operator keeps its state in whatever form is fast. For a checkpoint it tells which rows of its tables have
//! changed; after a restart it gets back the rows that were there, under the ids that they had.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::spill::{SpillError, Untold, UntoldRows};

/// What has changed in a state table since it was last asked.
#[derive(Debug, Clone)]
pub struct TableChange {
    /// Nothing that was told before holds any more: ids mean other rows now.
    pub reset: bool,
    /// Rows that are gone. An id may be in both lists if it was taken up again; then its new row counts.
    pub gone: Vec<u32>,
    /// Rows that are new or other than before.
    pub changed: StateRows,
    /// More of them, which are not in memory.
    pub spilled: Option<SpilledChange>,
}

/// Changed rows that are on the disk. None of their ids is among those that are in memory.
#[derive(Debug, Clone)]
pub struct SpilledChange {
    pub rows: Untold,
    /// Of a row with the number that is kept beside it.
    pub schema: SchemaRef,
    /// The column of that number.
    pub number_column: usize,
}

impl SpilledChange {
    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.rows.pieces()
    }

    /// The rows of a piece. It waits for the disk.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn piece(&self, number: usize) -> Result<StateRows, SpillError> {
        let UntoldRows { ids, weights, mut columns } = self.rows.piece(number)?;
        columns.insert(self.number_column, Arc::new(Int64Array::from(weights)) as ArrayRef);
        Ok(StateRows { ids, rows: RecordBatch::try_new(self.schema.clone(), columns)? })
    }
}

/// Rows of a state table.
#[derive(Debug, Clone)]
pub struct StateRows {
    /// The id of each row, each once. Ids are dense: not much above the number of rows that are there at a time.
    pub ids: Vec<u32>,
    pub rows: RecordBatch,
}

impl TableChange {
    pub fn is_empty(&self) -> bool {
        !self.reset && self.gone.is_empty() && self.changed.ids.is_empty() && self.spilled.is_none()
    }
}
