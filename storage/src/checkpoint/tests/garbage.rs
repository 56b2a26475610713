//! How much is written, and what stays in the folder.

use super::super::garbage::FILES_MAX;
use super::*;

#[tokio::test]
async fn many_small_checkpoints_keep_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut table = Table::keyed();
    let mut written = 0;
    let mut epoch = table.insert(0..1_000);
    for round in 0..500 {
        // Rows that mostly stay, so that every file keeps some part.
        table.insert(10_000 + round * 30..10_000 + (round + 1) * 30);
        epoch = if round % 50 == 0 { table.random_epoch(&mut rng) } else { table.epoch() };
        table.states.retain(|e, _| *e == epoch);
        let stats = save(&mut checkpoints, &table, epoch).await;
        written += stats.bytes;
        let there = std::fs::read_dir(dir.path().join("checkpoints")).unwrap().count();
        assert_eq!(there, stats.files);
        assert!(there <= FILES_MAX + 1, "{there} files in round {round}");
    }
    let sizes: u64 = std::fs::read_dir(dir.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(written < 10 * sizes, "{written} bytes written for {sizes}");
    let (_, recovered) = recover(&store).await;
    table.check(&*table.restored(&recovered, 2).await, epoch);
}

#[tokio::test]
async fn files_stay_while_somebody_recovers_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let mut table = Table::keyed();
    let first = table.insert(0..600);
    save(&mut checkpoints, &table, first).await;
    let (mut checkpoints, recovered) = recover(&store).await;
    let mut other = Table::keyed();
    other.apply(&[]);
    let stats = save(&mut checkpoints, &other, first).await;
    assert_eq!(stats.files, 1);
    table.check(&*table.restored(&recovered, 2).await, first);
    drop(recovered);
    assert_eq!(save(&mut checkpoints, &other, first).await.files, 0);
}

/// However long the history is, a checkpoint writes what has changed since the one before.
#[tokio::test]
async fn a_checkpoint_writes_what_is_new_of_a_long_history() {
    const ROUNDS: i64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (mut checkpoints, _) = Checkpoints::open(&store).await.unwrap();
    let description = Table::description(Some(vec![0]), false);
    let description = CollectionDescription { history: HistoryPolicy::unbounded(1_000_000), ..description };
    let collection = Collection::new(description, 2).unwrap();
    let mut table = Table::of(collection, BTreeMap::from([(Epoch::ZERO, Rows::new())]));
    let mut epoch = table.insert(0..1_000);
    save(&mut checkpoints, &table, epoch).await;
    let mut written = Vec::new();
    for key in 0..ROUNDS {
        epoch = table.apply(&[((key, format!("row {key}")), -1), ((key, format!("{key} again")), 1)]);
        written.push(save(&mut checkpoints, &table, epoch).await.bytes);
    }
    let third = written.len() / 3;
    let (first, last): (u64, u64) = (written[..third].iter().sum(), written[2 * third..].iter().sum());
    assert!(last < 2 * first, "{first} bytes at first, {last} at last");
    let (_, recovered) = recover(&store).await;
    let collection = table.restored(&recovered, 2).await;
    assert_eq!(collection.since(), Epoch::ZERO);
    table.check(&collection, epoch);
}
