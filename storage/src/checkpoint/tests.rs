//! Checkpoints against a model: the rows of each collection at each epoch, the rows of each state table by id.

mod faults;
mod garbage;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use freshet_types::{Delta, Epoch, RelationId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::{Checkpoints, Recovered, Redistribute};
use crate::Store;
use crate::collection::{Collection, CollectionDescription, HistoryPolicy, ShardWriter, TierPolicy};

/// From key and text to how often the row is there.
type Rows = BTreeMap<(i64, String), i64>;

const RELATION: RelationId = RelationId(7);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]))
}

fn batch(rows: &[(i64, String)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.1.clone())).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn rows_of(batch: &RecordBatch) -> Vec<(i64, String)> {
    let (keys, texts) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
    keys.values().iter().zip(texts.iter()).map(|(key, text)| (*key, text.unwrap().to_owned())).collect()
}

fn content(collection: &Collection, epoch: Epoch) -> Rows {
    let mut rows = Rows::new();
    for batch in collection.snapshot(epoch).unwrap().batches(None).unwrap() {
        rows_of(&batch).into_iter().for_each(|row| *rows.entry(row).or_default() += 1);
    }
    rows
}

/// The shard of each row, by its key.
fn shard_of(shards: usize) -> impl Fn(&RecordBatch) -> Vec<usize> {
    move |rows| {
        let keys = rows.column(0).as_primitive::<Int64Type>().values();
        keys.iter().map(|key| key.rem_euclid(shards as i64) as usize).collect()
    }
}

async fn open(dir: &TempDir) -> Store {
    Store::open(dir.path().to_str().unwrap()).await.unwrap()
}

async fn recover(store: &Store) -> (Checkpoints, Recovered) {
    let (checkpoints, recovered) = Checkpoints::open(store).await.unwrap();
    (checkpoints, recovered.unwrap())
}

/// A collection, its writers, and what it held at each epoch.
struct Table {
    collection: Arc<Collection>,
    writers: Vec<ShardWriter>,
    states: BTreeMap<Epoch, Rows>,
}

impl Table {
    fn description(key: Option<Vec<usize>>, append_only: bool) -> CollectionDescription {
        CollectionDescription {
            name: "t".to_owned(),
            schema: schema(),
            key,
            append_only,
            history: HistoryPolicy::unbounded(50),
            retention: None,
        }
    }

    fn new(key: Option<Vec<usize>>, append_only: bool, shards: usize) -> Self {
        let collection = Collection::new(Self::description(key, append_only), shards).unwrap();
        Self::of(collection, BTreeMap::from([(Epoch::ZERO, Rows::new())]))
    }

    /// A keyed collection with two shards.
    fn keyed() -> Self {
        Self::new(Some(vec![0]), false, 2)
    }

    fn of(collection: Arc<Collection>, states: BTreeMap<Epoch, Rows>) -> Self {
        let writers = (0..collection.shard_count()).map(|shard| collection.writer(shard)).collect();
        Self { collection, writers, states }
    }

    /// What came back instead of this one.
    fn gone_on(self, restored: Arc<Collection>) -> Self {
        let mut states = self.states;
        states.retain(|epoch, _| *epoch <= restored.upper());
        Self::of(restored, states)
    }

    fn epoch(&self) -> Epoch {
        *self.states.last_key_value().unwrap().0
    }

    fn apply(&mut self, changes: &[((i64, String), i64)]) -> Epoch {
        let epoch = Epoch(self.epoch().0 + 10);
        let mut state = self.states.last_key_value().unwrap().1.clone();
        let shards = self.writers.len();
        for (shard, writer) in self.writers.iter_mut().enumerate() {
            let own = changes.iter().filter(|((key, _), _)| key.rem_euclid(shards as i64) as usize == shard);
            let (rows, weights): (Vec<_>, Vec<_>) = own.cloned().unzip();
            writer.apply(epoch, &Delta::new(batch(&rows), weights)).unwrap();
            writer.advance_upper(epoch);
        }
        for (row, weight) in changes {
            *state.entry(row.clone()).or_default() += weight;
        }
        state.retain(|_, count| *count != 0);
        self.states.insert(epoch, state);
        epoch
    }

    /// Inserts rows with keys `keys`.
    fn insert(&mut self, keys: std::ops::Range<i64>) -> Epoch {
        let changes: Vec<_> = keys.map(|key| ((key, format!("row {key}")), 1)).collect();
        self.apply(&changes)
    }

    /// Some new, changed and gone rows.
    fn random_epoch(&mut self, rng: &mut StdRng) -> Epoch {
        let state = self.states.last_key_value().unwrap().1;
        let description = self.collection.description();
        let mut changes = Vec::new();
        for ((key, text), count) in state {
            let fate = rng.random_range(0..100);
            if description.append_only || fate >= 12 {
                continue;
            }
            changes.push(((*key, text.clone()), -count));
            if fate < 5 {
                changes.push(((*key, format!("{text}+")), 1));
            }
        }
        for _ in 0..rng.random_range(0..150) {
            let key = rng.random_range(0..2_000);
            let is_there = state.range((key, String::new())..(key + 1, String::new())).next().is_some();
            let is_taken = changes.iter().any(|((other, _), _)| *other == key);
            if description.key.is_none() || !(is_there || is_taken) {
                changes.push(((key, format!("text {}", rng.random_range(0..9))), 1));
            }
        }
        self.apply(&changes)
    }

    /// Checks that a collection holds what this one held at `epoch` and before, and finds it by key.
    fn check(&self, restored: &Collection, epoch: Epoch) {
        assert_eq!(restored.upper(), epoch);
        assert!(restored.since() <= self.collection.since().min(epoch), "the past came back too");
        let readable: Vec<Epoch> = self.states.range(restored.since()..=epoch).map(|(epoch, _)| *epoch).collect();
        readable.iter().for_each(|at| self.check_rows(restored, *at));
        for pair in readable.windows(2) {
            let mut rows = self.states[&pair[0]].clone();
            for (at, change) in restored.changes(pair[0], pair[1]).unwrap() {
                assert_eq!(at, pair[1]);
                for (row, weight) in rows_of(change.rows()).into_iter().zip(change.weight_column().iter()) {
                    *rows.entry(row).or_default() += weight;
                }
            }
            rows.retain(|_, count| *count != 0);
            assert_eq!(rows, self.states[&pair[1]]);
        }
        assert_eq!(restored.row_count() as i64, self.states[&epoch].values().sum::<i64>());
    }

    /// Checks what a collection holds at `epoch`.
    fn check_rows(&self, restored: &Collection, epoch: Epoch) {
        let expected = &self.states[&epoch];
        assert_eq!(content(restored, epoch), *expected, "at {epoch}");
        if restored.description().key.is_some() {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2_000).step_by(3)));
            let found = restored.snapshot(epoch).unwrap().lookup(&[keys]).unwrap();
            let mut found = rows_of(&found);
            found.sort();
            let wanted = expected.keys().filter(|(key, _)| *key < 2_000 && key % 3 == 0).cloned().collect::<Vec<_>>();
            assert_eq!(found, wanted);
        }
    }

    async fn restored(&self, recovered: &Recovered, shards: usize) -> Arc<Collection> {
        let shard_of = shard_of(shards);
        let description = self.collection.description().clone();
        let how = Redistribute::IfShardsDiffer(&shard_of);
        on_any_thread(recovered.collection(RELATION, description, shards, how)).await.unwrap().unwrap()
    }
}

/// Makes a checkpoint of one collection.
async fn save(checkpoints: &mut Checkpoints, table: &Table, epoch: Epoch) -> super::CheckpointStats {
    let mut checkpoint = checkpoints.begin(epoch);
    checkpoint.collection(RELATION, &table.collection).unwrap();
    on_any_thread(checkpoint.commit(format!("at {epoch}"), vec![])).await.unwrap()
}

/// A server's tasks move between threads, so all that they wait for must.
fn on_any_thread<F: Future + Send>(future: F) -> F {
    future
}

/// Fifty checkpoints with all kinds of changes between them; some fail, some fail only for who waits for them,
/// and after some the server starts again from what is durable.
async fn simulate(seed: u64, key: Option<Vec<usize>>, append_only: bool, tiers: Tiering) {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir).await;
    let (mut checkpoints, none) = Checkpoints::open(&store).await.unwrap();
    assert!(none.is_none());
    let mut table = Table::new(key, append_only, 2);
    let mut durable = None;
    for _ in 0..50 {
        for _ in 0..rng.random_range(1..5) {
            table.random_epoch(&mut rng);
        }
        if tiers == Tiering::Some && rng.random_bool(0.3) {
            let now_us = table.epoch().0 as i64 * 1_000;
            let cold_before = Some(rng.random_range(0..=now_us));
            let policy = TierPolicy {
                time_column: None,
                warm_before: Some(now_us),
                cold_before,
                folder: "public.näme / 100%".into(),
            };
            table.collection.move_tiers(store.tiers(), &policy).await.unwrap();
        }
        // Not always the last one: there may be later rows.
        let (since, last) = (table.collection.since(), durable.unwrap_or(Epoch::ZERO));
        let readable: Vec<Epoch> = table.states.keys().copied().filter(|e| *e >= since && *e >= last).collect();
        let epoch = readable[rng.random_range(0..readable.len())];
        let mut checkpoint = checkpoints.begin(epoch);
        checkpoint.collection(RELATION, &table.collection).unwrap();
        match rng.random_range(0..10) {
            0..2 => drop(checkpoint.prepare(String::new()).await.unwrap()),
            2..4 => {
                let (checkpoints, prepared) = checkpoint.prepare(format!("at {epoch}")).await.unwrap();
                let writes = checkpoints.writes(&prepared.manifest, vec![]).unwrap();
                store.commits.commit(writes).await.unwrap();
                durable = Some(epoch);
            }
            _ => {
                checkpoint.commit(format!("at {epoch}"), vec![]).await.unwrap();
                durable = Some(epoch);
            }
        }
        let Some(epoch) = durable.filter(|_| rng.random_bool(0.5)) else {
            continue;
        };
        if rng.random_bool(0.2) {
            store = open(&dir).await;
        }
        let (opened, recovered) = recover(&store).await;
        assert_eq!((recovered.epoch, &recovered.meta), (epoch, &format!("at {epoch}")));
        // Now and then with other shards than before.
        let shards = if rng.random_bool(0.3) { rng.random_range(1..4) } else { table.writers.len() };
        let collection = table.restored(&recovered, shards).await;
        table.check(&collection, epoch);
        checkpoints = opened;
        table = table.gone_on(collection);
    }
    drop(store);
}

/// Whether rows move to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tiering {
    None,
    Some,
}

#[tokio::test]
async fn keyed_collections_come_back_as_they_were() {
    for seed in 0..3 {
        simulate(seed, Some(vec![0]), false, Tiering::None).await;
    }
}

#[tokio::test]
async fn rows_in_files_come_back_as_they_were() {
    simulate(1, Some(vec![0]), false, Tiering::Some).await;
    simulate(2, None, false, Tiering::Some).await;
    simulate(3, None, true, Tiering::Some).await;
}

#[tokio::test]
async fn collections_without_a_key_come_back_as_they_were() {
    for seed in 0..2 {
        simulate(seed, None, false, Tiering::None).await;
    }
}

#[tokio::test]
async fn append_only_collections_come_back_as_they_were() {
    simulate(1, None, true, Tiering::None).await;
}

#[tokio::test]
async fn rows_go_to_other_shards_if_there_are_more_or_fewer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut table = Table::keyed();
    table.insert(0..1_500);
    let changes: Vec<_> = (100..700).map(|key| ((key, format!("row {key}")), -1)).collect();
    let mut epoch = table.apply(&changes);
    save(&mut checkpoints, &table, epoch).await;
    for shards in [3, 1, 2] {
        let (opened, recovered) = recover(&store).await;
        assert_eq!(recovered.shards(RELATION), Some(table.writers.len()));
        let collection = table.restored(&recovered, shards).await;
        assert_eq!(collection.shard_count(), shards);
        table.check(&collection, epoch);
        checkpoints = opened;
        table = table.gone_on(collection);
        // Each row must be where its key says, or this does not find it.
        epoch = table.apply(&[((3, "row 3".to_owned()), -1), ((3, "other".to_owned()), 1)]);
        epoch = table.apply(&[((3, "other".to_owned()), -1), ((3, "row 3".to_owned()), 1)]).max(epoch);
        save(&mut checkpoints, &table, epoch).await;
    }
    let (_, recovered) = recover(&store).await;
    let description = table.collection.description().clone();
    let all_in_one = |rows: &RecordBatch| vec![1; rows.num_rows()];
    let how = Redistribute::Always(&all_in_one);
    let collection = recovered.collection(RELATION, description, 2, how).await.unwrap().unwrap();
    table.check(&collection, epoch);
}

#[tokio::test]
async fn what_is_empty_comes_back_empty_and_what_is_forgotten_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut empty = Table::keyed();
    let epoch = empty.apply(&[]);
    save(&mut checkpoints, &empty, epoch).await;
    let (mut checkpoints, recovered) = recover(&store).await;
    assert_eq!(recovered.relations(), [RELATION]);
    let collection = empty.restored(&recovered, 2).await;
    empty.check(&collection, epoch);
    assert!(recovered.relations().is_empty());
    let mut checkpoint = checkpoints.begin(epoch);
    checkpoint.forget(RELATION);
    checkpoint.commit(String::new(), vec![]).await.unwrap();
    let (_, recovered) = recover(&store).await;
    assert!(recovered.relations().is_empty());
    let description = Table::description(None, false);
    let how = Redistribute::IfShardsDiffer(&|_: &RecordBatch| vec![]);
    assert!(recovered.collection(RELATION, description, 2, how).await.unwrap().is_none());
}
