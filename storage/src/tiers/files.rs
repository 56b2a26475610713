//! The files of the warm and the cold tier, and what is kept of them in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::TryStreamExt;
use moka::future::Cache;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::bloom_filter::Sbbf;

use super::blocks::{self, BLOCK_BYTES, Checksums};
use super::find::RowHashes;
use super::io::Io;
use super::{Tier, TierError};
use crate::StorageError;

/// How much memory the caches may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct CacheBytes {
    /// Footers with their page indexes.
    pub footers: u64,
    /// Blocks of remote files. Local ones are cached by the operating system.
    pub blocks: u64,
    /// Hashes of keys, by which a row is found in a row group.
    pub hashes: u64,
    /// Bloom filters.
    pub filters: u64,
}

impl CacheBytes {
    /// Shares of `total`.
    pub fn of(total: u64) -> Self {
        Self { footers: total / 4, blocks: total / 4, hashes: total / 4, filters: total / 4 }
    }
}

/// What is used until somebody says otherwise.
const CACHE_BYTES: u64 = 64 << 20;

/// A file of a tier. As long as one of these is there, so is the file.
#[derive(Debug)]
pub struct TierFile {
    pub tier: Tier,
    /// From the root of the tier.
    pub path: Path,
    /// No other file has or had it.
    pub number: u64,
    pub bytes: u64,
    /// Files of earlier versions have none.
    pub(crate) checksums: Option<Checksums>,
}

/// What holds the warm tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmPlace {
    /// The operating system keeps in memory what was read of it.
    Disk,
    /// What was read of it is kept here, as of the cold tier.
    Bucket,
}

/// A file and a block of it, by their numbers.
type BlockKey = (u64, u64);

/// All files of the warm and the cold tier. Its stores are used on its own threads alone: see [`super::io`].
pub struct Tiers {
    warm: Arc<dyn ObjectStore>,
    cold: Arc<dyn ObjectStore>,
    warm_place: WarmPlace,
    /// Below which files lie in each store.
    roots: [Path; 2],
    io: Io,
    next_number: Arc<AtomicU64>,
    /// Those that somebody may refer to.
    files: Mutex<BTreeMap<(Tier, Path), Weak<TierFile>>>,
    caches: Mutex<Caches>,
}

#[derive(Clone)]
pub(super) struct Caches {
    pub footers: Cache<u64, ArrowReaderMetadata>,
    blocks: Cache<BlockKey, Bytes>,
    pub hashes: Cache<(u64, usize), Arc<RowHashes>>,
    /// By file, row group and column.
    pub filters: Cache<(u64, usize, usize), Arc<Option<Sbbf>>>,
}

impl Caches {
    fn new(bytes: CacheBytes) -> Self {
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            footers: Cache::builder()
                .max_capacity(bytes.footers)
                .weigher(move |_, footer: &ArrowReaderMetadata| weight(footer.metadata().memory_size()))
                .build(),
            blocks: Cache::builder()
                .max_capacity(bytes.blocks)
                .weigher(move |_, block: &Bytes| weight(block.len()))
                .build(),
            hashes: Cache::builder()
                .max_capacity(bytes.hashes)
                .weigher(move |_, hashes: &Arc<RowHashes>| weight(hashes.memory_bytes()))
                .build(),
            filters: Cache::builder()
                .max_capacity(bytes.filters)
                // A block has 256 bits.
                .weigher(move |_, filter: &Arc<Option<Sbbf>>| {
                    weight(filter.as_ref().as_ref().map_or(0, Sbbf::num_blocks) * 32 + 64)
                })
                .build(),
        }
    }
}

impl std::fmt::Debug for Tiers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tiers(warm {:?}, cold {:?})", self.roots[0], self.roots[1])
    }
}

impl Tiers {
    /// Files below `warm_root` of `warm`, which is in `warm_place`, and `cold_root` of `cold`. Numbers of files come from `next_number`, which
    /// gives none twice, over all starts.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(
        warm_place: WarmPlace,
        (warm, warm_root): (Arc<dyn ObjectStore>, Path),
        (cold, cold_root): (Arc<dyn ObjectStore>, Path),
        next_number: Arc<AtomicU64>,
    ) -> Result<Arc<Self>, StorageError> {
        Ok(Arc::new(Self {
            warm,
            cold,
            warm_place,
            roots: [warm_root, cold_root],
            io: Io::start().map_err(|error| StorageError::io(&error))?,
            next_number,
            files: Mutex::default(),
            caches: Mutex::new(Caches::new(CacheBytes::of(CACHE_BYTES))),
        }))
    }

    /// Has the caches hold at most so much. What they hold now is forgotten.
    pub fn set_cache_bytes(&self, bytes: CacheBytes) {
        *self.caches.lock() = Caches::new(bytes);
    }

    pub(super) fn caches(&self) -> Caches {
        self.caches.lock().clone()
    }

    fn place(&self, tier: Tier) -> (&Arc<dyn ObjectStore>, &Path) {
        match tier {
            Tier::Cold => (&self.cold, &self.roots[1]),
            Tier::Hot | Tier::Warm => (&self.warm, &self.roots[0]),
        }
    }

    pub(crate) fn full_path(&self, tier: Tier, path: &Path) -> Path {
        self.place(tier).1.parts().chain(path.parts()).collect()
    }

    /// Runs `work` on the threads of the tiers.
    ///
    /// # Errors
    /// If it fails or panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        file: &TierFile,
        work: impl Future<Output = Result<T, TierError>> + Send + 'static,
    ) -> Result<T, TierError> {
        self.io.spawn(work).await.unwrap_or_else(|| Err(file.error("reading it broke off")))
    }

    /// Like [`Tiers::run`], for callers that cannot await.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        file: &TierFile,
        work: impl Future<Output = Result<T, TierError>> + Send + 'static,
    ) -> Result<T, TierError> {
        self.io.wait(work).unwrap_or_else(|| Err(file.error("reading it broke off")))
    }

    /// Writes a file into `folder` of a tier; durable once this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn write(
        &self,
        tier: Tier,
        folder: &[String],
        contents: Vec<u8>,
    ) -> Result<Arc<TierFile>, StorageError> {
        let number = self.next_number.fetch_add(1, Ordering::SeqCst);
        let name = format!("{number:020}.parquet");
        let path: Path = folder.iter().map(String::as_str).chain([name.as_str()]).collect();
        let (bytes, checksums) = (contents.len() as u64, Some(Checksums::of(&contents)));
        let file = Arc::new(TierFile { tier, path: path.clone(), number, bytes, checksums });
        // Known before it is there, so that it is never taken for garbage.
        self.files.lock().insert((tier, path.clone()), Arc::downgrade(&file));
        let (store, full_path) = (self.place(tier).0.clone(), self.full_path(tier, &path));
        let written = self.io.spawn(async move { store.put(&full_path, contents.into()).await }).await;
        written.ok_or_else(|| StorageError::Io { reason: "writing a file broke off".to_owned() })??;
        Ok(file)
    }

    /// The file that a checkpoint refers to. It is not looked at.
    pub(crate) fn known(
        &self,
        (tier, path): (Tier, &str),
        number: u64,
        bytes: u64,
        checksums: Option<Checksums>,
    ) -> Arc<TierFile> {
        let path = stored_path(path);
        let mut files = self.files.lock();
        let known = files.entry((tier, path.clone())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let file = Arc::new(TierFile { tier, path, number, bytes, checksums });
            *known = Arc::downgrade(&file);
            file
        })
    }

    /// Deletes the files of this process that nobody refers to and that are not in `kept`, which is what the last
    /// checkpoint refers to. What cannot be deleted now is tried again.
    pub(crate) async fn delete_garbage(&self, kept: &BTreeSet<(Tier, Path)>) {
        let garbage: Vec<(Tier, Path)> = {
            let files = self.files.lock();
            let is_garbage =
                |(key, file): &(&(Tier, Path), &Weak<TierFile>)| file.strong_count() == 0 && !kept.contains(*key);
            files.iter().filter(is_garbage).map(|(key, _)| key.clone()).collect()
        };
        for key in garbage {
            match self.delete(key.0, &key.1).await {
                Ok(()) => {
                    self.files.lock().remove(&key);
                }
                Err(error) => tracing::warn!(path = %key.1, %error, "cannot delete a {} file", key.0),
            }
        }
    }

    /// Below which files lie, of the warm and of the cold tier.
    pub(crate) fn roots(&self) -> &[Path; 2] {
        &self.roots
    }

    /// Deletes what lies in the tiers and is not in `kept`: files of processes that ended before they could say so.
    ///
    /// # Errors
    /// If the tiers cannot be listed.
    pub(crate) async fn delete_unknown(&self, kept: &BTreeSet<(Tier, Path)>) -> Result<(), StorageError> {
        for tier in [Tier::Warm, Tier::Cold] {
            let (store, root) = self.place(tier);
            let (listed, below) = (store.clone(), root.clone());
            let found = self.io.spawn(async move { listed.list(Some(&below)).try_collect::<Vec<_>>().await }).await;
            let found = found.ok_or_else(|| StorageError::Io { reason: "listing files broke off".to_owned() })??;
            for object in found {
                let Some(parts) = object.location.prefix_match(root) else { continue };
                let path: Path = parts.collect();
                let number = path.filename().and_then(|name| name.strip_suffix(".parquet"));
                let is_ours = number.is_some_and(|number| number.parse::<u64>().is_ok());
                if !is_ours || kept.contains(&(tier, path.clone())) {
                    continue;
                }
                if let Err(error) = self.delete(tier, &path).await {
                    tracing::warn!(%path, %error, "cannot delete a {tier} file");
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, tier: Tier, path: &Path) -> Result<(), StorageError> {
        let (store, path) = (self.place(tier).0.clone(), self.full_path(tier, path));
        let deleted = self.io.spawn(async move { store.delete(&path).await }).await;
        match deleted.ok_or_else(|| StorageError::Io { reason: "deleting a file broke off".to_owned() })? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes of some ranges of a file, whose blocks are those that were written; adds the bytes that had to be fetched to
    /// `fetched`. Runs on the threads of the tiers.
    pub(super) async fn ranges(
        &self,
        file: &TierFile,
        ranges: &[Range<u64>],
        fetched: &AtomicU64,
    ) -> Result<Vec<Bytes>, TierError> {
        let cache = self.caches().blocks;
        let is_cached = file.tier == Tier::Cold || self.warm_place == WarmPlace::Bucket;
        let mut pieces: Vec<(u64, Bytes)> = Vec::new();
        let mut missing = blocks::touched(ranges);
        if is_cached {
            let mut absent = Vec::new();
            for block in missing {
                match cache.get(&(file.number, block)).await {
                    Some(bytes) => pieces.push((block * BLOCK_BYTES, bytes)),
                    None => absent.push(block),
                }
            }
            missing = absent;
        }
        let runs = blocks::runs(&missing, file.bytes);
        for (run, bytes) in runs.iter().zip(self.fetch(file, &runs).await?) {
            fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if is_cached {
                for (start, block) in
                    (run.start..).step_by(BLOCK_BYTES as usize).zip(bytes.chunks(BLOCK_BYTES as usize))
                {
                    // A copy: a part of the run would keep all of it.
                    cache.insert((file.number, start / BLOCK_BYTES), Bytes::copy_from_slice(block)).await;
                }
            }
            pieces.push((run.start, bytes));
        }
        pieces.sort_unstable_by_key(|(start, _)| *start);
        ranges
            .iter()
            .map(|range| blocks::cut(&pieces, range).ok_or_else(|| file.error("the file is too short")))
            .collect()
    }

    /// Reads whole blocks and checks them.
    async fn fetch(&self, file: &TierFile, runs: &[Range<u64>]) -> Result<Vec<Bytes>, TierError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.full_path(file.tier, &file.path);
        let read = self.place(file.tier).0.get_ranges(&path, runs).await;
        let read = read.map_err(|error| match error {
            object_store::Error::NotFound { .. } => file.error("the file is missing"),
            error => file.error(error.to_string()),
        })?;
        for (run, bytes) in runs.iter().zip(&read) {
            if bytes.len() as u64 != run.end - run.start {
                return Err(file.error("the file is too short"));
            }
            let wrong = file.checksums.as_ref().and_then(|checksums| checksums.first_wrong(run.start, bytes));
            if let Some(place) = wrong {
                let error = file.error(format!("the bytes from {place} on are not those that were written"));
                tracing::error!("{error}");
                return Err(error);
            }
        }
        Ok(read)
    }
}

/// A path as it was written down. It has been made of its parts before: names that need it are encoded already.
pub(crate) fn stored_path(path: &str) -> Path {
    Path::parse(path).unwrap_or_else(|_| Path::from(path))
}

impl TierFile {
    pub(crate) fn error(&self, reason: impl Into<String>) -> TierError {
        TierError { tier: self.tier, path: self.path.to_string(), reason: reason.into() }
    }
}
