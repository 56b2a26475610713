//! What makes two rows of a collection the same row: its key, or all columns.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use freshet_types::{KeyEncoder, Keys};

use super::CollectionDescription;

/// How rows of one collection are identified, hashed and compared.
#[derive(Debug)]
pub(super) struct Identity {
    /// The key columns, or `None` for all columns.
    key: Option<Vec<usize>>,
    key_encoder: KeyEncoder,
    row_encoder: KeyEncoder,
}

impl Identity {
    pub fn new(description: &CollectionDescription) -> Result<Self, ArrowError> {
        let row_encoder = KeyEncoder::for_schema(&description.schema)?;
        let key_encoder = match &description.key {
            None => row_encoder.clone(),
            Some(columns) => KeyEncoder::for_schema(&description.schema.project(columns)?)?,
        };
        Ok(Self { key: description.key.clone(), key_encoder, row_encoder })
    }

    /// The columns of the key, if there is one.
    pub fn key(&self) -> Option<&[usize]> {
        self.key.as_deref()
    }

    /// What rows are found by: their keys, or all of each.
    pub fn keys(&self, rows: &RecordBatch) -> Result<Keys, ArrowError> {
        match &self.key {
            None => self.whole_rows(rows),
            Some(columns) => {
                let columns: Vec<ArrayRef> = columns.iter().map(|column| rows.column(*column).clone()).collect();
                self.key_encoder.encode(&columns, rows.num_rows())
            }
        }
    }

    /// The columns that rows are found by, of so many.
    pub fn columns(&self, all: usize) -> Vec<usize> {
        self.key.clone().unwrap_or_else(|| (0..all).collect())
    }

    /// The keys given by key columns alone.
    pub fn keys_of_columns(&self, columns: &[ArrayRef], row_count: usize) -> Result<Keys, ArrowError> {
        self.key_encoder.encode(columns, row_count)
    }

    pub fn whole_rows(&self, rows: &RecordBatch) -> Result<Keys, ArrowError> {
        self.row_encoder.encode(rows.columns(), rows.num_rows())
    }
}
