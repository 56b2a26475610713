//! Checkpoints of collections of real sizes.
#![allow(clippy::unwrap_used, reason = "the lint takes the functions that tests share for more than tests")]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use freshet_storage::Store;
use freshet_storage::checkpoint::{CheckpointStats, Checkpoints, Redistribute};
use freshet_storage::collection::{Collection, CollectionDescription};
use freshet_types::{Delta, Epoch, RelationId};

const RELATION: RelationId = RelationId(7);
const BATCH_ROWS: i64 = 10_000;

fn schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![field("k"), field("v")]))
}

fn rows(rows: impl Iterator<Item = (i64, i64)>) -> RecordBatch {
    let (keys, values): (Vec<i64>, Vec<i64>) = rows.unzip();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys)), Arc::new(Int64Array::from(values))];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn sums(collection: &Collection, epoch: Epoch) -> (i64, i64) {
    let batches = collection.snapshot(epoch).unwrap().batches(None).unwrap();
    batches.iter().fold((0, 0), |(keys, values), batch| {
        let sum = |column: usize| batch.column(column).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        (keys + sum(0), values + sum(1))
    })
}

async fn save(checkpoints: &mut Checkpoints, collection: &Collection, epoch: u64) -> CheckpointStats {
    let mut checkpoint = checkpoints.begin(Epoch(epoch));
    checkpoint.collection(RELATION, collection).unwrap();
    checkpoint.commit(String::new(), vec![]).await.unwrap()
}

#[tokio::test]
async fn a_checkpoint_writes_what_changed_and_no_more() {
    const ROWS: i64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap()).await.unwrap();
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let description = CollectionDescription::new("t", schema(), Some(vec![0]));
    let collection = Collection::new(description.clone(), 1).unwrap();
    let mut writer = collection.writer(0);
    for start in (0..ROWS).step_by(BATCH_ROWS as usize) {
        let delta = Delta::inserts(rows((start..start + BATCH_ROWS).map(|key| (key, 1))));
        writer.apply(Epoch(1), &delta).unwrap();
    }
    writer.advance_upper(Epoch(1));
    let whole = save(&mut checkpoints, &collection, 1).await;
    assert_eq!(whole.rows as i64, ROWS);
    let changed = rows((0..ROWS).step_by(ROWS as usize / 10).flat_map(|key| [(key, 1), (key, 2)]));
    let delta = Delta::new(changed, [-1, 1].repeat(10));
    writer.apply(Epoch(2), &delta).unwrap();
    writer.advance_upper(Epoch(2));
    let second = save(&mut checkpoints, &collection, 2).await;
    assert!(second.bytes < 300_000, "{second:?} after {whole:?}");
    let unchanged = save(&mut checkpoints, &collection, 2).await;
    assert_eq!((unchanged.bytes, unchanged.rows, unchanged.files), (0, 0, 2));
    let (_, recovered) = Checkpoints::open(&store).await.unwrap();
    let how = Redistribute::IfShardsDiffer(&|rows: &RecordBatch| vec![0; rows.num_rows()]);
    let restored = recovered.unwrap().collection(RELATION, description, 1, how).await.unwrap().unwrap();
    assert_eq!(sums(&restored, Epoch(2)), (ROWS * (ROWS - 1) / 2, ROWS + 10));
}
