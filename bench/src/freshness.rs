//! Time from producing an event to the change seen by a SUBSCRIBE client.
//!
//! Producer and subscriber are this process, so that one clock tells both times. Each event is a row of the view and
//! counts once, from just before it is handed to the Kafka client, which adds its own few milliseconds of batching.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use freshet_sql_tests::client::text_rows;
use freshet_sql_tests::{Server, kafka::Kafka};
use futures::StreamExt;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::time::MissedTickBehavior;

use crate::kafka::create_source;
use crate::latencies::Latencies;
use crate::messages::message;
use crate::process::Process;

const TOPIC: &str = "messages";
/// Events are produced in this rhythm, each time as many as the rate asks for.
const PRODUCE_EVERY: Duration = Duration::from_millis(1);
/// How long the last event may take.
const LAST_EVENT_BOUND: Duration = Duration::from_secs(30);

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
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 2).await?;
    let server = Server::start(arguments.workers).await?;
    let client = server.connect().await?;
    create_source(&client, &kafka).await?;
    let query = match arguments.view.as_str() {
        "groups" => "SELECT max(id) AS id, max(sent_us) AS sent_us, page, count(*) AS n FROM messages GROUP BY page",
        _ => "SELECT id, sent_us, page FROM messages",
    };
    client.run(&format!("CREATE MATERIALIZED VIEW v AS {query}")).await?;
    let changes = client.simple_query_raw("SUBSCRIBE v WITH (SNAPSHOT = true)").await?;

    let producer: ThreadedProducer<DefaultProducerContext> =
        kafka.client().set("linger.ms", "0").set("acks", "1").create()?;
    let start = Instant::now();
    let process = Process(Some(server.process_id()));
    let cpu = process.cpu_time()?;
    let producing = produce(producer, arguments.rate, arguments.rate * arguments.seconds, start);
    let watching = watch(changes, arguments, start);
    let (produced, latencies) = tokio::try_join!(producing, watching)?;
    let cpu = process.cpu_time()? - cpu;
    println!("{produced} events at {} a second; {} changes measured", arguments.rate, latencies.len());
    println!("freshness     {latencies}");
    println!("CPU of server {:.1}%", 100.0 * cpu.as_secs_f64() / start.elapsed().as_secs_f64());
    Ok(())
}

/// Sends `count` messages in the rhythm of `rate` a second.
pub async fn produce(
    producer: ThreadedProducer<DefaultProducerContext>,
    rate: u64,
    count: u64,
    start: Instant,
) -> Result<u64> {
    let mut tick = tokio::time::interval(PRODUCE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    while next < count {
        tick.tick().await;
        let due = count.min((start.elapsed().as_secs_f64() * rate as f64) as u64);
        for id in next..due {
            let payload = message(id, start.elapsed().as_micros());
            let sent = producer.send(BaseRecord::<(), _>::to(TOPIC).payload(&payload));
            sent.map_err(|(error, _)| error).context("cannot produce")?;
        }
        next = next.max(due);
    }
    tokio::task::spawn_blocking(move || producer.flush(LAST_EVENT_BOUND)).await??;
    Ok(next)
}

/// Reads changes until the last event has come.
async fn watch(changes: tokio_postgres::SimpleQueryStream, arguments: &Arguments, start: Instant) -> Result<Latencies> {
    let mut changes = Box::pin(changes);
    let mut latencies = Latencies::default();
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
            latencies.add(Duration::from_micros(u64::try_from(start.elapsed().as_micros() - sent_us)?));
        }
        if row[2] == last {
            return Ok(latencies);
        }
    }
}
