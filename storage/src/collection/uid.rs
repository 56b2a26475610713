//! Names for segments that hold for ever: what a checkpoint knows a segment by.
//!
//! A segment's id is its place in its shard, and compaction gives an old id to new rows. Its *uid* never means other
//! rows: within a segment of one uid, an offset is the same row in every process that ever reads or writes it.

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
