//! A state table at rest: a log of rows by id, in segments.
//!
//! A changed row is appended and its old place marked dead, so a checkpoint writes what changed and no more. In memory are
//! the place of each id ([`Places`]), the bitmaps, and only those rows that are not in a file yet or in the segment that still
//! grows: the operator has all of them in a form of its own. A segment that is full and more than half dead is
//! rewritten: its live rows are appended anew.
//!
//! The log is what has been told, whether or not a checkpoint could make it durable: what is missing in the
//! files is still in memory, and the next checkpoint writes it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;

use super::change::{StateRows, TableChange};
use super::manifest::Piece;
use super::places::Places;
use crate::collection::rows::RowLog;
use crate::collection::segment::{Chunk, Position, Segment};

const ID_COLUMN: &str = "freshet_id";
/// Segments that are rewritten by one checkpoint, at most.
const REWRITES_MAX: usize = 4;

pub(super) struct StateLog {
    /// The first column is the id.
    rows: RowLog,
    /// Where the row of each id is, or was.
    places: Places,
}

impl StateLog {
    /// An empty log of rows with the schema `schema`.
    pub fn new(schema: &Schema) -> Self {
        let id = Arc::new(Field::new(ID_COLUMN, DataType::UInt32, false));
        let fields: Vec<_> = std::iter::once(id).chain(schema.fields().iter().cloned()).collect();
        Self { rows: RowLog::new(Arc::new(Schema::new(fields))), places: Places::default() }
    }

    pub fn segments(&self) -> &[Segment] {
        self.rows.segments()
    }

    /// Where the row of `id` is, if there is one.
    fn place(&self, id: u32) -> Option<Position> {
        place_of(&self.places, self.rows.segments(), id)
    }

    /// How many segments do not grow any more.
    fn full(&self) -> usize {
        self.rows.segments().len().saturating_sub(1)
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.places.memory_bytes()
    }

    /// Follows a change of the table.
    ///
    /// # Errors
    /// If the rows have other types than those before, and the change does not reset the table. Nothing is changed then.
    pub fn apply(&mut self, change: &TableChange) -> Result<(), ArrowError> {
        if change.reset {
            *self = Self::new(&change.changed.rows.schema());
        }
        let rows = self.with_ids(&change.changed)?;
        self.delete(&change.gone);
        self.delete(&change.changed.ids);
        self.append(&rows)
    }

    /// Takes in rows that are new or other than before.
    ///
    /// # Errors
    /// See [`StateLog::apply`].
    pub fn put(&mut self, rows: &StateRows) -> Result<(), ArrowError> {
        let with_ids = self.with_ids(rows)?;
        self.delete(&rows.ids);
        self.append(&with_ids)
    }

    fn with_ids(&self, StateRows { ids, rows }: &StateRows) -> Result<RecordBatch, ArrowError> {
        let columns = std::iter::once(Arc::new(UInt32Array::from(ids.clone())) as ArrayRef);
        RecordBatch::try_new(self.rows.schema().clone(), columns.chain(rows.columns().iter().cloned()).collect())
    }

    /// Marks the rows of `ids`, each of which is there once at most, as dead.
    fn delete(&mut self, ids: &[u32]) {
        let mut dead: Vec<Position> = ids.iter().filter_map(|id| self.place(*id)).collect();
        dead.sort_unstable();
        dead.dedup();
        self.rows.delete(&dead);
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let mut ids = rows.column(0).as_primitive::<UInt32Type>().values().iter();
        for (start, length) in self.rows.append(rows)? {
            for (offset, id) in ids.by_ref().take(length).enumerate() {
                self.places.set(*id, start.plus(offset));
            }
        }
        Ok(())
    }

    /// Drops the full segments that have no live row. Gives the uids of those that are worth rewriting.
    pub fn sparse(&mut self) -> Vec<u64> {
        for index in (0..self.full()).rev() {
            let segment = &self.rows.segments()[index];
            if segment.dead() == segment.rows() {
                self.rows.replace(index..index + 1, None);
            }
        }
        let full = self.rows.segments()[..self.full()].iter();
        full.filter(|segment| 2 * segment.dead() > segment.rows())
            .map(|segment| segment.uid)
            .take(REWRITES_MAX)
            .collect()
    }

    /// Whether all rows of a segment are in memory.
    pub fn has_rows(&self, uid: u64) -> bool {
        self.rows.segments().iter().any(|segment| segment.uid == uid && !segment.chunks().is_empty())
    }

    /// Appends the live rows of a full segment anew. `stored` is that segment with its rows; not needed if
    /// they are in memory.
    pub fn rewrite(&mut self, uid: u64, stored: Option<&Segment>) -> Result<(), ArrowError> {
        let Some(index) = self.rows.segments().iter().position(|segment| segment.uid == uid) else {
            return Ok(());
        };
        let segment = self.rows.segments()[index].clone();
        let source = stored.unwrap_or(&segment);
        let live = segment.live_rows();
        for slice in source.slices(0, segment.rows()) {
            let (start, rows) = slice?;
            let rows = filter_record_batch(&rows, &live.mask(start, rows.num_rows()))?;
            self.append(&rows)?;
        }
        self.rows.replace(index..index + 1, None);
        Ok(())
    }

    /// The full segments whose rows are in memory: no file has them yet.
    pub fn unwritten(&self) -> impl Iterator<Item = &Segment> {
        self.rows.segments()[..self.full()].iter().filter(|segment| !segment.chunks().is_empty())
    }

    /// Lets go of the rows of full segments that are in files now, which are those of `piece`.
    pub fn saved(&mut self, piece: &Piece) {
        let full = self.full();
        for segment in &mut self.rows.segments_mut()[..full] {
            if piece.get(&segment.uid).is_some_and(|stored| stored.rows() == segment.rows()) {
                segment.forget_rows();
            }
        }
    }
}

fn place_of(places: &Places, segments: &[Segment], id: u32) -> Option<Position> {
    let place = places.get(id)?;
    let segment = segments.binary_search_by_key(&place.segment(), |segment| segment.id).ok()?;
    segments[segment].is_live(place.offset()).then_some(place)
}

/// A log that comes back from files, segment by segment; the rows of one at a time are in memory.
#[derive(Default)]
pub(super) struct ReturningLog {
    schema: Option<SchemaRef>,
    segments: Vec<Segment>,
    places: Places,
}

impl ReturningLog {
    /// Takes the next segment, in the order of their ids. Gives its live rows.
    ///
    /// # Errors
    /// If it is not of the same log as those before.
    pub fn push(&mut self, segment: Segment) -> Result<Vec<StateRows>, ArrowError> {
        let damaged = |reason: String| Err(ArrowError::InvalidArgumentError(reason));
        let rows = live_rows(&segment, self.schema.as_ref())?;
        if self.schema.is_none() {
            self.schema = segment.chunks().first().and_then(Chunk::memory).map(|rows| rows.schema());
        }
        for slice in segment.slices(0, segment.rows()) {
            let (start, rows) = slice?;
            let ids = rows.column(0).as_primitive::<UInt32Type>().values();
            for (offset, id) in (start..).zip(ids).filter(|(offset, _)| segment.is_live(*offset)) {
                let place = Position::new(segment.id, offset);
                let is_twice = self.places.get(*id).is_some_and(|other| other.segment() == segment.id)
                    || place_of(&self.places, &self.segments, *id).is_some();
                if is_twice {
                    return damaged(format!("the id {id} is there twice"));
                }
                self.places.set(*id, place);
            }
        }
        // The last one grows.
        self.segments.last_mut().into_iter().for_each(Segment::forget_rows);
        self.segments.push(segment);
        Ok(rows)
    }

    /// The log; `None` if there was no segment, so that the columns are not known.
    pub fn finish(self) -> Option<StateLog> {
        let Self { schema, segments, places } = self;
        schema.map(|schema| StateLog { rows: RowLog::of_segments(schema, segments), places })
    }
}

/// The live rows of a segment, if its columns are those of `schema`.
///
/// # Errors
/// If they are not, or none of them has ids.
pub(super) fn live_rows(segment: &Segment, schema: Option<&SchemaRef>) -> Result<Vec<StateRows>, ArrowError> {
    let is_of_log = |chunk: &Chunk| {
        chunk.memory().is_some_and(|rows| {
            let own = rows.schema();
            let has_ids = own.fields().first().is_some_and(|field| *field.data_type() == DataType::UInt32);
            has_ids && schema.is_none_or(|schema| *schema == own)
        })
    };
    if !segment.chunks().iter().all(is_of_log) {
        return Err(ArrowError::InvalidArgumentError("its segments do not have the same columns".to_owned()));
    }
    let batches = segment.live_batches(segment.rows(), None).collect::<Result<Vec<_>, _>>()?;
    batches.iter().filter(|rows| rows.num_rows() > 0).map(split).collect()
}

/// Ids and rows apart.
fn split(rows: &RecordBatch) -> Result<StateRows, ArrowError> {
    let ids = rows.column(0).as_primitive::<UInt32Type>().values().to_vec();
    let schema = Arc::new(Schema::new(rows.schema().fields()[1..].to_vec()));
    let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
    let rows = RecordBatch::try_new_with_options(schema, rows.columns()[1..].to_vec(), &options)?;
    Ok(StateRows { ids, rows })
}
