//! Rows of a state table for which memory has no room: found by one hash, and taken out when they are needed.
//!
//! Each row keeps its id and a number (a weight, a count). A row is either here or in memory, never in both: who fetches rows
//! puts them back when they are to leave again.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use freshet_storage::checkpoint::SpilledChange;
use freshet_storage::spill::{FoundBy, Layout, NewRows, SpillFolder, SpilledRows, Wanted, sorted_order};

use super::gathered::Gathered;
use crate::limits;
use crate::operators::OperatorError;

/// Rows merged for each row that may come back and leave again.
const MERGED_PER_ROW: usize = 6;

pub struct SpilledTable {
    schema: SchemaRef,
    rows: SpilledRows,
}

/// Rows on their way to the disk or back.
#[derive(Debug, Default)]
pub struct SpilledPart {
    pub ids: Vec<u32>,
    pub weights: Vec<i64>,
    /// Whether a checkpoint has yet to be told of each.
    pub untold: Vec<bool>,
    pub columns: Vec<ArrayRef>,
}

/// Takes rows that come back, in parts.
pub type Take<'a> = dyn FnMut(SpilledPart) -> Result<(), OperatorError> + 'a;

impl SpilledTable {
    pub fn new(folder: &Arc<SpillFolder>, schema: SchemaRef) -> Self {
        let rows = SpilledRows::new(folder.clone(), Layout::new(schema.clone(), FoundBy::Key));
        Self { schema, rows }
    }

    /// Bytes in memory and on the disk.
    pub fn bytes(&self) -> (usize, usize) {
        (self.rows.memory_bytes(), usize::try_from(self.rows.disk_bytes()).unwrap_or(usize::MAX))
    }

    /// A batch of `rows` rows has come: merges go on.
    pub fn work(&mut self, rows: usize) -> Result<(), OperatorError> {
        Ok(self.rows.work(rows * MERGED_PER_ROW)?)
    }

    /// Adds a row for each of `hashes`; `part` gives those at some places of them.
    pub fn add(
        &mut self,
        hashes: &[u64],
        mut part: impl FnMut(&[u32]) -> Result<SpilledPart, OperatorError>,
    ) -> Result<(), OperatorError> {
        if hashes.is_empty() {
            return Ok(());
        }
        let order = sorted_order(hashes, None);
        let parts = order.chunks(limits::BATCH_ROWS_MAX).map(|places| {
            let SpilledPart { ids, weights, untold, columns } = part(places)?;
            let hashes = places.iter().map(|place| hashes[*place as usize]).collect();
            Ok(NewRows { hashes, contents: None, ids, weights, columns, untold })
        });
        self.rows.add(hashes.len(), parts)
    }

    /// Takes out all rows that have one of `hashes`, which are sorted, each once.
    pub fn fetch(&mut self, hashes: &[u64], take: &mut Take<'_>) -> Result<(), OperatorError> {
        if hashes.is_empty() || self.rows.is_empty() {
            return Ok(());
        }
        let wanted: Vec<(Wanted, u32)> = hashes.iter().map(|hash| (Wanted { hash: *hash, content: None }, 0)).collect();
        let (mut gathered, mut places) = (Gathered::default(), Vec::new());
        self.rows.find(&wanted, &mut |found| {
            if gathered.is_full(limits::BATCH_ROWS_MAX - found.pairs.len()) {
                give(std::mem::take(&mut gathered), &self.schema, take)?;
            }
            gathered.add(&found, found.pairs);
            places.extend(found.pairs.iter().map(|(_, row)| found.place(*row)));
            Ok::<_, OperatorError>(())
        })?;
        give(gathered, &self.schema, take)?;
        places.into_iter().for_each(|place| self.rows.remove(place));
        Ok(())
    }

    /// Hands the rows of a range of hashes that begins at `first` to `take`; they stay. Gives where the next one begins.
    pub fn range(&self, first: u64, take: &mut Take<'_>) -> Result<Option<u64>, OperatorError> {
        let mut gathered = Gathered::default();
        let next = self.rows.range(first, &mut |found| {
            if gathered.is_full(limits::BATCH_ROWS_MAX - found.pairs.len()) {
                give(std::mem::take(&mut gathered), &self.schema, take)?;
            }
            gathered.add(&found, found.pairs);
            Ok::<_, OperatorError>(())
        })?;
        give(gathered, &self.schema, take)?;
        Ok(next)
    }

    /// The rows that no checkpoint has been told of, as rows of `schema`, with their numbers as column `number_column`.
    pub fn take_untold(&mut self, schema: &SchemaRef, number_column: usize) -> Option<SpilledChange> {
        let rows = self.rows.take_untold();
        (!rows.is_empty()).then(|| SpilledChange { rows, schema: schema.clone(), number_column })
    }
}

fn give(mut gathered: Gathered, schema: &SchemaRef, take: &mut Take<'_>) -> Result<(), OperatorError> {
    if gathered.is_empty() {
        return Ok(());
    }
    let columns = gathered.take_columns(schema)?;
    let Gathered { ids, weights, untold, .. } = gathered;
    take(SpilledPart { ids, weights, untold, columns })
}
