//! How fast JSON messages in Kafka become a GROUP BY view, with the broker on the same machine.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use freshet_sql_tests::{Client, Server, kafka::Kafka, wait};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::messages::{COLUMNS, message};
use crate::process::{Process, megabytes};

const TOPIC: &str = "messages";
const BOUND: std::time::Duration = std::time::Duration::from_secs(600);

#[derive(Args)]
pub struct Arguments {
    /// Messages, all in the topic before reading starts
    #[arg(long, default_value_t = 3_000_000)]
    messages: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// How the producer compresses: none, lz4, zstd, gzip
    #[arg(long, default_value = "none")]
    compression: String,
    /// Dataflow workers
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, arguments.partitions).await?;
    let producer: BaseProducer = kafka
        .client()
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("compression.type", &arguments.compression)
        .set("queue.buffering.max.messages", "1000000")
        .create()?;
    let count = arguments.messages;
    let bytes = tokio::task::spawn_blocking(move || fill(&producer, count)).await??;

    let server = Server::start(arguments.workers).await?;
    let client = server.connect().await?;
    create_source(&client, &kafka).await?;
    let process = Process(Some(server.process_id()));
    let (start, cpu) = (Instant::now(), process.cpu_time()?);
    client
        .run("CREATE MATERIALIZED VIEW per_page AS SELECT page, count(*) AS n, sum(ms) AS ms, max(id) AS last FROM messages GROUP BY page")
        .await?;
    let all = count.to_string();
    wait::until_within(BOUND, "all messages", async || {
        Ok((client.value("SELECT sum(n) FROM per_page").await? == all).then_some(()))
    })
    .await?;
    let (elapsed, cpu) = (start.elapsed(), process.cpu_time()? - cpu);
    println!("{count} messages of {} bytes in {:.2} s", bytes / count, elapsed.as_secs_f64());
    println!("messages/s            {:.0}", count as f64 / elapsed.as_secs_f64());
    println!("CPU s/M messages      {:.3}", cpu.as_secs_f64() / (count as f64 / 1e6));
    println!("peak RSS of server    {}", megabytes(process.peak_resident_bytes()?));
    Ok(())
}

/// Declares the source over the topic.
pub async fn create_source(client: &Client, kafka: &Kafka) -> Result<()> {
    client
        .run(&format!(
            "CREATE SOURCE {TOPIC} ({COLUMNS}) WITH (connector = 'kafka', topic = '{TOPIC}',
             bootstrap_servers = '{}', start = 'earliest') FORMAT PLAIN ENCODE JSON",
            kafka.bootstrap_servers()
        ))
        .await
}

/// Puts `count` messages into the topic, and tells their bytes.
fn fill(producer: &BaseProducer, count: u64) -> Result<u64> {
    let mut bytes = 0;
    for id in 0..count {
        let payload = message(id, 0);
        bytes += payload.len() as u64;
        let mut record = BaseRecord::<(), _>::to(TOPIC).payload(&payload);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    producer.poll(std::time::Duration::from_millis(10));
                    record = unsent;
                }
                Err((error, _)) => return Err(error).context("cannot produce"),
            }
        }
    }
    producer.flush(BOUND)?;
    Ok(bytes)
}
