//! A run: rows sorted by hash, in blocks of a few hundred, each an Arrow IPC message that can be read by itself.
//!
//! In memory are the first hashes and the place of each block, a bloom filter, and a bit for each row that was deleted or
//! has yet to be told to a checkpoint: less than two bytes a row. The columns of the file are the hash of the key, the hash
//! of the whole row if rows are found by it, the id, the weight, and those of the row.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow::ipc::{Block as IpcBlock, MetadataVersion};

use super::bloom::Bloom;
use super::row_bits::RowBits;
use super::{SpillError, SpillFile, SpillFolder};

/// Rows of a block. A look-up reads whole blocks, so they are small; each costs some 40 bytes of memory.
pub const BLOCK_ROWS: usize = if cfg!(test) { 16 } else { 512 };

/// What a row is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    Key,
    /// And by all its columns.
    KeyAndContent,
}

/// Rows to look up: those with this hash of their key, and of all their columns if that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub hash: u64,
    pub content: Option<u64>,
}

impl Wanted {
    fn first(&self) -> (u64, u64) {
        (self.hash, self.content.unwrap_or(0))
    }

    fn last(&self) -> (u64, u64) {
        (self.hash, self.content.unwrap_or(u64::MAX))
    }
}

/// The layout of a run's file.
#[derive(Debug)]
pub struct Layout {
    pub found_by: FoundBy,
    file: SchemaRef,
    /// The rows alone.
    pub rows: SchemaRef,
}

impl Layout {
    pub fn new(rows: SchemaRef, found_by: FoundBy) -> Self {
        let mut fields = vec![Arc::new(Field::new("hash", DataType::UInt64, false))];
        if found_by == FoundBy::KeyAndContent {
            fields.push(Arc::new(Field::new("content", DataType::UInt64, false)));
        }
        fields.push(Arc::new(Field::new("id", DataType::UInt32, false)));
        fields.push(Arc::new(Field::new("weight", DataType::Int64, false)));
        fields.extend(rows.fields().iter().cloned());
        Self { found_by, file: Arc::new(Schema::new(fields)), rows }
    }

    pub fn file_schema(&self) -> &SchemaRef {
        &self.file
    }

    fn id_column(&self) -> usize {
        if self.found_by == FoundBy::Key { 1 } else { 2 }
    }

    /// A batch of the file.
    pub fn batch(
        &self,
        hashes: ArrayRef,
        contents: Option<ArrayRef>,
        others: [ArrayRef; 2],
        rows: &[ArrayRef],
    ) -> Result<RecordBatch, ArrowError> {
        let columns = std::iter::once(hashes).chain(contents).chain(others).chain(rows.iter().cloned());
        RecordBatch::try_new(self.file.clone(), columns.collect())
    }

    pub fn hashes<'a>(&self, batch: &'a RecordBatch) -> &'a [u64] {
        batch.column(0).as_primitive::<UInt64Type>().values()
    }

    /// What rows are found by if it is more than their key.
    pub fn contents<'a>(&self, batch: &'a RecordBatch) -> Option<&'a [u64]> {
        let content = (self.found_by == FoundBy::KeyAndContent).then(|| batch.column(1));
        content.map(|content| &content.as_primitive::<UInt64Type>().values()[..])
    }

    pub fn ids<'a>(&self, batch: &'a RecordBatch) -> &'a [u32] {
        batch.column(self.id_column()).as_primitive::<UInt32Type>().values()
    }

    pub fn weights<'a>(&self, batch: &'a RecordBatch) -> &'a [i64] {
        batch.column(self.id_column() + 1).as_primitive::<Int64Type>().values()
    }

    pub fn columns<'a>(&self, batch: &'a RecordBatch) -> &'a [ArrayRef] {
        &batch.columns()[self.id_column() + 2..]
    }
}

/// Where a block lies, and what it begins with.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    first: (u64, u64),
    offset: u64,
    pub first_row: u32,
    metadata_bytes: u32,
    bytes: u32,
}

/// Sorted rows in a file. It grows while it is being made; rows are found as soon as they are written.
#[derive(Debug)]
pub struct Run {
    layout: Arc<Layout>,
    file: Arc<SpillFile>,
    blocks: Vec<Block>,
    rows: usize,
    bloom: Bloom,
    pub dead: RowBits,
    /// Rows that no checkpoint has been told of.
    pub untold: RowBits,
}

impl Run {
    /// An empty run for about `rows` rows.
    pub fn create(folder: &Arc<SpillFolder>, layout: Arc<Layout>, rows: usize) -> Result<Self, SpillError> {
        Ok(Self {
            layout,
            file: Arc::new(folder.create()?),
            blocks: Vec::new(),
            rows: 0,
            bloom: Bloom::with_capacity(rows),
            dead: RowBits::default(),
            untold: RowBits::default(),
        })
    }

    /// All rows, dead ones too.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn live(&self) -> usize {
        self.rows - self.dead.len()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.file.bytes()
    }

    pub fn memory_bytes(&self) -> usize {
        let bits = self.dead.memory_bytes() + self.untold.memory_bytes();
        self.blocks.capacity() * size_of::<Block>() + self.bloom.memory_bytes() + bits
    }

    /// Appends rows that are sorted, and do not come before those that are there.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<(), SpillError> {
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let (mut tracker, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
        let mut bytes = Vec::new();
        let start = self.file.bytes();
        for offset in (0..batch.num_rows()).step_by(BLOCK_ROWS) {
            let part = batch.slice(offset, BLOCK_ROWS.min(batch.num_rows() - offset));
            let (_, encoded) = generator.encode(&part, &mut tracker, &options, &mut context)?;
            let block_start = bytes.len();
            let (metadata, _) = write_message(&mut bytes, encoded, &options)?;
            let narrow = |number: usize| u32::try_from(number).map_err(|_| too_large());
            let first_content = self.layout.contents(&part).map_or(0, |contents| contents[0]);
            self.blocks.push(Block {
                first: (self.layout.hashes(&part)[0], first_content),
                offset: start + block_start as u64,
                first_row: narrow(self.rows)?,
                metadata_bytes: narrow(metadata)?,
                bytes: narrow(bytes.len() - block_start)?,
            });
            self.rows += part.num_rows();
        }
        let mut last = None;
        for hash in self.layout.hashes(batch) {
            if last.replace(*hash) != Some(*hash) {
                self.bloom.insert(*hash);
            }
        }
        Ok(self.file.append(&bytes)?)
    }

    fn read(&self, block: &Block) -> Result<RecordBatch, SpillError> {
        read_block(&self.layout, &self.file, block)
    }

    /// The blocks that may have rows from `first` to `last`.
    fn blocks_between(&self, first: (u64, u64), last: (u64, u64)) -> std::ops::Range<usize> {
        // Equal rows may begin in the block before the first that begins with them.
        let start = self.blocks.partition_point(|block| block.first < first).saturating_sub(1);
        let end = self.blocks.partition_point(|block| block.first <= last);
        start..end.max(start)
    }

    /// Finds live rows: hands each block that has any, with the number of its first row, to `visit`, and the pairs of
    /// places: in `wanted`, which is sorted, and in the block. Reads each block once.
    pub fn find<E: From<SpillError>>(
        &self,
        wanted: &[(Wanted, u32)],
        visit: &mut impl FnMut(usize, &RecordBatch, &[(u32, u32)]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut touched: Vec<(usize, usize)> = Vec::new();
        for (at, (wanted, _)) in wanted.iter().enumerate() {
            if self.bloom.may_contain(wanted.hash) {
                touched.extend(self.blocks_between(wanted.first(), wanted.last()).map(|block| (block, at)));
            }
        }
        // Nearly sorted: only those that share a block's edge are out of order.
        touched.sort_unstable();
        let mut pairs = Vec::new();
        for group in touched.chunk_by(|one, other| one.0 == other.0) {
            let block = &self.blocks[group[0].0];
            let batch = self.read(block)?;
            let (hashes, contents) = (self.layout.hashes(&batch), self.layout.contents(&batch));
            let place = |row: usize| (hashes[row], contents.map_or(0, |contents| contents[row]));
            pairs.clear();
            for (_, at) in group {
                let (wanted, tag) = &wanted[*at];
                let start = partition_point(hashes.len(), |row| place(row) < wanted.first());
                for row in start..hashes.len() {
                    if place(row) > wanted.last() {
                        break;
                    }
                    if !self.dead.contains(block.first_row as usize + row) {
                        pairs.push((*tag, u32::try_from(row).expect("a block has few rows")));
                    }
                }
            }
            if !pairs.is_empty() {
                visit(block.first_row as usize, &batch, &pairs)?;
            }
        }
        Ok(())
    }

    /// Hands the blocks with hashes from `first` on and before `end` (`None`: all) to `visit`, with the number of
    /// the first row of each, and the rows in them.
    pub fn scan<E: From<SpillError>>(
        &self,
        first: u64,
        end: Option<u64>,
        visit: &mut impl FnMut(usize, &RecordBatch, std::ops::Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.blocks.partition_point(|block| block.first < (first, 0)).saturating_sub(1);
        for block in &self.blocks[start..] {
            if end.is_some_and(|end| block.first.0 >= end) {
                break;
            }
            let batch = self.read(block)?;
            let hashes = self.layout.hashes(&batch);
            let from = hashes.partition_point(|hash| *hash < first);
            let until = end.map_or(hashes.len(), |end| hashes.partition_point(|hash| *hash < end));
            if from < until {
                visit(block.first_row as usize, &batch, from..until)?;
            }
        }
        Ok(())
    }

    /// The file, and the blocks that have rows with the bit set in `untold`.
    pub fn untold_blocks(&self) -> (Arc<SpillFile>, Vec<Block>) {
        let is_untold = |(at, block): &(usize, &Block)| {
            let end = self.blocks.get(at + 1).map_or(self.rows, |next| next.first_row as usize);
            (block.first_row as usize..end).any(|row| self.untold.contains(row))
        };
        let blocks = self.blocks.iter().enumerate().filter(is_untold).map(|(_, block)| *block).collect();
        (self.file.clone(), blocks)
    }

    /// A hash that about `blocks` blocks after those before `first` lie before; `None` if there are not so many.
    pub fn hash_after(&self, first: u64, blocks: usize) -> Option<u64> {
        let start = self.blocks.partition_point(|block| block.first < (first, 0));
        self.blocks[start..].iter().skip(blocks).map(|block| block.first.0).find(|hash| *hash > first)
    }
}

/// The rows of a block of a file.
pub fn read_block(layout: &Layout, file: &SpillFile, block: &Block) -> Result<RecordBatch, SpillError> {
    let bytes = Buffer::from_vec(file.read(block.offset, block.bytes as usize)?);
    let decoder = FileDecoder::new(layout.file.clone(), MetadataVersion::V5);
    let metadata = i32::try_from(block.metadata_bytes).map_err(|_| too_large())?;
    let place = IpcBlock::new(0, metadata, i64::from(block.bytes) - i64::from(metadata));
    let batch = decoder.read_record_batch(&place, &bytes)?;
    batch.ok_or_else(|| ArrowError::IpcError("a block without rows".to_owned()).into())
}

fn too_large() -> ArrowError {
    ArrowError::InvalidArgumentError("a run of spilled state is too large".to_owned())
}

/// As of a slice, of the numbers below `length`.
fn partition_point(length: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, length);
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
