//! The durable store: a key-value store on a folder or a bucket, whose every write is durable when it is acknowledged.
//!
//! Keys                                   | values
//! ---------------------------------------|----------------------------------------------
//! `catalog/` id                          | what the catalog says of one object; see [`crate::catalog_store`]
//! `store/format`                          | the version of all this
//! `store/openings`                        | how often it was opened
//! `meta/` name                           | a named value
//! `wal/` table id, sequence              | one change of a table; see [`crate::table_wal`]
//! `outbox/` sink id, epoch                | what a sink has yet to send; see [`crate::outbox`]
//! `checkpoint/` …                        | what the last checkpoint consists of; see [`crate::checkpoint`]
//!
//! Ids and sequences are eight bytes, big endian, so that keys sort like numbers. SlateDB keeps
//! them: a log-structured tree on an object store. On the local file system each write is synced
//! before it counts. It fences: once a second process has opened the same location, the first one's
//! writes fail with [`StorageError::Fenced`], and [`Store::fenced`] returns.
//!
//! An idle store only looks at its manifest now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions, ObjectStoreCacheOptions, Settings};
use slatedb::{CloseReason, ErrorKind};

use crate::checkpoint::CheckpointFiles;
use crate::group_commit::{GroupCommit, Write};
use crate::iceberg::IcebergTable;
use crate::location::Location;
use crate::open_db::{OPENINGS, OpenDb};
use crate::tiers::{Tiers, WarmPlace};

/// Where the files of the tiers are.
const WARM: &str = "warm";
const COLD: &str = "cold";
/// Bytes of changes after which they move from the log into the tree.
const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that may wait to be written before writers wait.
const UNFLUSHED_BYTES_MAX: usize = 4 * MEMTABLE_BYTES;
/// How often to look at the manifest, to learn of compactions, and of having been fenced while there is nothing to write.
const MANIFEST_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How often to delete files of the tree that are not needed any more, and how old they must be: readers may still have them.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(60);
const GARBAGE_AGE_MIN: Duration = Duration::from_secs(10 * 60);
/// The same for files of the log whose changes are in the tree. Each commit makes one, hundreds a second under load.
/// Nobody reads them but a server that starts, and it first looks where the tree ends; so they need no age to speak of.
const LOG_GARBAGE_INTERVAL: Duration = Duration::from_secs(10);
const LOG_GARBAGE_AGE_MIN: Duration = Duration::from_secs(10);
/// In a bucket each look costs a request for every thousand files, and commits are fewer.
const LOG_GARBAGE_INTERVAL_REMOTE: Duration = Duration::from_secs(60);
/// The mark of a location into which a backup is being restored.
pub(crate) const UNFINISHED: &str = "RESTORING";
/// The version of what is kept, as a whole: a server that does not know it must not touch anything. Data without it has
/// version 1.
const FORMAT: &[u8] = b"store/format";
const FORMAT_VERSION: u32 = 1;
/// The part of a sequence that counts within one opening of the store.
const SEQUENCE_BITS: u32 = 40;

/// Why something could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("cannot keep data at \"{location}\": {reason}")]
    UnsupportedLocation { location: String, reason: String },
    #[error("cannot open \"{location}\": {reason}")]
    Open { location: String, reason: String },
    #[error("cannot write to \"{location}\": there is something already")]
    NotEmpty { location: String },
    #[error("there is no complete backup at \"{location}\"")]
    NoBackup { location: String },
    #[error("{name} has format version {found}, and this server knows {known}: another version of Freshet wrote it")]
    UnknownVersion { name: String, found: String, known: u32 },
    #[error("another server has opened this data since; this one can no longer write to it")]
    Fenced,
    #[error("the store is closed")]
    Closed,
    #[error("the stored record {name} is damaged: {reason}")]
    Damaged { name: String, reason: String },
    #[error("{name} is in storage and was not brought back, so a change of it cannot be stored")]
    NotBroughtBack { name: String },
    #[error("{what} is not supported")]
    Unsupported { what: String },
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

/// A folder on the local disk for copies of what lies in a bucket. Whatever is in it can be had again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskCache {
    pub folder: PathBuf,
    pub bytes_max: u64,
}

/// An open store.
pub struct Store {
    location: Location,
    objects: Arc<dyn ObjectStore>,
    pub(crate) db: Arc<OpenDb>,
    pub(crate) commits: Arc<GroupCommit>,
    /// The files of checkpoints.
    pub(crate) files: CheckpointFiles,
    /// The sequence of the next change written to any table's log, or the number of the next checkpoint.
    pub(crate) next_sequence: Arc<AtomicU64>,
}

impl Store {
    /// Opens the store at a location as [`Location::parse`] reads it; makes it if there is none.
    ///
    /// # Errors
    /// If there is no such location, or it cannot be read and written.
    pub async fn open(location: &str) -> Result<Self, StorageError> {
        Self::open_at(&Location::parse(location)?, None).await
    }

    /// The same, with a cache for a bucket's objects; a folder needs none.
    ///
    /// # Errors
    /// If the location cannot be read and written.
    pub async fn open_at(location: &Location, cache: Option<&DiskCache>) -> Result<Self, StorageError> {
        Self::open_with(location, settings(location, cache)).await
    }

    async fn open_with(location: &Location, settings: Settings) -> Result<Self, StorageError> {
        let failed = |error: StorageError| match error {
            error @ (StorageError::Fenced | StorageError::Open { .. }) => error,
            error => location.cannot_open(error.to_string()),
        };
        let objects = location.open().await?;
        match objects.head(&Path::from(UNFINISHED)).await {
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error.into())),
            Ok(_) => {
                let reason =
                    "a backup has been restored into it only in part; delete all that is there, and restore again";
                return Err(location.cannot_open(reason.to_owned()));
            }
        }
        let db = OpenDb::open(objects.clone(), settings).await.map_err(failed)?;
        let db = Arc::new(db);
        let next_sequence = Arc::<AtomicU64>::default();
        // A bucket's local disk is a cache and may be gone tomorrow: there the warm tier is in the bucket too.
        // Threads of this runtime wait for what the tiers' own threads read.
        let tiered = location.apart(&objects)?;
        let (warm, cold) = ((tiered.clone(), WARM.into()), (tiered, COLD.into()));
        let warm_place = location.folder().map_or(WarmPlace::Bucket, |_| WarmPlace::Disk);
        let tiers = Tiers::new(warm_place, warm, cold, next_sequence.clone())?;
        let store = Self {
            location: location.clone(),
            commits: Arc::new(GroupCommit::new(db.clone())),
            db,
            files: CheckpointFiles::new(objects.clone(), location.folder(), tiers),
            objects,
            next_sequence,
        };
        store.check_format().await?;
        store.next_sequence.store(store.first_sequence().await.map_err(failed)?, Ordering::SeqCst);
        Ok(store)
    }

    /// Refuses data whose format this server does not know.
    async fn check_format(&self) -> Result<(), StorageError> {
        let known = FORMAT_VERSION.to_string();
        match self.db.get().await?.get(FORMAT).await? {
            None => self.commits.commit(vec![Write::Put(Bytes::from_static(FORMAT), known.into())]).await,
            Some(found) if found == known => Ok(()),
            Some(found) => Err(StorageError::UnknownVersion {
                name: format!("the data at \"{}\"", self.location),
                found: found.escape_ascii().to_string(),
                known: FORMAT_VERSION,
            }),
        }
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// All that is kept there; the store's own is below `store/` and `checkpoints/`.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Returns once another server has opened the same location, and never before.
    pub async fn fenced(&self) {
        self.db.fenced().await;
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

    /// The table that other programs find in a folder of the cold tier, as [`Store::cold_folders`] names it.
    pub fn iceberg_table(&self, folder: &str) -> Result<IcebergTable, StorageError> {
        let within = Path::parse(format!("{COLD}/{folder}")).map_err(object_store::Error::from)?;
        let location = format!("{}/{within}", self.location.url());
        Ok(IcebergTable::new(self.objects.clone(), within, location))
    }

    /// The folders of the cold tier.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn cold_folders(&self) -> Result<Vec<String>, StorageError> {
        let found = self.objects.list_with_delimiter(Some(&Path::from(COLD))).await?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Where rows lie that are not in memory any more.
    pub fn tiers(&self) -> &Arc<Tiers> {
        self.files.tiers()
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

pub(crate) fn settings(location: &Location, cache: Option<&DiskCache>) -> Settings {
    let garbage = GarbageCollectorDirectoryOptions {
        interval: Some(GARBAGE_INTERVAL),
        min_age: GARBAGE_AGE_MIN,
        ..GarbageCollectorDirectoryOptions::default()
    };
    let log_garbage = GarbageCollectorDirectoryOptions {
        interval: Some(if location.is_remote() { LOG_GARBAGE_INTERVAL_REMOTE } else { LOG_GARBAGE_INTERVAL }),
        min_age: LOG_GARBAGE_AGE_MIN,
        ..GarbageCollectorDirectoryOptions::default()
    };
    let cache = cache.filter(|_| location.is_remote()).map(|cache| ObjectStoreCacheOptions {
        root_folder: Some(cache.folder.clone()),
        max_cache_size_bytes: Some(usize::try_from(cache.bytes_max).unwrap_or(usize::MAX)),
        cache_on_flush: true,
        cache_on_compaction: true,
        ..ObjectStoreCacheOptions::default()
    });
    Settings {
        // Group commit flushes at once; a timer would only add to the latency.
        flush_interval: None,
        manifest_poll_interval: MANIFEST_POLL_INTERVAL,
        l0_sst_size_bytes: MEMTABLE_BYTES,
        max_unflushed_bytes: UNFLUSHED_BYTES_MAX,
        garbage_collector_options: Some(GarbageCollectorOptions {
            wal_options: Some(log_garbage),
            // The empty files with which servers fence their predecessors stay for ever: one that was suspended for a year must
            // still find the place of its next write taken.
            wal_fence_options: None,
            compacted_options: Some(garbage),
            detach_options: None,
            // The local file system has no conditional overwrites, which boundary files need.
            boundary_files_enabled: location.is_remote(),
            ..GarbageCollectorOptions::default()
        }),
        // A full or failing disk is an error to report, not to wait out in silence. Requests to a bucket
        // have been repeated before that.
        object_store_max_retries: Some(if location.is_remote() { 1 } else { 3 }),
        object_store_cache_options: cache.unwrap_or_default(),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use freshet_types::Epoch;

    use super::*;
    use crate::checkpoint::Checkpoints;

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
    async fn an_idle_store_learns_that_it_is_fenced() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().to_str().unwrap();
        let first = Store::open(location).await.unwrap();
        let mut fenced = Box::pin(first.fenced());
        assert!(futures::poll!(&mut fenced).is_pending());
        let second = Store::open(location).await.unwrap();
        tokio::time::timeout(MANIFEST_POLL_INTERVAL * 5, fenced).await.unwrap();
        second.put_meta("a", Bytes::from("1")).await.unwrap();
    }

    #[tokio::test]
    async fn data_of_another_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().to_str().unwrap();
        let store = Store::open(location).await.unwrap();
        store.commits.commit(vec![Write::Put(Bytes::from_static(FORMAT), Bytes::from("2"))]).await.unwrap();
        let openings = store.db.get().await.unwrap().get(OPENINGS).await.unwrap();
        for _ in 0..2 {
            let error = Store::open(location).await.err().unwrap().to_string();
            let expected = format!(
                "the data at \"{location}\" has format version 2, and this server knows 1: another version of Freshet wrote it"
            );
            assert_eq!(error, expected);
        }
        let db = slatedb::Db::open("store", location_store(location).await).await.unwrap();
        assert_eq!(db.get(OPENINGS).await.unwrap(), openings);
    }

    /// Settings with which files of the log go as soon as they may.
    fn with_quick_garbage(location: &Location) -> Settings {
        let mut settings = settings(location, None);
        let garbage = settings.garbage_collector_options.as_mut().unwrap().wal_options.as_mut().unwrap();
        (garbage.interval, garbage.min_age) = (Some(Duration::from_millis(20)), Duration::ZERO);
        settings
    }

    /// Waits until the log has at most so many files.
    async fn wait_for_log_files(folder: &std::path::Path, files_max: usize) {
        let files = || std::fs::read_dir(folder.join("store/wal")).unwrap().count();
        let bounded = async {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            while files() > files_max {
                tick.tick().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), bounded).await;
        waited.unwrap_or_else(|_| panic!("there are still {} files", files()));
    }

    /// The log has a file a commit; those whose changes are in the tree go, and take nothing with them.
    #[tokio::test]
    async fn the_files_of_the_log_are_bounded() {
        const COMMITS: usize = 80;
        let dir = tempfile::tempdir().unwrap();
        let location = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let value = |n: usize| Bytes::from(vec![u8::try_from(n).unwrap(); 1 << 20]);
        for opening in 0..2 {
            // No close: the second opening finds what a process left that was killed.
            let store = Store::open_with(&location, with_quick_garbage(&location)).await.unwrap();
            for n in 0..COMMITS * opening {
                assert!(store.get_meta(&n.to_string()).await.unwrap() == Some(value(n)), "{n}");
            }
            for n in COMMITS * opening..COMMITS * (opening + 1) {
                store.put_meta(&n.to_string(), value(n)).await.unwrap();
            }
            // As many as fit into memory are needed to start again.
            wait_for_log_files(dir.path(), (MEMTABLE_BYTES >> 20) + 8).await;
        }
        let store = Store::open_at(&location, None).await.unwrap();
        for n in 0..2 * COMMITS {
            assert!(store.get_meta(&n.to_string()).await.unwrap() == Some(value(n)), "{n}");
        }
    }

    /// Many small commits leave a short log too, once there is a checkpoint after them.
    #[tokio::test]
    async fn a_checkpoint_shortens_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let store = Store::open_with(&location, with_quick_garbage(&location)).await.unwrap();
        let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
        for n in 0..100_u32 {
            store.put_meta(&n.to_string(), Bytes::from(n.to_string())).await.unwrap();
        }
        checkpoints.begin(Epoch(1)).commit(String::new(), Vec::new()).await.unwrap();
        wait_for_log_files(dir.path(), 8).await;
        drop((store, checkpoints));
        let store = Store::open_at(&location, None).await.unwrap();
        assert_eq!(Checkpoints::open(&store).await.unwrap().0.epoch(), Some(Epoch(1)));
        for n in 0..100_u32 {
            assert_eq!(store.get_meta(&n.to_string()).await.unwrap().unwrap(), n.to_string());
        }
    }

    async fn location_store(location: &str) -> Arc<dyn ObjectStore> {
        Location::parse(location).unwrap().open().await.unwrap()
    }

    /// A store that failed and is opened anew must not take the data from a server that has taken it over.
    #[tokio::test]
    async fn a_broken_store_leaves_its_successor_alone() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().to_str().unwrap();
        let first = Store::open(location).await.unwrap();
        first.put_meta("a", Bytes::from("1")).await.unwrap();
        first.db.break_down();
        // Its own successor is fine.
        first.put_meta("a", Bytes::from("2")).await.unwrap();
        let second = Store::open(location).await.unwrap();
        first.db.break_down();
        assert!(matches!(first.put_meta("a", Bytes::from("3")).await, Err(StorageError::Fenced)));
        assert!(matches!(first.put_meta("a", Bytes::from("3")).await, Err(StorageError::Fenced)));
        tokio::time::timeout(Duration::from_secs(1), first.fenced()).await.unwrap();
        assert_eq!(second.get_meta("a").await.unwrap().unwrap(), "2");
        second.put_meta("a", Bytes::from("4")).await.unwrap();
    }

    #[tokio::test]
    async fn other_locations_are_refused() {
        let error = Store::open("http://bucket/prefix").await.err().unwrap();
        assert!(matches!(error, StorageError::UnsupportedLocation { .. }), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(Store::open(file.to_str().unwrap()).await, Err(StorageError::Open { .. })));
    }
}
