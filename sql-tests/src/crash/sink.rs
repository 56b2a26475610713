//! A sink of a view that changes all the time: what consumers make of its topic must be the view, and no message may
//! contradict those before it, as one that came twice would.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::Client;
use crate::kafka::{Kafka, Record};
use crate::wait;

/// The view that is sent.
pub const VIEW: (&str, &str) = ("sent", "SELECT k, count(*) AS n, sum(x) AS x FROM events GROUP BY k");

pub struct Sink<'a> {
    kafka: &'a Kafka,
    topic: String,
    /// Messages in it, when it was looked at last.
    pub messages: usize,
}

impl<'a> Sink<'a> {
    /// Makes the topic, and a sink of the view, which is there.
    pub async fn create(kafka: &'a Kafka, client: &Client, topic: String) -> Result<Self> {
        kafka.create_topic(&topic, 2).await?;
        client
            .run(&format!(
                "CREATE SINK changes FROM {} WITH (connector = 'kafka', topic = '{topic}', bootstrap_servers = '{}')
                 FORMAT DEBEZIUM ENCODE JSON",
                VIEW.0,
                kafka.bootstrap_servers()
            ))
            .await?;
        Ok(Self { kafka, topic, messages: 0 })
    }

    /// Waits until the topic has what the view has, while nobody writes. At no time may it contradict itself.
    pub async fn compare(&mut self, client: &Client) -> Result<()> {
        client.run("CHECKPOINT").await?;
        let mut expected = BTreeMap::new();
        for row in client.rows(&format!("SELECT k, n, x FROM {}", VIEW.0)).await? {
            expected.insert(row[0].parse::<i64>()?, (row[1].parse::<i64>()?, row[2].parse::<i64>()?));
        }
        let equal = wait::until("the sink's topic to have the view", async || {
            let records = self.kafka.committed(&self.topic).await?;
            self.messages = records.len();
            Ok((replayed(&records)? == expected).then_some(()))
        });
        if let Err(error) = equal.await {
            let status =
                client.rows("SELECT state, waiting_changes, last_error FROM freshet_catalog.sink_status").await?;
            return Err(error.context(format!("the sink is {status:?}")));
        }
        Ok(())
    }
}

/// What a consumer has of (k, n, x), by k. Each message has to fit to what was there before.
fn replayed(records: &[Record]) -> Result<BTreeMap<i64, (i64, i64)>> {
    let mut rows = BTreeMap::new();
    for record in records {
        let payload = record.payload.as_ref().context("each message has a value")?;
        let change: Value = serde_json::from_slice(payload)?;
        let row = |side: &str| {
            let row = &change[side];
            let value = |name: &str| row[name].as_i64().with_context(|| format!("{name} of {change}"));
            if row.is_null() { Ok(None) } else { anyhow::Ok(Some((value("k")?, (value("n")?, value("x")?)))) }
        };
        let (before, after) = (row("before")?, row("after")?);
        let (k, _) = before.or(after).with_context(|| format!("neither before nor after: {change}"))?;
        let was = rows.remove(&k);
        ensure!(was == before.map(|(_, row)| row), "{k} was {was:?}, and a message says {change}");
        rows.extend(after);
    }
    Ok(rows)
}
