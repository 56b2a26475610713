//! Benchmarks: what Freshet does in a second, and how long it takes for one thing.
//!
//! `nexmark` and `join-spill` run the engine alone, in this process; the others start the real server, and a real Kafka where one is
//! needed, on the same machine. Figures are printed and judged by people: a benchmark is no test.
#![allow(clippy::print_stdout, reason = "a command-line tool reports on its standard output")]

mod catalog;
mod freshness;
mod idle;
mod join_spill;
mod kafka;
mod latencies;
mod messages;
mod nexmark;
mod point_select;
mod process;
mod queries;
mod recovery;
mod running;
mod soak;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure Freshet
///
/// Always with the release profile: `cargo run --release -p bench -- nexmark`. All but `nexmark` and `join-spill` need the
/// server's binary (`cargo build --release`); `kafka`, `freshness`, `recovery` and `soak` need Apache Kafka (`cargo xtask kafka`).
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Feed generated events through the engine into a view: rows a second, CPU, memory
    Nexmark(nexmark::Arguments),
    /// Join two relations whose rows do not fit into memory: rows a second and memory as they grow
    JoinSpill(join_spill::Arguments),
    /// Read JSON messages from Kafka into a GROUP BY view: messages a second
    Kafka(kafka::Arguments),
    /// Time from producing an event to a SUBSCRIBE client seeing it, at a steady rate
    Freshness(freshness::Arguments),
    /// Look up rows of a large view by key
    PointSelect(point_select::Arguments),
    /// Start time, and what a server costs that has nothing to do
    Idle(idle::Arguments),
    /// Kill a server with a large view: time to the first answer, and to what came meanwhile
    Recovery(recovery::Arguments),
    /// A steady load for 20 minutes: memory, files and lag as they go
    Soak(soak::Arguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Benchmark::Nexmark(arguments) = &arguments.benchmark {
        return nexmark::run(arguments);
    }
    if let Benchmark::JoinSpill(arguments) = &arguments.benchmark {
        return join_spill::run(arguments);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match arguments.benchmark {
            Benchmark::Nexmark(_) | Benchmark::JoinSpill(_) => Ok(()),
            Benchmark::Kafka(arguments) => kafka::run(&arguments).await,
            Benchmark::Freshness(arguments) => freshness::run(&arguments).await,
            Benchmark::PointSelect(arguments) => point_select::run(&arguments).await,
            Benchmark::Idle(arguments) => idle::run(&arguments).await,
            Benchmark::Recovery(arguments) => recovery::run(&arguments).await,
            Benchmark::Soak(arguments) => soak::run(&arguments).await,
        }
    })
}
