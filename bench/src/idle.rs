//! What a server costs that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use freshet_sql_tests::Server;

use crate::process::{Process, megabytes};

#[derive(Args)]
pub struct Arguments {
    /// How long to look on
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let server = Server::start(std::thread::available_parallelism()?.get()).await?;
    let client = server.connect().await?;
    client.run("SELECT 1").await?;
    println!("start to first answer     {:.0} ms", start.elapsed().as_secs_f64() * 1e3);

    let process = Process(Some(server.process_id()));
    measure(process, arguments.seconds, "empty").await?;
    client
        .run(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, g TEXT);
             CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g;
             INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        )
        .await?;
    measure(process, arguments.seconds, "a table and a view").await
}

async fn measure(process: Process, seconds: u64, what: &str) -> Result<()> {
    let cpu = process.cpu_time()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = process.cpu_time()? - cpu;
    let share = 100.0 * cpu.as_secs_f64() / Duration::from_secs(seconds).as_secs_f64();
    println!("idle, {what:<20} {share:.2}% CPU, RSS {}", megabytes(process.resident_bytes()?));
    Ok(())
}
