//! A join whose sides do not fit into memory: how fast it is, and what it holds, as its sides grow.
//!
//! Two relations of as many rows each, every row with one partner on the other side, in an order that has nothing to do
//! with that of its partner: each probe reads somewhere else. The view only counts the pairs, so that nothing but the state of
//! the join is held. A line is printed for each size. Its first rate is that at which rows of both sides come, each of
//! which is looked up on the other side and then added to its own; the second is that of rows which come on the left alone, with
//! partners that are there, when the join has that size. The slope is how much slower the second is than at the first size.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clap::Args;
use datafusion::common::NullEquality;
use freshet_dataflow::StateBudget;
use freshet_planner::plan::{Aggregate, AggregateFunction, JoinKind, Node, Op, Properties};
use freshet_storage::collection::{Collection, CollectionDescription, HistoryPolicy};
use freshet_storage::spill::SpillFolder;
use freshet_types::RelationId;

use crate::process::{Process, megabytes, reset_peak};
use crate::running::Running;

const SIDES: [RelationId; 2] = [RelationId(1), RelationId(2)];
/// Rows of a side in one epoch.
const EPOCH_ROWS: u64 = 32_768;
/// Epochs of look-ups at each size.
const PROBE_EPOCHS: u64 = 8;
/// What the state may hold of what the process may: the rest is for what is on its way.
const STATE_PERCENT: u64 = 50;
/// Primes that put the rows of each side in an order of its own.
const STRIDES: [u64; 2] = [1_000_000_007, 998_244_353];
/// Another one, for look-ups.
const PROBE_STRIDE: u64 = 15_485_863;

#[derive(Args)]
pub struct Arguments {
    /// Rows of each side at which to look, in ascending order
    #[arg(long, value_delimiter = ',', default_value = "1000000")]
    rows: Vec<u64>,
    /// What the process may hold, like 1GiB or 64MiB
    #[arg(long, default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Whether rows may be deleted, which keeps more of each
    #[arg(long)]
    retractable: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("\"{text}\" is no amount of memory"))?;
    match text[digits..].trim() {
        "GiB" => Ok(number << 30),
        "MiB" => Ok(number << 20),
        "" | "B" => Ok(number),
        _ => Err(format!("\"{text}\" is no amount of memory like 1GiB or 64MiB")),
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("freshet-join-spill-{}", std::process::id()));
    let outcome = join(arguments, SpillFolder::open(&folder).context("the folder for state")?);
    std::fs::remove_dir_all(&folder).context("the folder for state")?;
    outcome
}

fn join(arguments: &Arguments, spill: Arc<SpillFolder>) -> Result<()> {
    let Arguments { rows: sizes, memory, workers, retractable } = arguments;
    let all = *sizes.last().context("there is a size to look at")?;
    if !sizes.is_sorted() || sizes[0] == 0 {
        bail!("the sizes are not in ascending order");
    }
    let plan = plan(!retractable);
    let description = CollectionDescription {
        name: "pairs".to_owned(),
        schema: plan.schema.clone(),
        key: Some(vec![]),
        append_only: false,
        history: HistoryPolicy::recent(),
        retention: None,
    };
    let view = Collection::new(description, *workers)?;
    let state = StateBudget { bytes_max: memory / 100 * STATE_PERCENT, folder: Some(spill) };
    let mut growth = Growth { running: Running::start(&plan, view.clone(), *workers, state)?, all, rows: 0, probes: 0 };
    println!("up to {all} rows a side, {workers} worker(s), {} for all", megabytes(*memory));
    println!("rows a side   rows/s      look-ups/s  slope   state in memory  on disk     peak RSS   of the limit");
    let mut first_rate = None;
    for size in sizes {
        reset_peak()?;
        let grown = growth.grow(*size)?;
        let probed = growth.probe()?;
        let memory_held = growth.running.memory();
        let on_disk: u64 = memory_held.operators().iter().map(|operator| operator.disk_bytes).sum();
        let peak = Process(None).peak_resident_bytes()?;
        println!(
            "{size:<12}  {grown:<10.0}  {probed:<10.0}  {:<6.2}  {:<15}  {:<10}  {:<9}  {:.0}%",
            *first_rate.get_or_insert(probed) / probed,
            megabytes(memory_held.state_bytes()),
            megabytes(on_disk),
            megabytes(peak),
            100.0 * peak as f64 / *memory as f64,
        );
    }
    let pairs = view.snapshot(growth.running.epoch)?.batches(None)?;
    let pairs: Vec<i64> = pairs.iter().map(|batch| batch.column(0)).flat_map(counts).collect();
    let expected = all + growth.probes;
    if pairs != [i64::try_from(expected)?] {
        bail!("{pairs:?} pairs instead of {expected}");
    }
    growth.running.stop();
    Ok(())
}

/// A join that grows.
struct Growth {
    running: Running,
    /// Rows of each side in the end.
    all: u64,
    /// Those that are there.
    rows: u64,
    /// Rows that were added on the left alone.
    probes: u64,
}

impl Growth {
    /// Adds rows until each side has `size`; gives how many came in a second.
    fn grow(&mut self, size: u64) -> Result<f64> {
        let (start, before) = (Instant::now(), self.rows);
        while self.rows < size {
            let numbers = self.rows..size.min(self.rows + EPOCH_ROWS);
            self.rows = numbers.end;
            let side =
                |(side, stride)| Ok((side, side_rows(numbers.clone().map(|number| key(number, stride, self.all)))?));
            let sides = SIDES.into_iter().zip(STRIDES).map(side).collect::<Result<Vec<_>>>()?;
            self.running.feed(sides)?;
        }
        self.running.catch_up()?;
        Ok(2.0 * (self.rows - before) as f64 / start.elapsed().as_secs_f64())
    }

    /// Adds rows on the left whose partners are there; gives how many were looked up in a second.
    fn probe(&mut self) -> Result<f64> {
        let (start, before) = (Instant::now(), self.probes);
        for _ in 0..PROBE_EPOCHS {
            let numbers = (self.probes..self.probes + EPOCH_ROWS).map(|number| key(number, PROBE_STRIDE, self.rows));
            let keys =
                numbers.map(|number| key(u64::try_from(number).expect("keys are positive"), STRIDES[1], self.all));
            let rows = side_rows(keys)?;
            self.probes += EPOCH_ROWS;
            self.running.feed([(SIDES[0], rows)])?;
        }
        self.running.catch_up()?;
        Ok((self.probes - before) as f64 / start.elapsed().as_secs_f64())
    }
}

fn counts(column: &arrow::array::ArrayRef) -> Vec<i64> {
    column.as_any().downcast_ref::<Int64Array>().map_or_else(Vec::new, |counts| counts.values().to_vec())
}

fn side_schema() -> SchemaRef {
    Arc::new(Schema::new(["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()))
}

/// The key of a row: each below `all` once, in the order of multiples of `stride`.
fn key(number: u64, stride: u64, all: u64) -> i64 {
    (u128::from(number) * u128::from(stride) % u128::from(all)) as i64
}

fn side_rows(keys: impl Iterator<Item = i64>) -> Result<RecordBatch> {
    let keys = Int64Array::from_iter_values(keys);
    let values = Int64Array::from_iter_values((0_i64..).take(keys.len()));
    Ok(RecordBatch::try_new(side_schema(), vec![Arc::new(keys), Arc::new(values)])?)
}

/// `SELECT count(*) FROM l JOIN r ON l.k = r.k`
fn plan(append_only: bool) -> Node {
    let properties = Properties { append_only, ..Properties::default() };
    let side = |relation: RelationId| Node {
        op: Op::Input { relation, name: format!("side {relation}"), columns: vec![0, 1] },
        schema: side_schema(),
        properties: properties.clone(),
    };
    let fields = ["lk", "lv", "rk", "rv"].map(|name| Field::new(name, DataType::Int64, true));
    let [left, right] = SIDES.map(|relation| Box::new(side(relation)));
    let null_equality = NullEquality::NullEqualsNothing;
    let op = Op::Join { kind: JoinKind::Inner, left, right, on: vec![(0, 0)], null_equality, residual: None };
    let join = Node { op, schema: Arc::new(Schema::new(fields.to_vec())), properties: properties.clone() };
    let count = Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
        output_type: DataType::Int64,
    };
    let op = Op::Aggregate { input: Box::new(join), keys: vec![], aggregates: vec![count] };
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    Node { op, schema, properties: Properties { key: Some(vec![]), ..Properties::default() } }
}
