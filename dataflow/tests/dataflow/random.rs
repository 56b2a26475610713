//! Random changes, on 1, 2 and 4 workers: at every epoch a view holds what a naive run over its inputs gives.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, SchemaRef};
use freshet_dataflow::StateBudget;
use freshet_planner::plan::{Aggregate, AggregateFunction, Node, Op, Properties};
use freshet_storage::spill::SpillFolder;
use freshet_types::Delta;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::engine::join;
use crate::rows::{Rows, append_only, delta, input, keyed, schema};
use crate::running::Running;

const INT: DataType = DataType::Int64;
const EPOCHS: u64 = 40;
const SEEDS: u64 = 3;

/// A row of three columns: a small key, a value, a text.
pub type Row = (Option<i64>, Option<i64>, String);

pub fn table() -> SchemaRef {
    schema(&[INT, INT, DataType::Utf8])
}

fn word(value: Option<i64>) -> String {
    value.map_or("null".to_string(), |value| value.to_string())
}

/// A table that changes at random.
struct Table {
    random: StdRng,
    rows: Vec<Row>,
    append_only: bool,
}

impl Table {
    fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), rows: Vec::new(), append_only: false }
    }

    /// The two inputs of `plan`.
    fn inputs(plan: &Node, seed: u64) -> [Self; 2] {
        let mut append_only = false;
        plan.visit(&mut |node| append_only |= matches!(node.op, Op::Input { .. }) && node.properties.append_only);
        [seed, seed + 1000].map(|seed| Self { append_only, ..Self::new(seed) })
    }

    fn random_row(&mut self) -> Row {
        let maybe = |random: &mut StdRng, end| (random.random_range(0..10) > 0).then(|| random.random_range(0..end));
        let (key, value) = (maybe(&mut self.random, 6), maybe(&mut self.random, 4));
        (key, value, ["x", "y", "z"][self.random.random_range(0..3)].to_string())
    }

    /// Some insertions and deletions, in any order, of which some undo each other.
    fn change(&mut self) -> Delta {
        let mut changes: Vec<(i64, Row)> = Vec::new();
        for _ in 0..self.random.random_range(0..12) {
            let row = self.random_row();
            changes.push((1, row.clone()));
            self.rows.push(row);
        }
        // Now and then nearly everything goes.
        let deletions = match self.random.random_range(0..8) {
            _ if self.append_only => 0,
            0 => self.rows.len(),
            _ => self.rows.len().min(8),
        };
        for _ in 0..self.random.random_range(0..=deletions) {
            let row = self.rows.swap_remove(self.random.random_range(0..self.rows.len()));
            changes.insert(self.random.random_range(0..=changes.len()), (-1, row));
        }
        let words: Vec<(i64, [String; 3])> =
            changes.into_iter().map(|(weight, (k, v, t))| (weight, [word(k), word(v), t])).collect();
        let rows: Vec<(i64, Vec<&str>)> =
            words.iter().map(|(weight, words)| (*weight, words.iter().map(String::as_str).collect())).collect();
        delta(&table(), &rows)
    }
}

/// Runs `plan` over two random tables and compares it with `naive` at every epoch: straight, and with restarts from the
/// told state.
pub fn compare(plan: &Node, naive: impl Fn(&[Row], &[Row]) -> Rows) {
    compare_within(plan, &StateBudget::default(), naive);
}

/// [`compare`], with no more state in memory than `state` allows.
pub fn compare_within(plan: &Node, state: &StateBudget, naive: impl Fn(&[Row], &[Row]) -> Rows) {
    // On the disk, a seed says more: its files are made and merged all the time.
    let seeds = if state.folder.is_some() { 1 } else { SEEDS };
    compare_restarted(plan, state, seeds, &naive);
    for (seed, workers) in (0..seeds).flat_map(|seed| [1, 2, 4].map(|workers| (seed, workers))) {
        let mut tables = Table::inputs(plan, seed);
        let mut running = Running::start_with(workers, state.clone());
        running.install_over_nothing(10, plan.clone(), 1);
        let mut expected = vec![naive(&[], &[])];
        for epoch in 2..EPOCHS {
            for (relation, table) in (1..).zip(&mut tables) {
                let change = table.change();
                let cut = table.random.random_range(0..=change.len());
                running.feed(relation, epoch, change.slice(0, cut));
                running.feed(relation, epoch, change.slice(cut, change.len() - cut));
            }
            running.seal(epoch);
            expected.push(naive(&tables[0].rows, &tables[1].rows));
        }
        for (epoch, expected) in (1..).zip(expected) {
            assert_eq!(running.rows(10, epoch), expected, "seed {seed}, {workers} workers, epoch {epoch}");
        }
    }
}

/// Like [`compare`], but an engine lives for some epochs, tells its state at some, and is followed by another one, on as
/// many workers or on others.
fn compare_restarted(plan: &Node, state: &StateBudget, seeds: u64, naive: impl Fn(&[Row], &[Row]) -> Rows) {
    for seed in 0..2 * seeds {
        let mut tables = Table::inputs(plan, seed);
        let mut lives = StdRng::seed_from_u64(seed + 2000);
        let mut running = Running::start_with([1, 2, 4][lives.random_range(0..3)], state.clone());
        running.install_over_nothing(10, plan.clone(), 1);
        for epoch in 2..EPOCHS {
            for (relation, table) in (1..).zip(&mut tables) {
                running.feed(relation, epoch, table.change());
            }
            let is_cut = lives.random_range(0..2) == 0;
            if is_cut {
                running.cut_and_seal(10, epoch);
            } else {
                running.seal(epoch);
            }
            let expected = naive(&tables[0].rows, &tables[1].rows);
            assert_eq!(running.rows(10, epoch), expected, "seed {seed}, epoch {epoch}");
            if is_cut && lives.random_range(0..3) == 0 {
                let workers = if lives.random() { running.workers() } else { [1, 2, 4][lives.random_range(0..3)] };
                running = running.resume(workers, 10, plan.clone(), epoch);
                assert_eq!(running.rows(10, epoch), expected, "seed {seed}, restarted at {epoch}");
            }
        }
    }
}

fn plan_of(op: Op, types: &[DataType]) -> Node {
    Node { op, schema: schema(types), properties: Properties::default() }
}

fn aggregates() -> Vec<Aggregate> {
    let aggregate = |function, argument, distinct, output_type: DataType| Aggregate {
        function,
        argument,
        distinct,
        filter: None,
        output_type,
    };
    vec![
        aggregate(AggregateFunction::Count, None, false, INT),
        aggregate(AggregateFunction::Sum, Some(1), false, INT),
        aggregate(AggregateFunction::Min, Some(1), false, INT),
        aggregate(AggregateFunction::Max, Some(2), false, DataType::Utf8),
        aggregate(AggregateFunction::Count, Some(1), true, INT),
    ]
}

fn naive_aggregates(rows: &[&Row]) -> String {
    let values: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
    let sum = values.iter().copied().reduce(|a, b| a + b);
    let texts = rows.iter().map(|row| &row.2).max();
    let distinct = values.iter().collect::<BTreeSet<_>>().len();
    let (min, max) = (word(values.iter().copied().min()), texts.map_or("null", String::as_str));
    format!("{} {} {min} {max} {distinct}", rows.len(), word(sum))
}

const AGGREGATE_TYPES: [DataType; 5] = [INT, INT, INT, DataType::Utf8, INT];

fn grouped() -> Node {
    let op = Op::Aggregate { input: Box::new(input(1, &table())), keys: vec![0], aggregates: aggregates() };
    keyed(plan_of(op, &[&[INT][..], &AGGREGATE_TYPES].concat()), &[0])
}

fn naive_groups(rows: &[Row], _: &[Row]) -> Rows {
    let mut groups: BTreeMap<Option<i64>, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| groups.entry(row.0).or_default().push(row));
    groups.into_iter().map(|(key, rows)| (format!("{} {}", word(key), naive_aggregates(&rows)), 1)).collect()
}

#[test]
fn grouped_aggregates() {
    compare(&grouped(), naive_groups);
}

fn grouped_by_several() -> Node {
    let op = Op::Aggregate { input: Box::new(input(1, &table())), keys: vec![2, 0], aggregates: aggregates() };
    keyed(plan_of(op, &[&[DataType::Utf8, INT][..], &AGGREGATE_TYPES].concat()), &[0, 1])
}

fn naive_groups_by_several(rows: &[Row], _: &[Row]) -> Rows {
    let mut groups: BTreeMap<(&String, Option<i64>), Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| groups.entry((&row.2, row.0)).or_default().push(row));
    let line = |((text, key), rows): (_, Vec<&Row>)| (format!("{text} {} {}", word(key), naive_aggregates(&rows)), 1);
    groups.into_iter().map(line).collect()
}

#[test]
fn aggregates_by_several_keys() {
    compare(&grouped_by_several(), naive_groups_by_several);
}

#[test]
fn global_aggregates() {
    let op = Op::Aggregate { input: Box::new(input(1, &table())), keys: vec![], aggregates: aggregates() };
    let plan = keyed(plan_of(op, &AGGREGATE_TYPES), &[]);
    compare(&plan, |rows, _| Rows::from([(naive_aggregates(&rows.iter().collect::<Vec<_>>()), 1)]));
}

pub fn line(row: &Row) -> String {
    format!("{} {} {}", word(row.0), word(row.1), row.2)
}

fn distinct_union() -> Node {
    let union = Op::UnionAll { inputs: vec![input(1, &table()), input(2, &table())] };
    let types = [INT, INT, DataType::Utf8];
    let distinct = Op::Distinct { input: Box::new(plan_of(union, &types)) };
    keyed(plan_of(distinct, &types), &[0, 1, 2])
}

fn naive_union(left: &[Row], right: &[Row]) -> Rows {
    left.iter().chain(right).map(|row| (line(row), 1)).collect()
}

#[test]
fn distinct_rows_of_a_union() {
    compare(&distinct_union(), naive_union);
}

fn join_of_tables() -> Node {
    join(input(1, &table()), input(2, &table()), &[(0, 1), (2, 2)])
}

fn naive_join(left: &[Row], right: &[Row]) -> Rows {
    let mut joined = Rows::new();
    for (left, right) in left.iter().flat_map(|left| right.iter().map(move |right| (left, right))) {
        if left.0.is_some() && left.0 == right.1 && left.2 == right.2 {
            *joined.entry(format!("{} {}", line(left), line(right))).or_default() += 1;
        }
    }
    joined
}

#[test]
fn joins() {
    compare(&join_of_tables(), naive_join);
}

/// [`compare`] with so little room that nearly all state is on the disk, and what is left in memory when `bytes_max` is more.
fn compare_on_disk(bytes_max: u64, plan: &Node, naive: impl Fn(&[Row], &[Row]) -> Rows) {
    let folder = tempfile::tempdir().unwrap();
    let spill = SpillFolder::open(folder.path()).unwrap();
    let state = StateBudget { bytes_max, folder: Some(spill.clone()) };
    compare_within(plan, &state, naive);
    assert!(spill.files_made() > 100, "state went to the disk");
    assert_eq!(spill.bytes(), 0, "and nothing is left there");
}

/// All rows of a side go to the disk whenever it holds more than a part of `bytes_max`.
#[test]
fn joins_for_which_memory_has_no_room() {
    let append_only_join = join(append_only(input(1, &table())), append_only(input(2, &table())), &[(0, 1), (2, 2)]);
    for (bytes_max, plan) in [(0, join_of_tables()), (4_000, join_of_tables()), (0, append_only_join)] {
        compare_on_disk(bytes_max, &plan, naive_join);
    }
}

/// All groups do so too, in the middle of an epoch and between two.
#[test]
fn groups_for_which_memory_has_no_room() {
    for bytes_max in [0, 2_000] {
        compare_on_disk(bytes_max, &grouped(), naive_groups);
        compare_on_disk(bytes_max, &grouped_by_several(), naive_groups_by_several);
        compare_on_disk(bytes_max, &distinct_union(), naive_union);
    }
}

#[test]
fn aggregates_over_joins_of_aggregates() {
    let count = || vec![aggregates().swap_remove(0)];
    let per_key = |relation, key| {
        let op = Op::Aggregate { input: Box::new(input(relation, &table())), keys: vec![key], aggregates: count() };
        plan_of(op, &[INT, INT])
    };
    let joined = join(per_key(1, 0), per_key(2, 1), &[(0, 0)]);
    let op = Op::Aggregate { input: Box::new(joined), keys: vec![1], aggregates: count() };
    let plan = keyed(plan_of(op, &[INT, INT]), &[0]);
    compare(&plan, |left, right| {
        let count = |values: Vec<Option<i64>>| {
            let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
            values.into_iter().flatten().for_each(|value| *counts.entry(value).or_default() += 1);
            counts
        };
        let left = count(left.iter().map(|row| row.0).collect());
        let right = count(right.iter().map(|row| row.1).collect());
        let mut by_count: BTreeMap<i64, i64> = BTreeMap::new();
        for (key, left_count) in left {
            if right.contains_key(&key) {
                *by_count.entry(left_count).or_default() += 1;
            }
        }
        by_count.into_iter().map(|(count, keys)| (format!("{count} {keys}"), 1)).collect()
    });
}
