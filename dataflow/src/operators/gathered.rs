//! Rows that were found on the disk, of several blocks, put together.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use freshet_storage::spill::{Found, Place};
use freshet_types::Keys;

/// Blocks whose rows are put together at once.
const BLOCKS_MAX: usize = 512;

#[derive(Default)]
pub struct Gathered {
    blocks: Vec<Vec<ArrayRef>>,
    /// The block of each row, and its place there.
    places: Vec<(usize, usize)>,
    /// The row that asked for each.
    pub tags: Vec<u32>,
    pub weights: Vec<i64>,
    pub ids: Vec<u32>,
    pub untold: Vec<bool>,
    pub spilled_at: Vec<Place>,
}

impl Gathered {
    /// Whether the rows are to be put together before another block is added, or more than `rows` rows.
    pub fn is_full(&self, rows: usize) -> bool {
        self.blocks.len() >= BLOCKS_MAX || self.places.len() > rows
    }

    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    pub fn add(&mut self, found: &Found<'_>, pairs: &[(u32, u32)]) {
        let block = self.blocks.len();
        self.blocks.push(found.columns().to_vec());
        for (tag, row) in pairs {
            self.tags.push(*tag);
            self.places.push((block, *row as usize));
            self.weights.push(found.weight(*row));
            self.ids.push(found.id(*row));
            self.untold.push(found.is_untold(*row));
            self.spilled_at.push(found.place(*row));
        }
    }

    /// The columns of all rows. The blocks are let go.
    pub fn take_columns(&mut self, schema: &SchemaRef) -> Result<Vec<ArrayRef>, ArrowError> {
        let blocks = std::mem::take(&mut self.blocks);
        let column = |index: usize| {
            let arrays: Vec<&dyn Array> = blocks.iter().map(|block| block[index].as_ref()).collect();
            if arrays.is_empty() {
                return Ok(arrow::array::new_empty_array(schema.field(index).data_type()));
            }
            interleave(&arrays, &self.places)
        };
        (0..schema.fields().len()).map(column).collect()
    }

    /// The rows whose `keys` are those that were wanted: all, but once in 2^64 times.
    pub fn where_equal(
        self,
        columns: Vec<ArrayRef>,
        keys: &Keys,
        wanted: &Keys,
    ) -> Result<(Vec<ArrayRef>, Self), ArrowError> {
        let is_equal = |row: &usize| keys.equal(*row, wanted, self.tags[*row] as usize);
        let equal: Vec<usize> = (0..self.tags.len()).filter(is_equal).collect();
        if equal.len() == self.tags.len() {
            return Ok((columns, self));
        }
        let indices: UInt32Array = equal.iter().map(|row| u32::try_from(*row).expect("a batch is small")).collect();
        let columns = columns.iter().map(|column| take(column, &indices, None)).collect::<Result<_, _>>()?;
        let kept = Self {
            blocks: Vec::new(),
            places: Vec::new(),
            tags: equal.iter().map(|row| self.tags[*row]).collect(),
            weights: equal.iter().map(|row| self.weights[*row]).collect(),
            ids: equal.iter().map(|row| self.ids[*row]).collect(),
            untold: equal.iter().map(|row| self.untold[*row]).collect(),
            spilled_at: equal.iter().map(|row| self.spilled_at[*row]).collect(),
        };
        Ok((columns, kept))
    }
}
