//! Segments to files and back: what is new of each since it was last written.
//!
//! Rows of a segment never change and never move, so only those after the last written ones are new; and
//! the bitmap, if other rows live than before. Small parts at the end of a segment are written again together with
//! what follows, by size, so that a segment has few parts and a row is written O(log) times.

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::file::{CheckpointFiles, FileWriter, PartRef, encode_rows};
use super::manifest::{Piece, PieceId, RowsPart, StoredSegment};
use super::tiered;
use crate::StorageError;
use crate::collection::limits::CHUNK_ROWS;
use crate::collection::segment::{LiveRows, Segment};

/// Parts that are read at once.
pub(super) const READS_MAX: usize = 8;

/// Writes what is new of the rows of `segment` before `end`, of which `known` has been written. Rows that are
/// in memory are asked for only if some of them are new.
pub(super) async fn save(
    writer: &mut FileWriter,
    known: Option<&StoredSegment>,
    segment: &Segment,
    end: usize,
) -> Result<StoredSegment, StorageError> {
    let stored = tiered::records(segment);
    if !stored.is_empty() {
        let live = save_live(writer, known.and_then(|known| known.live), segment).await?;
        let (parts, written_ms, versions) = (Vec::new(), segment.written_ms, Vec::new());
        return Ok(StoredSegment { id: segment.id, parts, live, stored, written_ms, versions });
    }
    let mut parts = known.map(|known| known.parts.clone()).unwrap_or_default();
    let mut start: usize = parts.iter().map(|part| part.rows).sum();
    if start > end {
        // Written at a later epoch, which nobody committed to.
        parts.clear();
        start = 0;
    }
    if start < end {
        while let Some(last) = parts.last().filter(|last| last.rows < CHUNK_ROWS && last.rows <= 2 * (end - start)) {
            start -= last.rows;
            parts.pop();
        }
        let rows = segment.slices(start, end).map(|slice| slice.map(|(_, rows)| rows)).collect::<Result<_, _>>()?;
        let part = writer.add(&encode_rows(rows).await?).await?;
        parts.push(RowsPart { rows: end - start, part });
    }
    let live = save_live(writer, known.and_then(|known| known.live), segment).await?;
    let (written_ms, versions) = (segment.written_ms, Vec::new());
    Ok(StoredSegment { id: segment.id, parts, live, stored, written_ms, versions })
}

async fn save_live(
    writer: &mut FileWriter,
    known: Option<PartRef>,
    segment: &Segment,
) -> Result<Option<PartRef>, StorageError> {
    let Some(words) = segment.live().map(LiveRows::words).filter(|words| !words.is_empty()) else {
        return Ok(None);
    };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    match known.filter(|known| known.holds(&bytes)) {
        Some(known) => Ok(Some(known)),
        None => Ok(Some(writer.add(&bytes).await?)),
    }
}

/// Reads the segments of a piece, in the order of their ids.
pub(super) async fn load<'a>(
    files: &'a CheckpointFiles,
    id: PieceId,
    piece: &'a Piece,
) -> Result<Vec<Segment>, StorageError> {
    // Boxed: the compiler does not see of a lazy list that each of its futures may move between threads.
    let read = |(uid, stored): (&u64, &'a StoredSegment)| load_segment(files, id, *uid, stored).boxed();
    let reads: Vec<BoxFuture<'a, _>> = piece.iter().map(read).collect();
    let mut segments: Vec<Segment> = futures::stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    segments.sort_by_key(|segment| segment.id);
    Ok(segments)
}

/// Reads one segment of the piece `id`.
pub(super) async fn load_segment(
    files: &CheckpointFiles,
    id: PieceId,
    uid: u64,
    stored: &StoredSegment,
) -> Result<Segment, StorageError> {
    let mut batches = Vec::with_capacity(stored.parts.len());
    for RowsPart { rows, part } in &stored.parts {
        let found = files.read_rows(part, &id).await?;
        if found.iter().map(|batch| batch.num_rows()).sum::<usize>() != *rows {
            return Err(part.damaged(&id, format!("it does not have {rows} rows")));
        }
        batches.extend(found);
    }
    let live = match &stored.live {
        None => None,
        Some(part) => {
            let bytes = files.read(part, &id).await?;
            let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("it has eight")));
            let live = LiveRows::from_words(words);
            Some(live.ok_or_else(|| part.damaged(&id, "it is longer than a segment"))?)
        }
    };
    let impossible = || StorageError::Damaged {
        name: format!("segment {} of {id}", stored.id),
        reason: "it has too many rows, or too few for its bitmap".to_owned(),
    };
    let segment = match stored.stored.is_empty() {
        true => Segment::restored(stored.id, uid, batches, live),
        false => tiered::segment(files.tiers(), stored.id, &stored.stored).with_bitmap(uid, live),
    };
    let mut segment = segment.ok_or_else(impossible)?;
    segment.written_ms = stored.written_ms;
    Ok(segment)
}

/// Copies a part from the file where it is.
pub(super) async fn copy(
    files: &CheckpointFiles,
    writer: &mut FileWriter,
    id: PieceId,
    part: &PartRef,
) -> Result<PartRef, StorageError> {
    let bytes = files.read(part, &id).await?;
    writer.add(&bytes).await
}
