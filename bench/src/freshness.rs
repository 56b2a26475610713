//! Time from producing an event to the change seen by a SUBSCRIBE client.
//!
//! Producer and subscriber are this process, so that one clock tells both times. Each event is a row of the view and
//! counts once, from just before it is handed to the Kafka client, which adds its own few milliseconds of batching.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use freshet_sql_tests::client::text_rows;
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, kafka::Kafka, wait};
use futures::StreamExt;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::time::MissedTickBehavior;

use crate::kafka::create_source;
use crate::latencies::Latencies;
use crate::messages::{message, message_of, spread};
use crate::process::{Process, megabytes};

const TOPIC: &str = "messages";
/// Events are produced in this rhythm, each time as many as the rate asks for.
const PRODUCE_EVERY: Duration = Duration::from_millis(1);
/// How long the last event may take.
const LAST_EVENT_BOUND: Duration = Duration::from_secs(30);
/// How long the groups may take that are there before.
const GROUPS_BOUND: Duration = Duration::from_secs(1800);
/// How many of the slowest seconds are told.
const SLOW_SECONDS: usize = 8;

#[derive(Args)]
pub struct Arguments {
    /// Events a second
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// How long to go on
    #[arg(long, default_value_t = 45)]
    seconds: u64,
    /// Events of the first seconds do not count: a broker that has just started compiles itself for that long
    #[arg(long, default_value_t = 25)]
    warm_up_seconds: u64,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The view: `rows` has every event as a row, `groups` counts them in 1000 groups
    #[arg(long, default_value = "rows", value_parser = ["rows", "groups"])]
    view: String,
    /// Fill the view with so many groups first; then every event goes to any of them
    #[arg(long, default_value_t = 0, conflicts_with = "view")]
    groups: u64,
    /// Further arguments of `freshet serve`, such as `--checkpoint-interval=10min`
    #[arg(long, allow_hyphen_values = true)]
    serve: Vec<String>,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 2).await?;
    let serve = arguments.serve.iter().map(Into::into).collect();
    let config = ServerConfig { workers: arguments.workers, arguments: serve, ..ServerConfig::default() };
    let server = Server::start_with(config).await?;
    let client = server.connect().await?;
    create_source(&client, &kafka).await?;
    create_view(&client, arguments).await?;
    let snapshot = if arguments.groups == 0 { "true" } else { "false" };
    let changes = client.simple_query_raw(&format!("SUBSCRIBE v WITH (SNAPSHOT = {snapshot})")).await?;

    let producer: ThreadedProducer<DefaultProducerContext> =
        kafka.client().set("linger.ms", "0").set("acks", "1").create()?;
    let start = Instant::now();
    let process = Process(Some(server.process_id()));
    let cpu = process.cpu_time()?;
    let groups = arguments.groups;
    let payload = |id, sent_us| match groups {
        0 => message(id, sent_us),
        groups => message_of(spread(id) % groups, id, sent_us),
    };
    let producing = produce(producer, arguments.rate, arguments.rate * arguments.seconds, start, payload);
    let watching = watch(changes, arguments, start);
    let (produced, (latencies, by_second)) = tokio::try_join!(producing, watching)?;
    let cpu = process.cpu_time()? - cpu;
    println!("{produced} events at {} a second; {} changes measured", arguments.rate, latencies.len());
    println!("freshness     {latencies}");
    println!("slowest       {}", slowest(by_second));
    println!("CPU of server {:.1}%", 100.0 * cpu.as_secs_f64() / start.elapsed().as_secs_f64());
    println!("RSS of server {}", megabytes(process.resident_bytes()?));
    let made = "SELECT count(*), max(duration_ms), max(bytes) FROM freshet_catalog.checkpoints WHERE error IS NULL";
    for row in server.connect().await?.rows(made).await? {
        println!("checkpoints   the last {}: at most {} ms, {} bytes", row[0], row[1], row[2]);
    }
    Ok(())
}

/// Makes the view `v`, with all groups that it is to have; then a checkpoint has them.
async fn create_view(client: &Client, arguments: &Arguments) -> Result<()> {
    let groups = arguments.groups;
    if groups == 0 {
        let query = match arguments.view.as_str() {
            "groups" => {
                "SELECT max(id) AS id, max(sent_us) AS sent_us, page, count(*) AS n FROM messages GROUP BY page"
            }
            _ => "SELECT id, sent_us, page FROM messages",
        };
        return client.run(&format!("CREATE MATERIALIZED VIEW v AS {query}")).await;
    }
    client
        .run(&format!(
            "CREATE SOURCE former (user_id BIGINT) WITH (connector = 'datagen', rows = '{groups}',
             rows_per_second = 'max', fields.user_id.kind = 'sequence');
             CREATE MATERIALIZED VIEW v AS
             SELECT max(id) AS id, max(sent_us) AS sent_us, user_id, count(*) AS n, sum(ms) AS ms FROM (
                 SELECT id, sent_us, user_id, ms FROM messages
                 UNION ALL SELECT CAST(0 AS BIGINT), CAST(0 AS BIGINT), user_id, CAST(0 AS INT) FROM former
             ) AS m GROUP BY user_id"
        ))
        .await?;
    let begun = Instant::now();
    let all = groups.to_string();
    wait::until_within(GROUPS_BOUND, "all groups", async || {
        Ok((client.value("SELECT count(*) FROM v").await? == all).then_some(()))
    })
    .await?;
    let filled = begun.elapsed();
    client.run("CHECKPOINT").await?;
    println!(
        "{groups} groups in {:.1} s, and a checkpoint with them {:.1} s later",
        filled.as_secs_f64(),
        (begun.elapsed() - filled).as_secs_f64()
    );
    Ok(())
}

/// The slowest seconds, and the longest time that an event of each took.
fn slowest(by_second: Vec<Duration>) -> String {
    let mut seconds: Vec<(usize, Duration)> = by_second.into_iter().enumerate().collect();
    seconds.sort_by_key(|(_, longest)| std::cmp::Reverse(*longest));
    let told = seconds.iter().take(SLOW_SECONDS);
    told.map(|(second, longest)| format!("{} ms at {second} s", longest.as_millis())).collect::<Vec<_>>().join(", ")
}

/// Sends `count` messages in the rhythm of `rate` a second, or as fast as the broker takes them. `payload` makes each of its
/// number and the microseconds since the start.
pub async fn produce(
    producer: ThreadedProducer<DefaultProducerContext>,
    rate: u64,
    count: u64,
    start: Instant,
    payload: impl Fn(u64, u128) -> String,
) -> Result<u64> {
    let mut tick = tokio::time::interval(PRODUCE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    while next < count {
        tick.tick().await;
        let due = count.min((start.elapsed().as_secs_f64() * rate as f64) as u64);
        for id in next..due {
            let payload = payload(id, start.elapsed().as_micros());
            match producer.send(BaseRecord::<(), _>::to(TOPIC).payload(&payload)) {
                Ok(()) => next = id + 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => return Err(error).context("cannot produce"),
            }
        }
    }
    tokio::task::spawn_blocking(move || producer.flush(LAST_EVENT_BOUND)).await??;
    Ok(next)
}

/// Reads changes until the last event has come. Gives the times that events took, and the longest of those produced in
/// each second.
async fn watch(
    changes: tokio_postgres::SimpleQueryStream,
    arguments: &Arguments,
    start: Instant,
) -> Result<(Latencies, Vec<Duration>)> {
    let mut changes = Box::pin(changes);
    let mut latencies = Latencies::default();
    let mut by_second = vec![Duration::ZERO; usize::try_from(arguments.seconds)? + 1];
    let last = (arguments.rate * arguments.seconds - 1).to_string();
    let warm_up_us = u128::from(arguments.warm_up_seconds) * 1_000_000;
    loop {
        let bound = Duration::from_secs(arguments.seconds) + LAST_EVENT_BOUND;
        let message = tokio::time::timeout(bound, changes.next()).await.context("no more changes come")?;
        let Some(message) = message else { bail!("the subscription ended") };
        // _epoch, _diff, id, sent_us, …
        let [row] = &text_rows(&[message?])[..] else { continue };
        if row[1].starts_with('-') {
            continue;
        }
        let sent_us: u128 = row[3].parse()?;
        if sent_us >= warm_up_us {
            let took = Duration::from_micros(u64::try_from(start.elapsed().as_micros() - sent_us)?);
            latencies.add(took);
            let longest = &mut by_second[usize::try_from(sent_us / 1_000_000)?];
            *longest = took.max(*longest);
        }
        if row[2] == last {
            return Ok((latencies, by_second));
        }
    }
}
