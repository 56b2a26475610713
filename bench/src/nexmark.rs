//! Nexmark: generated events through the real engine into a real view.
//!
//! Events are generated beforehand, as the columns that the query reads, in batches of one epoch each. Measured is from
//! feeding the first batch to the view having reached the last epoch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use clap::Args;
use freshet_connectors::nexmark;
use freshet_dataflow::StateBudget;
use freshet_planner::plan::{Node, Op};
use freshet_storage::collection::{Collection, CollectionDescription};
use freshet_types::RelationId;

use crate::catalog::{self, RELATIONS, relation_id};
use crate::process::{Process, megabytes, reset_peak};
use crate::queries::{self, Query};
use crate::running::Running;

/// Events a second in the generated story: how fast its clock goes, not how fast it is fed.
const STORY_RATE: u32 = 10_000;
const STORY_START_MS: i64 = 1_700_000_000_000;

#[derive(Args)]
pub struct Arguments {
    /// Queries to run
    #[arg(long, value_delimiter = ',', default_value = "q0,q1,q2,agg,q3,q12")]
    queries: Vec<String>,
    /// Events to generate: of 50, one is a person, 3 are auctions and 46 are bids
    #[arg(long, default_value_t = 5_000_000)]
    events: i64,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Events of one epoch
    #[arg(long, default_value_t = 65_536)]
    epoch_events: i64,
}

/// The input of one epoch.
type EpochInput = Vec<(RelationId, RecordBatch)>;

pub fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "{} events, {} worker(s), epochs of {} events",
        arguments.events, arguments.workers, arguments.epoch_events
    );
    println!("query   rows in     rows out    rows/s        CPU s/M rows  peak RSS  of it input");
    for name in &arguments.queries {
        run_query(queries::named(name)?, arguments)?;
    }
    Ok(())
}

fn run_query(query: Query, arguments: &Arguments) -> Result<()> {
    let plan = catalog::plan(query.sql).with_context(|| query.sql)?;
    let input = generate(&plan.node, arguments)?;
    let rows: usize = input.iter().flatten().map(|(_, batch)| batch.num_rows()).sum();
    let input_bytes: usize = input.iter().flatten().map(|(_, batch)| batch.get_array_memory_size()).sum();
    let view = Collection::new(description(query, &plan.node), arguments.workers)?;

    reset_peak()?;
    let (start, cpu) = (Instant::now(), Process(None).cpu_time()?);
    feed(&plan.node, &view, input, arguments.workers)?;
    let (elapsed, cpu) = (start.elapsed(), Process(None).cpu_time()? - cpu);

    println!(
        "{:<6}  {rows:<10}  {:<10}  {:<12.0}  {:<12.3}  {:<8}  {}",
        query.name,
        view.row_count(),
        rows as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() / (rows as f64 / 1e6),
        megabytes(Process(None).peak_resident_bytes()?),
        megabytes(input_bytes as u64),
    );
    Ok(())
}

fn description(query: Query, plan: &Node) -> CollectionDescription {
    CollectionDescription {
        name: query.name.to_owned(),
        schema: plan.schema.clone(),
        key: plan.properties.key.clone(),
        append_only: plan.properties.append_only,
        history: freshet_storage::collection::HistoryPolicy::recent(),
        retention: None,
    }
}

/// The events, cut into epochs. Columns that the plan does not read are NULL, as connectors leave them.
fn generate(plan: &Node, arguments: &Arguments) -> Result<Vec<EpochInput>> {
    let batch_rows = usize::try_from(arguments.epoch_events).context("an epoch has events")?;
    let mut epochs = Vec::new();
    let mut start = 0;
    while start < arguments.events {
        let end = arguments.events.min(start + arguments.epoch_events);
        let mut epoch = Vec::new();
        for (at, (_, kind)) in RELATIONS.iter().enumerate() {
            let needed = columns_read(plan, relation_id(at));
            if needed.is_empty() {
                continue;
            }
            for batch in nexmark::batches(*kind, start..end, batch_rows, STORY_RATE, STORY_START_MS) {
                epoch.push((relation_id(at), with_columns(&batch, &needed)?));
            }
        }
        epochs.push(epoch);
        start = end;
    }
    Ok(epochs)
}

fn columns_read(plan: &Node, wanted: RelationId) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    plan.visit(&mut |node| match &node.op {
        Op::Input { relation, columns, .. } if *relation == wanted => found.extend(columns.iter().copied()),
        _ => {}
    });
    found
}

fn with_columns(batch: &RecordBatch, needed: &BTreeSet<usize>) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> =
        batch
            .columns()
            .iter()
            .enumerate()
            .map(|(index, column)| {
                if needed.contains(&index) { column.clone() } else { new_null_array(column.data_type(), column.len()) }
            })
            .collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// Runs the plan over the input, and waits until the view has all of it.
fn feed(plan: &Node, view: &Arc<Collection>, input: Vec<EpochInput>, workers: usize) -> Result<()> {
    let mut running = Running::start(plan, view.clone(), workers, StateBudget::default())?;
    input.into_iter().try_for_each(|rows| running.feed(rows))?;
    running.catch_up()?;
    running.stop();
    Ok(())
}
