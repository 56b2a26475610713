//! Collections whose rows move to files while they are written and read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;

use super::super::{Moved, TierPolicy};
use super::*;
use crate::tiers::{Tier, Tiers, WarmPlace};

pub fn tiers(dir: &TempDir) -> Arc<Tiers> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    Tiers::new(WarmPlace::Bucket, (store.clone(), "warm".into()), (store, "cold".into()), Arc::new(AtomicU64::new(1)))
        .unwrap()
}

fn policy(warm_before: Option<i64>, cold_before: Option<i64>) -> TierPolicy {
    TierPolicy { time_column: Some(0), warm_before, cold_before, folder: "public.t".to_owned() }
}

fn by_write(warm_before: Option<i64>, cold_before: Option<i64>) -> TierPolicy {
    TierPolicy { time_column: None, ..policy(warm_before, cold_before) }
}

pub fn files(dir: &TempDir) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir.path()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

pub async fn move_all(collection: &Collection, tiers: &Arc<Tiers>, policy: &TierPolicy) -> usize {
    let mut rows = 0;
    loop {
        let moved = collection.move_tiers(tiers, policy).await.unwrap();
        if moved == Moved::default() {
            return rows;
        }
        rows += moved.rows;
    }
}

/// Random changes, checked at random epochs, while whatever is settled moves by random policies.
async fn simulate(seed: u64, key: Option<Vec<usize>>, append_only: bool, shards: usize) {
    let dir = tempfile::tempdir().unwrap();
    let tiers = tiers(&dir);
    let mut simulation = Simulation::new(seed, key, append_only, shards);
    let collection = simulation.collection.clone();
    let done = AtomicBool::new(false);
    let mut rng = StdRng::seed_from_u64(seed);
    let moves = async {
        let mut moved = Moved::default();
        while !done.load(Ordering::Relaxed) {
            let mut bound = || Some(rng.random_range(0..4_000_000));
            let (warm, cold) = (bound(), bound().map(|bound| bound / 2));
            let turn = collection.move_tiers(&tiers, &by_write(warm, cold)).await.unwrap();
            moved.rows += turn.rows;
            moved.files += turn.files;
            for _ in 0..rng.random_range(1..10) {
                tokio::task::yield_now().await;
            }
        }
        moved
    };
    let writes = async {
        for step in 0..150 {
            simulation.step();
            if step % 4 == 0 {
                simulation.check();
            }
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let (moved, ()) = futures::join!(moves, writes);
    assert!(moved.rows > 1_000, "{moved:?}");
    assert!(collection.tier_stats(None).unwrap().contains_key(&Tier::Cold));
    tiers.delete_garbage(&BTreeSet::new()).await;
    simulation.check_kept();
}

#[tokio::test]
async fn keyed_rows_stay_what_they_are_wherever_they_lie() {
    simulate(1, Some(vec![0]), false, 1).await;
    simulate(2, Some(vec![1]), false, 2).await;
}

#[tokio::test]
async fn rows_without_a_key_stay_what_they_are_wherever_they_lie() {
    simulate(1, None, false, 1).await;
}

#[tokio::test]
async fn appended_rows_stay_what_they_are_wherever_they_lie() {
    simulate(1, Some(vec![0]), true, 1).await;
    simulate(2, None, true, 2).await;
}

#[tokio::test]
async fn cold_files_are_cut_by_day_and_small_ones_become_one() {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let tiers = tiers(&dir);
    let (collection, mut writer) = single(Some(vec![1]));
    let mut rows: Vec<_> = (0..300).map(|n| (row(n % 3 * DAY - 5, &format!("key {n}")), 1)).collect();
    rows.push(((None, Some("timeless".to_owned())), 1));
    apply(&mut writer, 1, &rows).unwrap();
    // Not before every reader is past it.
    assert_eq!(move_all(&collection, &tiers, &policy(None, Some(9 * DAY))).await, 0);
    writer.advance_upper(Epoch(2_000));
    assert_eq!(move_all(&collection, &tiers, &policy(Some(9 * DAY), None)).await, 301);
    assert_eq!(collection.tier_stats(Some(0)).unwrap()[&Tier::Warm].files, 1);
    assert_eq!(move_all(&collection, &tiers, &policy(None, Some(9 * DAY))).await, 301);
    let stats = collection.tier_stats(Some(0)).unwrap()[&Tier::Cold];
    assert_eq!((stats.rows, stats.files, stats.times), (301, 4, Some((-5, 2 * DAY - 5))));
    tiers.delete_garbage(&BTreeSet::new()).await;
    let folders: Vec<String> = files(&dir).iter().map(|file| file.rsplit_once('/').unwrap().0.to_owned()).collect();
    let days = ["1969-12-31", "1970-01-01", "1970-01-02", "__HIVE_DEFAULT_PARTITION__"];
    assert_eq!(folders, days.map(|day| format!("cold/public.t/a_day={day}")));
    let before = content(&collection.snapshot(Epoch(2_000)).unwrap());
    assert_eq!(before.len(), 301);

    for n in 1..=20 {
        apply(&mut writer, 4_000 + n * 2_000 - 1_000, &[(row(DAY, &format!("more {n}")), 1)]).unwrap();
        writer.advance_upper(Epoch(4_000 + n * 2_000));
        move_all(&collection, &tiers, &policy(None, Some(9 * DAY))).await;
    }
    let stats = collection.tier_stats(Some(0)).unwrap()[&Tier::Cold];
    assert!(stats.rows == 321 && stats.files < 15, "{stats:?}");
}

/// Parquet would notice few of these: not in values that decode, not in filters, and not in statistics.
#[tokio::test]
async fn any_wrong_byte_of_a_file_is_told_and_other_files_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let tiers = tiers(&dir);
    let mut snapshots = Vec::new();
    for _ in 0..2 {
        let (collection, mut writer) = single(Some(vec![0]));
        let rows: Vec<_> = (0..500).map(|n| (row(n, &format!("{n}")), 1)).collect();
        apply(&mut writer, 1, &rows).unwrap();
        writer.advance_upper(Epoch(2_000));
        move_all(&collection, &tiers, &policy(Some(10_000), None)).await;
        snapshots.push(collection.snapshot(Epoch(2_000)).unwrap());
    }
    let files = files(&dir);
    let damaged = dir.path().join(&files[0]);
    let sound = std::fs::read(&damaged).unwrap();
    for place in (0..sound.len()).step_by(53) {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        // What was read before is not asked again.
        tiers.set_cache_bytes(crate::tiers::CacheBytes::of(1 << 20));
        let told = snapshots[0].batches(None).unwrap_err().to_string();
        assert!(told.contains(files[0].strip_prefix("warm/").unwrap()), "byte {place}: {told}");
        assert!(told.contains("are not those that were written"), "byte {place}: {told}");
        assert_eq!(content(&snapshots[1]).len(), 500, "byte {place}");
    }
}

#[tokio::test]
async fn a_lost_file_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let tiers = tiers(&dir);
    let (collection, mut writer) = single(Some(vec![0]));
    let rows: Vec<_> = (0..100).map(|n| (row(n, "x"), 1)).collect();
    apply(&mut writer, 1, &rows).unwrap();
    writer.advance_upper(Epoch(2_000));
    move_all(&collection, &tiers, &policy(Some(1_000), None)).await;
    let file = &files(&dir)[0];
    std::fs::remove_file(dir.path().join(file)).unwrap();
    let snapshot = collection.snapshot(Epoch(2_000)).unwrap();
    let told = snapshot.batches(None).unwrap_err().to_string();
    let name = file.strip_prefix("warm/").unwrap();
    assert!(told.contains(&format!("cannot read the warm file \"{name}\"")), "{told}");
    assert!(told.contains("the file is missing"), "{told}");
    assert_eq!(snapshot.row_count(), 100);
}
