//! State tables: what an operator remembers, as rows under ids.
//!
//! An operator keeps its state in whatever form is fast. For a checkpoint it tells which rows of its tables have
//! changed; after a restart it gets back the rows that were there, under the ids that they had.

use arrow::array::RecordBatch;

/// What has changed in a state table since it was last asked.
#[derive(Debug, Clone)]
pub struct TableChange {
    /// Nothing that was told before holds any more: ids mean other rows now.
    pub reset: bool,
    /// Rows that are gone. An id may be in both lists if it was taken up again; then its new row counts.
    pub gone: Vec<u32>,
    /// Rows that are new or other than before.
    pub changed: StateRows,
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
        !self.reset && self.gone.is_empty() && self.changed.ids.is_empty()
    }
}
