//! The versions of segments to files and back (see [`crate::collection::past`]).
//!
//! A part is a row of versions, one after the other, all numbers little endian:
//!
//! ```text
//! epoch    8 bytes
//! start    4 bytes   it inserted the rows from this offset
//! end      4 bytes   up to this one
//! count    4 bytes   it deleted so many rows
//! offsets  4 bytes each; the highest bit is set in those of rows that had expired, which come first
//! ```
//!
//! A segment gets a part for what is new. Small parts at its end are taken along, by size, so that there are few and a
//! version is written O(log) times; a part goes once nobody can ask for any of its epochs.

use freshet_types::Epoch;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::file::{CheckpointFiles, FileWriter, PartRef};
use super::manifest::{Piece, PieceId, StoredSegment};
use super::segments::READS_MAX;
use crate::StorageError;
use crate::collection::past::{SegmentVersion, SegmentVersions};

/// Marks the offset of a row that had expired. A segment has fewer rows than that.
const EXPIRED: usize = 1 << 31;

/// A part with versions of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VersionsPart {
    /// The last epoch in it.
    pub through: Epoch,
    pub part: PartRef,
}

/// Writes those of the `versions` of a segment that are not in `known`, and lets go of those up to `since`.
pub(super) async fn save(
    files: &CheckpointFiles,
    writer: &mut FileWriter,
    id: PieceId,
    known: Option<&StoredSegment>,
    versions: &[SegmentVersion],
    since: Epoch,
) -> Result<Vec<VersionsPart>, StorageError> {
    let mut parts = known.map(|known| known.versions.clone()).unwrap_or_default();
    let written = parts.last().map_or(Epoch::ZERO, |last| last.through);
    parts.retain(|part| part.through > since);
    let new = &versions[versions.partition_point(|version| version.epoch <= written)..];
    let Some(through) = new.last().map(|version| version.epoch) else { return Ok(parts) };
    let mut bytes = encode(new);
    while let Some(last) = parts.last().filter(|last| last.part.length <= 2 * bytes.len() as u64) {
        match files.read(&last.part, &id).await {
            Ok(before) => bytes = [&before[..], &bytes].concat(),
            // It is needed only after a restart, and may be forgotten before.
            Err(error @ StorageError::Damaged { .. }) => {
                tracing::warn!(%error, "cannot take along versions of a segment");
                break;
            }
            Err(error) => return Err(error),
        }
        parts.pop();
    }
    parts.push(VersionsPart { through, part: writer.add(&bytes).await? });
    Ok(parts)
}

/// Reads the versions of all segments of a piece.
pub(super) async fn load(files: &CheckpointFiles, id: PieceId, piece: &Piece) -> Result<SegmentVersions, StorageError> {
    let parts = piece.values().flat_map(|stored| stored.versions.iter().map(|versions| (stored.id, versions.part)));
    let read = |(segment, part): (u64, PartRef)| load_part(files, id, segment, part).boxed();
    let reads: Vec<BoxFuture<'_, _>> = parts.map(read).collect();
    let read: Vec<_> = futures::stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    let mut segments = SegmentVersions::new();
    for (segment, versions) in read {
        segments.entry(segment).or_default().extend(versions);
    }
    Ok(segments)
}

async fn load_part(
    files: &CheckpointFiles,
    id: PieceId,
    segment: u64,
    part: PartRef,
) -> Result<(u64, Vec<SegmentVersion>), StorageError> {
    let bytes = files.read(&part, &id).await?;
    let versions = decode(&bytes).ok_or_else(|| part.damaged(&id, "it does not end with a version"))?;
    Ok((segment, versions))
}

fn encode(versions: &[SegmentVersion]) -> Vec<u8> {
    let small = |number: usize| u32::try_from(number).expect("a segment has fewer than 2^32 rows").to_le_bytes();
    let mut bytes = Vec::new();
    for SegmentVersion { epoch, start, end, deleted, expired } in versions {
        bytes.extend_from_slice(&epoch.millis().to_le_bytes());
        [*start, *end, deleted.len()].iter().for_each(|number| bytes.extend_from_slice(&small(*number)));
        let mark = |index: usize| if index < *expired { EXPIRED } else { 0 };
        deleted.iter().enumerate().for_each(|(index, offset)| bytes.extend_from_slice(&small(*offset | mark(index))));
    }
    bytes
}

/// `None` if the bytes are not what [`encode`] gives.
fn decode(mut bytes: &[u8]) -> Option<Vec<SegmentVersion>> {
    let mut versions = Vec::new();
    while !bytes.is_empty() {
        let (epoch, rest) = bytes.split_first_chunk::<8>()?;
        bytes = rest;
        let (start, end, count) = (small(&mut bytes)?, small(&mut bytes)?, small(&mut bytes)?);
        if bytes.len() / 4 < count {
            return None;
        }
        let mut deleted = (0..count).map(|_| small(&mut bytes)).collect::<Option<Vec<usize>>>()?;
        let expired = deleted.iter().take_while(|offset| **offset & EXPIRED != 0).count();
        deleted[..expired].iter_mut().for_each(|offset| *offset &= !EXPIRED);
        versions.push(SegmentVersion { epoch: Epoch(u64::from_le_bytes(*epoch)), start, end, deleted, expired });
    }
    Some(versions)
}

fn small(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_noticed() {
        let versions = [
            SegmentVersion { epoch: Epoch(1_790_000_000_000), start: 0, end: 70, deleted: vec![3, 69], expired: 1 },
            SegmentVersion { epoch: Epoch(1_790_000_000_001), start: 0, end: 0, deleted: vec![4], expired: 0 },
        ];
        let bytes = encode(&versions);
        assert_eq!(decode(&bytes).unwrap(), versions);
        let first = encode(&versions[..1]).len();
        for cut in (1..bytes.len()).filter(|cut| *cut != first) {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
