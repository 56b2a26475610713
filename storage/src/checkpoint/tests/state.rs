//! State tables against a map from id to text.

use std::collections::BTreeMap;

use freshet_types::keys::hash_int;
use rand::seq::IteratorRandom;

use super::super::recover::TablePart;
use super::super::{Part, Recovered, SpilledChange, StateRows, StoredTable, TableChange};
use super::*;
use crate::spill::{FoundBy, Layout, NewRows, SpillError, SpillFolder, SpilledRows};

type Model = BTreeMap<u32, String>;

fn change(reset: bool, gone: Vec<u32>, changed: &Model) -> TableChange {
    let rows: Vec<_> = changed.iter().map(|(id, text)| (i64::from(*id), text.clone())).collect();
    let ids = changed.keys().copied().collect();
    TableChange { reset, gone, changed: StateRows { ids, rows: batch(&rows) }, spilled: None }
}

fn model_of(tables: &[StateRows]) -> Model {
    let mut model = Model::new();
    for StateRows { ids, rows } in tables {
        for (id, (key, text)) in ids.iter().zip(rows_of(rows)) {
            assert_eq!(key, i64::from(*id));
            assert_eq!(model.insert(*id, text), None, "the id {id} is there twice");
        }
    }
    model
}

async fn rows_of_table(table: &StoredTable) -> Vec<StateRows> {
    let mut rows = Vec::new();
    for part in 0..table.parts() {
        rows.extend(table.read(part).await.unwrap());
    }
    rows
}

async fn models(recovered: &Recovered) -> Vec<Model> {
    let mut models = Vec::new();
    for (_, table) in recovered.state(RELATION).await.unwrap() {
        models.push(model_of(&rows_of_table(&table).await));
    }
    models
}

/// A change of `model`, which is made.
fn random_change(rng: &mut StdRng, model: &mut Model) -> TableChange {
    let reset = rng.random_bool(0.03);
    if reset {
        model.clear();
    }
    let mut gone = Vec::new();
    let mut changed = Model::new();
    for _ in 0..rng.random_range(0..120) {
        let id = rng.random_range(0..700);
        changed.insert(id, format!("text {}", rng.random_range(0..1_000)));
    }
    let count = rng.random_range(0..60);
    for id in model.keys().copied().choose_multiple(rng, count) {
        // Some are taken up again at once.
        gone.push(id);
    }
    gone.iter().for_each(|id| drop(model.remove(id)));
    model.extend(changed.clone());
    change(reset, gone, &changed)
}

async fn simulate(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut models = [Model::new(), Model::new()];
    let mut durable = None;
    for epoch in 1..100 {
        let mut checkpoint = checkpoints.begin(Epoch(epoch));
        for (table, model) in (0..).zip(&mut models) {
            if rng.random_bool(0.8) {
                checkpoint.state(RELATION, 1, 2, table, random_change(&mut rng, model)).await.unwrap();
            }
        }
        match rng.random_range(0..10) {
            0 => drop(checkpoint),
            1 => drop(checkpoint.prepare(String::new()).await.unwrap()),
            2 => {
                let (checkpoints, prepared) = checkpoint.prepare(String::new()).await.unwrap();
                let writes = checkpoints.writes(&prepared.manifest, vec![]).unwrap();
                store.commits.commit(writes).await.unwrap();
                durable = Some(models.clone());
            }
            _ => {
                checkpoint.commit(String::new(), vec![]).await.unwrap();
                durable = Some(models.clone());
            }
        }
        let Some(expected) = durable.clone().filter(|_| rng.random_bool(0.3)) else {
            continue;
        };
        if rng.random_bool(0.2) {
            store = open(&dir).await;
        }
        let (opened, recovered) = recover(&store).await;
        let found = on_any_thread(recovered.state(RELATION)).await.unwrap();
        for (part, stored) in found {
            let Part::State { node: 1, worker: 2, table } = part else { panic!("{part:?}") };
            assert_eq!(model_of(&rows_of_table(&stored).await), expected[table as usize], "epoch {epoch}");
        }
        (checkpoints, models) = (opened, expected);
    }
    drop(store);
}

#[tokio::test]
async fn state_tables_come_back_as_they_were() {
    for seed in 0..3 {
        simulate(seed).await;
    }
}

#[tokio::test]
async fn full_segments_leave_memory_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut first = 0;
    for epoch in 1..200 {
        // Each row is written ten times over.
        let rows: Model = (0..100).map(|id| (id * 5 + first, format!("at {epoch}"))).collect();
        first = (first + 1) % 5;
        let mut checkpoint = checkpoints.begin(Epoch(epoch));
        checkpoint.state(RELATION, 0, 0, 0, change(false, vec![], &rows)).await.unwrap();
        checkpoint.commit(String::new(), vec![]).await.unwrap();
        assert!(checkpoints.memory_bytes() < 64 * 1024, "{}", checkpoints.memory_bytes());
    }
    let (_, recovered) = recover(&store).await;
    assert_eq!(recovered.workers(RELATION), 1);
    let tables = recovered.state(RELATION).await.unwrap();
    let parts = rows_of_table(&tables[0].1).await;
    assert_eq!(model_of(&parts).len(), 500);
    assert!(parts.len() < 12, "{} segments for 500 rows of 256 a segment", parts.len());
}

#[tokio::test]
async fn a_change_of_a_table_that_was_not_brought_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let rows = Model::from([(3, "a".to_owned())]);
    let mut checkpoint = checkpoints.begin(Epoch(1));
    checkpoint.state(RELATION, 0, 0, 0, change(false, vec![], &rows)).await.unwrap();
    checkpoint.state(RELATION, 1, 0, 0, change(false, vec![], &rows)).await.unwrap();
    checkpoint.state(RELATION, 2, 0, 0, change(false, vec![], &rows)).await.unwrap();
    checkpoint.commit(String::new(), vec![]).await.unwrap();
    let (mut checkpoints, _) = recover(&store).await;
    let other = Model::from([(4, "b".to_owned())]);
    let mut checkpoint = checkpoints.begin(Epoch(2));
    let error = checkpoint.state(RELATION, 0, 0, 0, change(false, vec![], &other)).await.unwrap_err();
    let expected = "table 0 of node 0 of r7 on worker 0 is in storage and was not brought back, so a change of it \
                    cannot be stored";
    assert_eq!(error.to_string(), expected);
    checkpoint.state(RELATION, 1, 0, 0, change(true, vec![], &other)).await.unwrap();
    checkpoint.commit(String::new(), vec![]).await.unwrap();
    let (mut checkpoints, recovered) = recover(&store).await;
    assert_eq!(models(&recovered).await, [rows.clone(), other.clone(), rows]);
    let mut checkpoint = checkpoints.begin(Epoch(3));
    checkpoint.forget_state(RELATION);
    checkpoint.state(RELATION, 2, 0, 0, change(false, vec![], &other)).await.unwrap();
    checkpoint.commit(String::new(), vec![]).await.unwrap();
    let (_, recovered) = recover(&store).await;
    assert_eq!(models(&recovered).await, [other]);
}

/// A change of rows on the disk, each with its id as key, as many as `ids` says.
fn spilled_change(folder: &Arc<SpillFolder>, ids: std::ops::Range<u32>) -> TableChange {
    let keys = Arc::new(Schema::new(vec![schema().field(1).clone()]));
    let mut rows = SpilledRows::new(folder.clone(), Layout::new(keys, FoundBy::Key));
    // Several runs, which are being merged.
    for part in ids.clone().collect::<Vec<u32>>().chunks(5_000) {
        let mut ids: Vec<u32> = part.to_vec();
        ids.sort_by_key(|id| hash_int(i64::from(*id)));
        let part = NewRows {
            hashes: ids.iter().map(|id| hash_int(i64::from(*id))).collect(),
            contents: None,
            weights: ids.iter().map(|id| i64::from(*id)).collect(),
            columns: vec![Arc::new(ids.iter().map(|id| Some(format!("spilled {id}"))).collect::<StringArray>())],
            untold: vec![true; ids.len()],
            ids,
        };
        rows.add::<SpillError>(part.ids.len(), std::iter::once(Ok(part))).unwrap();
        rows.work(1_000).unwrap();
    }
    let spilled = SpilledChange { rows: rows.take_untold(), schema: schema(), number_column: 0 };
    TableChange { spilled: Some(spilled), ..change(false, vec![], &Model::new()) }
}

#[tokio::test]
async fn what_is_on_the_disk_is_told_and_brought_back_in_pieces() {
    const ROWS: u32 = 30_000;
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, folder) = (open(&dir).await, SpillFolder::open(disk.path()).unwrap());
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let in_memory = Model::from([(ROWS, "in memory".to_owned())]);
    let mut model = in_memory.clone();
    for (epoch, is_lost) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut checkpoint = checkpoints.begin(Epoch(epoch));
        let ids = match epoch {
            1 => 0..ROWS / 2,
            3 => ROWS / 2..ROWS,
            _ => 0..100,
        };
        checkpoint.state(RELATION, 0, 0, 0, spilled_change(&folder, ids.clone())).await.unwrap();
        checkpoint.state(RELATION, 0, 0, 0, change(false, vec![], &in_memory)).await.unwrap();
        model.extend(ids.map(|id| (id, format!("spilled {id}"))));
        if is_lost {
            drop(checkpoint.prepare(String::new()).await.unwrap());
        } else {
            let stats = checkpoint.commit(String::new(), vec![]).await.unwrap();
            assert!(stats.files > 5, "{} files", stats.files);
        }
        assert!(checkpoints.memory_bytes() < 400 << 10, "{} bytes", checkpoints.memory_bytes());
    }
    assert_eq!(folder.bytes(), 0, "what was told is let go");
    let (mut checkpoints, recovered) = recover(&store).await;
    let tables = recovered.state(RELATION).await.unwrap();
    let held = |part: &&TablePart| matches!(part, TablePart::Held(_));
    assert!(tables[0].1.parts.iter().filter(held).count() < 20, "of {} parts", tables[0].1.parts());
    assert_eq!(model_of(&rows_of_table(&tables[0].1).await), model);
    let mut checkpoint = checkpoints.begin(Epoch(5));
    checkpoint.state(RELATION, 0, 0, 0, change(false, (100..ROWS).collect(), &Model::new())).await.unwrap();
    checkpoint.commit(String::new(), vec![]).await.unwrap();
    model.retain(|id, _| *id < 100 || *id == ROWS);
    // What is read from files is pinned until then.
    drop(tables);
    drop(recovered);
    let (_, recovered) = recover(&store).await;
    assert_eq!(models(&recovered).await, [model]);
}
