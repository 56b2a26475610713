//! Reading changes: SUBSCRIBE, COPY (SUBSCRIBE …) TO STDOUT, and cursors.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use freshet_sql_tests::client::text_rows;
use freshet_sql_tests::{Client, Server, psql};
use futures::{Stream, StreamExt};
use tokio_postgres::SimpleQueryMessage;

const BOUND: Duration = Duration::from_secs(20);

async fn server_with_counts(workers: usize) -> Result<(Server, Client)> {
    let server = Server::start(workers).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, g TEXT);
             CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g;
             INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'b')",
        )
        .await?;
    Ok((server, client))
}

/// The next row of a subscription, as (epoch, diff, rest).
async fn next_change(
    changes: &mut (impl Stream<Item = Result<SimpleQueryMessage, tokio_postgres::Error>> + Unpin),
) -> Result<(u64, i64, String)> {
    loop {
        let message = tokio::time::timeout(BOUND, changes.next()).await.context("no change came")?;
        let message = message.context("the subscription ended")??;
        if let [row] = text_rows(&[message]).as_slice() {
            return Ok((row[0].parse()?, row[1].parse()?, row[2..].join(" ")));
        }
    }
}

#[tokio::test]
async fn a_subscription_starts_with_the_rows_and_goes_on_with_the_changes() -> Result<()> {
    let (server, client) = server_with_counts(2).await?;
    let reader = server.connect().await?;
    let changes = reader.simple_query_raw("SUBSCRIBE v WITH (SNAPSHOT = true)").await?;
    let mut changes = Box::pin(changes);
    let mut rows = [next_change(&mut changes).await?, next_change(&mut changes).await?];
    rows.sort_by(|a, b| a.2.cmp(&b.2));
    let start = rows[0].0;
    assert_eq!(rows, [(start, 1, "a 2".to_owned()), (start, 1, "b 1".to_owned())]);

    client.run("INSERT INTO t VALUES (4, 'b')").await?;
    let mut rows = [next_change(&mut changes).await?, next_change(&mut changes).await?];
    rows.sort_by_key(|row| row.1);
    let epoch = rows[0].0;
    assert!(epoch > start);
    assert_eq!(rows, [(epoch, -1, "b 1".to_owned()), (epoch, 1, "b 2".to_owned())]);
    Ok(())
}

#[tokio::test]
async fn without_a_snapshot_only_changes_come() -> Result<()> {
    let (server, client) = server_with_counts(1).await?;
    let reader = server.connect().await?;
    let changes = reader.simple_query_raw("SUBSCRIBE v WITH (SNAPSHOT = false)").await?;
    let mut changes = Box::pin(changes);
    // The first change may be made before the subscription stands, so changes are made until one arrives.
    let maker = async {
        for id in 100.. {
            client.run(&format!("INSERT INTO t VALUES ({id}, 'new {id}')")).await?;
        }
        anyhow::Ok(())
    };
    let change = tokio::select! {
        change = next_change(&mut changes) => change?,
        outcome = maker => return outcome,
    };
    assert!(change.1 == 1 && change.2.starts_with("new "), "{change:?}");
    Ok(())
}

/// Snapshot plus changes up to any moment must be the view at that moment.
#[tokio::test]
async fn changes_add_up_to_the_view() -> Result<()> {
    let (server, client) = server_with_counts(2).await?;
    let reader = server.connect().await?;
    let changes = reader.simple_query_raw("SUBSCRIBE v WITH (SNAPSHOT = true)").await?;
    let mut changes = Box::pin(changes);
    for round in 0..50 {
        let id = 1000 + round;
        client.run(&format!("INSERT INTO t VALUES ({id}, '{}')", round % 7)).await?;
        client.run(&format!("UPDATE t SET g = '{}' WHERE id % 3 = {}", round % 5, round % 3)).await?;
    }
    client.run("INSERT INTO t VALUES (9999, 'the end')").await?;
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    let (mut last_epoch, mut end_seen) = (0, None);
    loop {
        let (epoch, diff, row) = next_change(&mut changes).await?;
        assert!(epoch >= last_epoch, "epochs do not go back");
        last_epoch = epoch;
        if row == "the end 1" {
            end_seen = Some(epoch);
        }
        *sums.entry(row).or_default() += diff;
        sums.retain(|_, n| *n != 0);
        let view: BTreeMap<String, i64> =
            client.rows("SELECT * FROM v").await?.into_iter().map(|row| (row.join(" "), 1)).collect();
        if end_seen.is_some() && sums == view {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn psql_copies_a_subscription_to_its_standard_output() -> Result<()> {
    let (server, _client) = server_with_counts(1).await?;
    let address = server.postgres();
    let output = tokio::task::spawn_blocking(move || {
        psql::command(address, Duration::from_secs(3), &["COPY (SUBSCRIBE v WITH (SNAPSHOT = true)) TO STDOUT"])
            .output()
    })
    .await??;
    let text = String::from_utf8(output.stdout)?;
    let mut rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').skip(1).collect()).collect();
    rows.sort_unstable();
    assert_eq!(rows, [["1", "a", "2"], ["1", "b", "1"]]);
    Ok(())
}

#[tokio::test]
async fn a_cursor_over_a_subscription_is_fetched_from() -> Result<()> {
    let (server, client) = server_with_counts(1).await?;
    let reader = server.connect().await?;
    reader.run("BEGIN; DECLARE c CURSOR FOR SUBSCRIBE v WITH (SNAPSHOT = true)").await?;
    let rows = reader.rows("FETCH 10 FROM c WITH (timeout = '10s')").await?;
    assert_eq!(rows.len(), 2);
    // Nothing new: the timeout passes, and there are no rows.
    assert_eq!(reader.rows("FETCH 10 FROM c WITH (timeout = '50ms')").await?.len(), 0);
    client.run("DELETE FROM t WHERE id = 3").await?;
    let rows = reader.rows("FETCH ALL FROM c WITH (timeout = '10s')").await?;
    assert_eq!(rows.iter().map(|row| row[1..].join(" ")).collect::<Vec<_>>(), ["-1 b 1"]);
    reader.run("CLOSE c; COMMIT").await?;
    let error = reader.error("FETCH 1 FROM c").await?;
    assert!(error.starts_with("34000"), "{error}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_subscribed_to() -> Result<()> {
    let (server, client) = server_with_counts(1).await?;
    for (sql, state) in [
        ("SUBSCRIBE nowhere", "42P01"),
        ("SUBSCRIBE v WITH (SNAPSHT = true)", "22023"),
        ("DECLARE c CURSOR FOR SUBSCRIBE nowhere", "42P01"),
    ] {
        let error = client.error(sql).await?;
        assert!(error.starts_with(state), "{sql}: {error}");
    }
    drop(server);
    Ok(())
}

#[tokio::test]
async fn a_dropped_view_ends_its_subscriptions() -> Result<()> {
    let (server, client) = server_with_counts(1).await?;
    let reader = server.connect().await?;
    let changes = reader.simple_query_raw("SUBSCRIBE v WITH (SNAPSHOT = true)").await?;
    let mut changes = Box::pin(changes);
    next_change(&mut changes).await?;
    next_change(&mut changes).await?;
    client.run("DROP MATERIALIZED VIEW v").await?;
    let end = next_change(&mut changes).await;
    assert!(end.is_err(), "{end:?}");
    assert_eq!(reader.value("SELECT 1").await?, "1");
    Ok(())
}
