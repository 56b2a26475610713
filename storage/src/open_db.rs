//! The open key-value store, which is opened anew after it has failed.
//!
//! SlateDB gives up for good when it cannot write: a full disk, say. All that was acknowledged is on the disk, so opening it
//! again is all that it takes to go on once the cause is gone.
//!
//! To open is to fence whoever has the store open. Should another server have opened it meanwhile, neither goes on: this
//! one because it does not know what the other has written, that one because it is fenced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::config::Settings;
use slatedb::{Db, WriteBatch};

use crate::StorageError;

/// Where in its folder SlateDB keeps its files.
const STORE_PATH: &str = "store";
/// How often the store was opened by a server; it names this one.
pub(crate) const OPENINGS: &[u8] = b"store/openings";

pub(crate) struct OpenDb {
    files: Arc<dyn ObjectStore>,
    settings: Settings,
    current: Mutex<Db>,
    /// Whether `current` has failed. It is replaced before it is used again.
    broken: AtomicBool,
    /// What [`OPENINGS`] was when it last was written here.
    opening: Mutex<Option<Bytes>>,
    /// Held while the store is opened.
    reopening: tokio::sync::Mutex<()>,
}

impl OpenDb {
    pub async fn open(files: Arc<dyn ObjectStore>, settings: Settings) -> Result<Self, StorageError> {
        let db = open(&files, &settings).await?;
        Ok(Self {
            files,
            settings,
            current: Mutex::new(db),
            broken: AtomicBool::new(false),
            opening: Mutex::default(),
            reopening: tokio::sync::Mutex::default(),
        })
    }

    /// This server has become the one that `opening` names.
    pub fn set_opening(&self, opening: Bytes) {
        *self.opening.lock() = Some(opening);
    }

    /// The store, opened anew if it has failed.
    ///
    /// # Errors
    /// If it cannot be opened, or somebody else has opened it.
    pub async fn get(&self) -> Result<Db, StorageError> {
        let _one_at_a_time = self.reopening.lock().await;
        if self.broken.load(Ordering::Acquire) {
            // Boxed: it is large, and rare.
            let db = Box::pin(open(&self.files, &self.settings)).await?;
            if db.get(OPENINGS).await? != *self.opening.lock() {
                return Err(StorageError::Fenced);
            }
            tracing::info!("the store has been opened anew after a failure");
            *self.current.lock() = db;
            self.broken.store(false, Ordering::Release);
        }
        Ok(self.current.lock().clone())
    }

    /// Makes all of `batch` durable, or none of it.
    ///
    /// # Errors
    /// If that fails twice; the second time with the store opened anew.
    pub async fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        match self.try_write(batch.clone()).await {
            Ok(()) => Ok(()),
            Err(error @ (StorageError::Fenced | StorageError::Closed)) => Err(error),
            // It may have failed before, in the background, of a cause that is gone.
            Err(_) => self.try_write(batch).await,
        }
    }

    async fn try_write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let db = self.get().await?;
        let written = async {
            db.write(batch).await?;
            db.flush().await
        };
        let written = written.await.map_err(StorageError::from);
        if let Err(error) = &written
            && !matches!(error, StorageError::Fenced | StorageError::Closed)
        {
            self.broken.store(true, Ordering::Release);
        }
        written
    }
}

async fn open(files: &Arc<dyn ObjectStore>, settings: &Settings) -> Result<Db, StorageError> {
    Ok(Db::builder(STORE_PATH, files.clone()).with_settings(settings.clone()).build().await?)
}
