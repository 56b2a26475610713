//! The catalog's records: one value for each object, opaque here.

use bytes::Bytes;
use freshet_types::RelationId;

use crate::group_commit::Write;
use crate::{StorageError, Store, outbox, table_wal};

const PREFIX: &[u8] = b"catalog/";

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogChange {
    Put(RelationId, Bytes),
    /// Forgets the object, and the log of its changes if it is a table, or its outbox if it is a sink.
    Delete(RelationId),
}

impl Store {
    /// All records, by ascending id.
    pub async fn load_catalog(&self) -> Result<Vec<(RelationId, Bytes)>, StorageError> {
        let mut found = self.db.get().await?.scan_prefix(PREFIX, ..).await?;
        let mut records = Vec::new();
        while let Some(record) = found.next().await? {
            let id = record.key[PREFIX.len()..].try_into().map_err(|_| StorageError::Damaged {
                name: String::from_utf8_lossy(&record.key).into_owned(),
                reason: "the key does not end in an id".to_owned(),
            })?;
            records.push((RelationId(u64::from_be_bytes(id)), record.value));
        }
        Ok(records)
    }

    /// Makes all `changes`, or none; durable once this returns.
    pub async fn commit_catalog(&self, changes: Vec<CatalogChange>) -> Result<(), StorageError> {
        let mut writes = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                CatalogChange::Put(id, record) => writes.push(Write::Put(key(id), record)),
                CatalogChange::Delete(id) => {
                    writes.push(Write::Delete(key(id)));
                    for prefix in [table_wal::prefix(id), outbox::prefix(id)] {
                        let mut records = self.db.get().await?.scan_prefix(prefix, ..).await?;
                        while let Some(record) = records.next().await? {
                            writes.push(Write::Delete(record.key));
                        }
                    }
                }
            }
        }
        self.commits.commit(writes).await
    }

    pub async fn put_catalog(&self, id: RelationId, record: Bytes) -> Result<(), StorageError> {
        self.commit_catalog(vec![CatalogChange::Put(id, record)]).await
    }

    pub async fn delete_catalog(&self, id: RelationId) -> Result<(), StorageError> {
        self.commit_catalog(vec![CatalogChange::Delete(id)]).await
    }
}

fn key(id: RelationId) -> Bytes {
    [PREFIX, &id.0.to_be_bytes()].concat().into()
}
