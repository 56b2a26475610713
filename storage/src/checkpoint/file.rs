//! The files of checkpoints: `checkpoints/<number, 20 digits>.ckpt` beside the store.
//!
//! ```text
//! magic    7 bytes   "FRESHCK"
//! version  1 byte    1
//! parts              each from a multiple of 64 bytes on; what lies between them is zero
//! ```
//!
//! A part is an Arrow IPC stream of rows, or the bitmap of the rows of a segment that live. Nothing in a file says where its
//! parts are: the manifest does, by [`PartRef`]. A file is written once, under a number that no file ever
//! had, and is there either wholly or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use freshet_types::keys::hash_bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use crate::StorageError;
use crate::half_written;
use crate::object_writer::ObjectWriter;
use crate::tiers::Tiers;

const FOLDER: &str = "checkpoints";
const EXTENSION: &str = ".ckpt";
const HEADER: &[u8; 8] = b"FRESHCK\x01";
const ALIGNMENT: u64 = 64;
const CHECKSUM_DIFFERS: &str = "its checksum does not match";

/// Where a part of a file is, and what it must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartRef {
    pub file: u64,
    pub offset: u64,
    pub length: u64,
    /// XXH3 of its bytes.
    pub checksum: u64,
}

impl PartRef {
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.length == bytes.len() as u64 && self.checksum == hash_bytes(bytes)
    }

    /// The error that the part, which belongs to `owner`, is not what was written.
    pub fn damaged(&self, owner: &impl std::fmt::Display, reason: impl Into<String>) -> StorageError {
        let name = format!("{FOLDER}/{} at offset {} ({owner})", file_name(self.file), self.offset);
        StorageError::Damaged { name, reason: reason.into() }
    }
}

fn file_name(number: u64) -> String {
    format!("{number:020}{EXTENSION}")
}

pub(crate) fn path(number: u64) -> Path {
    Path::from(format!("{FOLDER}/{}", file_name(number)))
}

/// The folder of all files.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointFiles {
    store: Arc<dyn ObjectStore>,
    /// The folder of all data on a local disk, where half-written files lie, which the object store does not show. A bucket forgets them by itself.
    root: Option<PathBuf>,
    /// The files whose header has been looked at.
    opened: Arc<Mutex<BTreeSet<u64>>>,
    /// What segments refer to whose rows are not in files of checkpoints.
    tiers: Arc<Tiers>,
}

impl CheckpointFiles {
    /// Files in `store`, which is the folder `root` if there is one.
    pub fn new(store: Arc<dyn ObjectStore>, root: Option<&std::path::Path>, tiers: Arc<Tiers>) -> Self {
        Self { store, root: root.map(std::path::Path::to_owned), opened: Arc::default(), tiers }
    }

    pub fn tiers(&self) -> &Arc<Tiers> {
        &self.tiers
    }

    /// Where the files are.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The number and size of each file.
    pub async fn list(&self) -> Result<BTreeMap<u64, u64>, StorageError> {
        let found: Vec<_> = self.store.list(Some(&Path::from(FOLDER))).try_collect().await?;
        let numbered = found.iter().filter_map(|file| {
            let number = file.location.filename()?.strip_suffix(EXTENSION)?.parse().ok()?;
            Some((number, file.size))
        });
        Ok(numbered.collect())
    }

    /// Deletes what a process left that ended while it wrote a file, of a checkpoint or of a tier.
    pub async fn delete_half_written(&self) -> Result<(), StorageError> {
        let Some(root) = &self.root else { return Ok(()) };
        let tiers = self.tiers.roots().iter().map(|tier| root.join(tier.as_ref()));
        for folder in tiers.chain([root.join(FOLDER)]) {
            let deleted = tokio::task::spawn_blocking(move || half_written::delete(folder)).await;
            let deleted = deleted.map_err(|error| StorageError::Io { reason: error.to_string() })?;
            deleted.map_err(|error| StorageError::io(&error))?;
        }
        Ok(())
    }

    pub async fn delete(&self, number: u64) -> Result<(), StorageError> {
        match self.store.delete(&path(number)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => Ok(deleted?),
        }
    }

    /// The bytes of a part, which belongs to `owner`.
    ///
    /// # Errors
    /// If they are not those that were written.
    pub async fn read(&self, part: &PartRef, owner: &impl std::fmt::Display) -> Result<Bytes, StorageError> {
        let bytes = self.read_unchecked(part, owner).await?;
        if !part.holds(&bytes) {
            return Err(part.damaged(owner, CHECKSUM_DIFFERS));
        }
        Ok(bytes)
    }

    /// The rows of a part. Checking and decoding take time, so other threads do that, each for a part.
    ///
    /// # Errors
    /// If they are not those that were written.
    pub async fn read_rows(
        &self,
        part: &PartRef,
        owner: &impl std::fmt::Display,
    ) -> Result<Vec<RecordBatch>, StorageError> {
        let bytes = self.read_unchecked(part, owner).await?;
        let expected = *part;
        let decoded = tokio::task::spawn_blocking(move || {
            if expected.holds(&bytes) {
                decode(bytes).map_err(|error| error.to_string())
            } else {
                Err(CHECKSUM_DIFFERS.to_owned())
            }
        });
        let decoded = decoded.await.map_err(|error| StorageError::Io { reason: error.to_string() })?;
        decoded.map_err(|reason| part.damaged(owner, reason))
    }

    async fn read_unchecked(&self, part: &PartRef, owner: &impl std::fmt::Display) -> Result<Bytes, StorageError> {
        self.check_header(part, owner).await?;
        let range = part.offset..part.offset.saturating_add(part.length);
        let bytes = self.read_range(part, owner, range).await?;
        if bytes.len() as u64 != part.length {
            return Err(part.damaged(owner, "the file is too short"));
        }
        Ok(bytes)
    }

    async fn check_header(&self, part: &PartRef, owner: &impl std::fmt::Display) -> Result<(), StorageError> {
        if self.opened.lock().contains(&part.file) {
            return Ok(());
        }
        let header = self.read_range(part, owner, 0..HEADER.len() as u64).await?;
        if header[..] != HEADER[..] {
            let known = HEADER[HEADER.len() - 1];
            let reason = match header.strip_prefix(&HEADER[..HEADER.len() - 1]) {
                Some([version]) => format!("the file has version {version}, this server knows {known}"),
                _ => "the file is not one of a checkpoint".to_owned(),
            };
            return Err(part.damaged(owner, reason));
        }
        self.opened.lock().insert(part.file);
        Ok(())
    }

    async fn read_range(
        &self,
        part: &PartRef,
        owner: &impl std::fmt::Display,
        range: Range<u64>,
    ) -> Result<Bytes, StorageError> {
        let path = path(part.file);
        let error = match self.store.get_range(&path, range.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(object_store::Error::NotFound { .. }) => return Err(part.damaged(owner, "the file is missing")),
            Err(error) => error,
        };
        if self.root.is_some() {
            // The file may be too short, or the disk broken: whatever it is, the part is not there.
            return Err(part.damaged(owner, format!("it cannot be read: {error}")));
        }
        // What a bucket does not give now, it may give later, unless there is no such part.
        match self.store.head(&path).await {
            Ok(file) if file.size < range.end => Err(part.damaged(owner, "the file is too short")),
            _ => Err(error.into()),
        }
    }

    /// Begins a file, which is there once it is finished, if it has any parts.
    pub fn writer(&self, number: u64) -> FileWriter {
        FileWriter { number, object: ObjectWriter::new(self.store.clone(), path(number)), has_parts: false }
    }
}

/// A file on its way.
pub(crate) struct FileWriter {
    number: u64,
    object: ObjectWriter,
    has_parts: bool,
}

impl FileWriter {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds a part.
    pub async fn add(&mut self, bytes: &[u8]) -> Result<PartRef, StorageError> {
        if !self.has_parts {
            self.object.write(HEADER).await?;
            self.has_parts = true;
        }
        let end = self.object.written();
        let offset = end.next_multiple_of(ALIGNMENT);
        let padding = [0; ALIGNMENT as usize];
        self.object.write(&padding[..usize::try_from(offset - end).expect("less than the alignment")]).await?;
        self.object.write(bytes).await?;
        Ok(PartRef { file: self.number, offset, length: bytes.len() as u64, checksum: hash_bytes(bytes) })
    }

    /// Makes the file durable; gives its size, which is zero if there is nothing to write.
    pub async fn finish(self) -> Result<u64, StorageError> {
        if self.has_parts { self.object.finish().await } else { Ok(0) }
    }
}

/// Rows as a part. Takes time, so not on a thread that serves others.
pub(crate) async fn encode_rows(batches: Vec<RecordBatch>) -> Result<Vec<u8>, StorageError> {
    let encoded = tokio::task::spawn_blocking(move || encode(&batches)).await;
    Ok(encoded.map_err(|error| StorageError::Io { reason: error.to_string() })??)
}

fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let Some(first) = batches.first() else {
        return Ok(Vec::new());
    };
    // One batch: who reads it gets it in one piece.
    let rows = concat_batches(&first.schema(), batches)?;
    let columns: Vec<ArrayRef> = rows.columns().iter().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let rows = RecordBatch::try_new_with_options(rows.schema(), columns, &options)?;
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &first.schema())?;
    writer.write(&rows)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Views keep all the text of the batch that they were cut from; the writer would write it.
fn compact(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    }
}

/// The rows of a part. They stay in its bytes, which are not copied.
fn decode(bytes: Bytes) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut bytes = Buffer::from(bytes);
    let (mut decoder, mut batches) = (StreamDecoder::new(), Vec::new());
    while !bytes.is_empty() {
        batches.extend(decoder.decode(&mut bytes)?);
    }
    decoder.finish()?;
    Ok(batches)
}
