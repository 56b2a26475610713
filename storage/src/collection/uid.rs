//! Names for segments that hold for ever: what a checkpoint knows a segment by.
//!
//! A segment's id is its place in its shard, and compaction gives an old id to new rows. Its *uid* never means other
//! rows: an offset in a segment of one uid, once a checkpoint has it, is the same row for ever (I-11).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Starts anywhere, so that uids handed out by different processes do not meet: a process that hands out a billion
/// meets those of another once in ten billion times.
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));

/// A uid that no segment has had.
pub(crate) fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}
