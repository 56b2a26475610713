//! Threads for reading and writing files of tiers.
//!
//! They are apart from all others because others wait for them: a dataflow worker, or a query's thread in the middle of a
//! look-up. What runs here never waits for anybody but the outside, so nobody can wait in a circle. That goes for connections too: those of a
//! client are driven by the runtime that made them, so the clients of the tiers are used here alone.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Two: one decodes while another waits for the disk.
const THREADS: usize = 2;

#[derive(Debug)]
pub(super) struct Io {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Io {
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("tiers").enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
        let (done, outcome) = oneshot::channel();
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        runtime.spawn(async move {
            // Who has gone does not want to know.
            let _ = done.send(work.await);
        });
        outcome
    }

    /// Runs `work` here, from whatever runtime; `None` if it panicked.
    pub async fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.run(work).await.ok()
    }

    /// Runs `work` here, and keeps the calling thread until it is done; `None` if it panicked.
    pub fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (done, outcome) = std::sync::mpsc::channel();
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        runtime.spawn(async move {
            // Who has gone does not want to know.
            let _ = done.send(work.await);
        });
        // Not the channel of `run`: that one refuses to wait on a thread that belongs to a runtime.
        outcome.recv().ok()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
