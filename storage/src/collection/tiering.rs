//! Moves rows from memory to files, and from the warm to the cold tier.
//!
//! Whole segments move, if no readable epoch is before their last row, and none can be: only these may be sorted and
//! rid of dead rows, as [compaction](super::compaction) does. Rows that are dead but still readable at some epoch go along,
//! and stay dead.
//!
//! A move takes three steps: plan on a clone of the shard's rows, write files without any lock, install under the
//! lock. Meanwhile the shard is written: rows that are deleted after the plan are dead in the new segments too, and a
//! segment that grows is closed before it is read. Compaction waits ([`Moving`]). If anything fails, all is as before, and
//! what was written is garbage.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use freshet_types::delta::take_rows;

use super::history::{Deleted, Version};
use super::limits::{MOVED_SEGMENTS_MAX, SEGMENT_ROWS_MAX, SMALL_SEGMENTS_MAX};
use super::retention::times_of;
use super::rows::RowLog;
use super::segment::{Chunk, LiveRows, Position, Segment};
use super::shard::Shard;
use super::{Collection, CollectionError, Inner, Snapshot};
use crate::StorageError;
use crate::tiers::{RowGroup, StoredChunk, Tier, Tiers, encode};

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
/// Hive's name for the folder of rows without a value.
const NO_DAY: &str = "__HIVE_DEFAULT_PARTITION__";
/// Stands for a row that was left behind.
const DROPPED: u32 = u32::MAX;

/// What moves where. Times are in microseconds since 1970.
#[derive(Debug, Clone)]
pub struct TierPolicy {
    /// The column by whose time rows age; without one, the time at which they were written.
    pub time_column: Option<usize>,
    /// Segments whose rows are all older leave memory.
    pub warm_before: Option<i64>,
    /// Segments whose rows are all older go to the cold tier.
    pub cold_before: Option<i64>,
    /// Below which files lie in each tier.
    pub folder: String,
}

impl TierPolicy {
    /// All stays where it is.
    pub fn nothing(folder: String) -> Self {
        Self { time_column: None, warm_before: None, cold_before: None, folder }
    }
}

/// What a move did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    pub rows: usize,
    pub files: usize,
    pub bytes: u64,
    /// Segments that are gone, because nobody could read any row of them.
    pub dropped: usize,
}

/// What lies in one tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Rows that live.
    pub rows: usize,
    /// In memory, or of the row groups in files.
    pub bytes: u64,
    pub files: usize,
    /// The least and the greatest time by which rows age.
    pub times: Option<(i64, i64)>,
}

/// As long as it is there, nobody else moves rows of the shard.
pub(super) struct Moving {
    collection: Arc<Inner>,
    shard: usize,
}

impl Moving {
    /// `None` if somebody does.
    pub fn begin(collection: &Arc<Inner>, shard: usize) -> Option<Self> {
        let was_moving = collection.is_moving[shard].swap(true, Ordering::SeqCst);
        (!was_moving).then(|| Self { collection: collection.clone(), shard })
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.collection.is_moving[self.shard].store(false, Ordering::SeqCst);
    }
}

impl Collection {
    /// Moves what the policy says, a bounded amount; nothing is left to move once this did nothing.
    ///
    /// # Errors
    /// If a file cannot be read or written. What was moved before that is moved.
    pub async fn move_tiers(&self, tiers: &Arc<Tiers>, policy: &TierPolicy) -> Result<Moved, StorageError> {
        let mut moved = Moved::default();
        for shard in 0..self.inner.shards.len() {
            let Some(_moving) = Moving::begin(&self.inner, shard) else { continue };
            let Some(plan) = Plan::new(&self.inner, shard, policy) else { continue };
            let (tier, schema) = (plan.tier, self.inner.description.schema.clone());
            let dropped = plan.sources.iter().filter(|source| source.is_dropped()).count();
            let (inner, by) = (self.inner.clone(), policy.clone());
            let sorted = tokio::task::spawn_blocking(move || plan.sort(&inner, &by)).await;
            let sorted = sorted.map_err(|error| StorageError::Io { reason: error.to_string() })??;
            let stored = sorted.write(tiers, tier, &schema, self.inner.identity.key(), policy).await?;
            let files: BTreeSet<u64> = stored.iter().map(|chunk| chunk.file.number).collect();
            moved.rows += stored.iter().map(|chunk| chunk.rows).sum::<usize>();
            moved.bytes += stored.iter().map(|chunk| chunk.bytes).sum::<u64>();
            moved.files += files.len();
            moved.dropped += dropped;
            sorted.install(stored, &mut self.inner.shards[shard].lock(), self.inner.description.append_only);
        }
        Ok(moved)
    }

    /// What lies in each tier.
    ///
    /// # Errors
    /// If `time_column` has no times.
    pub fn tier_stats(
        &self,
        time_column: Option<usize>,
    ) -> Result<std::collections::BTreeMap<Tier, TierStats>, ArrowError> {
        let mut all = std::collections::BTreeMap::<Tier, TierStats>::new();
        let mut files = HashMap::<Tier, BTreeSet<u64>>::new();
        for shard in &self.inner.shards {
            let rows = shard.lock().rows.clone();
            for segment in rows.segments().iter().filter(|segment| segment.rows() > segment.dead()) {
                let stats = all.entry(segment.tier()).or_default();
                stats.rows += segment.rows() - segment.dead();
                stats.bytes += match segment.tier() {
                    Tier::Hot => segment.memory_bytes() as u64,
                    _ => segment.stored().map(|chunk| chunk.bytes).sum(),
                };
                files.entry(segment.tier()).or_default().extend(segment.stored().map(|chunk| chunk.file.number));
                stats.times = joined(stats.times, times(segment, time_column)?);
            }
        }
        for (tier, files) in files {
            all.entry(tier).or_default().files = files.len();
        }
        Ok(all)
    }

    /// The segments in memory that could move: the time of the last row of each, and the bytes that it takes. What
    /// is oldest is best moved first when memory is short.
    ///
    /// # Errors
    /// If `time_column` has no times.
    pub fn movable_segments(&self, time_column: Option<usize>) -> Result<Vec<(i64, usize)>, ArrowError> {
        let mut movable = Vec::new();
        for shard in &self.inner.shards {
            let (rows, base_end) = {
                let shard = shard.lock();
                (shard.rows.clone(), shard.history.base_end())
            };
            for segment in rows.segments().iter().filter(|segment| !segment.is_stored() && segment.rows() > 0) {
                if Position::new(segment.id, segment.rows()) <= base_end {
                    movable.push((last_time(segment, time_column)?, segment.memory_bytes()));
                }
            }
        }
        Ok(movable)
    }
}

impl Snapshot {
    /// Live rows that were written before `before` (microseconds since 1970), as far as whole segments were; at least
    /// `rows_max` if there are as many.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn written_before(&self, before: i64, rows_max: usize) -> Result<RecordBatch, CollectionError> {
        let mut found = Vec::new();
        let mut count = 0;
        for shard in self.shards() {
            for (segment, end) in shard.rows.segments_before(shard.end) {
                if count >= rows_max || last_time(segment, None)? >= before {
                    continue;
                }
                for rows in segment.live_batches(end, None) {
                    let rows = rows?;
                    count += rows.num_rows();
                    found.push(rows);
                }
            }
        }
        Ok(concat_batches(self.schema(), &found)?)
    }
}

fn bounds(times: &Int64Array) -> Option<(i64, i64)> {
    Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
}

fn joined(one: Option<(i64, i64)>, other: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

/// The least and the greatest time of a segment's rows.
fn times(segment: &Segment, time_column: Option<usize>) -> Result<Option<(i64, i64)>, ArrowError> {
    let written_us = i64::try_from(segment.written_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
    if segment.is_stored() {
        return Ok(segment.stored().map(|chunk| chunk.times).fold(None, joined));
    }
    let Some(column) = time_column else { return Ok(Some((written_us, written_us))) };
    let mut found = None;
    for rows in segment.live_batches(segment.rows(), Some(&[column])) {
        found = joined(found, bounds(&times_of(&rows?, 0)?));
    }
    Ok(found)
}

/// How old a segment is: the time of its last row, or of its writing if no row has one.
fn last_time(segment: &Segment, time_column: Option<usize>) -> Result<i64, ArrowError> {
    let written_us = i64::try_from(segment.written_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
    Ok(times(segment, time_column)?.map_or(written_us, |(_, last)| last))
}

/// Segments that go to one tier.
struct Plan {
    tier: Tier,
    sources: Vec<Source>,
}

struct Source {
    segment: Segment,
    /// The rows to take along: those that live, and those that a readable epoch still sees.
    kept: LiveRows,
}

impl Source {
    fn is_dropped(&self) -> bool {
        self.segment.rows() > 0 && !self.segment.chunks().iter().any(|chunk| keeps_some(&self.kept, chunk))
    }
}

fn keeps_some(kept: &LiveRows, chunk: &Chunk) -> bool {
    kept.mask(chunk.start(), chunk.end() - chunk.start()).true_count() > 0
}

impl Plan {
    /// What should move first in a shard.
    fn new(collection: &Inner, number: usize, policy: &TierPolicy) -> Option<Self> {
        let shard = &collection.shards[number];
        let (rows, base_end, later) = {
            let shard = shard.lock();
            let later: Vec<Arc<Deleted>> = shard.history.later().filter_map(Version::deleted_shared).collect();
            (shard.rows.clone(), shard.history.base_end(), later)
        };
        let settled = |segment: &&Segment| Position::new(segment.id, segment.rows()) <= base_end;
        let last = rows.segments().last()?.id;
        let mut by_tier: [Vec<Segment>; 2] = Default::default();
        for segment in rows.segments().iter().filter(settled).filter(|segment| segment.rows() > 0) {
            // A column without times was refused when the policy was declared.
            let Some(tier) = wanted_tier(segment, policy).ok()? else { continue };
            by_tier[usize::from(tier == Tier::Warm)].push(segment.clone());
        }
        add_small(&rows, &mut by_tier);
        let (tier, mut chosen) =
            [Tier::Cold, Tier::Warm].into_iter().zip(by_tier).find(|(_, some)| !some.is_empty())?;
        chosen.sort_by_key(|segment| segment.id);
        chosen.truncate(MOVED_SEGMENTS_MAX);
        if chosen.last().is_some_and(|segment| segment.id == last) && !close(&mut shard.lock().rows, chosen.last()?) {
            // It grows: then it is not old.
            chosen.pop();
        }
        // What nothing is left of only keeps a place.
        let is_empty = |segment: &&Segment| segment.rows() == 0 && segment.id < last;
        chosen.extend(rows.segments().iter().filter(is_empty).cloned());
        chosen.sort_by_key(|segment| segment.id);
        if chosen.iter().all(|segment| segment.rows() == 0) {
            return None;
        }
        let sources = chosen.into_iter().map(|segment| Source { kept: segment.live_rows(), segment }).collect();
        let mut plan = Self { tier, sources };
        plan.keep_what_is_readable(&later);
        Some(plan)
    }

    fn keep_what_is_readable(&mut self, later: &[Arc<Deleted>]) {
        for position in later.iter().flat_map(|deleted| &deleted.positions) {
            let place = self.sources.binary_search_by_key(&position.segment(), |source| source.segment.id);
            if let Ok(index) = place {
                self.sources[index].kept.set(position.offset(), true);
            }
        }
    }

    /// Reads all rows and sorts them by time, then key.
    fn sort(self, collection: &Inner, policy: &TierPolicy) -> Result<Sorted, ArrowError> {
        let schema = &collection.description.schema;
        let mut batches = Vec::new();
        let mut written = Vec::new();
        for Source { segment, kept } in &self.sources {
            // Of what nothing is kept, nothing is read.
            let chunks = segment.chunks().iter().filter(|chunk| keeps_some(kept, chunk));
            for slice in chunks.flat_map(|chunk| segment.slices(chunk.start(), chunk.end())) {
                let (start, rows) = slice?;
                let rows = filter_record_batch(&rows, &kept.mask(start, rows.num_rows()))?;
                let written_us = i64::try_from(segment.written_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
                written.extend(std::iter::repeat_n(written_us, rows.num_rows()));
                batches.push(rows);
            }
        }
        let rows = concat_batches(schema, &batches)?;
        let times = match policy.time_column {
            Some(column) => times_of(&rows, column)?,
            None => Int64Array::from(written),
        };
        let order = order(&rows, &times, collection.identity.key())?;
        let rows = take_rows(&rows, &order)?;
        let times = arrow::compute::take(&times, &order, None)?;
        let times: &Int64Array = arrow::array::AsArray::as_primitive(&times);
        let mut ranks = vec![0_u32; rows.num_rows()];
        for (rank, row) in (0..).zip(order.values()) {
            ranks[*row as usize] = rank;
        }
        let mut ranks = ranks.into_iter();
        let mut moves = Vec::with_capacity(self.sources.len());
        for Source { segment, kept } in &self.sources {
            let rank = |offset| if kept.contains(offset) { ranks.next().unwrap_or(DROPPED) } else { DROPPED };
            moves.push((0..segment.rows()).map(rank).collect());
        }
        let hashes = collection.identity.keys(&rows)?.hashes();
        let sources = self.sources.into_iter().map(|source| source.segment).collect();
        Ok(Sorted { sources, moves, times: times.clone(), rows, hashes })
    }
}

/// The tier that a segment should go to, if it should go.
fn wanted_tier(segment: &Segment, policy: &TierPolicy) -> Result<Option<Tier>, ArrowError> {
    let current = segment.tier();
    let needs_rewriting = current != Tier::Hot && segment.is_wasteful();
    let last = last_time(segment, policy.time_column)?;
    let is_before = |bound: Option<i64>| bound.is_some_and(|bound| last < bound);
    let by_age = match (is_before(policy.cold_before), is_before(policy.warm_before)) {
        (true, _) => Tier::Cold,
        (false, true) => Tier::Warm,
        (false, false) => Tier::Hot,
    };
    let wanted = by_age.max(current);
    Ok((wanted > current || needs_rewriting).then_some(wanted))
}

/// Adds small segments of files, once there are many: they become one.
fn add_small(rows: &RowLog, by_tier: &mut [Vec<Segment>; 2]) {
    for (tier, chosen) in [Tier::Cold, Tier::Warm].into_iter().zip(by_tier) {
        let is_small = |segment: &&Segment| segment.tier() == tier && 4 * segment.rows() < SEGMENT_ROWS_MAX;
        let is_new = |segment: &&Segment| chosen.iter().all(|other| other.id != segment.id);
        let small: Vec<Segment> = rows.segments().iter().filter(is_small).filter(is_new).cloned().collect();
        if small.len() >= SMALL_SEGMENTS_MAX {
            chosen.extend(small);
        }
    }
}

/// Has later rows go to a new segment, if this one has not grown.
fn close(rows: &mut RowLog, last: &Segment) -> bool {
    let is_last = rows.segments().last().is_some_and(|now| now.id == last.id && now.rows() == last.rows());
    if is_last {
        rows.exchange(&BTreeSet::new(), vec![Segment::new(last.id + 1)]);
    }
    is_last
}

fn order(
    rows: &RecordBatch,
    times: &Int64Array,
    key: Option<&[usize]>,
) -> Result<arrow::array::UInt32Array, ArrowError> {
    let options = Some(SortOptions { descending: false, nulls_first: true });
    let mut columns = vec![SortColumn { values: Arc::new(times.clone()), options }];
    let sortable = key.unwrap_or_default().iter().map(|column| rows.column(*column));
    let sortable = sortable.filter(|column| !column.data_type().is_nested());
    columns.extend(sortable.map(|column| SortColumn { values: column.clone(), options }));
    lexsort_to_indices(&columns, None)
}

/// Rows on their way.
struct Sorted {
    sources: Vec<Segment>,
    /// For each row of each source, where it is in `rows`, or [`DROPPED`].
    moves: Vec<Vec<u32>>,
    rows: RecordBatch,
    times: Int64Array,
    hashes: Vec<u64>,
}

impl Sorted {
    /// Writes the rows to files: row groups that do not reach over the end of a segment, in the cold tier nor over that
    /// of a day; a file a day there, else one file.
    async fn write(
        &self,
        tiers: &Arc<Tiers>,
        tier: Tier,
        schema: &SchemaRef,
        key: Option<&[usize]>,
        policy: &TierPolicy,
    ) -> Result<Vec<Arc<StoredChunk>>, StorageError> {
        let mut chunks = Vec::new();
        let mut start = 0;
        while start < self.rows.num_rows() {
            let day = if tier == Tier::Cold { Some(self.day(start)) } else { None };
            let end = (start..self.rows.num_rows()).find(|row| day.is_some_and(|day| self.day(*row) != day));
            let end = end.unwrap_or(self.rows.num_rows());
            let mut folder = vec![policy.folder.clone()];
            folder.extend(day.map(|day| partition(schema, policy.time_column, day)));
            chunks.extend(self.write_file(tiers, tier, &folder, (schema, key), start..end).await?);
            start = end;
        }
        Ok(chunks)
    }

    async fn write_file(
        &self,
        tiers: &Arc<Tiers>,
        tier: Tier,
        folder: &[String],
        (schema, key): (&SchemaRef, Option<&[usize]>),
        range: std::ops::Range<usize>,
    ) -> Result<Vec<Arc<StoredChunk>>, StorageError> {
        let mut starts = vec![range.start];
        let next = (range.start / SEGMENT_ROWS_MAX + 1) * SEGMENT_ROWS_MAX;
        starts.extend((next..range.end).step_by(SEGMENT_ROWS_MAX));
        let ends = starts.iter().copied().skip(1).chain([range.end]);
        let spans: Vec<(usize, usize)> =
            starts.iter().copied().zip(ends).map(|(start, end)| (start, end - start)).collect();
        let groups: Vec<RowGroup> =
            spans.iter().map(|(start, length)| RowGroup { rows: self.rows.slice(*start, *length) }).collect();
        let (own_schema, own_key) = (schema.clone(), key.map(<[usize]>::to_vec));
        let encoded = tokio::task::spawn_blocking(move || encode(&own_schema, own_key.as_deref(), &groups)).await;
        let (contents, bytes) = encoded.map_err(|error| StorageError::Io { reason: error.to_string() })??;
        let file = tiers.write(tier, folder, contents).await?;
        let chunk = |(row_group, ((start, rows), bytes)): (usize, ((usize, usize), u64))| {
            let times = self.times.slice(start, rows);
            Arc::new(StoredChunk {
                tiers: tiers.clone(),
                file: file.clone(),
                row_group,
                rows,
                bytes,
                times: bounds(&times),
                has_timeless: times.null_count() > 0,
                schema: schema.clone(),
            })
        };
        Ok(spans.into_iter().zip(bytes).enumerate().map(chunk).collect())
    }

    fn day(&self, row: usize) -> Option<i64> {
        self.times.is_valid(row).then(|| self.times.value(row).div_euclid(DAY_US))
    }

    /// Puts the rows that are in files now in the place of those that were in the sources.
    fn install(self, chunks: Vec<Arc<StoredChunk>>, shard: &mut Shard, append_only: bool) {
        let Self { sources, moves, hashes, .. } = self;
        let mut segments = new_segments(&sources, chunks);
        let place = |rank: u32| {
            let rank = rank as usize;
            (rank / SEGMENT_ROWS_MAX, rank % SEGMENT_ROWS_MAX)
        };
        let mut left_memory = Vec::new();
        for (source, ranks) in sources.iter().zip(&moves) {
            for (offset, rank) in ranks.iter().enumerate().filter(|(_, rank)| **rank != DROPPED) {
                let from = Position::new(source.id, offset);
                let (segment, at) = place(*rank);
                if !shard.rows.is_live(from) {
                    segments[segment].delete(at);
                } else if !source.is_stored() {
                    left_memory.push((hashes[*rank as usize], from));
                }
            }
        }
        let mut readable_dead = vec![0; segments.len()];
        let by_id: HashMap<u64, &Vec<u32>> = sources.iter().map(|source| source.id).zip(&moves).collect();
        for version in shard.history.later_mut() {
            let new_place = |position: Position| Some(place(by_id.get(&position.segment())?[position.offset()]));
            for (segment, _) in version.deleted().iter().filter_map(|position| new_place(*position)) {
                readable_dead[segment] += 1;
            }
            version
                .relocate(|position| new_place(position).map(|(segment, at)| Position::new(segments[segment].id, at)));
        }
        for (segment, readable) in segments.iter_mut().zip(readable_dead) {
            segment.dead_for_good = segment.dead() - readable;
        }
        for (hash, position) in left_memory {
            shard.forget(hash, position, append_only);
        }
        let gone = sources.iter().map(|source| source.id).collect();
        shard.rows.exchange(&gone, segments);
        shard.generation += 1;
    }
}

/// Segments of `chunks` under the first ids of the sources. There are enough: each is full but the last.
fn new_segments(sources: &[Segment], chunks: Vec<Arc<StoredChunk>>) -> Vec<Segment> {
    let written_ms = sources.iter().map(|source| source.written_ms).max().unwrap_or(0);
    let mut parts: Vec<Vec<Arc<StoredChunk>>> = Vec::new();
    let mut done = 0;
    for chunk in chunks {
        if done % SEGMENT_ROWS_MAX == 0 {
            parts.push(Vec::new());
        }
        done += chunk.rows;
        parts.last_mut().expect("the first chunk begins a segment").push(chunk);
    }
    let with_ids = sources.iter().map(|source| source.id).zip(parts);
    let segment = |(id, chunks)| {
        let mut segment = Segment::of_stored(id, chunks);
        segment.written_ms = written_ms;
        segment
    };
    with_ids.map(segment).collect()
}

/// `ts_day=2026-11-21`, as Hive names folders.
fn partition(schema: &SchemaRef, time_column: Option<usize>, day: Option<i64>) -> String {
    let column = time_column.map_or("written", |column| schema.field(column).name().as_str());
    let date = day.and_then(|day| i32::try_from(day).ok());
    let date = date.and_then(arrow::temporal_conversions::date32_to_datetime);
    format!("{column}_day={}", date.map_or(NO_DAY.to_owned(), |date| date.date().to_string()))
}
