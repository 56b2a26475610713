//! Fills a topic and reads it back, for measuring a broker and the reader by hand.
//!
//! `kafka_read BROKER produce TOPIC PARTITIONS RECORDS`: makes the topic and fills it with Nexmark bids as JSON.
//! `kafka_read BROKER read TOPIC COLUMNS`: reads all there is, with the first COLUMNS of the 7 columns decoded.
//! `kafka_read BROKER follow TOPIC [OFFSET]`: reads on for ever, from OFFSET in every partition, and prints what happens
//! and how old records are when they come.
//! `kafka_read BROKER trim TOPIC PARTITION OFFSET`: removes the records before OFFSET.
//! `kafka_read BROKER send TOPIC PARTITION TEXT`: sends one record; `@100000000` for that many bytes of it.
//! `kafka_read BROKER grow TOPIC PARTITIONS`: gives the topic more partitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::json::ArrayWriter;
use freshet_connectors::nexmark::{EventKind, batches};
use freshet_connectors::{Column, Format, Include, IncludeKind, Offsets, Range, Source, SourceDefinition, open};
use freshet_types::Clock;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [broker, "produce", topic, partitions, records] => {
            produce(broker, topic, partitions.parse()?, records.parse()?).await
        }
        [broker, "read", topic, columns] => read(broker, topic, columns.parse()?).await,
        [broker, "follow", topic] => follow(broker, topic, None).await,
        [broker, "follow", topic, offset] => follow(broker, topic, Some(offset.parse()?)).await,
        [broker, "trim", topic, partition, offset] => {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", broker).create()?;
            let mut before = TopicPartitionList::new();
            before.add_partition_offset(topic, partition.parse()?, Offset::Offset(offset.parse()?))?;
            admin.delete_records(&before, &AdminOptions::new()).await?;
            Ok(())
        }
        [broker, "send", topic, partition, text] => send(broker, topic, partition.parse()?, text),
        [broker, "grow", topic, partitions] => {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", broker).create()?;
            admin.create_partitions(&[NewPartitions::new(topic, partitions.parse()?)], &AdminOptions::new()).await?;
            Ok(())
        }
        _ => bail!("see the head of this file for how to call it"),
    }
}

async fn produce(broker: &str, topic: &str, partitions: i32, records: i64) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("linger.ms", "50").set("batch.size", "1000000");
    config.set("queue.buffering.max.messages", "1000000");
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    admin.create_topics(&[NewTopic::new(topic, partitions, TopicReplication::Fixed(1))], &AdminOptions::new()).await?;
    let producer: ThreadedProducer<_> = config.create()?;
    let mut sent: i32 = 0;
    for batch in batches(EventKind::Bid, 0..records * 50 / 46, 8192, 10_000, 0) {
        let mut json = ArrayWriter::new(Vec::new());
        json.write(&batch)?;
        json.finish()?;
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&json.into_inner())?;
        for row in rows {
            let payload = row.to_string();
            let mut record = BaseRecord::<(), _>::to(topic).payload(&payload).partition(sent % partitions);
            sent += 1;
            while let Err((_, unsent)) = producer.send(record) {
                record = unsent;
                producer.flush(Duration::from_secs(1)).ok();
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

fn send(broker: &str, topic: &str, partition: i32, text: &str) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("message.max.bytes", "1000000000");
    let producer: ThreadedProducer<_> = config.create()?;
    let payload = match text.strip_prefix('@') {
        Some(bytes) => format!("{{\"channel\":\"{}\"}}", "x".repeat(bytes.parse()?)),
        None => text.to_owned(),
    };
    let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&payload);
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(producer.flush(Duration::from_secs(60))?)
}

fn source(broker: &str, topic: &str) -> Result<Arc<dyn Source>> {
    let schema = EventKind::Bid.schema();
    let columns = schema.fields().iter().map(|field| Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: true,
        computed: None,
    });
    let options = [("connector", "kafka"), ("topic", topic), ("bootstrap_servers", broker)];
    let include = |kind: IncludeKind| Include { kind, name: kind.default_name() };
    let definition = SourceDefinition {
        name: topic.into(),
        columns: columns.collect(),
        checks: vec![],
        includes: IncludeKind::ALL.into_iter().map(include).collect(),
        options: options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        format: Some(Format { format: "PLAIN".into(), encode: "JSON".into(), ..Format::default() }),
    };
    open(definition).map_err(|error| anyhow::anyhow!("{error}"))
}

#[allow(clippy::print_stdout, reason = "a measurement is for people to read")]
async fn read(broker: &str, topic: &str, columns: usize) -> Result<()> {
    let source = source(broker, topic)?;
    let from = source.resolve_start().await?;
    let consumer: rdkafka::consumer::BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker).create()?;
    let mut until = Offsets::default();
    for partition in from.0.keys() {
        use rdkafka::consumer::Consumer;
        let (_, high) = consumer.fetch_watermarks(topic, *partition, Duration::from_secs(5))?;
        until.0.insert(*partition, high);
    }
    let expected: i64 = until.0.iter().map(|(partition, high)| high - from.0[partition]).sum();
    let started = Instant::now();
    let mut reader = source.read(Range { from, until: Some(until) }, &(0..columns).collect::<Vec<_>>()).await?;
    let (mut rows, mut bytes, mut count, mut dead) = (0, 0, 0, 0);
    while let Some(batch) = reader.next().await? {
        rows += batch.rows.num_rows();
        bytes += batch.bytes;
        dead += batch.dead_letters.len();
        count += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{rows} rows, {dead} dead letters, {} bytes a record, {count} batches, {seconds:.2} s: {:.0} records/s",
        bytes / rows.max(1),
        (rows + dead) as f64 / seconds
    );
    ensure!(i64::try_from(rows + dead)? == expected, "expected {expected}");
    Ok(())
}

#[allow(clippy::print_stdout, reason = "for people to watch")]
async fn follow(broker: &str, topic: &str, offset: Option<i64>) -> Result<()> {
    let source = source(broker, topic)?;
    let started = Instant::now();
    let mut from = source.resolve_start().await?;
    if let Some(offset) = offset {
        from.0.values_mut().for_each(|next| *next = offset);
    }
    println!("start {:?} after {:?}", from.0, started.elapsed());
    let mut reader = source.read(Range { from, until: None }, &[0, 3, 10]).await?;
    let status = source.status();
    let mut shown = None;
    loop {
        let report = status.report();
        if shown.as_ref() != Some(&report) {
            println!("{:?} {report:?}", started.elapsed());
            shown = Some(report);
        }
        let Ok(batch) = tokio::time::timeout(Duration::from_millis(500), reader.next()).await else { continue };
        let Some(batch) = batch? else { return Ok(()) };
        status.count(&batch);
        for letter in &batch.dead_letters {
            println!("dead letter at {}/{}: {}", letter.partition, letter.offset, letter.error);
        }
        let written_us = batch.rows.column(10).as_primitive::<TimestampMicrosecondType>();
        let ages = written_us.values().iter().map(|us| i64::try_from(Clock::System.now_ms()).unwrap_or(0) - us / 1000);
        let (rows, bytes) = (batch.rows.num_rows(), batch.bytes);
        println!("{rows} rows, {bytes} bytes, at most {:?} ms old, next {:?}", ages.max(), batch.offsets.0);
    }
}
