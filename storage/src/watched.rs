//! A remote object store whose troubles are told: when it fails or does not answer, and when it is well again.
//!
//! Requests are repeated below and above this, so a store that is away for a moment shows in no result. It must show in the
//! log all the same, and before anybody's patience is over.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a request may take before that is told.
const SLOW: Duration = Duration::from_secs(5);
/// How often trouble that goes on is told again.
const REMINDER: Duration = Duration::from_secs(30);

/// An object store across a network.
#[derive(Debug)]
pub(crate) struct WatchedStore<T> {
    inner: T,
    health: Arc<Health>,
}

/// What is known of how the store is doing.
#[derive(Debug)]
struct Health {
    location: String,
    trouble: Mutex<Option<Trouble>>,
}

#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    told: Instant,
}

impl<T> WatchedStore<T> {
    pub fn new(inner: T, location: String) -> Self {
        Self { inner, health: Arc::new(Health { location, trouble: Mutex::default() }) }
    }
}

impl Health {
    /// Waits for a request, and tells if that takes long or fails.
    async fn watch<R>(&self, what: &'static str, request: impl Future<Output = Result<R>>) -> Result<R> {
        tokio::pin!(request);
        let result = loop {
            match tokio::time::timeout(SLOW, &mut request).await {
                Ok(result) => break result,
                Err(_) => self.troubled(what, &format!("it has not answered for {} seconds", SLOW.as_secs())),
            }
        };
        match &result {
            Err(error) if is_trouble(error) => self.troubled(what, &error.to_string()),
            // Whatever it says, it answers.
            _ => self.well(),
        }
        result
    }

    fn troubled(&self, what: &str, reason: &str) {
        let now = Instant::now();
        let mut trouble = self.trouble.lock();
        let (since, is_due) = trouble.map_or((now, true), |known| (known.since, now - known.told >= REMINDER));
        let told = trouble.filter(|_| !is_due).map_or(now, |known| known.told);
        *trouble = Some(Trouble { since, told });
        drop(trouble);
        if is_due {
            tracing::warn!(location = self.location, "the object store fails to {what}: {reason}");
        }
    }

    fn well(&self) {
        if let Some(trouble) = self.trouble.lock().take() {
            tracing::info!(
                location = self.location,
                "the object store answers again, after {:.1?}",
                trouble.since.elapsed()
            );
        }
    }
}

/// Whether an error is the store's fault; the others are answers to a question.
fn is_trouble(error: &Error) -> bool {
    !matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
    )
}

impl<T: fmt::Display> fmt::Display for WatchedStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for WatchedStore<T> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.health.watch("write", self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.health.watch("write", self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.health.watch("read", self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.health.watch("read", self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.health.watch("list", self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.health.watch("copy", self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.health.watch("rename", self.inner.rename_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn trouble_begins_with_a_failure_and_ends_with_an_answer() {
        let health = Health { location: "s3://b".to_owned(), trouble: Mutex::default() };
        let failed = || Error::Generic { store: "S3", source: "503".into() };
        health.watch("read", async { Err::<(), _>(failed()) }).await.unwrap_err();
        let first = health.trouble.lock().unwrap();
        health.watch("read", async { Err::<(), _>(failed()) }).await.unwrap_err();
        let second = health.trouble.lock().unwrap();
        assert_eq!((first.since, first.told), (second.since, second.told), "told once");
        let missing = Error::NotFound { path: "x".to_owned(), source: "404".into() };
        health.watch("read", async { Err::<(), _>(missing) }).await.unwrap_err();
        assert!(health.trouble.lock().is_none());
    }
}
