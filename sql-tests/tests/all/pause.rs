//! A server that is held for seconds (SIGSTOP), as by a machine that swaps or is moved: it goes on where it was. No client
//! and no broker has to connect again, and nothing is lost or counted twice.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::client::text_rows;
use freshet_sql_tests::kafka::Kafka;
use freshet_sql_tests::wait::let_pass;
use freshet_sql_tests::{Client, Server, oracle};
use futures::StreamExt;

const TOPIC: &str = "pause";
const PAUSES: usize = 3;
const PAUSE: Duration = Duration::from_millis(1_500);
const WORK: Duration = Duration::from_millis(500);

/// Inserts rows one by one until it is over; gives how many.
async fn insert(client: &Client, writer: usize, over: &Cell<bool>) -> Result<usize> {
    let mut count = 0;
    while !over.get() {
        client.run(&format!("INSERT INTO t VALUES ({writer}, {count})")).await?;
        count += 1;
    }
    Ok(count)
}

/// Produces records until it is over; gives how many.
async fn produce(kafka: &Kafka, over: &Cell<bool>) -> Result<usize> {
    let mut count = 0;
    while !over.get() {
        let records: Vec<String> = (0..100).map(|n| format!(r#"{{"n": {}}}"#, count + n)).collect();
        kafka.produce_texts(TOPIC, &records.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        count += records.len();
    }
    Ok(count)
}

/// Adds up what a subscription tells of `SELECT writer, count(*)`, until the counts are `expected`.
async fn follow(client: &Client, expected: impl Fn() -> Option<BTreeMap<String, i64>>) -> Result<()> {
    let mut messages = Box::pin(client.simple_query_raw("SUBSCRIBE per_writer").await?);
    let mut sums = BTreeMap::<String, i64>::new();
    while expected().is_none_or(|expected| sums != expected) {
        let Ok(message) = tokio::time::timeout(Duration::from_millis(200), messages.next()).await else { continue };
        let message = message.context("the subscription ended")??;
        if let [row] = &text_rows(&[message])[..] {
            *sums.entry(row[2..].join(" ")).or_default() += row[1].parse::<i64>()?;
            sums.retain(|_, n| *n != 0);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_held_goes_on_with_its_clients_and_its_broker() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic(TOPIC, 2).await?;
    let server = Server::start(2).await?;
    let client = server.connect().await?;
    let objects = format!(
        "CREATE SOURCE {TOPIC} (n BIGINT) WITH (connector = 'kafka', topic = '{TOPIC}', bootstrap_servers = '{}',
         start = 'earliest') FORMAT PLAIN ENCODE JSON;
         CREATE MATERIALIZED VIEW of_source AS SELECT count(*) AS n, count(DISTINCT n) AS different FROM {TOPIC};
         CREATE TABLE t (writer INT, n INT);
         CREATE MATERIALIZED VIEW per_writer AS SELECT writer, count(*) AS n FROM t GROUP BY writer",
        kafka.bootstrap_servers()
    );
    client.run(&objects).await?;
    let (first, second, reader) = (server.connect().await?, server.connect().await?, server.connect().await?);
    let (over, inserted) = (Cell::new(false), Cell::new(None));
    let pauses = async {
        for _ in 0..PAUSES {
            let_pass(WORK).await;
            server.signal("STOP")?;
            let_pass(PAUSE).await;
            server.signal("CONT")?;
        }
        let_pass(WORK).await;
        over.set(true);
        anyhow::Ok(())
    };
    let write = async {
        let counts = tokio::try_join!(insert(&first, 1, &over), insert(&second, 2, &over))?;
        inserted.set(Some(counts));
        anyhow::Ok(())
    };
    let expected = || {
        let (one, two) = inserted.get()?;
        Some(BTreeMap::from([(format!("1 {one}"), 1), (format!("2 {two}"), 1)]))
    };
    let followed = async { tokio::time::timeout(Duration::from_secs(60), follow(&reader, expected)).await? };
    let ((), (), produced, ()) = tokio::try_join!(pauses, write, produce(kafka, &over), followed)?;
    let (one, two) = inserted.get().context("both have written")?;
    ensure!(one > 0 && two > 0 && produced > 0, "there was load");
    let count = produced.to_string();
    client.wait_for("SELECT n, different FROM of_source", &[&[&count, &count]]).await?;
    let state = "SELECT DISTINCT state, last_error IS NULL FROM freshet_catalog.source_status";
    ensure!(client.rows(state).await? == [["running", "t"]], "{:?}", client.rows(state).await?);
    oracle::check(&client).await
}
