//! Segments whose rows lie in files of the warm and cold tiers: a checkpoint refers to these, and reads nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::collection::segment::Segment;
use crate::tiers::{Checksums, StoredChunk, Tier, Tiers, stored_path};

/// A row group of a file, as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkRecord {
    tier: Tier,
    /// From the root of the tier.
    path: String,
    pub number: u64,
    file_bytes: u64,
    row_group: usize,
    pub rows: usize,
    bytes: u64,
    times: Option<(i64, i64)>,
    has_timeless: bool,
    /// Those of the file. They have a record of their own, as a file has many chunks.
    #[serde(skip)]
    pub checksums: Option<Checksums>,
}

/// Where the rows of a segment lie; nothing if they are in memory.
pub(super) fn records(segment: &Segment) -> Vec<ChunkRecord> {
    let record = |chunk: &Arc<StoredChunk>| ChunkRecord {
        tier: chunk.file.tier,
        path: chunk.file.path.to_string(),
        number: chunk.file.number,
        file_bytes: chunk.file.bytes,
        row_group: chunk.row_group,
        rows: chunk.rows,
        bytes: chunk.bytes,
        times: chunk.times,
        has_timeless: chunk.has_timeless,
        checksums: chunk.file.checksums.clone(),
    };
    segment.stored().map(record).collect()
}

/// The segment whose rows lie there. It gets its schema from [`with_schema`](super::recover).
pub(super) fn segment(tiers: &Arc<Tiers>, id: u64, records: &[ChunkRecord]) -> Segment {
    let schema = Arc::new(Schema::empty());
    let chunk = |record: &ChunkRecord| {
        let ChunkRecord { tier, path, number, file_bytes, row_group, rows, bytes, times, has_timeless, checksums } =
            record;
        Arc::new(StoredChunk {
            tiers: tiers.clone(),
            file: tiers.known((*tier, path), *number, *file_bytes, checksums.clone()),
            row_group: *row_group,
            rows: *rows,
            bytes: *bytes,
            times: *times,
            has_timeless: *has_timeless,
            schema: schema.clone(),
        })
    };
    Segment::of_stored(id, records.iter().map(chunk).collect())
}

/// The files that a checkpoint refers to.
pub(super) fn files(manifest: &Manifest) -> BTreeSet<(Tier, Path)> {
    let segments = manifest.pieces.values().flat_map(|piece| piece.values());
    let records = segments.flat_map(|segment| &segment.stored);
    records.map(|record| (record.tier, stored_path(&record.path))).collect()
}

/// The same, as the object store knows them.
pub(crate) fn tier_files(manifest: &Manifest, tiers: &Tiers) -> BTreeSet<Path> {
    files(manifest).iter().map(|(tier, path)| tiers.full_path(*tier, path)).collect()
}
