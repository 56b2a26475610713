//! Collections that do not keep their rows for ever, against a model that filters by the horizon of each epoch.

use super::super::{Deletions, ExpiredRows, Retention, TierPolicy};
use super::tiers::{files, move_all, tiers};
use super::*;

const KEEP_MS: u64 = 5_000;

fn retaining(key: Option<Vec<usize>>) -> (Arc<Collection>, ShardWriter) {
    let retention = Some(Retention { time_column: 0, keep_ms: KEEP_MS });
    let history = HistoryPolicy::unbounded(1_000_000);
    let description = CollectionDescription { history, retention, ..CollectionDescription::new("t", schema(), key) };
    let collection = Collection::new(description, 1).unwrap();
    let writer = collection.writer(0);
    (collection, writer)
}

fn times(multiset: &Multiset) -> Vec<Option<i64>> {
    multiset.keys().map(|row| row.0).collect()
}

/// Writes changes of `epoch`, and what expires up to it; gives the changes that a reader is told.
fn write(writer: &mut ShardWriter, before: u64, epoch: u64, changes: &[(Row, i64)]) -> Vec<(Epoch, Delta)> {
    let mut told = writer.expire(Epoch(before + 1)..=Epoch(epoch), ExpiredRows::Told).unwrap().deltas;
    let (rows, weights): (Vec<Row>, Vec<i64>) = changes.iter().cloned().unzip();
    let delta = Delta::new(batch(&rows), weights);
    let kept = writer.kept(Epoch(epoch), &delta).unwrap();
    writer.apply(Epoch(epoch), &kept).unwrap();
    writer.advance_upper(Epoch(epoch));
    told.push((Epoch(epoch), kept.into_owned()));
    told
}

fn sum(changes: &[(Epoch, Delta)], through: Epoch) -> Multiset {
    let mut total = Multiset::new();
    for (_, delta) in changes.iter().filter(|(epoch, _)| *epoch <= through) {
        for (row, weight) in rows_of(delta.rows()).into_iter().zip(delta.weight_column().iter()) {
            add(&mut total, row, *weight);
        }
    }
    total
}

/// Whatever comes and goes, early or late: the content at each epoch is what was written, less what has expired.
#[test]
fn the_content_is_what_was_written_and_has_not_expired() {
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (collection, mut writer) = retaining((seed % 2 == 0).then(|| vec![1]));
        let mut written = BTreeMap::from([(0, Multiset::new())]);
        let (mut state, mut told, mut epoch) = (Multiset::new(), Vec::new(), 100_000);
        for n in 0..60 {
            let before = epoch;
            epoch += rng.random_range(1..2_500);
            let mut changes = Vec::new();
            for _ in 0..rng.random_range(0..4) {
                let live: Vec<Row> = state.keys().cloned().collect();
                if let Some(gone) = live.choose(&mut rng).filter(|_| rng.random_bool(0.4)) {
                    changes.push((gone.clone(), -1));
                    add(&mut state, gone.clone(), -1);
                }
                let age_ms = rng.random_range(0..2 * KEEP_MS as i64) - 500;
                let time = rng.random_bool(0.95).then_some((epoch as i64 - age_ms) * 1_000 + 7);
                let new = (time, Some(format!("{n} {}", changes.len())));
                changes.push((new.clone(), 1));
                add(&mut state, new, 1);
            }
            written.insert(epoch, state.clone());
            told.extend(write(&mut writer, before, epoch, &changes));
        }
        for at in 100_000..=epoch {
            if at % 1_000 > 1 && !written.contains_key(&at) {
                continue;
            }
            let horizon = (at as i64 / 1_000 * 1_000 - KEEP_MS as i64) * 1_000;
            let mut expected = written.range(..=at).next_back().unwrap().1.clone();
            expected.retain(|row, _| row.0.is_none_or(|time| time >= horizon));
            let at = Epoch(at);
            assert_eq!(content(&collection.snapshot(at).unwrap()), expected, "seed {seed}, epoch {at}");
            assert_eq!(sum(&told, at), expected, "what readers are told, seed {seed}, epoch {at}");
            assert_eq!(sum(&collection.changes(Epoch(1), at).unwrap(), at), expected);
        }
    }
}

#[test]
fn who_does_not_ask_is_not_told_of_expired_rows() {
    let (collection, mut writer) = retaining(Some(vec![1]));
    let (old, young, deleted) = (row(96_000_000, "old"), row(99_000_000, "young"), row(96_000_000, "deleted"));
    write(&mut writer, 1, 100_000, &[(old.clone(), 1), (young.clone(), 1), (deleted.clone(), 1)]);
    write(&mut writer, 100_000, 100_500, &[(deleted.clone(), -1)]);
    // The very epoch at which a row expires deletes another, and one that expires as well.
    write(&mut writer, 100_500, 102_000, &[(young.clone(), -1), (old.clone(), -1)]);
    let changes = |deletions| -> Vec<(u64, Row, i64)> {
        let changes = collection.changes_with(deletions, Epoch(100_000), Epoch(102_000)).unwrap();
        let of_epoch = |(epoch, delta): &(Epoch, Delta)| -> Vec<_> {
            let rows = rows_of(delta.rows()).into_iter().zip(delta.weight_column().to_vec());
            rows.map(|(row, weight)| (epoch.millis(), row, weight)).collect()
        };
        let mut all: Vec<_> = changes.iter().flat_map(of_epoch).collect();
        all.sort();
        all
    };
    let (first, second) = ((100_500, deleted, -1), (102_000, young, -1));
    assert_eq!(changes(Deletions::Unexpired), [first.clone(), second.clone()]);
    assert_eq!(changes(Deletions::Expired), [(102_000, old.clone(), -1)]);
    assert_eq!(changes(Deletions::All), [first, (102_000, old, -1), second]);
}

/// The work is by file: one all of whose rows have expired is not even opened, and goes as a whole.
#[tokio::test]
async fn files_of_expired_rows_go_unread() {
    let dir = tempfile::tempdir().unwrap();
    let tiers = tiers(&dir);
    let (collection, mut writer) = retaining(Some(vec![1]));
    let rows = |second: i64| -> Vec<(Row, i64)> {
        (0..1_000).map(|n| (row(second * 1_000_000 + n, &format!("{second} {n}")), 1)).collect()
    };
    let policy = TierPolicy {
        time_column: Some(0),
        warm_before: Some(i64::MAX),
        cold_before: None,
        folder: "public.t".to_owned(),
    };
    let mut epoch = 100_000;
    let mut move_rows = async |writer: &mut ShardWriter, second| {
        write(writer, epoch, epoch + 1, &rows(second));
        epoch += 1;
        collection.advance_since(Epoch(epoch));
        writer.advance_upper(Epoch(epoch));
        move_all(&collection, &tiers, &policy).await
    };
    assert_eq!(move_rows(&mut writer, 97).await, 1_000);
    assert_eq!(move_rows(&mut writer, 98).await, 1_000);
    // Nobody can read them any more.
    for file in files(&dir) {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    assert_eq!(move_rows(&mut writer, 99).await, 1_000);
    let expire = |writer: &mut ShardWriter, epoch| {
        let expired = writer.expire(Epoch(epoch)..=Epoch(epoch), ExpiredRows::Counted).unwrap().rows;
        writer.advance_upper(Epoch(epoch));
        expired
    };
    assert_eq!(expire(&mut writer, 102_999), 0);
    assert_eq!(expire(&mut writer, 103_000), 1_000);
    assert_eq!(expire(&mut writer, 104_500), 1_000);
    assert_eq!(times(&content(&collection.snapshot(Epoch(104_500)).unwrap())).len(), 1_000);
    // Of a file of which some rows have expired, the times are read.
    let late = writer.expire(Epoch(105_000)..=Epoch(105_000), ExpiredRows::Told).unwrap();
    assert_eq!((late.rows, late.deltas[0].1.len()), (1_000, 1_000));
    writer.advance_upper(Epoch(105_000));
    assert!(content(&collection.snapshot(Epoch(105_000)).unwrap()).is_empty());
    collection.advance_since(Epoch(105_000));
    writer.advance_upper(Epoch(105_001));
    move_all(&collection, &tiers, &policy).await;
    tiers.delete_garbage(&std::collections::BTreeSet::new()).await;
    assert!(files(&dir).is_empty(), "{:?}", files(&dir));
}

#[test]
fn part_of_a_segment_expires_and_what_is_looked_up_follows() {
    let (collection, mut writer) = retaining(Some(vec![1]));
    let rows: Vec<(Row, i64)> = (0..100).map(|n| (row(95_000_000 + n * 100_000, &format!("key {n}")), 1)).collect();
    write(&mut writer, 1, 100_000, &rows);
    write(&mut writer, 100_000, 103_000, &[(row(102_000_000, "key 0"), 1)]);
    let snapshot = collection.snapshot(Epoch(103_000)).unwrap();
    assert_eq!(snapshot.row_count(), 71);
    let wanted: ArrayRef = Arc::new(StringArray::from(vec!["key 0", "key 1", "key 29", "key 30"]));
    let found = rows_of(&snapshot.lookup(std::slice::from_ref(&wanted)).unwrap());
    assert_eq!(found.len(), 2, "{found:?}");
    let before = collection.snapshot(Epoch(102_999)).unwrap();
    let found = rows_of(&before.lookup(&[wanted]).unwrap());
    assert!(found.contains(&row(97_900_000, "key 29")) && found.len() == 2, "it was there: {found:?}");
}
