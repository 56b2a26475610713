//! Which files are still needed, and which are better written anew.
//!
//! A file goes once no part of it is in the manifest. So that neither a few parts keep a large file, nor files become many,
//! a checkpoint takes along what is left of some: of files that are mostly dead, and of the smallest
//! when there are many. What it takes along is bounded, so that no checkpoint takes long.

use std::collections::{BTreeMap, BTreeSet};

use super::file::PartRef;

/// Files of which less than one in so many bytes is needed are written anew.
const SPARSE_FACTOR: u64 = 4;
/// Files, at most, unless they are large; beyond that the smallest half as many become one.
pub(super) const FILES_MAX: usize = 64;
/// Bytes that one checkpoint takes along, at most.
const COPIED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The bytes of each file that `parts` refers to.
pub(super) fn live_bytes<'a>(parts: impl Iterator<Item = &'a PartRef>) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for part in parts {
        *live.entry(part.file).or_default() += part.length;
    }
    live
}

/// The files whose parts the next checkpoint should take along. `sizes` are those of all files, `live` the
/// bytes of them that are needed, `own` the next checkpoint's.
pub(super) fn files_to_copy(sizes: &BTreeMap<u64, u64>, live: &BTreeMap<u64, u64>, own: u64) -> BTreeSet<u64> {
    let mut by_size: Vec<(u64, u64)> =
        live.iter().filter(|(file, _)| **file != own).map(|(file, bytes)| (*bytes, *file)).collect();
    by_size.sort_unstable();
    let is_sparse = |bytes: u64, file: &u64| sizes.get(file).is_some_and(|size| bytes * SPARSE_FACTOR < *size);
    let smallest = if by_size.len() >= FILES_MAX { FILES_MAX / 2 } else { 0 };
    let wanted = by_size.iter().enumerate().filter(|(rank, (bytes, file))| *rank < smallest || is_sparse(*bytes, file));
    let mut copied = 0;
    wanted
        .map(|(_, (bytes, file))| (*bytes, *file))
        .take_while(|(bytes, _)| {
            copied += bytes;
            copied <= COPIED_BYTES_MAX
        })
        .map(|(_, file)| file)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_files_are_copied_smallest_first_within_bounds() {
        let mib = 1024 * 1024;
        let sizes = BTreeMap::from([(1, 100 * mib), (2, 100), (3, 100), (4, 400 * mib), (5, 100)]);
        let live = BTreeMap::from([(1, 20 * mib), (2, 24), (3, 25), (4, 60 * mib), (5, 1)]);
        assert_eq!(files_to_copy(&sizes, &live, 5), BTreeSet::from([1, 2]));
    }

    #[test]
    fn many_small_files_become_one() {
        let sizes: BTreeMap<u64, u64> = (0..FILES_MAX as u64).map(|file| (file, 1_000 - file)).collect();
        let half = (FILES_MAX / 2) as u64;
        assert_eq!(files_to_copy(&sizes, &sizes, 1_000), (half..2 * half).collect());
        let fewer = sizes.into_iter().skip(1).collect();
        assert!(files_to_copy(&fewer, &fewer, 1_000).is_empty());
    }
}
