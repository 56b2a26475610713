//! State that is larger than its budget, through the engine: how much of it is in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use freshet_dataflow::StateBudget;
use freshet_planner::plan::{Aggregate, AggregateFunction, Node, Op, Properties};
use freshet_storage::spill::SpillFolder;
use freshet_types::{Delta, RelationId};
use tempfile::TempDir;

use crate::engine::join;
use crate::rows::{append_only, input, keyed, schema};
use crate::running::Running;

const INT: DataType = DataType::Int64;
const MIB: u64 = 1 << 20;
const BATCH: i64 = 50_000;

fn pairs() -> SchemaRef {
    schema(&[INT, INT])
}

/// Rows whose first column are `numbers`, in an order that scatters them.
fn numbered(numbers: std::ops::Range<i64>) -> Delta {
    let keys = numbers.clone().map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(keys)), Arc::new(Int64Array::from_iter_values(numbers))];
    Delta::inserts(RecordBatch::try_new(pairs(), columns).unwrap())
}

fn aggregate(function: AggregateFunction, argument: Option<usize>, distinct: bool) -> Aggregate {
    Aggregate { function, argument, distinct, filter: None, output_type: INT }
}

fn grouped() -> Node {
    let aggregates = vec![
        aggregate(AggregateFunction::Count, None, false),
        aggregate(AggregateFunction::Sum, Some(1), false),
        aggregate(AggregateFunction::Max, Some(1), false),
    ];
    let op = Op::Aggregate { input: Box::new(input(1, &pairs())), keys: vec![0], aggregates };
    keyed(Node { op, schema: schema(&[INT; 4]), properties: Properties::default() }, &[0])
}

fn budget(bytes_max: u64) -> (TempDir, StateBudget) {
    let folder = tempfile::tempdir().unwrap();
    let spill = SpillFolder::open(folder.path()).unwrap();
    (folder, StateBudget { bytes_max, folder: Some(spill) })
}

/// What is in memory and on the disk of the state of all operators named `operator`.
fn held(running: &Running, operator: &str) -> (u64, u64) {
    let operators = running.engine.memory().operators();
    let own = operators.iter().filter(|held| held.operator == operator);
    own.fold((0, 0), |(memory, disk), held| (memory + held.memory_bytes, disk + held.disk_bytes))
}

/// The most that is held in memory until a view has come to `epoch`.
fn peak_until(running: &Running, epoch: u64) -> u64 {
    let mut peak = 0;
    while running.views[&10].upper().millis() < epoch {
        peak = peak.max(running.engine.memory().state_bytes());
        std::thread::yield_now();
    }
    peak
}

/// What stays in memory of some rows on the disk.
fn index_bytes(rows: i64) -> u64 {
    rows as u64 * 8
}

#[test]
fn a_snapshot_with_more_groups_than_memory_holds_is_grouped() {
    let rows = 6 * BATCH;
    let (_folder, state) = budget(2 * MIB);
    let mut running = Running::start_with(2, state);
    running.install(10, grouped(), 1);
    running.seal(1);
    for first in (0..rows).step_by(BATCH as usize / 10) {
        running.engine.feed_snapshot(RelationId(10), RelationId(1), numbered(first..first + BATCH / 10));
    }
    running.engine.finish_snapshot(RelationId(10), RelationId(1));
    let peak = peak_until(&running, 1);
    // A batch comes whole, on each worker.
    assert!(peak < 2 * MIB + index_bytes(rows) + 10 * MIB, "{peak} bytes");
    assert_eq!(running.views[&10].row_count(), rows as usize);
    let (memory, disk) = held(&running, "Aggregate");
    assert!(memory < 3 * MIB + index_bytes(rows) && disk > 10 * MIB, "{memory} in memory, {disk} on the disk");
    // Each group is found again.
    running.feed(1, 2, numbered(0..BATCH));
    running.seal(2);
    peak_until(&running, 2);
    assert_eq!(running.views[&10].row_count(), rows as usize);
    let (told, counts) = (running.rows(10, 2), format!(" 2 {} {}", 2 * (BATCH - 1), BATCH - 1));
    assert_eq!(told.keys().filter(|row| row.contains(" 2 ") && row.ends_with(&counts)).count(), 1);
}

#[test]
fn state_that_comes_back_goes_to_the_disk_on_its_way() {
    let rows = 4 * BATCH;
    let left_and_right = || join(append_only(input(1, &pairs())), append_only(input(2, &pairs())), &[(0, 0)]);
    for (operator, plan, relations) in [("Aggregate", grouped(), 1), ("Join", left_and_right(), 2)] {
        let (_folder, state) = budget(MIB);
        let mut running = Running::start_with(1, state);
        running.install_over_nothing(10, plan.clone(), 1);
        for (epoch, first) in (2..).zip((0..rows).step_by(BATCH as usize)) {
            (1..=relations).for_each(|relation| running.feed(relation, epoch, numbered(first..first + BATCH)));
            running.seal(epoch);
        }
        let mut epoch = 6;
        running.cut_and_seal(10, epoch);
        peak_until(&running, epoch);
        for workers in [1, 2, 2] {
            running = running.resume(workers, 10, plan.clone(), epoch);
            epoch += 1;
            // What is told then says that it has come back.
            running.cut_and_seal(10, epoch);
            peak_until(&running, epoch);
            let (memory, disk) = held(&running, operator);
            assert!(memory < MIB + index_bytes(rows * relations as i64), "{operator}: {memory} in memory");
            assert!(disk > 2 * MIB, "{operator}: {disk} on the disk");
            assert_eq!(running.views[&10].row_count(), rows as usize);
        }
    }
}

#[test]
fn an_operator_without_work_sheds_what_others_need_room_for() {
    let (_folder, state) = budget(8 * MIB);
    let mut running = Running::start_with(1, state);
    running.install_over_nothing(10, join(input(1, &pairs()), input(2, &pairs()), &[(0, 0)]), 1);
    let distinct = vec![aggregate(AggregateFunction::Count, Some(1), true)];
    let op = Op::Aggregate { input: Box::new(input(3, &pairs())), keys: vec![], aggregates: distinct };
    let global = keyed(Node { op, schema: schema(&[INT]), properties: Properties::default() }, &[]);
    running.install_over_nothing(11, global, 1);
    running.feed(1, 2, numbered(0..BATCH));
    running.seal(2);
    running.rows(11, 2);
    for (epoch, first) in (3..).zip((0..4 * BATCH).step_by(BATCH as usize)) {
        running.feed(3, epoch, numbered(first..first + BATCH));
        running.seal(epoch);
        running.rows(11, epoch);
    }
    let start = Instant::now();
    while held(&running, "Join").1 < MIB {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", held(&running, "Join"));
        std::thread::yield_now();
    }
}
