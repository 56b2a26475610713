//! The one place that spawns tasks: each has a name, ends when told to, and a panic in it is reported.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use freshet_types::SqlError;
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Runs `work` until it ends or `cancel` is triggered. A panic is logged with the task's name, and ends only the task.
pub fn spawn<F>(name: impl Into<String>, cancel: CancellationToken, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let name = name.into();
    #[expect(clippy::disallowed_methods, reason = "this is the place that the ban leaves open")]
    tokio::spawn(async move {
        let guarded = AssertUnwindSafe(cancel.run_until_cancelled(work)).catch_unwind();
        if let Err(panic) = guarded.await {
            error!(task = %name, "a task panicked: {}", panic_message(&*panic));
        }
    })
}

/// Runs `work` to its end even if the caller goes away meanwhile: what has become durable must become visible too.
///
/// # Errors
/// If `work` panicked, which is logged.
pub async fn finish<T, F>(name: &'static str, work: F) -> Result<T, SqlError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, SqlError>> + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    spawn(name, CancellationToken::new(), async move {
        // A caller that has gone does not want to know.
        let _ = done.send(work.await);
    });
    outcome.await.unwrap_or_else(|_| Err(SqlError::internal(format!("\"{name}\" broke off; see the server's log"))))
}

/// What a panic said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
