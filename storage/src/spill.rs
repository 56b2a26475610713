//! State that has no room in memory: runs of rows on the local disk, found by hash.
//!
//! A [`SpilledRows`] takes rows in sorted batches, each of which becomes a [`run`]: an immutable file of Arrow IPC
//! messages, sorted by a hash of the key and (where rows are deleted) one of the whole row. Runs are merged in
//! [`levels`], so that a look-up touches a bounded number of them. What is deleted is a bit in memory; merges leave it out.
//!
//! Nothing here outlives the process: the folder is emptied when it is opened. What is to come back after a restart is
//! in checkpoints.
//!
//! Files are read at positions (`pread`) into memory of their own rather than mapped: what a look-up reads is counted,
//! a failing disk is an error and no signal, and the system's page cache keeps what is read often.

mod bloom;
mod levels;
mod row_bits;
mod run;
mod untold;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::error::ArrowError;

pub use levels::{Found, NewRows, Place, SpilledRows, sorted_order};
pub use run::{FoundBy, Layout, Wanted};
pub use untold::{Untold, UntoldRows};

/// Why state could not be moved to the disk, or read from there.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    #[error("cannot keep state on the disk: {0}")]
    Io(#[from] io::Error),
    #[error("cannot read state from the disk: {0}")]
    Arrow(#[from] ArrowError),
}

/// The folder of spilled state. One a process.
#[derive(Debug)]
pub struct SpillFolder {
    path: PathBuf,
    next: AtomicU64,
    bytes: AtomicU64,
}

impl SpillFolder {
    /// Takes over the folder `path`, and deletes what an earlier process left there.
    ///
    /// # Errors
    /// If it cannot be made or emptied.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(path)?;
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Arc::new(Self { path: path.to_owned(), next: AtomicU64::new(0), bytes: AtomicU64::new(0) }))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Files made so far, whether or not they are there any more.
    pub fn files_made(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    fn create(self: &Arc<Self>) -> io::Result<SpillFile> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Another process that takes the folder over makes files of other names.
        let path = self.path.join(format!("{}-{number:012}.arrow", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(SpillFile { file, path, bytes: AtomicU64::new(0), folder: self.clone() })
    }
}

/// A file that is deleted when nobody needs it any more. One writes it, at its end; others may read what is there.
#[derive(Debug)]
struct SpillFile {
    file: File,
    path: PathBuf,
    bytes: AtomicU64,
    folder: Arc<SpillFolder>,
}

impl SpillFile {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(bytes, self.bytes())?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.folder.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.folder.bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot delete a file of spilled state");
        }
    }
}
