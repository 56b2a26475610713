//! A steady load for a long time, to see that nothing grows that should not: memory, files, lag.
//!
//! Events come from Kafka into a view of all rows, groups that change, and windows; beside them a client updates a table.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, kafka::Kafka};
use rdkafka::producer::{DefaultProducerContext, ThreadedProducer};
use tokio::time::MissedTickBehavior;

use crate::freshness::produce;
use crate::messages::COLUMNS;
use crate::process::{Process, megabytes};

const TOPIC: &str = "messages";
/// Rows of the table, of which one statement updates so many.
const ACCOUNTS: u64 = 100_000;
const UPDATED_AT_ONCE: u64 = 100;

#[derive(Args)]
pub struct Arguments {
    /// Events a second
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How long to go on
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Seconds between two lines of figures
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Options of the view of all rows, as in CREATE MATERIALIZED VIEW … WITH (…): what becomes of old rows
    #[arg(long, default_value = "")]
    options: String,
    /// Further arguments of `freshet serve`, such as `--memory=2GiB`
    #[arg(long)]
    serve: Vec<String>,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 2).await?;
    let serve = arguments.serve.iter().map(Into::into).collect();
    let config = ServerConfig { workers: arguments.workers, arguments: serve, ..ServerConfig::default() };
    let server = Server::start_with(config).await?;
    let client = server.connect().await?;
    create(&client, &kafka, &arguments.options).await?;
    let updating = server.connect().await?;

    let producer: ThreadedProducer<DefaultProducerContext> =
        kafka.client().set("linger.ms", "5").set("acks", "1").create()?;
    let start = Instant::now();
    let seconds = arguments.minutes * 60;
    tokio::select! {
        produced = produce(producer, arguments.rate, arguments.rate * seconds, start) => {
            println!("{} events produced in {:.0} s", produced?, start.elapsed().as_secs_f64());
        }
        updated = update(&updating) => updated?,
        watched = watch(&server, &client, arguments.every, start) => watched?,
    }
    Ok(())
}

async fn create(client: &Client, kafka: &Kafka, options: &str) -> Result<()> {
    let servers = kafka.bootstrap_servers();
    let with = if options.is_empty() { String::new() } else { format!("WITH ({options})") };
    for statement in [
        format!(
            "CREATE SOURCE {TOPIC} ({COLUMNS}) INCLUDE timestamp AS at WITH (connector = 'kafka', topic = '{TOPIC}',
             bootstrap_servers = '{servers}', start = 'earliest') FORMAT PLAIN ENCODE JSON"
        ),
        format!("CREATE MATERIALIZED VIEW all_rows {with} AS SELECT id, user_id, page, ms, at FROM {TOPIC}"),
        format!(
            "CREATE MATERIALIZED VIEW per_user AS SELECT user_id, count(*) AS n, max(ms) AS slowest FROM {TOPIC} GROUP BY user_id"
        ),
        format!(
            "CREATE MATERIALIZED VIEW per_minute AS SELECT page, window_start, count(*) AS n, avg(ms) AS ms
             FROM TUMBLE({TOPIC}, at, INTERVAL '1 minute') GROUP BY page, window_start"
        ),
        format!("CREATE MATERIALIZED VIEW latest AS SELECT max(sent_us) AS sent_us, count(*) AS n FROM {TOPIC}"),
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, branch INT, balance BIGINT)".to_owned(),
        format!("INSERT INTO accounts SELECT n, n % 100, 0 FROM generate_series(0, {}) AS t(n)", ACCOUNTS - 1),
        "CREATE MATERIALIZED VIEW per_branch AS SELECT branch, sum(balance) AS balance FROM accounts GROUP BY branch"
            .to_owned(),
    ] {
        client.run(&statement).await?;
    }
    Ok(())
}

/// Updates rows of the table, without end.
async fn update(client: &Client) -> Result<()> {
    let mut first = 0;
    loop {
        let last = first + UPDATED_AT_ONCE - 1;
        client.run(&format!("UPDATE accounts SET balance = balance + 1 WHERE id BETWEEN {first} AND {last}")).await?;
        first = (first + UPDATED_AT_ONCE) % ACCOUNTS;
    }
}

/// Prints figures now and then, without end.
async fn watch(server: &Server, client: &Client, every: u64, start: Instant) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(every));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let process = Process(Some(server.process_id()));
    println!("  second      events  behind ms    RSS   rows kept   updates    data on disk   files");
    loop {
        tick.tick().await;
        let value = async |query: &str| client.value(query).await.map(|value| value.parse::<u64>().unwrap_or(0));
        let sent_us = value("SELECT sent_us FROM latest").await?;
        let behind_ms = (start.elapsed().as_micros() as u64).saturating_sub(sent_us) / 1_000;
        let events = value("SELECT n FROM latest").await?;
        let rows = value("SELECT count(*) FROM all_rows").await?;
        let updates = value("SELECT sum(balance) FROM per_branch").await?;
        let (bytes, files) = on_disk(server.data())?;
        println!(
            "{:>8} {events:>11} {behind_ms:>10} {:>8} {rows:>10} {updates:>9} {:>13} {files:>7}",
            start.elapsed().as_secs(),
            megabytes(process.resident_bytes()?),
            megabytes(bytes),
        );
    }
}

/// Bytes and number of the files below a folder.
fn on_disk(folder: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok((0, 0)) };
    for entry in entries {
        // Files come and go meanwhile.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let (more, further) = on_disk(&entry.path())?;
            (bytes, files) = (bytes + more, files + further);
        } else {
            (bytes, files) = (bytes + metadata.len(), files + 1);
        }
    }
    Ok((bytes, files))
}
