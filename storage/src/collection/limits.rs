//! The sizes of a collection's parts. Tests use small ones, so that a few thousand rows fill many segments.

/// Bits of a row's offset in its segment.
pub(crate) const OFFSET_BITS: u32 = if cfg!(test) { 8 } else { 16 };

/// Rows of a segment, at most.
pub(crate) const SEGMENT_ROWS_MAX: usize = 1 << OFFSET_BITS;

/// Chunks of a segment that have this many rows are not merged any further.
pub(crate) const CHUNK_ROWS: usize = SEGMENT_ROWS_MAX / 8;

/// Rows that a writer works on before it lets go of the shard's lock for readers.
pub(crate) const ROWS_PER_LOCK: usize = SEGMENT_ROWS_MAX / 8;

/// Segments read by one compaction, at most; it writes one at most.
pub(crate) const COMPACTION_SOURCES_MAX: usize = 16;

/// Versions that a writer lets go of at a time to come back to its share of memory. At the bound: it goes on when its upper
/// moves the next time.
pub(crate) const VERSIONS_PER_TRIM: usize = 4_096;

/// A compaction looks through the remembered deletions once, so it waits until it gains a row for every so many.
pub(crate) const DELETIONS_PER_ROW_GAINED: usize = 8;

/// Segments that one move between tiers reads, at most. The lock is held for as long as it takes to forget their rows.
pub(crate) const MOVED_SEGMENTS_MAX: usize = 8;

/// Small segments in files of one tier; at the bound, they become one.
pub(crate) const SMALL_SEGMENTS_MAX: usize = 8;
