//! The outboxes of sinks: what has to be sent, until it has been.
//!
//! A checkpoint puts the change of a sink's relation since the checkpoint before into the sink's outbox, in the same
//! atomic batch that makes the checkpoint the last one. So a change is in the outbox exactly if it is in the
//! checkpoint, and what is sent from here can never be undone by a restart. The sink deletes a change after
//! it has arrived.
//!
//! A value is a record as in a table's log, of which [`crate::table_wal`] tells.

use std::collections::BTreeMap;

use bytes::Bytes;
use freshet_types::{Delta, Epoch, RelationId};

use crate::group_commit::Write;
use crate::{StorageError, Store, wal_record};

const PREFIX: &[u8] = b"outbox/";

/// One change in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBatch {
    pub bytes: usize,
}

/// What all keys of a sink's outbox begin with.
pub(crate) fn prefix(sink: RelationId) -> Vec<u8> {
    [PREFIX, &sink.0.to_be_bytes()].concat()
}

fn key(sink: RelationId, epoch: Epoch) -> Bytes {
    [&prefix(sink)[..], &epoch.0.to_be_bytes()].concat().into()
}

fn from_key(key: &[u8]) -> Option<(RelationId, Epoch)> {
    let (sink, epoch) = key.strip_prefix(PREFIX)?.split_first_chunk::<8>()?;
    Some((RelationId(u64::from_be_bytes(*sink)), Epoch(u64::from_be_bytes(epoch.try_into().ok()?))))
}

/// The key and the value of a change.
pub(crate) fn write(sink: RelationId, epoch: Epoch, change: &Delta) -> Result<(Bytes, Bytes), StorageError> {
    Ok((key(sink, epoch), wal_record::encode(epoch, change)?.into()))
}

fn damaged(sink: RelationId, epoch: Epoch, reason: String) -> StorageError {
    StorageError::Damaged { name: format!("outbox/{sink}/{epoch}"), reason }
}

impl Store {
    /// What is in all outboxes, by sink and epoch.
    pub async fn outboxes(&self) -> Result<BTreeMap<RelationId, BTreeMap<Epoch, OutboxBatch>>, StorageError> {
        let mut outboxes = BTreeMap::<_, BTreeMap<_, _>>::new();
        let mut found = self.db.get().await?.scan_prefix(PREFIX, ..).await?;
        while let Some(record) = found.next().await? {
            let (sink, epoch) = from_key(&record.key).ok_or_else(|| StorageError::Damaged {
                name: String::from_utf8_lossy(&record.key).into_owned(),
                reason: "the key names no sink and epoch".to_owned(),
            })?;
            outboxes.entry(sink).or_default().insert(epoch, OutboxBatch { bytes: record.value.len() });
        }
        Ok(outboxes)
    }

    /// The change that a sink has to send for an epoch.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub async fn outbox_change(&self, sink: RelationId, epoch: Epoch) -> Result<Delta, StorageError> {
        let record = self.db.get().await?.get(key(sink, epoch)).await?;
        let record = record.ok_or_else(|| damaged(sink, epoch, "it is missing".to_owned()))?;
        let (_, delta) = wal_record::decode(&record).map_err(|reason| damaged(sink, epoch, reason))?;
        Ok(delta)
    }

    /// Deletes changes from a sink's outbox; durable once this returns.
    pub async fn delete_from_outbox(&self, sink: RelationId, epochs: &[Epoch]) -> Result<(), StorageError> {
        self.commits.commit(epochs.iter().map(|epoch| Write::Delete(key(sink, *epoch))).collect()).await
    }
}
