//! The manifest: what the last checkpoint consists of, as records of the store.
//!
//! Keys                                                     | values, as JSON
//! ---------------------------------------------------------|------------------------------------------------
//! `checkpoint/head`                                        | version, epoch, number, what the caller added
//! `checkpoint/piece/` relation, piece                      | since when the versions of a piece of rows are complete
//! `checkpoint/piece/` relation, piece, uid of a segment    | id of the segment, its parts or its files, its bitmap, its versions
//! `checkpoint/file/` number                                | the checksums of a file of a tier; not as JSON
//!
//! A piece is `r` and the shard, or `s` and node, worker and table. All numbers in keys are big endian, ids and uids
//! of eight bytes, others of four. One atomic batch takes the store from one manifest to the next;
//! it has only the records that differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use bytes::Bytes;
use freshet_types::{Epoch, RelationId};
use serde::{Deserialize, Serialize};
use slatedb::DbReadOps;

use super::file::PartRef;
use super::tiered::ChunkRecord;
use super::versions::VersionsPart;
use crate::StorageError;
use crate::group_commit::Write;
use crate::tiers::Checksums;

const HEAD: &str = "checkpoint/head";
const PIECE_PREFIX: &[u8] = b"checkpoint/piece/";
const FILE_PREFIX: &[u8] = b"checkpoint/file/";
/// Version 1 had no checksums of files, and did not tell rows that had expired from deleted ones. It is read as well.
const VERSION: u32 = 2;

/// What a checkpoint keeps of one relation on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// One shard of its collection.
    Rows { shard: u32 },
    /// One table of what an operator remembers, on one worker.
    State { node: u32, worker: u32, table: u32 },
}

/// One part of one relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId {
    pub relation: RelationId,
    pub part: Part,
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Rows { shard } => write!(f, "shard {shard} of {}", self.relation),
            Part::State { node, worker, table } => {
                write!(f, "table {table} of node {node} of {} on worker {worker}", self.relation)
            }
        }
    }
}

/// The segments of a piece, by uid.
pub(crate) type Piece = BTreeMap<u64, StoredSegment>;

/// A segment as it lies in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSegment {
    pub id: u64,
    /// Its rows, one part after the other; none if they lie in files of a tier.
    pub parts: Vec<RowsPart>,
    /// Where its rows lie, if they are in files of a tier.
    pub stored: Vec<ChunkRecord>,
    /// When its last row was written.
    pub written_ms: u64,
    /// Which of them live; `None` if all do.
    pub live: Option<PartRef>,
    /// What epochs did to it, as far back as somebody may ask.
    pub versions: Vec<VersionsPart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowsPart {
    pub rows: usize,
    pub part: PartRef,
}

impl StoredSegment {
    pub fn rows(&self) -> usize {
        let in_parts = self.parts.iter().map(|part| part.rows);
        in_parts.chain(self.stored.iter().map(|chunk| chunk.rows)).sum()
    }

    pub fn parts(&self) -> impl Iterator<Item = &PartRef> {
        let versions = self.versions.iter().map(|versions| &versions.part);
        self.parts.iter().map(|rows| &rows.part).chain(&self.live).chain(versions)
    }

    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut PartRef> {
        let versions = self.versions.iter_mut().map(|versions| &mut versions.part);
        self.parts.iter_mut().map(|rows| &mut rows.part).chain(&mut self.live).chain(versions)
    }
}

/// What a checkpoint is of.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub epoch: Epoch,
    pub number: u64,
    /// What the caller wants to know when it is read back.
    pub meta: String,
}

/// All that the last checkpoint consists of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manifest {
    pub head: Option<Head>,
    pub pieces: BTreeMap<PieceId, Piece>,
    /// After which epoch the versions of a piece of rows are complete; of others, only the rows at the checkpoint's
    /// epoch are known.
    pub sinces: BTreeMap<PieceId, Epoch>,
}

impl Manifest {
    pub async fn load(db: &(impl DbReadOps + Sync)) -> Result<Self, StorageError> {
        let head = match db.get(HEAD).await? {
            None => None,
            Some(bytes) => Some(decode_head(&bytes)?),
        };
        let mut pieces = BTreeMap::<PieceId, Piece>::new();
        let mut sinces = BTreeMap::new();
        let mut found = db.scan_prefix(PIECE_PREFIX, ..).await?;
        while let Some(record) = found.next().await? {
            let damaged = |reason: &str| StorageError::Damaged {
                name: format!("checkpoint/piece/{}", record.key[PIECE_PREFIX.len()..].escape_ascii()),
                reason: reason.to_owned(),
            };
            let (id, uid) = decode_key(&record.key).ok_or_else(|| damaged("the key names no piece"))?;
            let piece = pieces.entry(id).or_default();
            if let Some(uid) = uid {
                let segment: SegmentRecord =
                    serde_json::from_slice(&record.value).map_err(|error| damaged(&error.to_string()))?;
                piece.insert(uid, segment.into());
            } else {
                let record: PieceRecord =
                    serde_json::from_slice(&record.value).map_err(|error| damaged(&error.to_string()))?;
                sinces.extend(record.since.map(|since| (id, since)));
            }
        }
        let mut manifest = Self { head, pieces, sinces };
        manifest.load_checksums(db).await?;
        Ok(manifest)
    }

    /// Reads the checksums of files, and puts them beside the chunks that lie in these.
    async fn load_checksums(&mut self, db: &(impl DbReadOps + Sync)) -> Result<(), StorageError> {
        let mut files = HashMap::new();
        let mut found = db.scan_prefix(FILE_PREFIX, ..).await?;
        while let Some(record) = found.next().await? {
            let number = record.key[FILE_PREFIX.len()..].try_into().map(u64::from_be_bytes);
            let decoded = number.ok().zip(Checksums::decode(&record.value));
            let (number, checksums) = decoded.ok_or_else(|| StorageError::Damaged {
                name: format!("checkpoint/file/{}", record.key[FILE_PREFIX.len()..].escape_ascii()),
                reason: "it does not have the checksums of a file".to_owned(),
            })?;
            files.insert(number, checksums);
        }
        let segments = self.pieces.values_mut().flat_map(BTreeMap::values_mut);
        for chunk in segments.flat_map(|segment| &mut segment.stored) {
            chunk.checksums = files.get(&chunk.number).cloned();
        }
        Ok(())
    }

    /// The checksums of all files of tiers, by their numbers.
    fn files(&self) -> BTreeMap<u64, &Checksums> {
        let segments = self.pieces.values().flat_map(BTreeMap::values);
        let chunks = segments.flat_map(|segment| &segment.stored);
        chunks.filter_map(|chunk| Some((chunk.number, chunk.checksums.as_ref()?))).collect()
    }

    pub fn parts(&self) -> impl Iterator<Item = &PartRef> {
        self.pieces.values().flat_map(BTreeMap::values).flat_map(StoredSegment::parts)
    }

    /// The writes that make the store's manifest `next`, if it is this one except for the records `uncertain`.
    pub fn writes_to(&self, next: &Self, uncertain: &BTreeSet<Bytes>) -> Result<Vec<Write>, StorageError> {
        let mut writes = BTreeMap::<Bytes, Option<Bytes>>::new();
        if let Some(head) = &next.head {
            writes.insert(HEAD.into(), Some(encode_head(head)?));
        }
        for (id, piece) in &self.pieces {
            let next_piece = next.pieces.get(id);
            if next_piece.is_none() {
                writes.insert(encode_key(id, None), None);
            }
            let gone = piece.keys().filter(|uid| next_piece.is_none_or(|next| !next.contains_key(uid)));
            writes.extend(gone.map(|uid| (encode_key(id, Some(*uid)), None)));
        }
        for (id, piece) in &next.pieces {
            let own_piece = self.pieces.get(id);
            let key = encode_key(id, None);
            let since = next.sinces.get(id).copied();
            if own_piece.is_none() || self.sinces.get(id).copied() != since || uncertain.contains(&key) {
                writes.insert(key, Some(encode(&PieceRecord { since })?));
            }
            for (uid, segment) in piece {
                let key = encode_key(id, Some(*uid));
                let is_known = own_piece.and_then(|piece| piece.get(uid)) == Some(segment);
                if !is_known || uncertain.contains(&key) {
                    writes.insert(key, Some(encode(&SegmentRecord::from(segment))?));
                }
            }
        }
        let (own_files, next_files) = (self.files(), next.files());
        for number in own_files.keys().filter(|number| !next_files.contains_key(number)) {
            writes.insert(file_key(*number), None);
        }
        for (number, checksums) in next_files {
            let key = file_key(number);
            // A file is never changed.
            if !own_files.contains_key(&number) || uncertain.contains(&key) {
                writes.insert(key, Some(checksums.encode()));
            }
        }
        for key in uncertain {
            writes.entry(key.clone()).or_insert(None);
        }
        let write = |(key, value)| match value {
            Some(value) => Write::Put(key, value),
            None => Write::Delete(key),
        };
        Ok(writes.into_iter().map(write).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct HeadRecord {
    version: u32,
    epoch: Epoch,
    number: u64,
    meta: String,
}

#[derive(Serialize, Deserialize)]
struct PieceRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Epoch>,
}

#[derive(Serialize, Deserialize)]
struct SegmentRecord {
    id: u64,
    /// Rows, file, offset, length, checksum.
    parts: Vec<(usize, u64, u64, u64, u64)>,
    live: Option<(u64, u64, u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stored: Vec<ChunkRecord>,
    #[serde(default)]
    written_ms: u64,
    /// The last epoch in it, file, offset, length, checksum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<(Epoch, u64, u64, u64, u64)>,
}

impl From<&StoredSegment> for SegmentRecord {
    fn from(segment: &StoredSegment) -> Self {
        let parts = segment.parts.iter().map(|RowsPart { rows, part }| {
            let PartRef { file, offset, length, checksum } = *part;
            (*rows, file, offset, length, checksum)
        });
        let live = segment.live.map(|PartRef { file, offset, length, checksum }| (file, offset, length, checksum));
        let versions = segment.versions.iter().map(|VersionsPart { through, part }| {
            let PartRef { file, offset, length, checksum } = *part;
            (*through, file, offset, length, checksum)
        });
        let versions = versions.collect();
        let StoredSegment { id, stored, written_ms, .. } = segment.clone();
        Self { id, parts: parts.collect(), live, stored, written_ms, versions }
    }
}

impl From<SegmentRecord> for StoredSegment {
    fn from(record: SegmentRecord) -> Self {
        let parts = record.parts.into_iter().map(|(rows, file, offset, length, checksum)| RowsPart {
            rows,
            part: PartRef { file, offset, length, checksum },
        });
        let live = record.live.map(|(file, offset, length, checksum)| PartRef { file, offset, length, checksum });
        let versions = record.versions.into_iter().map(|(through, file, offset, length, checksum)| VersionsPart {
            through,
            part: PartRef { file, offset, length, checksum },
        });
        let versions = versions.collect();
        let SegmentRecord { id, stored, written_ms, .. } = record;
        Self { id, parts: parts.collect(), live, stored, written_ms, versions }
    }
}

fn encode(record: &impl Serialize) -> Result<Bytes, StorageError> {
    let encoded = serde_json::to_vec(record).map_err(|error| StorageError::Io { reason: error.to_string() })?;
    Ok(encoded.into())
}

fn encode_head(head: &Head) -> Result<Bytes, StorageError> {
    let Head { epoch, number, meta } = head.clone();
    encode(&HeadRecord { version: VERSION, epoch, number, meta })
}

fn decode_head(bytes: &[u8]) -> Result<Head, StorageError> {
    let damaged = |reason| StorageError::Damaged { name: HEAD.to_owned(), reason };
    // The version first: what another one says of the rest may have another form.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if ![1, VERSION].iter().any(|known| value["version"] == *known) {
        let (name, found) = (format!("the record {HEAD}"), value["version"].to_string());
        return Err(StorageError::UnknownVersion { name, found, known: VERSION });
    }
    let record: HeadRecord = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    Ok(Head { epoch: record.epoch, number: record.number, meta: record.meta })
}

fn file_key(number: u64) -> Bytes {
    [FILE_PREFIX, &number.to_be_bytes()].concat().into()
}

fn encode_key(id: &PieceId, uid: Option<u64>) -> Bytes {
    let mut key = PIECE_PREFIX.to_vec();
    key.extend_from_slice(&id.relation.0.to_be_bytes());
    match id.part {
        Part::Rows { shard } => {
            key.push(b'r');
            key.extend_from_slice(&shard.to_be_bytes());
        }
        Part::State { node, worker, table } => {
            key.push(b's');
            [node, worker, table].iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
        }
    }
    if let Some(uid) = uid {
        key.extend_from_slice(&uid.to_be_bytes());
    }
    key.into()
}

fn decode_key(key: &[u8]) -> Option<(PieceId, Option<u64>)> {
    let key = key.strip_prefix(PIECE_PREFIX)?;
    let (relation, key) = key.split_first_chunk::<8>()?;
    let relation = RelationId(u64::from_be_bytes(*relation));
    let (kind, mut key) = key.split_first()?;
    let mut number = || {
        let (number, rest) = key.split_first_chunk::<4>()?;
        key = rest;
        Some(u32::from_be_bytes(*number))
    };
    let part = match kind {
        b'r' => Part::Rows { shard: number()? },
        b's' => Part::State { node: number()?, worker: number()?, table: number()? },
        _ => return None,
    };
    let uid = match key {
        [] => None,
        uid => Some(u64::from_be_bytes(uid.try_into().ok()?)),
    };
    Some((PieceId { relation, part }, uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_pieces_and_segments() {
        let relation = RelationId(7);
        for part in [Part::Rows { shard: 3 }, Part::State { node: 1, worker: 2, table: 300 }] {
            let id = PieceId { relation, part };
            for uid in [None, Some(u64::MAX - 5)] {
                let key = encode_key(&id, uid);
                assert_eq!(decode_key(&key), Some((id, uid)));
                (0..key.len()).filter(|cut| uid.is_none() || *cut + 8 != key.len()).for_each(|cut| {
                    assert_eq!(decode_key(&key[..cut]), None, "cut at {cut}");
                });
            }
        }
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let error = decode_head(br#"{"version":3,"other":true}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the record checkpoint/head has format version 3, and this server knows 2: another version of Freshet wrote it"
        );
    }
}
