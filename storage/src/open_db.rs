//! The open key-value store, which is opened anew after it has failed.
//!
//! SlateDB gives up for good when it cannot write: a full disk, say, or a bucket out of reach. All that was acknowledged is
//! durable, so opening it again is all that it takes to go on once the cause is gone.
//!
//! To open is to fence whoever has the store open. So it is opened anew only if nobody else has opened it meanwhile: each
//! opening counts the store's *writer epoch* up by one, and the next one must be the one after ours. An opening that failed
//! may have counted all the same; then the record [`OPENINGS`] tells whose it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::config::Settings;
use slatedb::{CloseReason, Db, DbStatus, WriteBatch};
use tokio::sync::watch;

use crate::StorageError;

/// Where in its folder SlateDB keeps its files.
const STORE_PATH: &str = "store";
/// How often the store was opened by a server; it names this one.
pub(crate) const OPENINGS: &[u8] = b"store/openings";
/// How long a write may take. Each request has a bound of its own; this one is for whatever comes between them.
const WRITE_BOUND: Duration = Duration::from_secs(60);

pub(crate) struct OpenDb {
    files: Arc<dyn ObjectStore>,
    settings: Settings,
    current: Mutex<Current>,
    /// Whether `current` has failed. It is replaced before it is used again.
    broken: AtomicBool,
    /// What [`OPENINGS`] was when it last was written here.
    opening: Mutex<Option<Bytes>>,
    /// Openings since `current` was opened that failed, and may have counted.
    failed_openings: AtomicU64,
    /// Held while the store is opened.
    reopening: tokio::sync::Mutex<()>,
    state: watch::Sender<State>,
}

#[derive(Clone)]
struct Current {
    db: Db,
    /// The store's writer epoch while it is open as `db`.
    epoch: u64,
}

impl Current {
    fn new(db: Db) -> Self {
        Self { epoch: db.manifest().writer_epoch(), db }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// How often it was opened anew.
    Open(u64),
    Fenced,
}

impl OpenDb {
    pub async fn open(files: Arc<dyn ObjectStore>, settings: Settings) -> Result<Self, StorageError> {
        let db = Box::pin(Db::builder(STORE_PATH, files.clone()).with_settings(settings.clone()).build()).await?;
        Ok(Self {
            files,
            settings,
            current: Mutex::new(Current::new(db)),
            broken: AtomicBool::new(false),
            opening: Mutex::default(),
            failed_openings: AtomicU64::new(0),
            reopening: tokio::sync::Mutex::default(),
            state: watch::Sender::new(State::Open(0)),
        })
    }

    /// This server has become the one that `opening` names.
    pub fn set_opening(&self, opening: Bytes) {
        *self.opening.lock() = Some(opening);
    }

    /// Whether the last write failed, and the store is still to be opened anew.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub fn break_down(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// The store, opened anew if it has failed.
    ///
    /// # Errors
    /// If it cannot be opened, or somebody else has opened it.
    pub async fn get(&self) -> Result<Db, StorageError> {
        let _one_at_a_time = self.reopening.lock().await;
        if *self.state.borrow() == State::Fenced {
            return Err(StorageError::Fenced);
        }
        let Current { db, epoch } = self.current.lock().clone();
        let close_reason = db.subscribe().borrow().close_reason;
        match close_reason {
            None if !self.is_broken() => return Ok(db),
            // Who uses it is told.
            Some(CloseReason::Clean) => return Ok(db),
            Some(CloseReason::Fenced) => return Err(self.fence()),
            None | Some(_) => {}
        }
        let db = match self.open_anew(epoch).await {
            Err(StorageError::Fenced) => return Err(self.fence()),
            opened => opened?,
        };
        tracing::info!("the store has been opened anew after a failure");
        *self.current.lock() = Current::new(db.clone());
        self.failed_openings.store(0, Ordering::Release);
        self.broken.store(false, Ordering::Release);
        self.state.send_modify(|state| {
            if let State::Open(times) = state {
                *times += 1;
            }
        });
        Ok(db)
    }

    fn fence(&self) -> StorageError {
        self.state.send_replace(State::Fenced);
        StorageError::Fenced
    }

    /// Opens the store unless somebody else has since it had the writer epoch `own`.
    async fn open_anew(&self, own: u64) -> Result<Db, StorageError> {
        for expected in own..=own + self.failed_openings.load(Ordering::Acquire) {
            let builder = Db::builder(STORE_PATH, self.files.clone()).with_settings(self.settings.clone());
            // Boxed: it is large, and rare.
            let opened = Box::pin(builder.with_expected_epoch(expected).build()).await.map_err(StorageError::from);
            let db = match opened {
                Ok(db) => db,
                Err(StorageError::Fenced) => continue,
                Err(error) => {
                    self.failed_openings.fetch_add(1, Ordering::AcqRel);
                    return Err(error);
                }
            };
            let found = db.get(OPENINGS).await.inspect_err(|_| {
                self.failed_openings.fetch_add(1, Ordering::AcqRel);
            })?;
            return if found == *self.opening.lock() { Ok(db) } else { Err(StorageError::Fenced) };
        }
        Err(StorageError::Fenced)
    }

    /// Returns once somebody else has opened the store.
    pub async fn fenced(&self) {
        let mut state = self.state.subscribe();
        loop {
            let seen = *state.borrow_and_update();
            if seen == State::Fenced {
                return;
            }
            let mut status = self.current.lock().db.subscribe();
            tokio::select! {
                // It is never dropped while `self` is there.
                _ = state.changed() => {}
                reason = closed(&mut status) => {
                    if reason == Some(CloseReason::Fenced) {
                        return;
                    }
                    // It has failed, and is opened anew when it is used next.
                    let _ = state.changed().await;
                }
            }
        }
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
        let written = match tokio::time::timeout(WRITE_BOUND, written).await {
            Ok(written) => written.map_err(StorageError::from),
            Err(_) => {
                let reason = format!("a write has taken more than {} seconds", WRITE_BOUND.as_secs());
                Err(StorageError::Io { reason })
            }
        };
        match &written {
            Ok(()) | Err(StorageError::Closed) => {}
            Err(StorageError::Fenced) => {
                self.fence();
            }
            Err(_) => self.broken.store(true, Ordering::Release),
        }
        written
    }
}

/// Why a store was closed, once it is.
async fn closed(status: &mut watch::Receiver<DbStatus>) -> Option<CloseReason> {
    let status = status.wait_for(|status| status.close_reason.is_some()).await;
    status.map_or(None, |status| status.close_reason)
}
