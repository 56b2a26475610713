//! Blocks: a file cut into parts of 64 KiB, each with a checksum, so that what is read of it is what was written.
//!
//! Parquet has checksums of pages at best, and none of footers, indexes and filters. These lie beside the file, in the
//! checkpoint that refers to it, and other readers of the file need not know of them. Whole blocks are read, each is checked whenever it is, and
//! of remote files kept.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use freshet_types::keys::hash_bytes;

pub(super) const BLOCK_BYTES: u64 = 64 * 1024;

/// The checksums of the blocks of a file: XXH3 of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksums(Arc<[u64]>);

impl Checksums {
    pub fn of(contents: &[u8]) -> Self {
        Self(contents.chunks(block_bytes()).map(hash_bytes).collect())
    }

    /// The size of a block, in four bytes, then the checksums, in eight each; all little endian.
    pub fn encode(&self) -> Bytes {
        let size = u32::try_from(BLOCK_BYTES).expect("a block is small").to_le_bytes();
        size.into_iter().chain(self.0.iter().flat_map(|checksum| checksum.to_le_bytes())).collect()
    }

    /// `None` if it is not what [`Checksums::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (size, checksums) = bytes.split_first_chunk::<4>()?;
        let (checksums, rest) = checksums.as_chunks::<8>();
        let is_known = u64::from(u32::from_le_bytes(*size)) == BLOCK_BYTES && rest.is_empty();
        is_known.then(|| Self(checksums.iter().map(|checksum| u64::from_le_bytes(*checksum)).collect()))
    }

    /// Where the first block begins that is not what was written; `run` are whole blocks, from byte `start` on.
    pub fn first_wrong(&self, start: u64, run: &[u8]) -> Option<u64> {
        let places = (start..).step_by(block_bytes());
        let mut blocks = places.zip(run.chunks(block_bytes()));
        let is_right = |place: u64, block: &[u8]| {
            let index = usize::try_from(place / BLOCK_BYTES).ok();
            index.and_then(|index| self.0.get(index)).is_some_and(|checksum| *checksum == hash_bytes(block))
        };
        blocks.find(|(place, block)| !is_right(*place, block)).map(|(place, _)| place)
    }
}

fn block_bytes() -> usize {
    usize::try_from(BLOCK_BYTES).expect("a block is small")
}

/// The numbers of the blocks that some ranges touch, in order, each once.
pub(super) fn touched(ranges: &[Range<u64>]) -> Vec<u64> {
    let blocks = |range: &Range<u64>| range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
    let mut touched: Vec<u64> = ranges.iter().filter(|range| range.start < range.end).flat_map(blocks).collect();
    touched.sort_unstable();
    touched.dedup();
    touched
}

/// The bytes of blocks of a file of `file_bytes`, those that follow each other as one range.
pub(super) fn runs(blocks: &[u64], file_bytes: u64) -> Vec<Range<u64>> {
    let follows = |one: &u64, other: &u64| *one + 1 == *other;
    let bytes = |run: &[u64]| {
        let (first, last) = (run[0], run[run.len() - 1]);
        first * BLOCK_BYTES..((last + 1) * BLOCK_BYTES).min(file_bytes)
    };
    blocks.chunk_by(follows).map(bytes).collect()
}

/// A range out of pieces of a file, which are in order; `None` if a part of it is missing.
pub(super) fn cut(pieces: &[(u64, Bytes)], range: &Range<u64>) -> Option<Bytes> {
    let end = |(start, piece): &(u64, Bytes)| start + piece.len() as u64;
    let first = pieces.partition_point(|piece| end(piece) <= range.start);
    let mut whole = BytesMut::new();
    let mut at = range.start;
    for piece in &pieces[first..] {
        if at >= range.end || piece.0 > at {
            break;
        }
        let offset = |place: u64| usize::try_from(place - piece.0).ok();
        let part = piece.1.slice(offset(at)?..offset(range.end.min(end(piece)))?);
        if at == range.start && part.len() as u64 == range.end - range.start {
            return Some(part);
        }
        at += part.len() as u64;
        whole.extend_from_slice(&part);
    }
    (at == range.end).then(|| whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_out_of_the_blocks_that_they_touch() {
        let size = 3 * BLOCK_BYTES + 10;
        let file: Bytes = (0..size).map(|place| (place % 251) as u8).collect();
        let ranges = [5..9, BLOCK_BYTES - 1..BLOCK_BYTES + 1, 3 * BLOCK_BYTES..size, 7..7, 100..size];
        assert_eq!(touched(&ranges[..3]), [0, 1, 3]);
        assert_eq!(runs(&[0, 1, 3], size), [0..2 * BLOCK_BYTES, 3 * BLOCK_BYTES..size]);
        let part = |range: &Range<u64>| file.slice(range.start as usize..range.end as usize);
        for blocks in [
            std::iter::once(0..size).collect(),
            runs(&[0], size).into_iter().chain(runs(&[1, 2, 3], size)).collect::<Vec<_>>(),
        ] {
            let pieces: Vec<(u64, Bytes)> = blocks.iter().map(|run| (run.start, part(run))).collect();
            for range in &ranges {
                assert_eq!(cut(&pieces, range).unwrap(), part(range), "{range:?}");
            }
            assert_eq!(cut(&pieces[1..], &(5..9)), None);
            assert_eq!(cut(&pieces, &(size - 1..size + 1)), None);
        }
    }

    #[test]
    fn any_wrong_byte_is_noticed() {
        let file: Vec<u8> = (0..2 * BLOCK_BYTES + 7).map(|place| (place % 13) as u8).collect();
        let checksums = Checksums::of(&file);
        assert_eq!(Checksums::decode(&checksums.encode()), Some(checksums.clone()));
        assert_eq!(Checksums::decode(&checksums.encode()[..9]), None);
        assert_eq!(checksums.first_wrong(0, &file), None);
        assert_eq!(checksums.first_wrong(BLOCK_BYTES, &file[block_bytes()..]), None);
        for place in (0..file.len()).step_by(997) {
            let mut damaged = file.clone();
            damaged[place] ^= 1;
            assert_eq!(checksums.first_wrong(0, &damaged), Some(place as u64 / BLOCK_BYTES * BLOCK_BYTES));
        }
        assert!(checksums.first_wrong(0, &[&file[..], b"more"].concat()).is_some());
    }
}
