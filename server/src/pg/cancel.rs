//! Cancelling: a client opens a second connection and names the first by process id and secret.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The statement that a connection is running, if any.
type Running = Arc<Mutex<Option<CancellationToken>>>;

/// All connections that can be asked to stop their statement.
#[derive(Debug, Default)]
pub struct Cancellations {
    connections: Mutex<HashMap<i32, (i32, Running)>>,
    next_process_id: AtomicI32,
    // SipHash under keys of the operating system: a secret cannot be told from others.
    secrets: RandomState,
}

impl Cancellations {
    /// Makes a connection known until the guard is dropped.
    pub fn register(self: &Arc<Self>) -> CancelGuard {
        let process_id = self.next_process_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
        let secret = self.secrets.hash_one(process_id) as i32;
        let running = Running::default();
        self.connections.lock().insert(process_id, (secret, Arc::clone(&running)));
        CancelGuard { cancellations: Arc::clone(self), process_id, secret, running }
    }

    /// Cancels what the connection is running. A wrong secret does nothing, and nobody is told.
    pub fn cancel(&self, process_id: i32, secret: i32) {
        let running = match self.connections.lock().get(&process_id) {
            Some((expected, running)) if *expected == secret => Arc::clone(running),
            _ => return,
        };
        if let Some(statement) = running.lock().as_ref() {
            statement.cancel();
        }
    }
}

/// A connection that can be cancelled.
#[derive(Debug)]
pub struct CancelGuard {
    cancellations: Arc<Cancellations>,
    pub process_id: i32,
    pub secret: i32,
    running: Running,
}

impl CancelGuard {
    /// Marks that a statement runs; it is over when the guard is dropped. A request that comes in between
    /// statements is ignored, as in Postgres.
    pub fn statement(&self) -> StatementGuard {
        let token = CancellationToken::new();
        *self.running.lock() = Some(token.clone());
        StatementGuard { running: Arc::clone(&self.running), token }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.cancellations.connections.lock().remove(&self.process_id);
    }
}

/// A statement that can be cancelled.
#[derive(Debug)]
pub struct StatementGuard {
    running: Running,
    pub token: CancellationToken,
}

impl Drop for StatementGuard {
    fn drop(&mut self) {
        *self.running.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_cancels_and_only_what_runs() {
        let cancellations = Arc::new(Cancellations::default());
        let guard = cancellations.register();
        cancellations.cancel(guard.process_id, guard.secret);
        let statement = guard.statement();
        assert!(!statement.token.is_cancelled());
        cancellations.cancel(guard.process_id, guard.secret.wrapping_add(1));
        assert!(!statement.token.is_cancelled());
        cancellations.cancel(guard.process_id, guard.secret);
        assert!(statement.token.is_cancelled());
        drop(statement);
        assert!(!guard.statement().token.is_cancelled());
        let (process_id, secret) = (guard.process_id, guard.secret);
        drop(guard);
        cancellations.cancel(process_id, secret);
        assert!(cancellations.connections.lock().is_empty());
    }
}
