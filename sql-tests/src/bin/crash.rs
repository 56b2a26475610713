//! Kills servers under load for as long as one likes: `cargo run --release -p freshet-sql-tests --bin crash -- --help`.
#![allow(clippy::print_stdout, reason = "a command-line tool reports on its standard output")]

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use freshet_sql_tests::crash::{self, Data, Options};
use freshet_sql_tests::kafka::Kafka;

/// Kill a Freshet under load, again and again, and look whether anything was lost or counted twice
///
/// A producer writes records into a Kafka topic, sessions change tables, create and drop views and tables, move rows between
/// tiers, make backups, read the past, and ask for checkpoints. The server gets `kill -9` at random moments, or as soon as
/// it is seen to write a checkpoint, move rows, delete what was replaced, work on DDL or on a backup; and while it comes up. It
/// comes up again with another number of workers and another checkpoint interval. Then every view must equal its query, every
/// record must be counted once, the tables must hold what was acknowledged, the past must be what it was, and the
/// topic of a sink must have each change once; and no view that is in a checkpoint may have been computed again.
#[derive(Parser)]
#[command(name = "crash", after_help = EXAMPLES)]
struct Arguments {
    /// How often to kill
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Which load and which faults; random if not given, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Begin no further round after so many seconds
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Never hold the server with SIGSTOP
    #[arg(long)]
    no_pauses: bool,
    /// Where the server keeps its data
    #[arg(long, value_enum, default_value = "folder")]
    data: Data,
}

const EXAMPLES: &str = "Examples:
  cargo build --release && cargo run --release -p freshet-sql-tests --bin crash -- --kills 300
  cargo run --release -p freshet-sql-tests --bin crash -- --seed 7 --seconds 60
  cargo run --release -p freshet-sql-tests --bin crash -- --data s3 --kills 50
  FRESHET_BIN=/path/to/freshet target/release/crash      # another server

The views are in sql-tests/src/crash/views.rs: an operator adds a line there.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let kafka = Kafka::start().await?;
    let options = Options {
        kills: arguments.kills,
        seed,
        time: Duration::from_secs(arguments.seconds),
        pauses: !arguments.no_pauses,
        data: arguments.data,
    };
    let summary = crash::run(&kafka, &options, |line| println!("{line}")).await?;
    print!("{}", summary.text());
    Ok(())
}
