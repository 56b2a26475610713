//! Crashes and damage.

use std::path::PathBuf;

use super::*;
use crate::StorageError;
use crate::group_commit::Write;
use futures::TryStreamExt;

fn files(dir: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.path().join("checkpoints")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

async fn error_of(recovered: &Recovered) -> String {
    let how = Redistribute::IfShardsDiffer(&|_: &RecordBatch| vec![]);
    let description = Table::description(Some(vec![0]), false);
    let error = recovered.collection(RELATION, description, 2, how).await.err().unwrap();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_crash_before_the_commit_leaves_the_checkpoint_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut table = Table::keyed();
    let first = table.insert(0..600);
    save(&mut checkpoints, &table, first).await;
    let before = files(&dir);
    let second = table.insert(600..900);
    let mut checkpoint = checkpoints.begin(second);
    checkpoint.collection(RELATION, &table.collection).unwrap();
    drop(checkpoint.prepare(String::new()).await.unwrap());
    std::fs::write(dir.path().join("checkpoints/00000000000000000099.ckpt#1"), "half").unwrap();
    assert_eq!(files(&dir).len(), before.len() + 2);
    drop((checkpoints, store));
    let store = open(&dir).await;
    let (_, recovered) = recover(&store).await;
    assert_eq!(files(&dir), before);
    table.check(&*table.restored(&recovered, 2).await, first);
}

#[tokio::test]
async fn a_failed_commit_is_made_good_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut table = Table::keyed();
    let epoch = table.insert(0..600);
    let delta = Delta::inserts(batch(&[(1, "row 1".to_owned())]));
    let key = store.append(RELATION, epoch, &delta).await.unwrap();
    let other = store.append(RELATION, Epoch(epoch.0 + 1), &delta).await.unwrap();
    let mut checkpoint = checkpoints.begin(epoch);
    checkpoint.collection(RELATION, &table.collection).unwrap();
    let (opened, prepared) = checkpoint.prepare(String::new()).await.unwrap();
    assert!(opened.writes(&prepared.manifest, vec![key]).unwrap().len() > 4);
    let epoch = table.insert(600..610);
    save(&mut checkpoints, &table, epoch).await;
    let (_, recovered) = recover(&store).await;
    table.check(&*table.restored(&recovered, 2).await, epoch);
    let log: Vec<_> = store.replay(RELATION).await.unwrap().try_collect().await.unwrap();
    assert_eq!(log.iter().map(|(key, ..)| *key).collect::<Vec<_>>(), [other]);
}

/// What a checkpoint adds to an outbox is there exactly if the checkpoint is.
#[tokio::test]
async fn outboxes_are_of_the_last_checkpoint() {
    const SINK: RelationId = RelationId(9);
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let delta = |key| Delta::new(batch(&[(key, "a".to_owned()), (key + 1, "b".to_owned())]), vec![1, -2]);
    let mut first = checkpoints.begin(Epoch(10));
    assert!(first.outbox(SINK, &delta(1)).unwrap() > 100);
    first.commit(String::new(), vec![]).await.unwrap();
    // One that breaks off before it is durable, and one of which nobody learned that it was.
    let mut lost = checkpoints.begin(Epoch(20));
    lost.outbox(SINK, &delta(2)).unwrap();
    drop(lost);
    store.commits.commit(vec![outbox_write(SINK, Epoch(30), &delta(3))]).await.unwrap();
    checkpoints.uncertain.insert(outbox_write(SINK, Epoch(30), &delta(3)).key().clone());
    let mut last = checkpoints.begin(Epoch(40));
    last.outbox(SINK, &delta(4)).unwrap();
    last.commit(String::new(), vec![]).await.unwrap();
    drop(store);

    let store = open(&dir).await;
    let outboxes = store.outboxes().await.unwrap();
    assert_eq!(outboxes[&SINK].keys().copied().collect::<Vec<_>>(), [Epoch(10), Epoch(40)]);
    assert_eq!(store.outbox_change(SINK, Epoch(40)).await.unwrap(), delta(4));
    assert!(matches!(store.outbox_change(SINK, Epoch(30)).await, Err(StorageError::Damaged { .. })));
    store.delete_from_outbox(SINK, &[Epoch(10)]).await.unwrap();
    assert_eq!(store.outboxes().await.unwrap()[&SINK].len(), 1);
    store.delete_catalog(SINK).await.unwrap();
    assert!(store.outboxes().await.unwrap().is_empty());
}

fn outbox_write(sink: RelationId, epoch: Epoch, delta: &Delta) -> Write {
    let (key, value) = crate::outbox::write(sink, epoch, delta).unwrap();
    Write::Put(key, value)
}

#[tokio::test]
async fn a_fenced_server_destroys_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut table = Table::keyed();
    let first = table.insert(0..600);
    save(&mut checkpoints, &table, first).await;
    let second_store = open(&dir).await;
    let (mut second, _) = recover(&second_store).await;
    save(&mut second, &table, first).await;
    let later = table.insert(600..601);
    let mut checkpoint = checkpoints.begin(later);
    checkpoint.collection(RELATION, &table.collection).unwrap();
    let failed = checkpoint.commit(String::new(), vec![]).await;
    assert!(matches!(failed, Err(StorageError::Fenced)));
    let (_, recovered) = recover(&second_store).await;
    table.check(&*table.restored(&recovered, 2).await, first);
}

#[tokio::test]
async fn damage_is_reported_by_file_offset_and_relation() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut table = Table::keyed();
    table.insert(0..100);
    let epoch = table.apply(&[((1, "row 1".to_owned()), -1)]);
    save(&mut checkpoints, &table, epoch).await;
    let file = files(&dir).pop().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let intact = std::fs::read(&file).unwrap();
    let error_after = async |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let store = open(&dir).await;
        error_of(&recover(&store).await.1).await
    };
    let named = |offset, shard| {
        format!("the stored record checkpoints/{name} at offset {offset} (shard {shard} of r7) is damaged: ")
    };
    let mut flipped = intact.clone();
    flipped[500] ^= 4;
    assert_eq!(error_after(&flipped).await, named(64, 0) + "its checksum does not match");
    assert!(error_after(&intact[..100]).await.starts_with(&named(64, 0)));
    let mut other_version = intact.clone();
    other_version[7] = 2;
    assert_eq!(error_after(&other_version).await, named(64, 0) + "the file has version 2, this server knows 1");
    assert_eq!(error_after(&[0; 4096]).await, named(64, 0) + "the file is not one of a checkpoint");
    // The last part has the versions of the second shard, the one before is its bitmap. Parts are aligned.
    let versions = (intact.len() - 1) / 64 * 64;
    let error = error_after(&intact[..versions - 63]).await;
    assert!(error.contains("(shard 1 of r7) is damaged: the file is too short"), "{error}");
    // Without the past there are still the rows.
    std::fs::write(&file, &intact[..versions + 1]).unwrap();
    let store = open(&dir).await;
    let collection = table.restored(&recover(&store).await.1, 2).await;
    assert_eq!(collection.since(), epoch);
    table.check_rows(&collection, epoch);
    drop((collection, store));
    std::fs::remove_file(&file).unwrap();
    let store = open(&dir).await;
    assert_eq!(error_of(&recover(&store).await.1).await, named(64, 0) + "the file is missing");
}
