//! The topic and its producer, which knows exactly what is in it: the broker is not killed.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::kafka::{Kafka, Record};
use crate::wait::let_pass;

const PARTITIONS: i32 = 3;

pub struct Topic<'a> {
    kafka: &'a Kafka,
    name: String,
    random: StdRng,
    /// Records that are rows, and the sum of their ids, which are 1, 2, 3 …
    pub rows: u64,
    /// Records that are not.
    pub garbage: u64,
}

impl<'a> Topic<'a> {
    /// Makes the topic and the source `events` over it.
    pub async fn create(kafka: &'a Kafka, client: &Client, seed: u64) -> Result<Self> {
        let name = format!("crash-{}-{seed:016x}", std::process::id());
        kafka.create_topic(&name, PARTITIONS).await?;
        let source = format!(
            "CREATE SOURCE events (id BIGINT NOT NULL, k INT, g TEXT, x INT, at TIMESTAMP, CHECK (x >= 0))
             WITH (connector = 'kafka', topic = '{name}', bootstrap_servers = '{}', start = 'earliest')
             FORMAT PLAIN ENCODE JSON",
            kafka.bootstrap_servers()
        );
        client.run(&source).await?;
        Ok(Self { kafka, name, random: StdRng::seed_from_u64(seed), rows: 0, garbage: 0 })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes records until it is over. All of them are acknowledged.
    pub async fn produce(&mut self, over: &Cell<bool>) -> Result<()> {
        while !over.get() {
            let count = self.random.random_range(1..60);
            let records: Vec<Record> = (0..count).map(|_| self.record()).collect();
            self.kafka.produce(&self.name, &records).await?;
            let pause_ms = self.random.random_range(0..60);
            let_pass(Duration::from_millis(pause_ms)).await;
        }
        Ok(())
    }

    fn record(&mut self) -> Record {
        let partition = self.random.random_range(0..PARTITIONS);
        let id = self.rows + 1;
        let (k, x) = (self.random.random_range(0..200), self.random.random_range(0..100));
        let g =
            ["\"red\"", "\"green\"", "\"blue\"", "\"\"", "null"].choose(&mut self.random).copied().unwrap_or("null");
        let (minute, second) = (self.random.random_range(0..10), self.random.random_range(0..60));
        let at = format!("2024-01-01T10:{minute:02}:{second:02}Z");
        let is_garbage = self.random.random_bool(0.05);
        let payload = match self.random.random_range(0..4) {
            _ if !is_garbage => format!(r#"{{"id":{id},"k":{k},"g":{g},"x":{x},"at":"{at}"}}"#),
            0 => "no JSON at all".to_owned(),
            1 => format!(r#"{{"k":{k},"g":{g},"x":{x}}}"#),
            2 => format!(r#"{{"id":{id},"k":{k},"x":-1}}"#),
            _ => format!(r#"{{"id":"many","k":{k}}}"#),
        };
        if is_garbage {
            self.garbage += 1;
        } else {
            self.rows += 1;
        }
        Record::of(payload).in_partition(partition)
    }
}
