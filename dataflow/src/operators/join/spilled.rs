//! The rows of one side of a join for which memory has no room.
//!
//! They lie in the runs of [`SpilledRows`], found by the hash of their key and, where rows are deleted, that of the whole
//! row. A batch of keys is sorted by hash and probed in one pass over each run. That hashes are equal proves nothing, so
//! what is found is compared, a batch at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use freshet_storage::checkpoint::SpilledChange;
use freshet_storage::spill::sorted_order;
use freshet_storage::spill::{FoundBy, Layout, NewRows, Place, SpillError, SpillFolder, SpilledRows, Wanted};
use freshet_types::{Delta, KeyEncoder, Keys};

use super::arrangement::{Give, Matches};
use super::row_log::RowLog;
use crate::limits;
use crate::operators::OperatorError;
use crate::operators::gathered::Gathered;

/// Rows merged for each row that comes: as much as the levels of a very large arrangement ask for.
const MERGED_PER_ROW: usize = 6;

pub struct Spilled {
    schema: SchemaRef,
    on: Vec<usize>,
    encoder: KeyEncoder,
    rows: SpilledRows,
}

/// What a deletion took.
pub struct Taken {
    /// The ids of rows that are gone.
    pub gone: Vec<u32>,
    pub rest: Option<Rest>,
}

/// Rows that were on the disk, and have fewer copies now.
pub struct Rest {
    pub columns: Vec<ArrayRef>,
    pub contents: Vec<u64>,
    pub weights: Vec<i64>,
    pub ids: Vec<u32>,
}

impl Spilled {
    /// # Errors
    /// If the types of the columns `on` cannot be keys.
    pub fn new(
        folder: &Arc<SpillFolder>,
        schema: SchemaRef,
        on: &[usize],
        key_types: &[DataType],
        is_deleted_from: bool,
    ) -> Result<Self, ArrowError> {
        let found_by = if is_deleted_from { FoundBy::KeyAndContent } else { FoundBy::Key };
        let layout = Layout::new(schema.clone(), found_by);
        let rows = SpilledRows::new(folder.clone(), layout);
        Ok(Self { schema, on: on.to_vec(), encoder: KeyEncoder::new(key_types)?, rows })
    }

    /// Bytes in memory and on the disk.
    pub fn bytes(&self) -> (usize, usize) {
        (self.rows.memory_bytes(), usize::try_from(self.rows.disk_bytes()).unwrap_or(usize::MAX))
    }

    /// `rows` rows have come: merges go on.
    pub fn work(&mut self, rows: usize) -> Result<(), OperatorError> {
        Ok(self.rows.work(rows * MERGED_PER_ROW)?)
    }

    /// The hashes of the keys of the rows `live` of a log, and the order in which they are to be added.
    pub fn order(
        &self,
        log: &RowLog,
        live: &[u32],
        contents: Option<&[u64]>,
    ) -> Result<(Vec<u64>, Vec<u32>), OperatorError> {
        let mut hashes = Vec::with_capacity(live.len());
        for part in live.chunks(limits::BATCH_ROWS_MAX) {
            let keys = log.gather_columns(part, &self.on)?;
            hashes.extend(self.encoder.encode(&keys, part.len())?.hashes());
        }
        let contents = contents.map(|contents| live.iter().map(|row| contents[*row as usize]).collect::<Vec<u64>>());
        let order = sorted_order(&hashes, contents.as_deref());
        Ok((hashes, order))
    }

    pub fn add(
        &mut self,
        count: usize,
        parts: impl Iterator<Item = Result<NewRows, OperatorError>>,
    ) -> Result<(), OperatorError> {
        self.rows.add(count, parts)
    }

    /// See [`super::arrangement::Arrangement::probe`].
    pub fn probe(
        &self,
        delta: &Delta,
        keys: &[ArrayRef],
        part_rows: usize,
        give: &mut Give<'_>,
    ) -> Result<(), OperatorError> {
        let wanted_keys = self.encoder.encode(keys, delta.len())?;
        let hashes = wanted_keys.hashes();
        let wanted = (0_u32..).zip(&hashes).map(|(row, hash)| (Wanted { hash: *hash, content: None }, row));
        let mut wanted: Vec<(Wanted, u32)> = wanted.collect();
        wanted.sort_unstable();
        let mut gathered = Gathered::default();
        self.rows.find(&wanted, &mut |found| {
            for pairs in found.pairs.chunks(part_rows) {
                if gathered.is_full(part_rows - pairs.len()) {
                    self.give(std::mem::take(&mut gathered), delta, &wanted_keys, give)?;
                }
                gathered.add(&found, pairs);
            }
            Ok::<_, OperatorError>(())
        })?;
        self.give(gathered, delta, &wanted_keys, give)
    }

    fn give(
        &self,
        mut gathered: Gathered,
        delta: &Delta,
        wanted: &Keys,
        give: &mut Give<'_>,
    ) -> Result<(), OperatorError> {
        let columns = gathered.take_columns(&self.schema)?;
        let keys: Vec<ArrayRef> = self.on.iter().map(|column| columns[*column].clone()).collect();
        let keys = self.encoder.encode(&keys, gathered.tags.len())?;
        let (columns, gathered) = gathered.where_equal(columns, &keys, wanted)?;
        if gathered.is_empty() {
            return Ok(());
        }
        let products = gathered.tags.iter().zip(&gathered.weights).map(|(row, weight)| {
            let product = weight.checked_mul(delta.weight(*row as usize));
            product.ok_or_else(OperatorError::weight_overflow)
        });
        let weights = products.collect::<Result<Vec<i64>, _>>()?;
        give(Matches { probing: gathered.tags, found: columns, weights })
    }

    /// Takes copies of the rows of negative weight `missing`, by their number in the columns; what was there is not
    /// missing any more. `contents` are the hashes of whole rows, made by `whole`.
    pub fn take_copies(
        &mut self,
        (columns, keys, contents): (&[ArrayRef], &[ArrayRef], &[u64]),
        missing: &mut HashMap<usize, i64>,
        whole: &KeyEncoder,
    ) -> Result<Taken, OperatorError> {
        let mut rows: Vec<usize> = missing.keys().copied().collect();
        rows.sort_unstable();
        let indices: UInt32Array = rows.iter().map(|row| u32::try_from(*row).expect("a batch is small")).collect();
        let taken = |columns: &[ArrayRef]| {
            columns.iter().map(|column| take(column, &indices, None)).collect::<Result<Vec<_>, _>>()
        };
        let hashes = self.encoder.encode(&taken(keys)?, rows.len())?.hashes();
        let wanted_rows = whole.encode(&taken(columns)?, rows.len())?;
        let wanted = (0_u32..).zip(rows.iter().zip(&hashes));
        let wanted = wanted.map(|(tag, (row, hash))| (Wanted { hash: *hash, content: Some(contents[*row]) }, tag));
        let mut wanted: Vec<(Wanted, u32)> = wanted.collect();
        wanted.sort_unstable();
        let mut gathered = Gathered::default();
        self.rows.find(&wanted, &mut |found| {
            gathered.add(&found, found.pairs);
            Ok::<_, SpillError>(())
        })?;
        let columns = gathered.take_columns(&self.schema)?;
        let found_rows = whole.encode(&columns, gathered.tags.len())?;
        let (columns, gathered) = gathered.where_equal(columns, &found_rows, &wanted_rows)?;
        self.take(&columns, &gathered, &rows, contents, missing)
    }

    /// Takes from the rows that were found, one after the other, what is missing of each.
    fn take(
        &mut self,
        columns: &[ArrayRef],
        gathered: &Gathered,
        rows: &[usize],
        contents: &[u64],
        missing: &mut HashMap<usize, i64>,
    ) -> Result<Taken, OperatorError> {
        // What is left of each row; several deletions may be of the same.
        let mut left: HashMap<Place, (usize, i64)> = HashMap::new();
        for (at, place) in gathered.spilled_at.iter().enumerate() {
            let row = rows[gathered.tags[at] as usize];
            let Some(wanted) = missing.get_mut(&row) else { continue };
            let copies = &mut left.entry(*place).or_insert((at, gathered.weights[at])).1;
            let rest = copies.checked_add(*wanted).ok_or_else(OperatorError::weight_overflow)?;
            (*copies, *wanted) = (rest.max(0), rest.min(0));
            if *wanted == 0 {
                missing.remove(&row);
            }
        }
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for (place, (at, copies)) in left {
            if copies == gathered.weights[at] {
                continue;
            }
            self.rows.remove(place);
            if copies == 0 {
                gone.push(gathered.ids[at]);
            } else {
                kept.push((at, copies));
            }
        }
        if kept.is_empty() {
            return Ok(Taken { gone, rest: None });
        }
        kept.sort_unstable();
        let indices: UInt32Array = kept.iter().map(|(at, _)| u32::try_from(*at).expect("a batch is small")).collect();
        let rest = Rest {
            columns: columns.iter().map(|column| take(column, &indices, None)).collect::<Result<_, _>>()?,
            contents: kept.iter().map(|(at, _)| contents[rows[gathered.tags[*at] as usize]]).collect(),
            weights: kept.iter().map(|(_, copies)| *copies).collect(),
            ids: kept.iter().map(|(at, _)| gathered.ids[*at]).collect(),
        };
        Ok(Taken { gone, rest: Some(rest) })
    }

    /// The rows that no checkpoint has been told of, with their weights as the last column.
    pub fn take_untold(&mut self, schema: &SchemaRef) -> Option<SpilledChange> {
        let rows = self.rows.take_untold();
        let number_column = self.schema.fields().len();
        (!rows.is_empty()).then(|| SpilledChange { rows, schema: schema.clone(), number_column })
    }
}
