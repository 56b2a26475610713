//! The durable store: a key-value store on a folder, whose every write is on disk when it is acknowledged.
//!
//! Keys                                   | values
//! ---------------------------------------|----------------------------------------------
//! `catalog/` id                          | what the catalog says of one object; see [`crate::catalog_store`]
//! `meta/` name                           | a named value
//! `wal/` table id, sequence              | one change of a table; see [`crate::table_wal`]
//! `outbox/` sink id, epoch                | what a sink has yet to send; see [`crate::outbox`]
//! `checkpoint/` …                        | what the last checkpoint consists of; see [`crate::checkpoint`]
//!
//! Ids and sequences are eight bytes, big endian, so that keys sort like numbers. SlateDB keeps
//! them: a log-structured tree on an object store, here the local file system, where each write is synced
//! before it counts. It fences: once a second process has opened the folder, the first one's
//! writes fail with [`StorageError::Fenced`].
//!
//! An idle store only looks at its manifest now and then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use slatedb::config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions, Settings};
use slatedb::{CloseReason, ErrorKind};

use crate::checkpoint::CheckpointFiles;
use crate::group_commit::{GroupCommit, Write};
use crate::open_db::{OPENINGS, OpenDb};

/// Bytes of changes after which they move from the log into the tree.
const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that may wait to be written before writers wait.
const UNFLUSHED_BYTES_MAX: usize = 4 * MEMTABLE_BYTES;
/// How often to look at the manifest, to learn of compactions; fencing is noticed by any write.
const MANIFEST_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// How often to delete files that are not needed any more, and how old they must be.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(60);
const GARBAGE_AGE_MIN: Duration = Duration::from_secs(10 * 60);
/// The part of a sequence that counts within one opening of the store.
const SEQUENCE_BITS: u32 = 40;

/// Why something could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("cannot keep data at \"{location}\": only local folders are supported, object stores are not yet")]
    UnsupportedLocation { location: String },
    #[error("cannot open \"{path}\": {reason}")]
    Open { path: String, reason: String },
    #[error("another server has opened this data folder since; this one can no longer write to it")]
    Fenced,
    #[error("the store is closed")]
    Closed,
    #[error("the stored record {name} is damaged: {reason}")]
    Damaged { name: String, reason: String },
    #[error("{name} is in storage and was not brought back, so a change of it cannot be stored")]
    NotBroughtBack { name: String },
    #[error("there is no room left on the disk")]
    DiskFull,
    #[error("the store cannot be read or written: {reason}")]
    Io { reason: String },
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<slatedb::Error> for StorageError {
    fn from(error: slatedb::Error) -> Self {
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => Self::Fenced,
            ErrorKind::Closed(CloseReason::Clean) => Self::Closed,
            _ => Self::io(&error),
        }
    }
}

impl From<object_store::Error> for StorageError {
    fn from(error: object_store::Error) -> Self {
        Self::io(&error)
    }
}

impl StorageError {
    /// What the outside said: that the disk is full, or anything else.
    pub(crate) fn io(error: &(dyn std::error::Error + 'static)) -> Self {
        let is_full = |kind| matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let mut cause = Some(error);
        while let Some(error) = cause {
            let shared = error.downcast_ref::<Arc<std::io::Error>>().map(|error| error.kind());
            if error.downcast_ref::<std::io::Error>().map(std::io::Error::kind).or(shared).is_some_and(is_full) {
                return Self::DiskFull;
            }
            cause = error.source();
        }
        Self::Io { reason: error.to_string() }
    }
}

/// An open store.
pub struct Store {
    pub(crate) db: Arc<OpenDb>,
    pub(crate) commits: Arc<GroupCommit>,
    /// The files of checkpoints.
    pub(crate) files: CheckpointFiles,
    /// The sequence of the next change written to any table's log, or the number of the next checkpoint.
    pub(crate) next_sequence: Arc<AtomicU64>,
}

impl Store {
    /// Opens the store in a folder, given as a path or a `file://` URL; makes it if there is none.
    ///
    /// # Errors
    /// If the location is of another kind, or cannot be written.
    pub async fn open(location: &str) -> Result<Self, StorageError> {
        let path = local_folder(location)?;
        let failed = |reason: String| StorageError::Open { path: path.display().to_string(), reason };
        tokio::fs::create_dir_all(&path).await.map_err(|error| failed(error.to_string()))?;
        let files = LocalFileSystem::new_with_prefix(&path).map_err(|error| failed(error.to_string()))?;
        let files = Arc::new(files.with_fsync(true));
        let db = OpenDb::open(files.clone(), settings()).await;
        let db = Arc::new(db.map_err(|error| failed(error.to_string()))?);
        let commits = Arc::new(GroupCommit::new(db.clone()));
        let store = Self { commits, db, files: CheckpointFiles::new(files, &path), next_sequence: Arc::default() };
        store.next_sequence.store(store.first_sequence().await?, Ordering::SeqCst);
        Ok(store)
    }

    /// A sequence later than all that were ever used: its upper bits count how often the store was opened.
    async fn first_sequence(&self) -> Result<u64, StorageError> {
        let damaged = || StorageError::Damaged { name: "store/openings".to_owned(), reason: "not a number".to_owned() };
        let openings = match self.db.get().await?.get(OPENINGS).await? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(bytes[..].try_into().map_err(|_| damaged())?),
        };
        let opening = openings + 1;
        let value = Bytes::copy_from_slice(&opening.to_be_bytes());
        self.db.set_opening(value.clone());
        self.commits.commit(vec![Write::Put(Bytes::from_static(OPENINGS), value)]).await?;
        Ok(opening << SEQUENCE_BITS)
    }

    /// The value named `name`.
    pub async fn get_meta(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.db.get().await?.get(meta_key(name)).await?)
    }

    /// Stores the value named `name`; durable once this returns.
    pub async fn put_meta(&self, name: &str, value: Bytes) -> Result<(), StorageError> {
        self.commits.commit(vec![Write::Put(meta_key(name), value)]).await
    }

    /// Ends the store's work. Nothing that was acknowledged depends on it.
    pub async fn close(&self) -> Result<(), StorageError> {
        Ok(self.db.get().await?.close().await?)
    }
}

fn meta_key(name: &str) -> Bytes {
    Bytes::from(format!("meta/{name}"))
}

/// The folder that a path or URL means.
///
/// # Errors
/// If it means something else.
pub fn local_folder(location: &str) -> Result<PathBuf, StorageError> {
    match location.split_once("://") {
        None => Ok(Path::new(location).to_owned()),
        Some(("file", path)) => Ok(Path::new(path).to_owned()),
        Some(_) => Err(StorageError::UnsupportedLocation { location: location.to_owned() }),
    }
}

fn settings() -> Settings {
    let garbage = GarbageCollectorDirectoryOptions {
        interval: Some(GARBAGE_INTERVAL),
        min_age: GARBAGE_AGE_MIN,
        ..GarbageCollectorDirectoryOptions::default()
    };
    Settings {
        // Group commit flushes at once; a timer would only add to the latency.
        flush_interval: None,
        manifest_poll_interval: MANIFEST_POLL_INTERVAL,
        l0_sst_size_bytes: MEMTABLE_BYTES,
        max_unflushed_bytes: UNFLUSHED_BYTES_MAX,
        garbage_collector_options: Some(GarbageCollectorOptions {
            wal_options: Some(garbage),
            compacted_options: Some(garbage),
            detach_options: None,
            // The local file system has no conditional overwrites, which boundary files need.
            boundary_files_enabled: false,
            ..GarbageCollectorOptions::default()
        }),
        // A full or failing disk is an error to report, not to wait out in silence.
        object_store_max_retries: Some(3),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn named_values_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let location = format!("file://{}", dir.path().join("new/data").display());
        let store = Store::open(&location).await.unwrap();
        assert_eq!(store.get_meta("a").await.unwrap(), None);
        store.put_meta("a", Bytes::from("1")).await.unwrap();
        store.put_meta("a", Bytes::from("2")).await.unwrap();
        // No close: what was acknowledged must not need it.
        drop(store);
        let store = Store::open(&location).await.unwrap();
        assert_eq!(store.get_meta("a").await.unwrap().unwrap(), "2");
        store.close().await.unwrap();
        assert!(matches!(store.put_meta("a", Bytes::from("3")).await, Err(StorageError::Closed)));
    }

    #[tokio::test]
    async fn a_second_opening_fences_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().to_str().unwrap();
        let first = Store::open(location).await.unwrap();
        first.put_meta("a", Bytes::from("1")).await.unwrap();
        let second = Store::open(location).await.unwrap();
        assert!(matches!(first.put_meta("a", Bytes::from("2")).await, Err(StorageError::Fenced)));
        assert_eq!(second.get_meta("a").await.unwrap().unwrap(), "1");
        second.put_meta("a", Bytes::from("3")).await.unwrap();
        assert!(matches!(first.put_meta("b", Bytes::from("4")).await, Err(StorageError::Fenced)));
    }

    #[tokio::test]
    async fn other_locations_are_refused() {
        let error = Store::open("s3://bucket/prefix").await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot keep data at \"s3://bucket/prefix\": only local folders are supported, object stores are not yet"
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(Store::open(file.to_str().unwrap()).await, Err(StorageError::Open { .. })));
    }
}
