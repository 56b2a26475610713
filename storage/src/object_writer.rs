//! An object on its way into a store, piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};

use crate::StorageError;

/// Bytes of a piece. Some stores want all pieces but the last to be of one size, and a request of bounded size ends in
/// bounded time.
pub(crate) const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// Writes one object, which is there once it is finished, wholly or not at all.
pub(crate) struct ObjectWriter {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Made once there is more than one piece.
    upload: Option<Box<dyn MultipartUpload>>,
    /// Bytes that have left the buffer.
    uploaded: u64,
    buffer: Vec<u8>,
}

impl ObjectWriter {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, upload: None, uploaded: 0, buffer: Vec::new() }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.uploaded + self.buffer.len() as u64
    }

    /// Adds bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < PIECE_BYTES {
            return Ok(());
        }
        let mut buffered = Bytes::from(std::mem::take(&mut self.buffer));
        while buffered.len() >= PIECE_BYTES {
            self.upload(buffered.split_to(PIECE_BYTES)).await?;
        }
        self.buffer = buffered.to_vec();
        Ok(())
    }

    async fn upload(&mut self, piece: Bytes) -> Result<(), StorageError> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.path).await?),
        };
        self.uploaded += piece.len() as u64;
        let put = upload.put_part(piece.into()).await;
        self.or_abort(put).await
    }

    /// Has the store forget the pieces of an object that will not be complete.
    async fn or_abort<T>(&mut self, written: object_store::Result<T>) -> Result<T, StorageError> {
        if written.is_err()
            && let Some(upload) = &mut self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%error, path = %self.path, "cannot delete the pieces of an object that failed");
        }
        Ok(written?)
    }

    /// Makes the object durable; gives its size.
    pub async fn finish(mut self) -> Result<u64, StorageError> {
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        if self.upload.is_none() {
            let size = rest.len() as u64;
            self.store.put(&self.path, rest.into()).await?;
            return Ok(size);
        }
        if !rest.is_empty() {
            self.upload(rest).await?;
        }
        if let Some(upload) = &mut self.upload {
            let completed = upload.complete().await;
            self.or_abort(completed).await?;
        }
        Ok(self.uploaded)
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn objects_of_all_sizes_are_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
            for step in [size.max(1), PIECE_BYTES / 3 + 1] {
                let path = Path::from(format!("{size}-{step}"));
                let mut writer = ObjectWriter::new(store.clone(), path.clone());
                for part in bytes.chunks(step) {
                    writer.write(part).await.unwrap();
                }
                assert_eq!(writer.written(), size as u64);
                assert_eq!(writer.finish().await.unwrap(), size as u64);
                assert!(store.get(&path).await.unwrap().bytes().await.unwrap() == bytes, "{size} in steps of {step}");
            }
        }
    }
}
