//! Collections against a naive model: a multiset of rows for each epoch.

mod retention;
mod tiers;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use freshet_types::{Delta, Epoch};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::limits::SEGMENT_ROWS_MAX;
use super::{Collection, CollectionDescription, CollectionError, HistoryBudget, HistoryPolicy, ShardWriter, Snapshot};

type Row = (Option<i64>, Option<String>);
type Multiset = BTreeMap<Row, i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn row(a: i64, b: &str) -> Row {
    (Some(a), Some(b.to_owned()))
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let (a, b) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
    (0..batch.num_rows())
        .map(|i| (a.is_valid(i).then(|| a.value(i)), b.is_valid(i).then(|| b.value(i).to_owned())))
        .collect()
}

fn add(multiset: &mut Multiset, row: Row, weight: i64) {
    let count = multiset.entry(row.clone()).or_default();
    *count += weight;
    if *count == 0 {
        multiset.remove(&row);
    }
}

fn content(snapshot: &Snapshot) -> Multiset {
    let mut multiset = Multiset::new();
    for batch in snapshot.batches(None).unwrap() {
        rows_of(&batch).into_iter().for_each(|row| add(&mut multiset, row, 1));
    }
    assert_eq!(snapshot.row_count() as i64, multiset.values().sum::<i64>());
    multiset
}

fn collection(key: Option<Vec<usize>>, append_only: bool, history_ms: u64, shards: usize) -> Arc<Collection> {
    let history = HistoryPolicy::unbounded(history_ms);
    let description = CollectionDescription { append_only, history, ..CollectionDescription::new("t", schema(), key) };
    Collection::new(description, shards).unwrap()
}

fn single(key: Option<Vec<usize>>) -> (Arc<Collection>, ShardWriter) {
    let collection = collection(key, false, 1_000, 1);
    let writer = collection.writer(0);
    (collection, writer)
}

fn apply(writer: &mut ShardWriter, epoch: u64, changes: &[(Row, i64)]) -> Result<(), CollectionError> {
    let (rows, weights): (Vec<Row>, Vec<i64>) = changes.iter().cloned().unzip();
    writer.apply(Epoch(epoch), &Delta::new(batch(&rows), weights))?;
    writer.advance_upper(Epoch(epoch));
    Ok(())
}

/// Writes random changes to a collection and to the model, and compares.
struct Simulation {
    rng: StdRng,
    key: Option<Vec<usize>>,
    append_only: bool,
    collection: Arc<Collection>,
    writers: Vec<ShardWriter>,
    /// The content at the end of each epoch.
    states: BTreeMap<Epoch, Multiset>,
    /// Snapshots taken on the way, which must stay as they are.
    kept: Vec<(Epoch, Snapshot)>,
}

impl Simulation {
    fn new(seed: u64, key: Option<Vec<usize>>, append_only: bool, shards: usize) -> Self {
        let collection = collection(key.clone(), append_only, 50, shards);
        let writers = (0..shards).map(|shard| collection.writer(shard)).collect();
        let states = BTreeMap::from([(Epoch::ZERO, Multiset::new())]);
        Self { rng: StdRng::seed_from_u64(seed), key, append_only, collection, writers, states, kept: Vec::new() }
    }

    fn key_of(&self, row: &Row) -> Row {
        match self.key.as_deref() {
            Some([0]) => (row.0, None),
            Some([1]) => (None, row.1.clone()),
            _ => row.clone(),
        }
    }

    fn random_row(&mut self) -> Row {
        let range = if self.key.is_some() { 3_000 } else { 40 };
        let a = self.rng.random_range(0..range);
        let b = self.rng.random_range(0..range);
        let nulls = self.rng.random_range(0..100);
        ((nulls % 10 > 0).then_some(a), (nulls > 3).then(|| format!("name {b}")))
    }

    /// Changes that the model allows, in an order and with pairs that cancel out as operators may give them.
    fn random_changes(&mut self, state: &mut Multiset) -> Vec<(Row, i64)> {
        let mut changes = Vec::new();
        let live: Vec<Row> = state.keys().cloned().collect();
        let keys: std::collections::BTreeSet<Row> = live.iter().map(|row| self.key_of(row)).collect();
        let mut used = std::collections::BTreeSet::new();
        let count = self.rng.random_range(0..120);
        for _ in 0..count {
            let new = self.random_row();
            let weight = if self.key.is_none() { self.rng.random_range(1..3) } else { 1 };
            let is_free = self.key.is_none() || !keys.contains(&self.key_of(&new));
            if is_free && used.insert(self.key_of(&new)) {
                changes.push((new, weight));
            }
            if !self.append_only
                && let Some(old) = live.choose(&mut self.rng).cloned()
                && used.insert(self.key_of(&old))
            {
                changes.push((old.clone(), -state[&old]));
                if self.rng.random_bool(0.7) {
                    let changed = if self.key.as_deref() == Some(&[1]) {
                        (Some(self.rng.random_range(0..9)), old.1.clone())
                    } else {
                        (old.0, if self.key.as_deref() == Some(&[0]) { self.random_row().1 } else { old.1.clone() })
                    };
                    changes.push((changed, 1));
                }
            }
        }
        changes.iter().cloned().for_each(|(row, weight)| add(state, row, weight));
        if self.rng.random_bool(0.3)
            && !self.append_only
            && let Some((row, weight)) = changes.choose(&mut self.rng).cloned()
        {
            changes.insert(0, (row.clone(), -weight));
            changes.push((row, weight));
        }
        changes
    }

    fn step(&mut self) {
        let (last, state) = self.states.last_key_value().map(|(epoch, state)| (*epoch, state.clone())).unwrap();
        let epoch = Epoch(last.0 + self.rng.random_range(1..4));
        let mut state = state;
        let changes = self.random_changes(&mut state);
        let shards = self.writers.len();
        let mut by_shard = vec![Vec::new(); shards];
        for (row, weight) in changes {
            let key = self.key_of(&row);
            let shard = (key.0.unwrap_or(1) as usize
                + key.1.map_or(0, |text| text.len() + text.as_bytes()[text.len() - 1] as usize))
                % shards;
            by_shard[shard].push((row, weight));
        }
        for (writer, changes) in self.writers.iter_mut().zip(by_shard) {
            let (rows, weights): (Vec<Row>, Vec<i64>) = changes.into_iter().unzip();
            let delta = if weights.iter().all(|weight| *weight == 1) {
                Delta::inserts(batch(&rows))
            } else {
                Delta::new(batch(&rows), weights)
            };
            writer.apply(epoch, &delta).unwrap();
        }
        self.writers.iter_mut().for_each(|writer| writer.advance_upper(epoch));
        self.states.insert(epoch, state);
    }

    fn state(&self, epoch: Epoch) -> &Multiset {
        self.states.range(..=epoch).next_back().unwrap().1
    }

    fn check(&mut self) {
        let (since, upper) = (self.collection.since(), self.collection.upper());
        let epoch = Epoch(self.rng.random_range(since.0..=upper.0));
        for epoch in [epoch, upper] {
            let snapshot = self.collection.snapshot(epoch).unwrap();
            assert_eq!(&content(&snapshot), self.state(epoch), "at {epoch}");
            self.check_lookup(&snapshot, epoch);
            if self.rng.random_bool(0.05) {
                self.kept.push((epoch, snapshot));
            }
        }
        let mut state = self.state(epoch).clone();
        for (changed, delta) in self.collection.changes(epoch, upper).unwrap() {
            for (row, weight) in rows_of(delta.rows()).into_iter().zip(delta.weight_column().iter()) {
                add(&mut state, row, *weight);
            }
            assert_eq!(&state, self.state(changed), "changed at {changed}");
        }
        assert_eq!(&state, self.state(upper));
    }

    fn check_lookup(&mut self, snapshot: &Snapshot, epoch: Epoch) {
        let Some(key) = self.key.clone() else { return };
        let mut wanted: Vec<Row> = (0..5).map(|_| self.random_row()).collect();
        let live: Vec<Row> = self.state(epoch).keys().cloned().collect();
        wanted.extend((0..20).filter_map(|_| live.choose(&mut self.rng).cloned()));
        let columns: Vec<ArrayRef> = key.iter().map(|column| batch(&wanted).column(*column).clone()).collect();
        let mut found = rows_of(&snapshot.lookup(&columns).unwrap());
        found.sort();
        let wanted: Vec<Row> = wanted.iter().map(|row| self.key_of(row)).collect();
        let expected: Vec<Row> = live.into_iter().filter(|row| wanted.contains(&self.key_of(row))).collect();
        assert_eq!(found, expected, "looked up at {epoch}");
    }

    fn run(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            self.step();
            self.check();
        }
        self.check_kept();
        self
    }

    fn check_kept(&mut self) {
        for (epoch, snapshot) in std::mem::take(&mut self.kept) {
            assert_eq!(&content(&snapshot), self.state(epoch), "kept since {epoch}");
            self.check_lookup(&snapshot, epoch);
        }
    }
}

#[test]
fn random_changes_of_a_multiset() {
    let end = Simulation::new(1, None, false, 1).run(300);
    let needed = end.collection.row_count() + end.collection.inner.shards[0].lock().history.deletions();
    let stored = end.collection.segment_count() * SEGMENT_ROWS_MAX;
    assert!(stored <= 2 * needed + 2 * SEGMENT_ROWS_MAX, "{stored} rows are stored where {needed} are needed");
    Simulation::new(2, None, false, 3).run(100);
}

#[test]
fn random_changes_by_an_integer_key() {
    Simulation::new(3, Some(vec![0]), false, 1).run(300);
    Simulation::new(4, Some(vec![0]), false, 3).run(150);
}

#[test]
fn random_changes_by_a_string_key() {
    Simulation::new(5, Some(vec![1]), false, 1).run(200);
    Simulation::new(6, Some(vec![1]), false, 2).run(100);
}

#[test]
fn random_changes_by_several_columns() {
    Simulation::new(7, Some(vec![0, 1]), false, 2).run(150);
}

#[test]
fn random_insertions() {
    Simulation::new(8, None, true, 2).run(100);
    Simulation::new(9, Some(vec![0]), true, 1).run(100);
}

#[test]
fn dead_segments_are_compacted_while_old_epochs_stay_readable() {
    let (collection, mut writer) = single(Some(vec![0]));
    let held = collection.hold(Epoch::ZERO).unwrap();
    let update = |epoch: u64| -> Vec<(Row, i64)> {
        (0..100).flat_map(|k| [(row(k, &format!("{}", epoch - 1)), -1), (row(k, &format!("{epoch}")), 1)]).collect()
    };
    let first: Vec<(Row, i64)> = (0..100).map(|k| (row(k, "1"), 1)).collect();
    apply(&mut writer, 1, &first).unwrap();
    (2..=50).for_each(|epoch| apply(&mut writer, epoch, &update(epoch)).unwrap());
    assert_eq!((collection.since(), collection.segment_count()), (Epoch::ZERO, 25));
    assert_eq!(content(&collection.snapshot(Epoch(20)).unwrap())[&row(7, "20")], 1);
    let old = collection.snapshot(Epoch(30)).unwrap();
    let before = collection.memory_bytes();
    drop(held);
    collection.advance_since(Epoch(50));
    for epoch in 51..=60 {
        apply(&mut writer, epoch, &update(epoch)).unwrap();
    }
    assert!(collection.segment_count() <= 8, "{} segments", collection.segment_count());
    assert!(collection.memory_bytes() < before / 2);
    assert_eq!(content(&collection.snapshot(Epoch(55)).unwrap())[&row(7, "55")], 1);
    assert!(matches!(collection.snapshot(Epoch(49)), Err(CollectionError::NotReadable { .. })));
    // The old snapshot has outlived its epoch, and still answers.
    assert_eq!(content(&old)[&row(7, "30")], 1);
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    assert_eq!(rows_of(&old.lookup(&[keys]).unwrap()), [row(7, "30")]);
}

#[test]
fn since_follows_upper_and_waits_for_holds() {
    let (collection, mut writer) = single(None);
    writer.advance_upper(Epoch(5_000));
    assert_eq!((collection.since(), collection.upper()), (Epoch(4_000), Epoch(5_000)));
    let mut hold = collection.hold(Epoch(4_500)).unwrap();
    writer.advance_upper(Epoch(9_000));
    assert_eq!(collection.since(), Epoch(4_500));
    hold.advance(Epoch(6_000));
    assert_eq!(collection.since(), Epoch(6_000));
    drop(hold);
    assert_eq!(collection.since(), Epoch(8_000));
    assert!(collection.hold(Epoch(7_999)).is_err());
    collection.advance_since(Epoch(20_000));
    assert_eq!(collection.since(), Epoch(9_000));
}

#[test]
fn the_upper_is_that_of_the_slowest_shard() {
    let collection = collection(None, false, 1_000, 2);
    let watch = collection.watch_upper();
    let (mut one, mut two) = (collection.writer(0), collection.writer(1));
    one.apply(Epoch(3), &Delta::inserts(batch(&[row(1, "x")]))).unwrap();
    one.advance_upper(Epoch(3));
    assert!(!watch.has_changed().unwrap());
    assert!(collection.snapshot(Epoch(3)).is_err());
    two.advance_upper(Epoch(4));
    assert_eq!((*watch.borrow(), collection.upper()), (Epoch(3), Epoch(3)));
    assert_eq!(collection.snapshot(Epoch(3)).unwrap().row_count(), 1);
}

#[test]
fn a_change_that_does_not_fit_leaves_the_last_good_state() {
    for (changes, expected) in [
        (vec![(row(1, "a"), -1), (row(9, "z"), -1)], "a row was deleted from \"t\" that is not in it: a=9, b=z"),
        (vec![(row(1, "other"), -1)], "a row was deleted from \"t\" that is not in it: a=1, b=other"),
        (
            vec![(row(3, "c"), 1), (row(2, "x"), 1)],
            "a row was inserted into \"t\" whose key is already there: a=2, b=x",
        ),
        (vec![(row(3, "c"), 2)], "a row was inserted into \"t\" whose key is already there: a=3, b=c"),
    ] {
        let (collection, mut writer) = single(Some(vec![0]));
        apply(&mut writer, 1, &[(row(1, "a"), 1), (row(2, "b"), 1)]).unwrap();
        assert_eq!(apply(&mut writer, 2, &changes).unwrap_err().to_string(), expected);
        writer.advance_upper(Epoch(3));
        assert_eq!(collection.upper(), Epoch(1));
        let snapshot = collection.snapshot(Epoch(1)).unwrap();
        assert_eq!(content(&snapshot), Multiset::from([(row(1, "a"), 1), (row(2, "b"), 1)]));
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![2, 1, 3]));
        assert_eq!(rows_of(&snapshot.lookup(&[keys]).unwrap()), [row(1, "a"), row(2, "b")]);
    }
}

#[test]
fn epochs_come_in_order() {
    let (_collection, mut writer) = single(None);
    apply(&mut writer, 5, &[(row(1, "a"), 1)]).unwrap();
    let late = writer.apply(Epoch(5), &Delta::inserts(batch(&[row(1, "a")])));
    assert!(matches!(late, Err(CollectionError::OutOfOrder { .. })));
}

#[test]
fn deletions_from_an_append_only_collection_are_refused_unless_they_cancel_out() {
    let collection = collection(None, true, 0, 1);
    let mut writer = collection.writer(0);
    apply(&mut writer, 1, &[(row(1, "a"), 1), (row(1, "a"), -1), (row(2, "b"), 1)]).unwrap();
    assert_eq!(content(&collection.snapshot(Epoch(1)).unwrap()), Multiset::from([(row(2, "b"), 1)]));
    assert!(matches!(apply(&mut writer, 2, &[(row(2, "b"), -1)]), Err(CollectionError::NoSuchRow { .. })));
}

#[test]
fn an_epoch_is_netted_over_several_changes() {
    let (collection, mut writer) = single(Some(vec![0]));
    apply(&mut writer, 1, &[(row(1, "a"), 1)]).unwrap();
    for changes in [[(row(1, "a"), -1), (row(1, "b"), 1)], [(row(1, "b"), -1), (row(1, "c"), 1)]] {
        let (rows, weights): (Vec<Row>, Vec<i64>) = changes.into_iter().unzip();
        writer.apply(Epoch(2), &Delta::new(batch(&rows), weights)).unwrap();
    }
    writer.advance_upper(Epoch(2));
    let changes = collection.changes(Epoch(1), Epoch(2)).unwrap();
    let (_, delta) = &changes[0];
    let mut found: Vec<(Row, i64)> = rows_of(delta.rows()).into_iter().zip(delta.weight_column().to_vec()).collect();
    found.sort();
    assert_eq!(found, [(row(1, "a"), -1), (row(1, "c"), 1)]);
}

#[test]
fn rows_without_columns_are_counted() {
    let schema = Arc::new(Schema::empty());
    let rows = |count: usize| {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(schema.clone(), vec![], &options).unwrap()
    };
    for key in [None, Some(vec![])] {
        let is_keyed = key.is_some();
        let name = "t".to_owned();
        let description = CollectionDescription {
            name,
            schema: schema.clone(),
            key,
            append_only: false,
            history: HistoryPolicy::unbounded(1_000),
            retention: None,
        };
        let collection = Collection::new(description, 1).unwrap();
        let mut writer = collection.writer(0);
        let count = if is_keyed { 1 } else { 700 };
        writer.apply(Epoch(1), &Delta::inserts(rows(count))).unwrap();
        writer.advance_upper(Epoch(1));
        writer.apply(Epoch(2), &Delta::new(rows(1), vec![-(count as i64)])).unwrap();
        writer.apply(Epoch(2), &Delta::inserts(rows(1))).unwrap();
        writer.advance_upper(Epoch(2));
        let counted = |epoch| {
            let batches = collection.snapshot(Epoch(epoch)).unwrap().batches(Some(&[])).unwrap();
            batches.iter().map(RecordBatch::num_rows).sum::<usize>()
        };
        assert_eq!((counted(1), counted(2)), (count, 1));
        let changes = collection.changes(Epoch(1), Epoch(2)).unwrap();
        let net: i64 = changes.iter().flat_map(|(_, delta)| delta.weight_column().to_vec()).sum();
        assert_eq!(net, 1 - count as i64);
    }
}

#[test]
fn projections_read_only_their_columns() {
    let (collection, mut writer) = single(None);
    apply(&mut writer, 1, &[(row(1, "a"), 2), (row(2, "b"), 1)]).unwrap();
    apply(&mut writer, 2, &[(row(1, "a"), -1)]).unwrap();
    let batches = collection.snapshot(Epoch(2)).unwrap().batches(Some(&[1])).unwrap();
    assert_eq!(batches[0].schema().fields().len(), 1);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[test]
fn rows_that_follow_a_full_and_dead_segment_belong_to_their_epoch() {
    let (collection, mut writer) = single(Some(vec![0]));
    let rows: Vec<_> = (0..2 * SEGMENT_ROWS_MAX as i64).map(|a| (row(a, "x"), 1)).collect();
    apply(&mut writer, 1, &rows).unwrap();
    apply(&mut writer, 2, &rows[1..].iter().map(|(row, _)| (row.clone(), -1)).collect::<Vec<_>>()).unwrap();
    writer.advance_upper(Epoch(5_000));
    writer.apply(Epoch(6_000), &Delta::inserts(batch(&[row(1, "later")]))).unwrap();
    assert_eq!(content(&collection.snapshot(Epoch(5_000)).unwrap()), Multiset::from([(row(0, "x"), 1)]));
    writer.advance_upper(Epoch(6_000));
    let expected = Multiset::from([(row(0, "x"), 1), (row(1, "later"), 1)]);
    assert_eq!(content(&collection.snapshot(Epoch(6_000)).unwrap()), expected);
}

/// A row that is updated every second for an hour, with and without a bound.
#[test]
fn a_long_history_takes_no_more_than_it_may_and_says_so() {
    let budget = Arc::new(HistoryBudget::new(usize::MAX));
    let collection_with = |bytes_max| {
        let history = HistoryPolicy { ms: 3_600_000, bytes_max, budget: budget.clone() };
        let name = "t".to_owned();
        let description =
            CollectionDescription { history, ..CollectionDescription::new(name, schema(), Some(vec![0])) };
        Collection::new(description, 1).unwrap()
    };
    let (bounded, free) = (collection_with(100_000), collection_with(usize::MAX));
    let mut writers = [bounded.writer(0), free.writer(0)];
    for second in 0..3_600_u64 {
        for writer in &mut writers {
            writer.begin_at(Epoch(second * 1_000 + 1));
            let mut changes = vec![(row(1, &format!("at {second:0100}")), 1)];
            if second > 0 {
                changes.push((row(1, &format!("at {:0100}", second - 1)), -1));
            }
            apply(writer, second * 1_000 + 2, &changes).unwrap();
        }
        let status = bounded.history();
        assert!(status.bytes < 110_000, "{status:?}");
        assert!(status.since <= status.upper.minus_millis(super::RECENT_HISTORY_MS.min(second * 1_000)));
        assert_eq!(status.is_trimmed, status.since > Epoch(1));
    }
    let (less, all) = (bounded.history(), free.history());
    assert_eq!((all.since, all.is_trimmed), (Epoch(1), false), "it did not exist before");
    assert!(less.is_trimmed && all.bytes > 5 * less.bytes && budget.bytes() == less.bytes + all.bytes);
    assert!(bounded.memory_bytes() < free.memory_bytes() / 4, "dead rows are compacted away");
    for second in (less.since.millis() / 1_000..3_600).step_by(17) {
        let at = Epoch(second * 1_000 + 2);
        let expected = content(&free.snapshot(at).unwrap());
        assert_eq!(content(&bounded.snapshot(at).unwrap()), expected);
        assert_eq!(expected, Multiset::from([(row(1, &format!("at {second:0100}")), 1)]));
    }
    let error = bounded.snapshot(Epoch(2)).unwrap_err();
    assert!(matches!(error, CollectionError::NotReadable { since, .. } if since == less.since));
}
