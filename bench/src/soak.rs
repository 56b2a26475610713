//! A steady load for a long time, to see that nothing grows that should not: memory, files, lag.
//!
//! Events come from Kafka into a view of all rows, whose old ones go down the tiers, into groups that change, and into
//! windows that close; beside them one client updates a table by key, and another overwrites and deletes rows of one.

mod figures;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, kafka::Kafka};
use rdkafka::producer::{DefaultProducerContext, ThreadedProducer};
use tokio::time::MissedTickBehavior;

use self::figures::{Files, Sample, slope};
use crate::freshness::produce;
use crate::messages::{COLUMNS, message};
use crate::process::{Process, megabytes};

const TOPIC: &str = "messages";
/// Rows of the tables, of which one statement changes so many.
const ACCOUNTS: u64 = 100_000;
const UPDATED_AT_ONCE: u64 = 100;

#[derive(Args)]
pub struct Arguments {
    /// Events a second
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How long to go on
    #[arg(long, default_value_t = 20 * 60)]
    seconds: u64,
    /// Seconds between two lines of figures
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Figures of the first seconds do not count for the slopes: caches fill, a broker compiles itself, windows open
    #[arg(long, default_value_t = 120)]
    warm_up_seconds: u64,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// `--memory` of the server
    #[arg(long, default_value = "2GiB")]
    memory: String,
    /// Options of the view of all rows, as in CREATE MATERIALIZED VIEW … WITH (…): what becomes of old rows
    #[arg(long, default_value = "hot = '15s', warm = '60s', time_column = 'at'")]
    options: String,
    /// Further arguments of `freshet serve`, such as `--checkpoint-interval=5s`
    #[arg(long, allow_hyphen_values = true)]
    serve: Vec<String>,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 2).await?;
    let serve = [format!("--memory={}", arguments.memory)].iter().chain(&arguments.serve).map(Into::into).collect();
    let config = ServerConfig { workers: arguments.workers, arguments: serve, ..ServerConfig::default() };
    let server = Server::start_with(config).await?;
    let client = server.connect().await?;
    create(&client, &kafka, &arguments.options).await?;
    let (updating, overwriting) = (server.connect().await?, server.connect().await?);

    let producer: ThreadedProducer<DefaultProducerContext> =
        kafka.client().set("linger.ms", "5").set("acks", "1").create()?;
    let start = Instant::now();
    let mut samples = Vec::new();
    tokio::select! {
        produced = produce(producer, arguments.rate, arguments.rate * arguments.seconds, start, message) => {
            println!("{} events produced in {:.0} s", produced?, start.elapsed().as_secs_f64());
        }
        updated = update(&updating) => updated?,
        overwritten = overwrite(&overwriting) => overwritten?,
        watched = watch(&server, &client, arguments.every, start, &mut samples) => watched?,
    }
    let limit = "SELECT bytes_max FROM freshet_catalog.memory WHERE part = 'process'";
    let limit: u64 = client.value(limit).await?.parse()?;
    print!("{}", summary(&samples, arguments.warm_up_seconds, limit));
    Ok(())
}

async fn create(client: &Client, kafka: &Kafka, options: &str) -> Result<()> {
    let servers = kafka.bootstrap_servers();
    let with = if options.is_empty() { String::new() } else { format!("WITH ({options})") };
    for statement in [
        format!(
            "CREATE SOURCE {TOPIC} ({COLUMNS}, at TIMESTAMP AS CAST(_timestamp AS TIMESTAMP),
             WATERMARK FOR at AS at - INTERVAL '5 seconds') INCLUDE timestamp WITH (connector = 'kafka', topic = '{TOPIC}',
             bootstrap_servers = '{servers}', start = 'earliest') FORMAT PLAIN ENCODE JSON"
        ),
        format!("CREATE MATERIALIZED VIEW all_rows {with} AS SELECT id, user_id, page, ms, at FROM {TOPIC}"),
        format!(
            "CREATE MATERIALIZED VIEW per_user AS SELECT user_id, count(*) AS n, max(ms) AS slowest FROM {TOPIC} GROUP BY user_id"
        ),
        format!(
            "CREATE MATERIALIZED VIEW per_window AS SELECT page, window_start, count(*) AS n, avg(ms) AS ms
             FROM TUMBLE({TOPIC}, at, INTERVAL '10 seconds') GROUP BY page, window_start"
        ),
        format!("CREATE MATERIALIZED VIEW latest AS SELECT max(sent_us) AS sent_us, count(*) AS n FROM {TOPIC}"),
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, branch INT, balance BIGINT)".to_owned(),
        format!("INSERT INTO accounts SELECT n, n % 100, 0 FROM generate_series(0, {}) AS t(n)", ACCOUNTS - 1),
        "CREATE MATERIALIZED VIEW per_branch AS SELECT branch, sum(balance) AS balance FROM accounts GROUP BY branch"
            .to_owned(),
        "CREATE TABLE baskets (id BIGINT PRIMARY KEY, page INT, n BIGINT, at TIMESTAMP)
         WITH (hot = '10s', warm = '30s', cold = '30s', retain = '2 min', time_column = 'at')"
            .to_owned(),
        "CREATE MATERIALIZED VIEW per_page AS SELECT page, count(*) AS baskets, sum(n) AS n FROM baskets GROUP BY page"
            .to_owned(),
    ] {
        client.run(&statement).await?;
    }
    Ok(())
}

/// Updates rows of a table, without end.
async fn update(client: &Client) -> Result<()> {
    let mut first = 0;
    loop {
        let last = first + UPDATED_AT_ONCE - 1;
        client.run(&format!("UPDATE accounts SET balance = balance + 1 WHERE id BETWEEN {first} AND {last}")).await?;
        first = (first + UPDATED_AT_ONCE) % ACCOUNTS;
    }
}

/// Puts rows into a table that expire, overwrites and deletes some that may lie in files by then, without end.
async fn overwrite(client: &Client) -> Result<()> {
    for round in 0_u64.. {
        let first = round * UPDATED_AT_ONCE;
        // Half of them are new; the others were put there some seconds, or a minute, ago.
        let former = first.saturating_sub(if round % 2 == 0 { 20_000 } else { 200_000 });
        client
            .run(&format!(
                "INSERT INTO baskets SELECT {first} + n, n % 100, 1, now() FROM generate_series(0, {0}) AS g(n)
                 ON CONFLICT (id) DO NOTHING;
                 INSERT INTO baskets SELECT {former} + n, n % 100, 2, now() FROM generate_series(0, {0}, 2) AS g(n)
                 ON CONFLICT (id) DO UPDATE SET n = baskets.n + 1, at = EXCLUDED.at;
                 DELETE FROM baskets WHERE id = {former} + 1",
                UPDATED_AT_ONCE - 1
            ))
            .await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Prints figures now and then, without end, and keeps them.
async fn watch(server: &Server, client: &Client, every: u64, start: Instant, samples: &mut Vec<Sample>) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(every));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let process = Process(Some(server.process_id()));
    println!("  second      events  behind ms     RSS   rows kept   updates       disk   files");
    loop {
        tick.tick().await;
        let value = async |query: &str| client.value(query).await.map(|value| value.parse::<u64>().unwrap_or(0));
        let sent_us = value("SELECT sent_us FROM latest").await?;
        let sample = Sample {
            second: start.elapsed().as_secs_f64(),
            events: value("SELECT n FROM latest").await?,
            behind_ms: (start.elapsed().as_micros() as u64).saturating_sub(sent_us) / 1_000,
            resident_bytes: process.resident_bytes()?,
            rows: value("SELECT count(*) FROM all_rows").await?,
            updates: value("SELECT sum(balance) FROM per_branch").await?,
            files: Files::below(server.data())?,
        };
        println!(
            "{:>8.0} {:>11} {:>10} {:>7} {:>11} {:>9} {:>10} {:>7}: {}",
            sample.second,
            sample.events,
            sample.behind_ms,
            megabytes(sample.resident_bytes),
            sample.rows,
            sample.updates,
            megabytes(sample.files.bytes()),
            sample.files.count(),
            sample.files.kinds(),
        );
        samples.push(sample);
    }
}

/// What the figures after the warm-up come to.
fn summary(samples: &[Sample], warm_up_seconds: u64, limit: u64) -> String {
    let counted: Vec<&Sample> = samples.iter().filter(|sample| sample.second >= warm_up_seconds as f64).collect();
    let a_minute = |pick: fn(&Sample) -> f64| {
        slope(&counted.iter().map(|sample| (sample.second / 60.0, pick(sample))).collect::<Vec<_>>())
    };
    let most = |pick: fn(&Sample) -> u64| samples.iter().map(pick).max().unwrap_or(0);
    let resident = most(|sample| sample.resident_bytes);
    let share = 100.0 * resident as f64 / limit as f64;
    format!(
        "of {} lines after {warm_up_seconds} s, by the line that fits best:\n\
         RSS       {:+.1} MB a minute; at most {}, {share:.0}% of --memory ({:+.0}%)\n\
         lag       {:+.1} ms a minute; at most {} ms\n\
         files     {:+.1} a minute; at most {}\n\
         disk      {:+.1} MB a minute; at most {}\n",
        counted.len(),
        a_minute(|sample| sample.resident_bytes as f64 / 1e6),
        megabytes(resident),
        share - 100.0,
        a_minute(|sample| sample.behind_ms as f64),
        most(|sample| sample.behind_ms),
        a_minute(|sample| sample.files.count() as f64),
        most(|sample| sample.files.count()),
        a_minute(|sample| sample.files.bytes() as f64 / 1e6),
        megabytes(most(|sample| sample.files.bytes())),
    )
}
