//! A segment: up to 64k rows in a row, as Arrow batches, with one bit a row that says whether it lives.
//!
//! Rows are only ever appended, so an offset names the same row for as long as the segment exists.
//! Small batches are merged into larger chunks as they arrive, by size: a chunk is merged with the one
//! before it when that is not much larger, so a row is copied O(log) times and offsets do not change. Batches
//! of [`CHUNK_ROWS`] rows and more are kept as they came, without a copy.
//!
//! The chunks of a segment may lie in files instead ([`StoredChunk`]): all of them or none. Offsets mean the same rows
//! there, and the bitmap stays here, so whoever knows a row by its position does not notice. Nothing is appended to
//! such a segment.
//!
//! A segment is copy-on-write throughout: a clone shares everything until one side changes it.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::RowSelection;

use super::limits::{CHUNK_ROWS, OFFSET_BITS, SEGMENT_ROWS_MAX};
use super::uid;
use crate::tiers::{StoredChunk, Tier};

/// Where a row is: its segment and its offset there. Later rows have greater positions, so all rows up to
/// some epoch are those before a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position(u64);

impl Position {
    pub fn new(segment: u64, offset: usize) -> Self {
        debug_assert!(offset <= SEGMENT_ROWS_MAX);
        // The offset one past a full segment carries into the segment number, which keeps the order.
        Self((segment << OFFSET_BITS) + offset as u64)
    }

    pub fn segment(self) -> u64 {
        self.0 >> OFFSET_BITS
    }

    pub fn offset(self) -> usize {
        (self.0 & (SEGMENT_ROWS_MAX as u64 - 1)) as usize
    }

    /// The position `rows` further on in the same segment.
    pub fn plus(self, rows: usize) -> Self {
        Self(self.0 + rows as u64)
    }

    pub fn to_bits(self) -> u64 {
        self.0
    }

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// One bit a row of a segment: whether it lives.
#[derive(Debug, Clone)]
pub(crate) struct LiveRows {
    words: Vec<u64>,
}

impl LiveRows {
    pub fn all() -> Self {
        Self { words: vec![u64::MAX; SEGMENT_ROWS_MAX / 64] }
    }

    pub fn contains(&self, offset: usize) -> bool {
        self.words[offset / 64] & (1 << (offset % 64)) != 0
    }

    pub fn set(&mut self, offset: usize, lives: bool) {
        let bit = 1 << (offset % 64);
        if lives {
            self.words[offset / 64] |= bit;
        } else {
            self.words[offset / 64] &= !bit;
        }
    }

    /// The bits up to the last row that does not live, in words of 64. All later rows live.
    pub fn words(&self) -> &[u64] {
        let end = self.words.iter().rposition(|word| *word != u64::MAX).map_or(0, |last| last + 1);
        &self.words[..end]
    }

    /// The opposite of [`LiveRows::words`]; `None` if there are too many.
    pub fn from_words(words: impl ExactSizeIterator<Item = u64>) -> Option<Self> {
        let mut live = Self::all();
        if words.len() > live.words.len() {
            return None;
        }
        live.words.iter_mut().zip(words).for_each(|(word, stored)| *word = stored);
        Some(live)
    }

    /// The bits of `length` rows from `start` on.
    pub fn mask(&self, start: usize, length: usize) -> BooleanArray {
        // Whole words are copied, not the bitmap: a mask of a small chunk costs little.
        let first = start / 64;
        let words = &self.words[first..(start + length).div_ceil(64)];
        BooleanArray::new(BooleanBuffer::new(Buffer::from_slice_ref(words), start % 64, length), None)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// The offset of its first row in the segment.
    start: usize,
    count: usize,
    pub body: Body,
}

/// Where the rows of a chunk are.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Memory { rows: RecordBatch, bytes: usize },
    Stored(Arc<StoredChunk>),
}

impl Chunk {
    fn new(start: usize, rows: RecordBatch) -> Self {
        let bytes = rows
            .columns()
            .iter()
            // Not the size of the buffers: a slice of a large batch would count all of it, each time.
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()))
            .sum();
        Self { start, count: rows.num_rows(), body: Body::Memory { rows, bytes } }
    }

    pub fn start(&self) -> usize {
        self.start
    }

    pub fn end(&self) -> usize {
        self.start + self.count
    }

    /// The rows, if they are in memory.
    pub fn memory(&self) -> Option<&RecordBatch> {
        match &self.body {
            Body::Memory { rows, .. } => Some(rows),
            Body::Stored(_) => None,
        }
    }

    pub fn stored(&self) -> Option<&Arc<StoredChunk>> {
        match &self.body {
            Body::Memory { .. } => None,
            Body::Stored(stored) => Some(stored),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.body {
            Body::Memory { bytes, .. } => *bytes,
            Body::Stored(stored) => size_of_val(&**stored),
        }
    }

    /// The rows from offset `from` up to `until` of the segment. Waits for the file if they are in one.
    fn slice(&self, from: usize, until: usize) -> Result<RecordBatch, ArrowError> {
        let (start, length) = (from - self.start, until - from);
        Ok(match &self.body {
            Body::Memory { rows, .. } => rows.slice(start, length),
            Body::Stored(stored) => stored.read_blocking(None, None)?.slice(start, length),
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// Its place in the order of insertion.
    pub id: u64,
    /// What it is known by outside of this process; see [`uid`].
    pub uid: u64,
    rows: usize,
    chunks: Arc<Vec<Chunk>>,
    /// `None` while all rows live.
    live: Option<Arc<LiveRows>>,
    dead: usize,
    /// The dead rows that no readable epoch can see any more.
    pub dead_for_good: usize,
    /// The epoch of the last row, in milliseconds; zero if it is not known.
    pub written_ms: u64,
}

impl Segment {
    pub fn new(id: u64) -> Self {
        let (chunks, uid) = (Arc::default(), uid::next());
        Self { id, uid, rows: 0, chunks, live: None, dead: 0, dead_for_good: 0, written_ms: 0 }
    }

    /// A segment whose rows lie in files.
    pub fn of_stored(id: u64, stored: Vec<Arc<StoredChunk>>) -> Self {
        let mut segment = Self::new(id);
        let mut chunks = Vec::with_capacity(stored.len());
        for stored in stored {
            let (start, count) = (segment.rows, stored.rows);
            chunks.push(Chunk { start, count, body: Body::Stored(stored) });
            segment.rows += count;
        }
        segment.chunks = Arc::new(chunks);
        segment
    }

    /// A segment as it was stored. Nobody remembers its dead rows. `None` if there are too many rows, or rows that
    /// are not there are said to be dead.
    pub fn restored(id: u64, uid: u64, batches: Vec<RecordBatch>, live: Option<LiveRows>) -> Option<Self> {
        let mut segment = Self::new(id);
        let mut chunks = Vec::with_capacity(batches.len());
        for batch in batches {
            let start = segment.rows;
            segment.rows += batch.num_rows();
            chunks.push(Chunk::new(start, batch));
        }
        segment.chunks = Arc::new(chunks);
        segment.as_stored(uid, live)
    }

    /// The segment with the uid and the bitmap that it was stored with. `None` as with [`Segment::restored`].
    pub fn as_stored(self, uid: u64, live: Option<LiveRows>) -> Option<Self> {
        let dead = live.as_ref().map_or(0, |live| live.words.iter().map(|word| word.count_zeros() as usize).sum());
        let last_dead = live.as_ref().and_then(|live| {
            let words = live.words();
            words.last().map(|word| words.len() * 64 - 1 - (!word).leading_zeros() as usize)
        });
        if self.rows > SEGMENT_ROWS_MAX || last_dead.is_some_and(|offset| offset >= self.rows) {
            return None;
        }
        Some(Self { uid, live: live.map(Arc::new), dead, dead_for_good: dead, ..self })
    }

    /// The chunks, if they lie in files.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<StoredChunk>> {
        self.chunks.iter().filter_map(Chunk::stored)
    }

    pub fn tier(&self) -> Tier {
        self.stored().next().map_or(Tier::Hot, |chunk| chunk.file.tier)
    }

    pub fn is_stored(&self) -> bool {
        self.tier() != Tier::Hot
    }

    /// The same segment with other forms of its rows, one for one.
    pub fn map_rows<E>(mut self, form: impl Fn(&RecordBatch) -> Result<RecordBatch, E>) -> Result<Self, E> {
        for chunk in Arc::make_mut(&mut self.chunks) {
            if let Body::Memory { rows, .. } = &mut chunk.body {
                *rows = form(rows)?;
            }
        }
        Ok(self)
    }

    /// The same segment; chunks in files are read with this schema.
    pub fn with_schema(mut self, schema: &SchemaRef) -> Self {
        for chunk in Arc::make_mut(&mut self.chunks) {
            if let Body::Stored(stored) = &mut chunk.body {
                Arc::make_mut(stored).schema = schema.clone();
            }
        }
        self
    }

    /// Lets go of the rows, which are stored elsewhere, and keeps in mind how many there are and which live.
    pub fn forget_rows(&mut self) {
        self.chunks = Arc::default();
    }

    pub fn dead(&self) -> usize {
        self.dead
    }

    pub fn live(&self) -> Option<&LiveRows> {
        self.live.as_deref()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it is more than half dead for good.
    pub fn is_wasteful(&self) -> bool {
        2 * self.dead_for_good > self.rows
    }

    /// A segment of which nothing is left keeps its place, so that later rows come after all that it had.
    pub fn has_room_for(&self, rows: usize) -> bool {
        self.rows > 0 && !self.is_stored() && self.rows + rows <= SEGMENT_ROWS_MAX
    }

    pub fn memory_bytes(&self) -> usize {
        let bitmap = self.live.as_ref().map_or(0, |live| live.words.len() * 8);
        self.chunks.iter().map(Chunk::memory_bytes).sum::<usize>() + bitmap
    }

    /// Appends `rows`, for which there must be room.
    pub fn push(&mut self, rows: RecordBatch) -> Result<(), ArrowError> {
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut first_merged = chunks.len();
        let mut merged_rows = rows.num_rows();
        while merged_rows < CHUNK_ROWS
            && let Some(before) = first_merged.checked_sub(1).map(|index| &chunks[index])
            && before.count < CHUNK_ROWS
            && before.count <= 2 * merged_rows
        {
            merged_rows += before.count;
            first_merged -= 1;
        }
        self.rows += rows.num_rows();
        let start = self.rows - merged_rows;
        let merged = if first_merged == chunks.len() {
            rows
        } else {
            let schema = rows.schema();
            concat_batches(&schema, chunks[first_merged..].iter().filter_map(Chunk::memory).chain([&rows]))?
        };
        chunks.truncate(first_merged);
        chunks.push(Chunk::new(start, merged));
        Ok(())
    }

    pub fn is_live(&self, offset: usize) -> bool {
        self.live.as_ref().is_none_or(|live| live.contains(offset))
    }

    pub fn delete(&mut self, offset: usize) {
        debug_assert!(self.is_live(offset));
        self.live_mut().set(offset, false);
        self.dead += 1;
    }

    /// Undoes a deletion.
    pub fn revive(&mut self, offset: usize) {
        debug_assert!(!self.is_live(offset));
        self.live_mut().set(offset, true);
        self.dead -= 1;
    }

    fn live_mut(&mut self) -> &mut LiveRows {
        Arc::make_mut(self.live.get_or_insert_with(|| Arc::new(LiveRows::all())))
    }

    /// The liveness of all rows, as a bitmap of its own.
    pub fn live_rows(&self) -> LiveRows {
        self.live.as_ref().map_or_else(LiveRows::all, |live| LiveRows::clone(live))
    }

    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The chunk with the row at `offset`, and the row's index in it.
    pub fn locate(&self, offset: usize) -> (usize, usize) {
        let chunk = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        (chunk, offset - self.chunks[chunk].start)
    }

    /// The rows from `start` up to `end`, dead or alive, without a copy. Waits for files.
    pub fn slices(
        &self,
        start: usize,
        end: usize,
    ) -> impl Iterator<Item = Result<(usize, RecordBatch), ArrowError>> + '_ {
        self.chunks.iter().filter_map(move |chunk| {
            let from = start.max(chunk.start);
            let until = end.min(chunk.end());
            (from < until).then(|| Ok((from, chunk.slice(from, until)?)))
        })
    }

    /// The rows of a chunk before `end` that live, by their place in it; `None` if all of it do.
    pub fn live_mask(&self, chunk: &Chunk, end: usize) -> Option<BooleanArray> {
        let length = end.min(chunk.end()).saturating_sub(chunk.start);
        if length == chunk.count && self.dead == 0 {
            return None;
        }
        let mask = match &self.live {
            Some(live) => live.mask(chunk.start, length).values().clone(),
            None => BooleanBuffer::new_set(length),
        };
        let mask: BooleanBuffer = mask.iter().chain(std::iter::repeat_n(false, chunk.count - length)).collect();
        (mask.count_set_bits() < chunk.count).then(|| BooleanArray::new(mask, None))
    }

    /// The live rows before `end`, in columns `projection`. Waits for files.
    pub fn live_batches<'a>(
        &'a self,
        end: usize,
        projection: Option<&'a [usize]>,
    ) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'a {
        (0..self.chunks.len()).filter_map(move |chunk| self.live_batch(chunk, end, projection))
    }

    /// Those of one chunk, by its number; `None` if it begins at `end` or later.
    pub fn live_batch(
        &self,
        chunk: usize,
        end: usize,
        projection: Option<&[usize]>,
    ) -> Option<Result<RecordBatch, ArrowError>> {
        let chunk = self.chunks.get(chunk).filter(|chunk| chunk.start < end)?;
        Some(match &chunk.body {
            Body::Memory { rows, .. } => self.live_in_memory(chunk, rows, end, projection),
            Body::Stored(stored) => {
                let mask = self.live_mask(chunk, end);
                let selection = mask.map(|mask| RowSelection::from_filters(&[mask]));
                stored.read_blocking(projection.map(<[usize]>::to_vec), selection).map_err(ArrowError::from)
            }
        })
    }

    fn live_in_memory(
        &self,
        chunk: &Chunk,
        rows: &RecordBatch,
        end: usize,
        projection: Option<&[usize]>,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = rows.slice(0, end.min(chunk.end()) - chunk.start);
        let rows = match projection {
            Some(columns) => rows.project(columns)?,
            None => rows,
        };
        match &self.live {
            Some(live) if self.dead > 0 => filter_record_batch(&rows, &live.mask(chunk.start, rows.num_rows())),
            _ => Ok(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
    }

    fn values(batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>) -> Vec<i64> {
        batches.flat_map(|b| b.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn small_batches_merge_into_few_chunks_and_offsets_stay() {
        let mut segment = Segment::new(0);
        for start in (0..249).step_by(3) {
            segment.push(batch(start..start + 3)).unwrap();
        }
        assert_eq!(segment.rows(), 249);
        assert!(segment.chunks().len() <= 11, "{} chunks", segment.chunks().len());
        for offset in [0, 1, 124, 248] {
            let (chunk, row) = segment.locate(offset);
            let value = segment.chunks()[chunk].memory().unwrap().column(0).as_primitive::<Int64Type>().value(row);
            assert_eq!(value, offset as i64);
        }
    }

    #[test]
    fn large_batches_are_kept_without_a_copy() {
        let rows = batch(0..240);
        let mut segment = Segment::new(0);
        segment.push(rows.clone()).unwrap();
        segment.push(batch(0..10)).unwrap();
        let kept = segment.chunks()[0].memory().unwrap().column(0).to_data();
        assert_eq!(kept.buffers()[0].as_ptr(), rows.column(0).to_data().buffers()[0].as_ptr());
        assert_eq!(segment.chunks().len(), 2);
    }

    #[test]
    fn deleted_rows_are_left_out_and_may_be_revived() {
        let mut segment = Segment::new(0);
        segment.push(batch(0..100)).unwrap();
        segment.push(batch(100..130)).unwrap();
        let before = segment.clone();
        for offset in 0..128 {
            segment.delete(offset);
        }
        segment.revive(101);
        assert_eq!(values(segment.live_batches(130, None)), vec![101, 128, 129]);
        assert_eq!(values(segment.live_batches(129, Some(&[0]))), vec![101, 128]);
        assert_eq!(values(before.live_batches(130, None)).len(), 130);
    }

    #[test]
    fn positions_are_ordered_over_the_end_of_a_segment() {
        let end = Position::new(3, SEGMENT_ROWS_MAX);
        assert!(Position::new(3, SEGMENT_ROWS_MAX - 1) < end);
        assert!(end <= Position::new(4, 0));
        assert_eq!((Position::new(3, 7).segment(), Position::new(3, 7).offset()), (3, 7));
    }
}
