//! What checkpoints have yet to be told of rows on the disk: as it was at one moment, read whenever there is time.
//!
//! Rows of a run never change, so this is the files, and a bit for each row that was live and untold. Whoever holds it may
//! read it while rows are deleted, merged and added (I-15): its files stay until it is let go.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::row_bits::RowBits;
use super::run::{Block, Layout, Run, read_block};
use super::{SpillError, SpillFile};

/// Blocks that are read at once.
const PIECE_BLOCKS: usize = 128;

/// Rows that no checkpoint had been told of. Clones share all.
#[derive(Debug, Clone)]
pub struct Untold {
    layout: Arc<Layout>,
    runs: Arc<Vec<UntoldRun>>,
    /// A run, and some of its blocks.
    pieces: Arc<Vec<(usize, Range<usize>)>>,
}

/// Some rows: their ids, weights and columns.
#[derive(Debug)]
pub struct UntoldRows {
    pub ids: Vec<u32>,
    pub weights: Vec<i64>,
    pub columns: Vec<ArrayRef>,
}

#[derive(Debug)]
struct UntoldRun {
    file: Arc<SpillFile>,
    blocks: Vec<Block>,
    rows: RowBits,
    /// Of rows of this hash and greater ones another run has the copy that counts.
    below: Option<u64>,
    /// Likewise, of those of smaller hashes.
    from: u64,
}

impl Untold {
    pub(super) fn of<'a>(layout: &Arc<Layout>, runs: impl Iterator<Item = (&'a Run, Option<u64>, u64)>) -> Self {
        let untold = runs.filter(|(run, ..)| !run.untold.is_empty()).map(|(run, below, from)| {
            let (file, blocks) = run.untold_blocks();
            UntoldRun { file, blocks, rows: run.untold.clone(), below, from }
        });
        let runs: Vec<UntoldRun> = untold.collect();
        let pieces = runs.iter().enumerate().flat_map(|(number, run)| {
            let starts = (0..run.blocks.len()).step_by(PIECE_BLOCKS);
            starts.map(move |start| (number, start..run.blocks.len().min(start + PIECE_BLOCKS)))
        });
        let pieces = Arc::new(pieces.collect());
        Self { layout: layout.clone(), runs: Arc::new(runs), pieces }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many pieces there are, each of some ten thousand rows.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The rows of a piece; possibly none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn piece(&self, number: usize) -> Result<UntoldRows, SpillError> {
        let (run, blocks) = &self.pieces[number];
        let run = &self.runs[*run];
        let parts = run.blocks[blocks.clone()].iter().map(|block| self.untold_rows(run, block));
        let parts = parts.collect::<Result<Vec<RecordBatch>, _>>()?;
        let rows = concat_batches(self.layout.file_schema(), &parts)?;
        // Rows left memory in the order of their hashes and got their ids in it. Merges have put others between them; in the
        // order of ids there are few gaps again.
        let ids = self.layout.ids(&rows);
        let mut order: Vec<u32> = (0..u32::try_from(ids.len()).expect("a piece is small")).collect();
        order.sort_unstable_by_key(|row| ids[*row as usize]);
        let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        Ok(UntoldRows {
            ids: self.layout.ids(&rows).to_vec(),
            weights: self.layout.weights(&rows).to_vec(),
            columns: self.layout.columns(&rows).to_vec(),
        })
    }

    fn untold_rows(&self, run: &UntoldRun, block: &Block) -> Result<RecordBatch, SpillError> {
        let batch = read_block(&self.layout, &run.file, block)?;
        let hashes = self.layout.hashes(&batch);
        let is_here = |row: usize| hashes[row] >= run.from && run.below.is_none_or(|below| hashes[row] < below);
        let first = block.first_row as usize;
        let rows = (0..hashes.len()).filter(|row| is_here(*row) && run.rows.contains(first + row));
        let rows: UInt32Array = rows.map(|row| u32::try_from(row).expect("a block is small")).collect();
        Ok(take_record_batch(&batch, &rows)?)
    }
}
