//! A join whose sides do not fit into memory: how fast it is, and what it holds, as its sides grow.
//!
//! Two relations of as many rows each, every row with one partner on the other side, in an order that has nothing to do
//! with that of its partner: each probe reads somewhere else. The view only counts the pairs, so that nothing but the state of
//! the join is held. A line is printed for each part of the input; the last column but one is what the disk has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clap::Args;
use datafusion::common::NullEquality;
use freshet_dataflow::{DataflowDescription, Engine, EngineConfig, Event, StateBudget, ViewBudget};
use freshet_planner::plan::{Aggregate, AggregateFunction, JoinKind, Node, Op, Properties};
use freshet_storage::collection::{Collection, CollectionDescription, HistoryPolicy};
use freshet_storage::spill::SpillFolder;
use freshet_types::{Delta, Epoch, RelationId};

use crate::process::{Process, megabytes, reset_peak};

const VIEW: RelationId = RelationId(10);
const SIDES: [RelationId; 2] = [RelationId(1), RelationId(2)];
/// The view has its one row from here on.
const START: Epoch = Epoch(1);
/// Epochs sealed ahead of the view.
const EPOCHS_IN_FLIGHT: u64 = 3;
/// Rows of a side in one epoch.
const EPOCH_ROWS: u64 = 32_768;
/// What the state may hold of what the process may: the rest is for what is on its way.
const STATE_PERCENT: u64 = 50;
/// Primes that put the rows of each side in an order of its own.
const STRIDES: [u64; 2] = [1_000_000_007, 998_244_353];

#[derive(Args)]
pub struct Arguments {
    /// Rows of each side
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// What the process may hold, like 1GiB or 64MiB
    #[arg(long, default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Lines to print
    #[arg(long, default_value_t = 10)]
    parts: u64,
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
    let Arguments { rows, memory, workers, parts, retractable } = *arguments;
    let plan = plan(!retractable);
    let description = CollectionDescription {
        name: "pairs".to_owned(),
        schema: plan.schema.clone(),
        key: Some(vec![]),
        append_only: false,
        history: HistoryPolicy::recent(),
        retention: None,
    };
    let view = Collection::new(description, workers)?;
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = failures.clone();
    let on_event = Arc::new(move |event| {
        if let Event::Failed { error, .. } = event {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        }
    });
    let state = StateBudget { bytes_max: memory / 100 * STATE_PERCENT, folder: Some(spill) };
    let engine = Engine::start(EngineConfig { workers, track_state: false, state }, on_event);
    let engine = engine.map_err(anyhow::Error::msg)?;
    engine.seal(START);
    engine.install(DataflowDescription {
        view: VIEW,
        name: "pairs".to_owned(),
        plan: Arc::new(plan.clone()),
        output: view.clone(),
        as_of: START,
        resume: None,
        budget: ViewBudget::default(),
    });
    SIDES.iter().for_each(|side| engine.finish_snapshot(VIEW, *side));
    println!("{rows} rows a side, {workers} worker(s), {} for all", megabytes(memory));
    println!("rows a side   rows/s      state in memory  on disk     peak RSS");
    let schema = side_schema();
    let (mut epoch, mut done) = (START, 0);
    for part in 1..=parts {
        let (until, before, start) = (rows * part / parts, done, Instant::now());
        reset_peak()?;
        while done < until {
            let end = until.min(done + EPOCH_ROWS);
            epoch = Epoch(epoch.millis() + 1);
            for (side, stride) in SIDES.into_iter().zip(STRIDES) {
                engine.feed(side, epoch, Delta::inserts(side_rows(&schema, done..end, stride, rows)?));
            }
            engine.seal(epoch);
            done = end;
            wait_for(&view, epoch.minus_millis(EPOCHS_IN_FLIGHT), &failures)?;
        }
        wait_for(&view, epoch, &failures)?;
        let on_disk: u64 = engine.memory().operators().iter().map(|operator| operator.disk_bytes).sum();
        println!(
            "{done:<12}  {:<10.0}  {:<15}  {:<10}  {}",
            2.0 * (done - before) as f64 / start.elapsed().as_secs_f64(),
            megabytes(engine.memory().state_bytes()),
            megabytes(on_disk),
            megabytes(Process(None).peak_resident_bytes()?),
        );
    }
    let pairs = view.snapshot(epoch)?.batches(None)?;
    let pairs: Vec<i64> = pairs.iter().map(|batch| batch.column(0)).flat_map(counts).collect();
    if pairs != [i64::try_from(rows)?] {
        bail!("{pairs:?} pairs instead of {rows}");
    }
    engine.shutdown();
    Ok(())
}

fn counts(column: &arrow::array::ArrayRef) -> Vec<i64> {
    column.as_any().downcast_ref::<Int64Array>().map_or_else(Vec::new, |counts| counts.values().to_vec())
}

fn side_schema() -> SchemaRef {
    Arc::new(Schema::new(["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()))
}

/// Rows of a side: each key below `rows` once, in the order of multiples of `stride`.
fn side_rows(schema: &SchemaRef, numbers: std::ops::Range<u64>, stride: u64, rows: u64) -> Result<RecordBatch> {
    let key = |number: u64| (u128::from(number) * u128::from(stride) % u128::from(rows)) as i64;
    let keys = Int64Array::from_iter_values(numbers.clone().map(key));
    let values = Int64Array::from_iter_values(numbers.map(|number| number as i64));
    Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(keys), Arc::new(values)])?)
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

/// Waits until the view has reached `epoch`; a view that fails never does.
fn wait_for(view: &Collection, epoch: Epoch, failures: &Mutex<Vec<String>>) -> Result<()> {
    while view.upper() < epoch {
        if let Some(failure) = failures.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            bail!("the view failed: {failure}");
        }
        // Short enough not to matter beside an epoch, long enough to leave the core to the workers.
        std::thread::park_timeout(Duration::from_micros(200));
    }
    Ok(())
}
