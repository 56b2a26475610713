//! Compaction: segments that are mostly dead are rewritten, with their neighbours, as one.
//!
//! A row is dropped only if no readable epoch can see it, that is if it was deleted at or before `since`.
//! Only segments whose every row was inserted at or before `since` take part, so versions by position
//! stay true, and never the one that still grows. The new segment takes the id of the first old one.
//!
//! The shard's writer does this in three steps: plan under the lock, rewrite without it, install under
//! it. It is the only one who changes a shard but for [moves between tiers](super::tiering), and these two exclude
//! each other, so nothing moves in between. Work is bounded: one call
//! rewrites at most one full segment, and reads [`COMPACTION_SOURCES_MAX`].

use std::collections::BTreeSet;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;

use super::identity::Identity;
use super::limits::{COMPACTION_SOURCES_MAX, DELETIONS_PER_ROW_GAINED, SEGMENT_ROWS_MAX};
use super::segment::{LiveRows, Position, Segment};
use super::shard::Shard;

/// Segments to rewrite as one.
pub(super) struct Plan {
    /// Their places in the list of segments.
    range: Range<usize>,
    sources: Vec<Source>,
}

struct Source {
    segment: Segment,
    /// The rows to keep: those that live, and those that a readable epoch still sees.
    kept: LiveRows,
    /// The kept rows that do not live.
    dying: Vec<usize>,
}

/// A segment that takes the place of others.
pub(super) struct Rewritten {
    range: Range<usize>,
    segment: Option<Segment>,
    /// Where rows went, in ascending order of both.
    moves: Vec<(Position, Position)>,
    /// The hashes of the keys of the moved rows.
    hashes: Vec<u64>,
}

impl Plan {
    /// Segments of `shard` worth rewriting, of which one is in `wasteful`; it is taken out.
    pub fn new(shard: &Shard, wasteful: &mut BTreeSet<u64>) -> Option<Self> {
        let segments = shard.rows.segments();
        // A segment that is gone, or still grows, or holds rows that are newer than `since`, waits or is forgotten.
        let settled = segments.partition_point(|segment| segment.id < shard.history.base_end().segment());
        // The last one may be full and settled; but without it, new rows would get positions that old epochs have seen.
        let settled = settled.min(segments.len().saturating_sub(1));
        // What lies in files is rewritten by whoever moves rows between tiers.
        wasteful.retain(|id| {
            let found = segments.binary_search_by_key(id, |segment| segment.id);
            found.is_ok_and(|index| !segments[index].is_stored())
        });
        let first =
            wasteful.first().and_then(|id| segments[..settled].binary_search_by_key(id, |segment| segment.id).ok())?;
        let range = with_neighbours(&segments[..settled], first);
        let gained: usize = segments[range.clone()].iter().map(|segment| segment.dead_for_good).sum();
        if gained * DELETIONS_PER_ROW_GAINED < shard.history.deletions() {
            return None;
        }
        for segment in &segments[range.clone()] {
            wasteful.remove(&segment.id);
        }
        let mut sources: Vec<Source> = segments[range.clone()]
            .iter()
            .map(|segment| Source { segment: segment.clone(), kept: segment.live_rows(), dying: Vec::new() })
            .collect();
        keep_what_is_readable(shard, &mut sources);
        Some(Self { range, sources })
    }

    /// Makes the new segment.
    pub fn rewrite(self, identity: &Identity) -> Result<Rewritten, ArrowError> {
        let Self { range, sources } = self;
        let mut batches = Vec::new();
        let mut moves = Vec::new();
        let mut dying = Vec::new();
        let id = sources[0].segment.id;
        for Source { segment, kept, dying: dying_here } in &sources {
            for slice in segment.slices(0, segment.rows()) {
                let (start, rows) = slice?;
                batches.push(filter_record_batch(&rows, &kept.mask(start, rows.num_rows()))?);
            }
            let mut dying_here = dying_here.iter().peekable();
            for offset in (0..segment.rows()).filter(|offset| kept.contains(*offset)) {
                if dying_here.next_if(|dying| **dying == offset).is_some() {
                    dying.push(moves.len());
                }
                moves.push((Position::new(segment.id, offset), Position::new(id, moves.len())));
            }
        }
        if moves.is_empty() {
            return Ok(Rewritten { range, segment: None, moves, hashes: Vec::new() });
        }
        let schema = batches[0].schema();
        let rows: RecordBatch = concat_batches(&schema, &batches)?;
        let hashes = identity.keys(&rows)?.hashes();
        let mut segment = Segment::new(id);
        segment.written_ms = sources.iter().map(|source| source.segment.written_ms).max().unwrap_or(0);
        segment.push(rows)?;
        for offset in dying {
            segment.delete(offset);
        }
        Ok(Rewritten { range, segment: Some(segment), moves, hashes })
    }
}

/// Extends the place of one segment to neighbours that are small or dying too, while all that is kept fits one segment.
fn with_neighbours(segments: &[Segment], first: usize) -> Range<usize> {
    let kept = |segment: &Segment| segment.rows() - segment.dead_for_good;
    let joins = |segment: &Segment| {
        let is_worth_it = 4 * segment.dead_for_good >= segment.rows() || 2 * kept(segment) <= SEGMENT_ROWS_MAX;
        is_worth_it && !segment.is_stored()
    };
    let mut range = first..first + 1;
    let mut total = kept(&segments[first]);
    while range.len() < COMPACTION_SOURCES_MAX {
        let after = segments.get(range.end).filter(|segment| joins(segment));
        let before = range.start.checked_sub(1).map(|index| &segments[index]).filter(|segment| joins(segment));
        if let Some(segment) = after.filter(|segment| total + kept(segment) <= SEGMENT_ROWS_MAX) {
            total += kept(segment);
            range.end += 1;
        } else if let Some(segment) = before.filter(|segment| total + kept(segment) <= SEGMENT_ROWS_MAX) {
            total += kept(segment);
            range.start -= 1;
        } else {
            break;
        }
    }
    range
}

/// Marks as kept the rows that were deleted after `since`.
fn keep_what_is_readable(shard: &Shard, sources: &mut [Source]) {
    let ids = sources[0].segment.id..=sources[sources.len() - 1].segment.id;
    for position in shard.history.later().flat_map(|version| version.deleted()) {
        if ids.contains(&position.segment())
            && let Ok(index) = sources.binary_search_by_key(&position.segment(), |source| source.segment.id)
        {
            sources[index].kept.set(position.offset(), true);
            sources[index].dying.push(position.offset());
        }
    }
    for source in sources {
        source.dying.sort_unstable();
    }
}

impl Rewritten {
    /// Puts the new segment in its place, and has the index and the history follow the rows that moved.
    pub fn install(self, shard: &mut Shard) {
        let Self { range, segment, moves, hashes } = self;
        let old = &shard.rows.segments()[range.clone()];
        let ids = old[0].id..=old[old.len() - 1].id;
        if let Some(segment) = &segment {
            for ((from, to), hash) in moves.iter().zip(hashes) {
                if segment.is_live(to.offset()) {
                    shard.index.relocate(hash, *from, *to);
                }
            }
        }
        for version in shard.history.later_mut() {
            version.relocate(|position| {
                let moved = ids.contains(&position.segment());
                let index = moved.then(|| moves.binary_search_by_key(&position, |(from, _)| *from).ok()).flatten();
                index.map(|index| moves[index].1)
            });
        }
        shard.rows.replace(range, segment);
        shard.generation += 1;
    }
}
