//! Rows that expire as time passes: in views and tables, for readers and subscribers, over a crash and other workers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::client::text_rows;
use freshet_sql_tests::{Client, Server, oracle};
use futures::StreamExt;

const BOUND: Duration = Duration::from_secs(30);

const OBJECTS: &str = "
    CREATE TABLE t (id BIGINT PRIMARY KEY, ts TIMESTAMP);
    CREATE MATERIALIZED VIEW recent WITH (retain = '3s', time_column = 'ts') AS SELECT id, ts, id % 3 AS g FROM t;
    CREATE MATERIALIZED VIEW newest WITH (retain = '3s', time_column = 'ts') AS
        SELECT id % 3 AS g, max(ts) AS ts, count(*) AS n FROM t GROUP BY id % 3;
    CREATE MATERIALIZED VIEW over_recent AS SELECT g, count(*) AS n, min(id) AS least FROM recent GROUP BY g;
    CREATE TABLE short (id BIGINT PRIMARY KEY, ts TIMESTAMP) WITH (retain = '3s', time_column = 'ts');
    CREATE MATERIALIZED VIEW over_short AS SELECT count(*) AS n, max(id) AS most FROM short";

/// Rows of the last seconds, of now, and of a time to come.
async fn insert(client: &Client, table: &str, first: u64) -> Result<()> {
    let rows = format!("generate_series({first}, {}) AS s(n)", first + 59);
    let time = "CAST(now() AS TIMESTAMP) + (n % 60 - 50) * INTERVAL '100 milliseconds'";
    client.run(&format!("INSERT INTO {table} SELECT n, {time} FROM {rows}")).await
}

const ALL_GONE: &str = "SELECT (SELECT count(*) FROM recent), (SELECT count(*) FROM newest),
    (SELECT count(*) FROM over_recent), (SELECT count(*) FROM short), (SELECT sum(n) FROM over_short)";

#[tokio::test]
async fn rows_expire_as_time_passes_and_nothing_is_left_behind() -> Result<()> {
    let mut server = Server::start(2).await?;
    for (round, workers) in [2, 2, 1, 3].into_iter().enumerate() {
        let client = server.connect().await?;
        if round == 0 {
            client.run(OBJECTS).await?;
        }
        let first = 1_000 * round as u64;
        insert(&client, "t", first).await?;
        insert(&client, "short", first).await?;
        ensure!(client.value("SELECT count(*) > 0 FROM recent").await? == "t", "some are there for a while");
        oracle::check(&client).await?;
        if round == 1 {
            // Rows that have expired go on changing.
            client.run("UPDATE t SET ts = ts - INTERVAL '1 second'; DELETE FROM t WHERE id % 2 = 0").await?;
            oracle::check(&client).await?;
        }
        client.wait_for(ALL_GONE, &[&["0", "0", "0", "0", "0"]]).await?;
        client.run("DELETE FROM t WHERE id % 5 = 0").await?;
        // One that had expired may be written again.
        client
            .run(&format!("INSERT INTO short VALUES ({first}, '2100-01-01'); DELETE FROM short WHERE id = {first}"))
            .await?;
        oracle::check(&client).await?;
        let states = "SELECT DISTINCT state FROM freshet_catalog.view_status";
        ensure!(client.rows(states).await? == [["live"]], "{:?}", client.rows(states).await?);
        insert(&client, "t", first + 500).await?;
        insert(&client, "short", first + 500).await?;
        if round % 2 == 0 {
            client.run("CHECKPOINT").await?;
        }
        server.kill_hard()?;
        server.set_workers(workers);
        server.start_again().await?;
        oracle::check(&server.connect().await?).await?;
    }
    Ok(())
}

/// What a subscription tells, as (diff, id), until a row with id 999 comes.
async fn told(client: &Client, subscribe: &str) -> Result<Vec<(i64, i64)>> {
    let mut messages = Box::pin(client.simple_query_raw(subscribe).await?);
    let mut told = Vec::new();
    loop {
        let message = tokio::time::timeout(BOUND, messages.next()).await.context("nothing came")?;
        let message = message.context("the subscription ended")??;
        if let [row] = text_rows(&[message]).as_slice() {
            if row[2] == "999" {
                told.sort_unstable();
                return Ok(told);
            }
            told.push((row[1].parse()?, row[2].parse()?));
        }
    }
}

#[tokio::test]
async fn subscribers_hear_of_expired_rows_if_they_ask() -> Result<()> {
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    let table =
        "CREATE TABLE t (id BIGINT PRIMARY KEY, ts TIMESTAMP) WITH (history = '1h', retain = '2s', time_column = 'ts')";
    client.run(table).await?;
    let view =
        "CREATE MATERIALIZED VIEW v WITH (history = '1h', retain = '2s', time_column = 'ts') AS SELECT id, ts FROM u";
    client.run(&format!("CREATE TABLE u (id BIGINT PRIMARY KEY, ts TIMESTAMP); {view}")).await?;
    client.run("CREATE TABLE w (id BIGINT PRIMARY KEY) WITH (history = '1h', retain = '2s')").await?;
    let start = client.value("SELECT current_epoch()").await?;
    for (table, values) in [("t", "(1, now()), (2, now())"), ("u", "(1, now()), (2, now())"), ("w", "(1), (2)")] {
        client.run(&format!("INSERT INTO {table} VALUES {values}; DELETE FROM {table} WHERE id = 2")).await?;
    }
    let gone = "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM v), (SELECT count(*) FROM w)";
    client.wait_for(gone, &[&["0", "0", "0"]]).await?;
    for round in 0..2 {
        if round == 1 {
            client.run("CHECKPOINT").await?;
            server.kill_hard()?;
            server.start_again().await?;
        }
        let client = server.connect().await?;
        if round == 0 {
            client.run("INSERT INTO t VALUES (999, NULL); INSERT INTO u VALUES (999, NULL)").await?;
            client.run("INSERT INTO w VALUES (999)").await?;
        }
        for relation in ["t", "v", "w"] {
            let subscribe =
                |options: &str| format!("SUBSCRIBE {relation} WITH (SNAPSHOT = false{options}) AS OF {start}");
            let all = told(&server.connect().await?, &subscribe(", EXPIRED = true")).await?;
            ensure!(all == [(-1, 1), (-1, 2), (1, 1), (1, 2)], "{relation}: {all:?}");
            let others = told(&server.connect().await?, &subscribe("")).await?;
            ensure!(others == [(-1, 2), (1, 1), (1, 2)], "{relation}: {others:?}");
        }
    }
    Ok(())
}
