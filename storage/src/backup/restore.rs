//! Bringing a backup back, as a store in an empty location.
//!
//! Until it is complete, the location has a mark that no server opens it: half a backup would be a database in which
//! tables are empty.

use std::sync::Arc;

use bytes::Bytes;
use freshet_types::Epoch;
use freshet_types::keys::hash_bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::WriteBatch;
use xxhash_rust::xxh3::Xxh3;

use super::contents::{Contents, CopiedFile};
use super::records;
use crate::object_writer::ObjectWriter;
use crate::open_db::OpenDb;
use crate::store::{UNFINISHED, settings};
use crate::{Location, StorageError};

/// Where the records are, in a backup.
const RECORDS: &str = "records/";

/// What was brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The epoch of the checkpoint in it.
    pub epoch: Option<Epoch>,
    /// When the backup was made, in milliseconds since 1970.
    pub created_ms: u64,
    pub files: usize,
    pub bytes: u64,
}

/// Makes a store at `to`, in which there is nothing, of the backup at `from`. Tells `progress` of each file once it is
/// there, with what there is in all.
///
/// # Errors
/// If there is no backup, a file of it is damaged, there is something at `to`, or something cannot be read or written.
/// Then there is nothing at `to`.
pub async fn restore(
    from: &Location,
    to: &Location,
    mut progress: impl FnMut(&CopiedFile, &Contents) + Send,
) -> Result<Restored, StorageError> {
    let contents = Contents::read(from).await?;
    let source = Source { location: from, store: from.open_existing().await? };
    let is_records = |file: &&CopiedFile| file.path.starts_with(RECORDS);
    // What is needed last is looked at first: without it the rest is in vain.
    for file in contents.files.iter().filter(is_records) {
        source.records(file).await?;
    }
    let target = to.open_empty().await?;
    target.put(&Path::from(UNFINISHED), Bytes::new().into()).await?;
    let made = async {
        for file in contents.files.iter().filter(|file| !is_records(file)) {
            source.copy(file, &target).await?;
            progress(file, &contents);
        }
        let db = OpenDb::open(target.clone(), settings(to, None)).await?;
        for file in contents.files.iter().filter(is_records) {
            let mut batch = WriteBatch::new();
            for (key, value) in source.records(file).await? {
                batch.put_bytes(key, value);
            }
            db.write(batch).await?;
            progress(file, &contents);
        }
        db.get().await?.close().await?;
        Ok(target.delete(&Path::from(UNFINISHED)).await?)
    };
    if let Err(error) = made.await {
        // The mark stays if this fails as well.
        if let Err(error) = delete_all(&target).await {
            tracing::warn!(%error, "what has been restored of a backup cannot be deleted again");
        }
        return Err(error);
    }
    let Contents { epoch, created_ms, .. } = contents;
    Ok(Restored { epoch, created_ms, files: contents.files.len(), bytes: contents.bytes() })
}

/// The mark goes last.
async fn delete_all(store: &Arc<dyn ObjectStore>) -> Result<(), StorageError> {
    let all: Vec<Path> = store.list(None).map_ok(|object| object.location).try_collect().await?;
    for path in all.iter().filter(|path| path.as_ref() != UNFINISHED) {
        store.delete(path).await?;
    }
    Ok(store.delete(&Path::from(UNFINISHED)).await?)
}

struct Source<'a> {
    location: &'a Location,
    store: Arc<dyn ObjectStore>,
}

impl Source<'_> {
    fn damaged(&self, file: &CopiedFile, reason: impl Into<String>) -> StorageError {
        StorageError::Damaged { name: format!("{}/{}", self.location, file.path), reason: reason.into() }
    }

    async fn open(&self, file: &CopiedFile) -> Result<object_store::GetResult, StorageError> {
        let path = Path::parse(&file.path).map_err(|error| self.damaged(file, error.to_string()))?;
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Err(self.damaged(file, "the file is missing")),
            found => found?,
        };
        if found.meta.size != file.bytes {
            let (found, expected) = (found.meta.size, file.bytes);
            return Err(self.damaged(file, format!("it has {found} bytes instead of {expected}")));
        }
        Ok(found)
    }

    fn check(&self, file: &CopiedFile, checksum: u64) -> Result<(), StorageError> {
        if checksum == file.checksum { Ok(()) } else { Err(self.damaged(file, "its checksum does not match")) }
    }

    async fn records(&self, file: &CopiedFile) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let bytes = self.open(file).await?.bytes().await?;
        self.check(file, hash_bytes(&bytes))?;
        records::decode(bytes).map_err(|reason| self.damaged(file, reason))
    }

    async fn copy(&self, file: &CopiedFile, target: &Arc<dyn ObjectStore>) -> Result<(), StorageError> {
        let mut bytes = self.open(file).await?.into_stream();
        let path = Path::parse(&file.path).map_err(|error| self.damaged(file, error.to_string()))?;
        let mut writer = ObjectWriter::new(target.clone(), path);
        let mut hash = Xxh3::new();
        while let Some(piece) = bytes.next().await {
            let piece = piece?;
            hash.update(&piece);
            writer.write(&piece).await?;
        }
        self.check(file, hash.digest())?;
        writer.finish().await?;
        Ok(())
    }
}
