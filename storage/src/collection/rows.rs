//! The rows of a shard: segments in order of insertion, addressed by position.
//!
//! A clone is the rows as they are now: it shares all segments, and neither side sees what the other
//! does later. It costs two reference counts, and the first change after it copies what it touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use hashbrown::HashMap;
use parquet::arrow::arrow_reader::RowSelection;

use super::limits::SEGMENT_ROWS_MAX;
use super::segment::{Body, Chunk, Position, Segment};

/// Rows that lie one after the other: where the first is, and how many.
pub(crate) type Run = (Position, usize);

#[derive(Debug, Clone)]
pub(crate) struct RowLog {
    schema: SchemaRef,
    /// By ascending id; ids may be missing where segments were compacted away.
    segments: Arc<Vec<Segment>>,
}

impl RowLog {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, segments: Arc::default() }
    }

    /// Rows in `segments`, which are in the order of their ids.
    pub fn of_segments(schema: SchemaRef, segments: Vec<Segment>) -> Self {
        Self { schema, segments: Arc::new(segments) }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub fn segments_mut(&mut self) -> &mut [Segment] {
        let segments: &mut Vec<Segment> = Arc::make_mut(&mut self.segments);
        segments
    }

    pub fn memory_bytes(&self) -> usize {
        self.segments.iter().map(Segment::memory_bytes).sum()
    }

    /// How many rows there are, dead or alive.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Segment::rows).sum()
    }

    /// How many of them live.
    pub fn live(&self) -> usize {
        self.segments.iter().map(|segment| segment.rows() - segment.dead()).sum()
    }

    /// The position after the last row.
    pub fn end(&self) -> Position {
        self.segments.last().map_or_else(Position::default, |last| Position::new(last.id, last.rows()))
    }

    /// Appends `rows`; says where they are now.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<Vec<Run>, ArrowError> {
        let segments = Arc::make_mut(&mut self.segments);
        let mut runs = Vec::with_capacity(1);
        let mut done = 0;
        while done < rows.num_rows() {
            let length = (rows.num_rows() - done).min(SEGMENT_ROWS_MAX);
            // A batch that does not fit starts a new segment: filling up the old one would split
            // the batch, and its halves would then be copied to merge with their neighbours.
            if segments.last().is_none_or(|open| !open.has_room_for(length)) {
                let id = segments.last().map_or(0, |last| last.id + 1);
                segments.push(Segment::new(id));
            }
            let open = segments.last_mut().expect("one was pushed if there was none");
            runs.push((Position::new(open.id, open.rows()), length));
            open.push(rows.slice(done, length))?;
            done += length;
        }
        Ok(runs)
    }

    fn index_of(segments: &[Segment], position: Position) -> usize {
        // Ids are dense until segments are compacted away, so the first guess is mostly right.
        let id = position.segment();
        let first = segments.first().map_or(0, |segment| segment.id);
        let guess = usize::try_from(id - first).expect("a shard has fewer than 2^48 segments");
        match segments.get(guess) {
            Some(segment) if segment.id == id => guess,
            _ => segments.partition_point(|segment| segment.id < id),
        }
    }

    /// The segment of a row that is in the log.
    fn segment(&self, position: Position) -> &Segment {
        &self.segments[Self::index_of(&self.segments, position)]
    }

    /// Marks rows that live as dead.
    pub fn delete(&mut self, positions: &[Position]) {
        self.change(positions, Segment::delete);
    }

    /// Undoes [`RowLog::delete`].
    pub fn revive(&mut self, positions: &[Position]) {
        self.change(positions, Segment::revive);
    }

    fn change(&mut self, positions: &[Position], change: impl Fn(&mut Segment, usize)) {
        if positions.is_empty() {
            return;
        }
        let segments = Arc::make_mut(&mut self.segments);
        for position in positions {
            let index = Self::index_of(segments, *position);
            change(&mut segments[index], position.offset());
        }
    }

    /// Counts rows that were deleted as out of every reader's sight. Puts the segments that are now
    /// more than half dead for good into `wasteful`.
    pub fn bury(&mut self, positions: &[Position], wasteful: &mut BTreeSet<u64>) {
        if positions.is_empty() {
            return;
        }
        let segments = Arc::make_mut(&mut self.segments);
        for position in positions {
            let index = Self::index_of(segments, *position);
            let segment = &mut segments[index];
            segment.dead_for_good += 1;
            if segment.is_wasteful() {
                wasteful.insert(segment.id);
            }
        }
    }

    /// The segments that are more than half dead for good.
    pub fn wasteful(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().filter(|segment| segment.is_wasteful()).map(|segment| segment.id)
    }

    /// Puts `segment`, if any, in the place of the segments at `range`.
    pub fn replace(&mut self, range: std::ops::Range<usize>, segment: Option<Segment>) {
        Arc::make_mut(&mut self.segments).splice(range, segment);
    }

    /// The rows at `positions`, in that order, in columns `projection`.
    pub fn gather(&self, positions: &[Position], projection: Option<&[usize]>) -> Result<RecordBatch, ArrowError> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        if positions.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        let (batches, places) = self.places(positions, projection)?;
        let columns = (0..schema.fields().len())
            .map(|index| {
                let sources: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
                interleave(&sources, &places)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(positions.len()));
        RecordBatch::try_new_with_options(schema, columns, &options)
    }

    /// The distinct chunks that hold `positions`, in columns `projection`, and for each position its chunk and row
    /// there. Of chunks in files, only the rows asked for are read.
    fn places(
        &self,
        positions: &[Position],
        projection: Option<&[usize]>,
    ) -> Result<(Vec<RecordBatch>, Vec<(usize, usize)>), ArrowError> {
        let mut chunks: Vec<(&Chunk, Vec<usize>)> = Vec::new();
        let mut known: HashMap<(u64, usize), usize> = HashMap::new();
        let mut places = Vec::with_capacity(positions.len());
        for position in positions {
            let segment = self.segment(*position);
            let (number, row) = segment.locate(position.offset());
            let index = *known.entry((segment.id, number)).or_insert_with(|| {
                chunks.push((&segment.chunks()[number], Vec::new()));
                chunks.len() - 1
            });
            let (chunk, rows) = &mut chunks[index];
            if chunk.stored().is_some() {
                rows.push(row);
            }
            places.push((index, row));
        }
        let mut batches = Vec::with_capacity(chunks.len());
        for (chunk, rows) in &mut chunks {
            batches.push(match &chunk.body {
                Body::Memory { rows, .. } => match projection {
                    Some(columns) => rows.project(columns)?,
                    None => rows.clone(),
                },
                Body::Stored(stored) => {
                    rows.sort_unstable();
                    rows.dedup();
                    let ranges = rows.iter().map(|row| *row..row + 1);
                    let selection = RowSelection::from_consecutive_ranges(ranges, stored.rows);
                    stored.read_blocking(projection.map(<[usize]>::to_vec), Some(selection))?
                }
            });
        }
        for (index, row) in &mut places {
            let (chunk, rows) = &chunks[*index];
            if chunk.stored().is_some() {
                *row = rows.partition_point(|other| other < row);
            }
        }
        Ok((batches, places))
    }

    /// Whether the row lies in a file.
    pub fn is_stored(&self, position: Position) -> bool {
        self.segment(position).is_stored()
    }

    pub fn is_live(&self, position: Position) -> bool {
        self.segment(position).is_live(position.offset())
    }

    /// Whether any rows lie in files.
    pub fn has_stored(&self) -> bool {
        self.segments.iter().any(Segment::is_stored)
    }

    /// Says that the rows of segments `first` and later were written in an epoch.
    pub fn written(&mut self, first: u64, epoch_ms: u64) {
        let segments = Arc::make_mut(&mut self.segments);
        for segment in segments.iter_mut().rev().take_while(|segment| segment.id >= first) {
            segment.written_ms = segment.written_ms.max(epoch_ms);
        }
    }

    /// Takes the segments with the ids `gone` out, and puts `new` in, each where its id belongs.
    pub fn exchange(&mut self, gone: &BTreeSet<u64>, new: Vec<Segment>) {
        let segments = Arc::make_mut(&mut self.segments);
        segments.retain(|segment| !gone.contains(&segment.id));
        segments.extend(new);
        segments.sort_by_key(|segment| segment.id);
    }

    /// The rows from `start` up to `end`, dead or alive, each batch with the position of its first row.
    pub fn slices(
        &self,
        start: Position,
        end: Position,
    ) -> impl Iterator<Item = Result<(Position, RecordBatch), ArrowError>> + '_ {
        self.segments_between(start, end).flat_map(|(segment, from, until)| {
            let slices = segment.slices(from, until);
            slices.map(|slice| slice.map(|(offset, rows)| (Position::new(segment.id, offset), rows)))
        })
    }

    /// The segments with rows before `end`, and before which offset.
    pub fn segments_before(&self, end: Position) -> impl Iterator<Item = (&Segment, usize)> {
        self.segments_between(Position::default(), end).map(|(segment, _, until)| (segment, until))
    }

    /// The segments with rows between two positions, and from and until which offset.
    pub fn segments_between(&self, start: Position, end: Position) -> impl Iterator<Item = (&Segment, usize, usize)> {
        let first = self.segments.partition_point(|segment| Position::new(segment.id, segment.rows()) <= start);
        self.segments[first..].iter().take_while(move |segment| Position::new(segment.id, 0) < end).map(
            move |segment| {
                let from = if segment.id == start.segment() { start.offset() } else { 0 };
                let until = if segment.id == end.segment() { end.offset() } else { segment.rows() };
                (segment, from, until)
            },
        )
    }
}
