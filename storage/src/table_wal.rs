//! The write-ahead log of each table: its changes, in the order in which they were acknowledged.
//!
//! A change is durable before it is acknowledged. Replaying the log of a table, oldest first, gives the table. So that
//! a log does not grow for ever, a [checkpoint](crate::checkpoint) deletes the records of the changes that it has.

use std::fmt;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use freshet_types::{Delta, Epoch, RelationId};
use futures::Stream;

use crate::group_commit::Write;
use crate::{StorageError, Store, wal_record};

const PREFIX: &[u8] = b"wal/";

/// What all keys of a table's log begin with.
pub(crate) fn prefix(table: RelationId) -> Vec<u8> {
    [PREFIX, &table.0.to_be_bytes()].concat()
}

fn key(table: RelationId, sequence: u64) -> Bytes {
    [&prefix(table)[..], &sequence.to_be_bytes()].concat().into()
}

/// Names one record of a table's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalKey {
    pub table: RelationId,
    sequence: u64,
}

impl WalKey {
    pub(crate) fn to_bytes(self) -> Bytes {
        key(self.table, self.sequence)
    }

    fn from_bytes(table: RelationId, key: &[u8]) -> Option<Self> {
        let sequence = key.get(PREFIX.len() + 8..)?.try_into().ok()?;
        Some(Self { table, sequence: u64::from_be_bytes(sequence) })
    }
}

/// As in errors: `wal/r7/1099511627776`.
impl fmt::Display for WalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wal/{}/{}", self.table, self.sequence)
    }
}

/// How a record is called in errors.
fn name(table: RelationId, key: &[u8]) -> String {
    WalKey::from_bytes(table, key).map_or_else(|| format!("wal/{table}/?"), |key| key.to_string())
}

impl Store {
    /// Adds a change to the log of a table; durable once this returns. Changes are logged in the order of the
    /// calls, and concurrent ones share a sync of the disk. Gives the name of the record.
    pub async fn append(&self, table: RelationId, epoch: Epoch, delta: &Delta) -> Result<WalKey, StorageError> {
        let (key, write) = self.log_write(table, epoch, delta)?;
        self.commits.commit(vec![write]).await?;
        Ok(key)
    }

    /// Adds changes to the logs of several tables: all, or none. Gives the names of the records, in the order given.
    pub async fn append_many(&self, changes: Vec<(RelationId, Epoch, Delta)>) -> Result<Vec<WalKey>, StorageError> {
        let writes = changes.iter().map(|(table, epoch, delta)| self.log_write(*table, *epoch, delta));
        let (keys, writes) = writes.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        self.commits.commit(writes).await?;
        Ok(keys)
    }

    fn log_write(&self, table: RelationId, epoch: Epoch, delta: &Delta) -> Result<(WalKey, Write), StorageError> {
        let record = wal_record::encode(epoch, delta)?;
        let sequence = self.next_sequence.fetch_add(1, Ordering::SeqCst);
        let key = WalKey { table, sequence };
        Ok((key, Write::Append(key.to_bytes(), record.into())))
    }

    /// The log of a table, oldest change first, each with the name of its record.
    pub async fn replay(
        &self,
        table: RelationId,
    ) -> Result<impl Stream<Item = Result<(WalKey, Epoch, Delta), StorageError>> + Send + use<>, StorageError> {
        let log = self.db.get().await?.scan_prefix(prefix(table), ..).await?;
        Ok(futures::stream::try_unfold(log, move |mut log| async move {
            let Some(record) = log.next().await? else {
                return Ok(None);
            };
            let damaged = |reason| StorageError::Damaged { name: name(table, &record.key), reason };
            let key = WalKey::from_bytes(table, &record.key);
            let key = key.ok_or_else(|| damaged("the key does not end in a sequence".to_owned()))?;
            let (epoch, delta) = wal_record::decode(&record.value).map_err(damaged)?;
            Ok(Some(((key, epoch, delta), log)))
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use futures::TryStreamExt;

    use super::*;
    use crate::CatalogChange;

    const TABLE: RelationId = RelationId(7);
    const OTHER: RelationId = RelationId(8);

    fn rows(values: &[i64]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
    }

    fn inserts(values: &[i64]) -> Delta {
        Delta::inserts(rows(values))
    }

    async fn log(store: &Store, table: RelationId) -> Vec<(Epoch, Delta)> {
        let log: Vec<_> = store.replay(table).await.unwrap().try_collect().await.unwrap();
        log.into_iter().map(|(_, epoch, delta)| (epoch, delta)).collect()
    }

    async fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path().to_str().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn changes_come_back_in_order_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for epoch in [10, 10, 11] {
            let store = open(&dir).await;
            for value in 0..3 {
                let delta = if value == 1 { Delta::new(rows(&[epoch]), vec![-2]) } else { inserts(&[epoch, value]) };
                let epoch = Epoch(epoch as u64);
                store.append(TABLE, epoch, &delta).await.unwrap();
                expected.push((epoch, delta));
            }
            store.append(OTHER, Epoch(1), &inserts(&[99])).await.unwrap();
        }
        let store = open(&dir).await;
        assert_eq!(log(&store, TABLE).await, expected);
        assert_eq!(log(&store, OTHER).await.len(), 3);
        assert_eq!(log(&store, RelationId(9)).await, []);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_changes_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let appends = (0..500).map(|value| {
            let store = &store;
            async move { store.append(TABLE, Epoch(5), &inserts(&[value])).await }
        });
        futures::future::try_join_all(appends).await.unwrap();
        drop(store);
        let wal_files = std::fs::read_dir(dir.path().join("store/wal")).unwrap().count();
        assert!(wal_files < 50, "{wal_files} syncs for 500 concurrent changes");
        let store = open(&dir).await;
        let values: Vec<Delta> = log(&store, TABLE).await.into_iter().map(|(_, delta)| delta).collect();
        assert_eq!(values, (0..500).map(|value| inserts(&[value])).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_cancelled_change_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        for value in 0..20 {
            let delta = inserts(&[value]);
            let mut cancelled = Box::pin(store.append(TABLE, Epoch(5), &delta));
            let _started = futures::poll!(&mut cancelled);
            drop(cancelled);
        }
        store.append(TABLE, Epoch(6), &inserts(&[100])).await.unwrap();
        assert_eq!(log(&store, TABLE).await.last().unwrap(), &(Epoch(6), inserts(&[100])));
    }

    #[tokio::test]
    async fn the_catalog_is_changed_as_one_and_takes_the_log_along() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        store.put_catalog(TABLE, Bytes::from("table")).await.unwrap();
        store.put_catalog(RelationId(300), Bytes::from("view")).await.unwrap();
        let changes = vec![(TABLE, Epoch(1), inserts(&[1])), (OTHER, Epoch(1), inserts(&[2]))];
        let keys = store.append_many(changes).await.unwrap();
        let found: Vec<_> = store.replay(OTHER).await.unwrap().try_collect().await.unwrap();
        assert_eq!(found, [(keys[1], Epoch(1), inserts(&[2]))]);
        let changes = vec![CatalogChange::Delete(TABLE), CatalogChange::Put(OTHER, Bytes::from("other"))];
        store.commit_catalog(changes).await.unwrap();
        let store = open(&dir).await;
        let expected = [(OTHER, Bytes::from("other")), (RelationId(300), Bytes::from("view"))];
        assert_eq!(store.load_catalog().await.unwrap(), expected);
        assert_eq!(log(&store, TABLE).await, []);
        assert_eq!(log(&store, OTHER).await.len(), 1);
        store.delete_catalog(OTHER).await.unwrap();
        assert_eq!(log(&store, OTHER).await, []);
    }

    #[tokio::test]
    async fn a_damaged_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        store.append(TABLE, Epoch(1), &inserts(&[1])).await.unwrap();
        let mut record = wal_record::encode(Epoch(2), &inserts(&[2])).unwrap();
        *record.last_mut().unwrap() ^= 1;
        store.commits.commit(vec![Write::Put(key(TABLE, 1 << 50), record.into())]).await.unwrap();
        let found: Result<Vec<_>, _> = store.replay(TABLE).await.unwrap().try_collect().await;
        let expected = "the stored record wal/r7/1125899906842624 is damaged: its checksum does not match";
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}
