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
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use slatedb::{DbSnapshot, WriteBatch};
use tokio::sync::Mutex as AsyncMutex;

use crate::StorageError;
use crate::open_db::OpenDb;

/// Bytes written in one turn, unless a single commit is larger.
const TURN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a commit waits while the store fails.
const WAIT_MAX: Duration = Duration::from_secs(30);

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
        Self { db, queue: Mutex::default(), turn: AsyncMutex::default() }
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
        self.db.write(batch).await
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
