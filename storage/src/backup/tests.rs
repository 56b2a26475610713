//! Backups of stores that are written meanwhile, brought back and compared; and damaged ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use freshet_types::keys::hash_bytes;
use freshet_types::{Delta, Epoch, RelationId};
use futures::TryStreamExt;
use tempfile::TempDir;

use super::{Backup, CONTENTS, restore};
use crate::checkpoint::{Checkpoints, Redistribute};
use crate::collection::{Collection, CollectionDescription, HistoryPolicy, ShardWriter};
use crate::store::UNFINISHED;
use crate::{Location, StorageError, Store};

const TABLE: RelationId = RelationId(7);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]))
}

fn description() -> CollectionDescription {
    CollectionDescription {
        name: "t".to_owned(),
        schema: schema(),
        key: Some(vec![0]),
        append_only: false,
        history: HistoryPolicy::unbounded(20),
        retention: None,
    }
}

fn inserts(values: std::ops::Range<i64>) -> Delta {
    Delta::inserts(RecordBatch::try_new(schema(), vec![Arc::new(values.collect::<Int64Array>())]).unwrap())
}

/// A store with a table that goes from epoch to epoch, with a checkpoint at each.
struct Source {
    dir: TempDir,
    store: Store,
    checkpoints: Checkpoints,
    collection: Arc<Collection>,
    writer: ShardWriter,
    epoch: Epoch,
}

impl Source {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap()).await.unwrap();
        let (checkpoints, _) = Checkpoints::open(&store).await.unwrap();
        let collection = Collection::new(description(), 1).unwrap();
        let writer = collection.writer(0);
        store.put_catalog(TABLE, Bytes::from("the table")).await.unwrap();
        Self { dir, store, checkpoints, collection, writer, epoch: Epoch(0) }
    }

    /// Inserts rows, and makes a checkpoint with them.
    async fn checkpoint(&mut self, values: std::ops::Range<i64>) {
        self.epoch = Epoch(self.epoch.0 + 10);
        self.writer.apply(self.epoch, &inserts(values)).unwrap();
        self.writer.advance_upper(self.epoch);
        let mut checkpoint = self.checkpoints.begin(self.epoch);
        checkpoint.collection(TABLE, &self.collection).unwrap();
        checkpoint.commit("meta".to_owned(), vec![]).await.unwrap();
    }

    /// A complete backup, below a folder of its own.
    async fn back_up(&self, to: &Location) -> usize {
        let source = self.checkpoints.backup_source().await.unwrap();
        let mut backup = Backup::begin(source, to, 1_000).await.unwrap();
        while backup.step().await.unwrap().is_some() {}
        assert_eq!(backup.step().await.unwrap(), None);
        backup.contents().files.len()
    }
}

fn location(dir: &TempDir, name: &str) -> Location {
    Location::Folder(dir.path().join(name))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

async fn values(at: &Location) -> (Epoch, Vec<i64>, Vec<Delta>) {
    let store = Store::open_at(at, None).await.unwrap();
    assert_eq!(store.load_catalog().await.unwrap(), [(TABLE, Bytes::from("the table"))]);
    let (_, recovered) = Checkpoints::open(&store).await.unwrap();
    let recovered = recovered.unwrap();
    let all_in_one = |rows: &RecordBatch| vec![0; rows.num_rows()];
    let same = Redistribute::IfShardsDiffer(&all_in_one);
    let collection = recovered.collection(TABLE, description(), 1, same).await.unwrap().unwrap();
    let batches = collection.snapshot(recovered.epoch).unwrap().batches(None).unwrap();
    let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    let mut values: Vec<i64> = batches.iter().flat_map(column).collect();
    values.sort_unstable();
    let log: Vec<_> = store.replay(TABLE).await.unwrap().try_collect().await.unwrap();
    (recovered.epoch, values, log.into_iter().map(|(_, _, delta)| delta).collect())
}

#[tokio::test]
async fn a_backup_is_of_one_instant_whatever_happens_meanwhile() {
    let mut source = Source::new().await;
    for step in 0..5 {
        source.checkpoint(step * 100..step * 100 + 100).await;
    }
    source.store.append(TABLE, source.epoch, &inserts(900..903)).await.unwrap();
    let (epoch, dir) = (source.epoch, tempfile::tempdir().unwrap());
    let to = location(&dir, "backup");
    let instant = source.checkpoints.backup_source().await.unwrap();
    // All that the backup needs is garbage now, except for the backup.
    source.store.append(TABLE, source.epoch, &inserts(903..906)).await.unwrap();
    for step in 10..90 {
        source.checkpoint(step * 100..step * 100 + 1).await;
    }
    let mut backup = Backup::begin(instant, &to, 1_000).await.unwrap();
    while backup.step().await.unwrap().is_some() {
        source.checkpoint(source.epoch.0 as i64 * 1_000..source.epoch.0 as i64 * 1_000 + 1).await;
    }
    drop(backup);
    let restored = location(&dir, "restored");
    let mut told = Vec::new();
    let summary = restore(&to, &restored, |file, _| told.push(file.path.clone())).await.unwrap();
    assert_eq!((summary.epoch, summary.created_ms, summary.files), (Some(epoch), 1_000, told.len()));
    assert_eq!(values(&restored).await, (epoch, (0..500).collect(), vec![inserts(900..903)]));
    // Now they may go.
    source.checkpoint(0..0).await;
    assert!(files(&source.dir.path().join("checkpoints")).len() < 64);
}

#[tokio::test]
async fn damage_is_found_and_named_and_leaves_nothing() {
    let mut source = Source::new().await;
    source.checkpoint(0..2_000).await;
    let dir = tempfile::tempdir().unwrap();
    let to = location(&dir, "backup");
    assert_eq!(source.back_up(&to).await, 2);
    for file in files(&dir.path().join("backup")) {
        let whole = std::fs::read(&file).unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 20 + 1) {
            let mut damaged = whole.clone();
            damaged[place] ^= 4;
            std::fs::write(&file, &damaged).unwrap();
            let error = restore(&to, &location(&dir, "restored"), |_, _| ()).await.unwrap_err();
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
            assert_eq!(files(&dir.path().join("restored")), Vec::<PathBuf>::new());
            // Made only if it came so far.
            let _ = std::fs::remove_dir(dir.path().join("restored"));
        }
        std::fs::remove_file(&file).unwrap();
        let error = restore(&to, &location(&dir, "restored"), |_, _| ()).await.unwrap_err().to_string();
        let expected = if file.ends_with(CONTENTS) { "there is no complete backup" } else { "the file is missing" };
        assert!(error.contains(expected), "{error}");
        std::fs::write(&file, &whole).unwrap();
    }
    let _ = std::fs::remove_dir(dir.path().join("restored"));
    restore(&to, &location(&dir, "restored"), |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_checkpoint_is_not_backed_up() {
    let mut source = Source::new().await;
    source.checkpoint(0..2_000).await;
    let file = files(&source.dir.path().join("checkpoints")).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, damaged) in
        [("flipped", [&whole[..1_000], &[!whole[1_000]], &whole[1_001..]].concat()), ("cut", whole[..9_000].to_vec())]
    {
        std::fs::write(&file, damaged).unwrap();
        let instant = source.checkpoints.backup_source().await.unwrap();
        let mut backup = Backup::begin(instant, &location(&dir, name), 1_000).await.unwrap();
        let error = loop {
            match backup.step().await {
                Ok(step) => assert!(step.is_some(), "the damage was not found"),
                Err(error) => break error,
            }
        };
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(matches!(error, StorageError::Damaged { .. }) && error.to_string().contains(name), "{error}");
    }
    assert!(!dir.path().join("flipped").join(CONTENTS).exists());
}

#[tokio::test]
async fn nothing_is_overwritten_and_half_a_backup_is_not_opened() {
    let mut source = Source::new().await;
    source.checkpoint(0..10).await;
    let dir = tempfile::tempdir().unwrap();
    let to = location(&dir, "backup");
    source.back_up(&to).await;
    let again = Backup::begin(source.checkpoints.backup_source().await.unwrap(), &to, 1_000).await.err().unwrap();
    assert!(matches!(again, StorageError::NotEmpty { .. }), "{again}");
    let restored = location(&dir, "restored");
    restore(&to, &restored, |_, _| ()).await.unwrap();
    let again = restore(&to, &restored, |_, _| ()).await.unwrap_err();
    assert!(matches!(again, StorageError::NotEmpty { .. }), "{again}");
    std::fs::write(dir.path().join("restored").join(UNFINISHED), "").unwrap();
    let error = Store::open_at(&restored, None).await.err().unwrap();
    assert!(error.to_string().contains("restored into it only in part"), "{error}");
    let missing = restore(&location(&dir, "missing"), &location(&dir, "new"), |_, _| ()).await.unwrap_err();
    assert!(matches!(missing, StorageError::Open { .. }) && !dir.path().join("missing").exists(), "{missing}");
}

#[tokio::test]
async fn a_backup_of_an_unknown_version_is_refused_by_name() {
    let source = Source::new().await;
    let dir = tempfile::tempdir().unwrap();
    let to = location(&dir, "backup");
    source.back_up(&to).await;
    let path = dir.path().join("backup").join(CONTENTS);
    let line = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().replacen("1", "99", 1);
    std::fs::write(&path, format!("{line}\n{:016x}\n", hash_bytes(line.as_bytes()))).unwrap();
    let error = restore(&to, &location(&dir, "restored"), |_, _| ()).await.unwrap_err().to_string();
    let expected = "BACKUP has format version 99, and this server knows 1: another version of Freshet wrote it";
    assert!(error.ends_with(expected), "{error}");
}
