//! Group commit: writes that arrive while one is on its way to the disk go there together, in one sync.
//!
//! Nobody is appointed to write. Every writer queues its writes and then waits for its turn; whoever gets a turn
//! writes all that is queued, and most find their own done when their turn comes. So one writer alone pays
//! one sync and no delay, and many share each sync.
//!
//! A caller that is cancelled leaves its writes in the queue: they may or may not be made, as with any commit whose
//! answer is lost. Writes stay queued until they are known to be durable, so a turn that is cancelled half-way is simply
//! taken again; writing the same again changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::{DbSnapshot, WriteBatch};
use tokio::sync::Mutex as AsyncMutex;

use crate::StorageError;
use crate::open_db::OpenDb;

/// Bytes written in one turn, unless a single commit is larger.
const TURN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a commit waits while the store fails.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Files of the log, one for each turn, after which what is in them is worth moving into the tree: a server that starts has to
/// read them one by one. The tree merges its files every five seconds, so not much less.
const LOG_FILES_MAX: u64 = if cfg!(test) { 40 } else { 1_000 };
/// How long that is waited for. It goes on by itself.
const SHORTEN_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(Bytes, Bytes),
    /// Puts a value under a key that no write had before and none will have. Should it be there although its
    /// writer was told that it failed, it is deleted again before anything that comes later is there.
    Append(Bytes, Bytes),
    Delete(Bytes),
}

pub(crate) struct GroupCommit {
    db: Arc<OpenDb>,
    queue: Mutex<Queue>,
    turn: AsyncMutex<()>,
    /// Turns taken since the log was last shortened.
    turns: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// The ticket of the first commit in the queue: all before it are durable or have failed.
    first: u64,
    commits: VecDeque<Commit>,
}

struct Commit {
    writes: Vec<Write>,
}

impl Commit {
    /// What is left of it once its writer was told that it failed: it is not to be tried again.
    fn refused(&self) -> Self {
        let undo = |write: &Write| match write {
            Write::Append(key, _) => Some(Write::Delete(key.clone())),
            Write::Put(..) | Write::Delete(_) => None,
        };
        Self { writes: self.writes.iter().filter_map(undo).collect() }
    }
}

impl GroupCommit {
    pub fn new(db: Arc<OpenDb>) -> Self {
        Self { db, queue: Mutex::default(), turn: AsyncMutex::default(), turns: AtomicU64::new(0) }
    }

    /// Makes all of `writes`, or none; durable once this returns. Commits are made in the order of their calls.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StorageError> {
        let ticket = {
            let mut queue = self.queue.lock();
            queue.commits.push_back(Commit { writes });
            queue.first + queue.commits.len() as u64 - 1
        };
        let begun = Instant::now();
        loop {
            let _turn = self.turn.lock().await;
            let (batch, count) = {
                let mut queue = self.queue.lock();
                if queue.first > ticket {
                    return Ok(());
                }
                if self.db.is_broken() && begun.elapsed() > WAIT_MAX {
                    queue.refuse(ticket);
                    let reason = format!("the store has not taken any write for {} seconds", WAIT_MAX.as_secs());
                    return Err(StorageError::Io { reason });
                }
                queue.batch()
            };
            let written = self.write(batch).await;
            let mut queue = self.queue.lock();
            if let Err(error) = written {
                queue.refuse(ticket);
                return Err(error);
            }
            queue.commits.drain(..count);
            queue.first += count as u64;
        }
    }

    /// All that is in the store, at a moment when no commit is under way.
    pub async fn snapshot(&self) -> Result<Arc<DbSnapshot>, StorageError> {
        // Those that were refused are undone first.
        self.commit(Vec::new()).await?;
        let _turn = self.turn.lock().await;
        Ok(self.db.get().await?.snapshot()?)
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.db.write(batch).await
    }

    /// Has what the log has move into the tree, if that is much. Commits go on meanwhile.
    pub async fn shorten_log(&self) {
        if self.turns.load(Ordering::Relaxed) < LOG_FILES_MAX {
            return;
        }
        self.turns.store(0, Ordering::Relaxed);
        let shortened = async {
            let db = self.db.get().await?;
            Ok::<_, StorageError>(db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await?)
        };
        match tokio::time::timeout(SHORTEN_MAX, shortened).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot shorten the log of the store; it is tried again later"),
            Err(_) => tracing::debug!("the log of the store is being shortened"),
        }
    }
}

impl Queue {
    /// Has a commit that is still queued not tried again.
    fn refuse(&mut self, ticket: u64) {
        let index = usize::try_from(ticket - self.first).expect("a queue fits into memory");
        self.commits[index] = self.commits[index].refused();
    }

    /// The writes of the first commits as one, and how many commits they are.
    fn batch(&self) -> (WriteBatch, usize) {
        let mut batch = WriteBatch::new();
        let (mut count, mut bytes) = (0, 0);
        for commit in &self.commits {
            bytes += commit.writes.iter().map(Write::bytes).sum::<usize>();
            if count > 0 && bytes > TURN_BYTES_MAX {
                break;
            }
            count += 1;
            for write in &commit.writes {
                match write {
                    Write::Put(key, value) | Write::Append(key, value) => batch.put_bytes(key.clone(), value.clone()),
                    Write::Delete(key) => batch.delete(key),
                }
            }
        }
        (batch, count)
    }
}

impl Write {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Append(key, _) | Self::Delete(key) => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) | Self::Append(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}
