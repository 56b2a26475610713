//! Making a backup: the instant, and the copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freshet_types::Epoch;
use freshet_types::keys::hash_bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::{DbIterator, DbSnapshot};
use xxhash_rust::xxh3::Xxh3;

use super::contents::{Contents, CopiedFile};
use super::{CONTENTS, records};
use crate::checkpoint::{CheckpointFiles, Manifest, PartRef, PieceId, file_path, tier_files};
use crate::object_writer::ObjectWriter;
use crate::{Location, StorageError};

/// All that a store has at one instant. While this is there, no file that belongs to it is deleted.
pub struct BackupSource {
    records: Arc<DbSnapshot>,
    files: CheckpointFiles,
    _pin: Arc<()>,
}

impl BackupSource {
    pub(crate) fn new(records: Arc<DbSnapshot>, files: CheckpointFiles, pin: Arc<()>) -> Self {
        Self { records, files, _pin: pin }
    }
}

/// A backup that is being made.
pub struct Backup {
    source: BackupSource,
    target: Arc<dyn ObjectStore>,
    contents: Contents,
    records: DbIterator,
    record_files: usize,
    /// What is still to be copied: the parts that are needed of each file, by their place.
    files: BTreeMap<u64, Vec<(PieceId, PartRef)>>,
    /// Files of the warm and cold tiers that are still to be copied.
    tier_files: BTreeSet<Path>,
    is_complete: bool,
}

impl Backup {
    /// Begins a backup in a location in which there is nothing. `created_ms` is the time.
    ///
    /// # Errors
    /// If there is something, or it cannot be reached; or if the store cannot be read.
    pub async fn begin(source: BackupSource, to: &Location, created_ms: u64) -> Result<Self, StorageError> {
        let target = to.open_empty().await?;
        let manifest = Manifest::load(&*source.records).await?;
        let mut files = BTreeMap::<u64, Vec<_>>::new();
        for (id, piece) in &manifest.pieces {
            for part in piece.values().flat_map(|segment| segment.parts()) {
                files.entry(part.file).or_default().push((*id, *part));
            }
        }
        for parts in files.values_mut() {
            parts.sort_by_key(|(_, part)| part.offset);
        }
        let tier_files = tier_files(&manifest, source.files.tiers());
        let epoch: Option<Epoch> = manifest.head.map(|head| head.epoch);
        let contents = Contents::new(created_ms, epoch);
        let records = source.records.scan_prefix(b"", ..).await?;
        Ok(Self { source, target, contents, records, record_files: 0, files, tier_files, is_complete: false })
    }

    /// What has been copied so far.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Copies one file, and gives it; `None` if the backup is complete.
    ///
    /// # Errors
    /// If a file is damaged, or something cannot be read or written. Then there is no backup.
    pub async fn step(&mut self) -> Result<Option<CopiedFile>, StorageError> {
        if self.is_complete {
            return Ok(None);
        }
        if let Some(records) = records::next_file(&mut self.records).await? {
            let path = format!("records/{:08}.records", self.record_files);
            self.record_files += 1;
            let (bytes, checksum) = (records.len() as u64, hash_bytes(&records));
            self.target.put(&Path::from(path.as_str()), records.into()).await?;
            return Ok(Some(self.note(CopiedFile { path, bytes, checksum })));
        }
        if let Some((number, parts)) = self.files.pop_first() {
            let path = file_path(number);
            let (bytes, checksum) = self.copy(&path, &parts).await?;
            return Ok(Some(self.note(CopiedFile { path: path.to_string(), bytes, checksum })));
        }
        if let Some(path) = self.tier_files.pop_first() {
            let (bytes, checksum) = self.copy(&path, &[]).await?;
            return Ok(Some(self.note(CopiedFile { path: path.to_string(), bytes, checksum })));
        }
        self.target.put(&Path::from(CONTENTS), self.contents.encode()?.into()).await?;
        self.is_complete = true;
        Ok(None)
    }

    fn note(&mut self, file: CopiedFile) -> CopiedFile {
        self.contents.files.push(file.clone());
        file
    }

    async fn copy(&self, path: &Path, parts: &[(PieceId, PartRef)]) -> Result<(u64, u64), StorageError> {
        let mut checker = PartChecker { parts, at: 0, hash: Xxh3::new() };
        let file = match self.source.files.store().get(path).await {
            Err(object_store::Error::NotFound { .. }) => return Err(checker.damaged(path, "the file is missing")),
            file => file?,
        };
        let mut bytes = file.into_stream();
        let mut whole = Xxh3::new();
        let mut writer = ObjectWriter::new(self.target.clone(), path.clone());
        while let Some(piece) = bytes.next().await {
            let piece = piece?;
            whole.update(&piece);
            checker.update(path, &piece)?;
            writer.write(&piece).await?;
        }
        checker.finish(path)?;
        Ok((writer.finish().await?, whole.digest()))
    }
}

/// Looks at the bytes of a file as they pass, whether they are those that its parts must have.
struct PartChecker<'a> {
    /// Those that have not ended, in the order of their offsets.
    parts: &'a [(PieceId, PartRef)],
    /// Bytes that have passed.
    at: u64,
    /// Of the first part, as far as it has passed.
    hash: Xxh3,
}

impl PartChecker<'_> {
    fn update(&mut self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let end = self.at + bytes.len() as u64;
        while let Some((_, part)) = self.parts.first() {
            let part_end = part.offset + part.length;
            if part.offset >= end {
                break;
            }
            let within = |place: u64| usize::try_from(place.clamp(self.at, end) - self.at).expect("less than a piece");
            self.hash.update(&bytes[within(part.offset)..within(part_end)]);
            if part_end > end {
                break;
            }
            if self.hash.digest() != part.checksum {
                return Err(self.damaged(path, "its checksum does not match"));
            }
            self.hash.reset();
            self.parts = &self.parts[1..];
        }
        self.at = end;
        Ok(())
    }

    fn finish(&self, path: &Path) -> Result<(), StorageError> {
        if self.parts.is_empty() { Ok(()) } else { Err(self.damaged(path, "the file is too short")) }
    }

    fn damaged(&self, path: &Path, reason: &str) -> StorageError {
        match self.parts.first() {
            Some((owner, part)) => part.damaged(owner, reason),
            None => StorageError::Damaged { name: path.to_string(), reason: reason.to_owned() },
        }
    }
}
