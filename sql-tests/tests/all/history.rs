//! Time travel: every version of a relation, its changes from any instant on, and both after crashes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::client::text_rows;
use freshet_sql_tests::{Client, Server};
use futures::StreamExt;

/// What a relation holds, as text and sorted.
type Rows = Vec<String>;

const BOUND: Duration = Duration::from_secs(20);

async fn rows(client: &Client, query: &str) -> Result<Rows> {
    let mut rows: Rows = client.rows(query).await?.into_iter().map(|row| row.join(" ")).collect();
    rows.sort();
    Ok(rows)
}

async fn as_of(client: &Client, relation: &str, epoch: u64) -> Result<Rows> {
    rows(client, &format!("SELECT * FROM {relation} FOR SYSTEM_TIME AS OF {epoch}")).await
}

/// A table and a view over it, and what they held at many epochs.
struct Versions {
    table: BTreeMap<u64, Rows>,
    view: BTreeMap<u64, Rows>,
}

impl Versions {
    async fn make(client: &Client) -> Result<Self> {
        client
            .run(
                "CREATE TABLE t (id INT PRIMARY KEY, g TEXT);
                 CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, max(id) AS m FROM t GROUP BY g",
            )
            .await?;
        let mut versions = Self { table: BTreeMap::new(), view: BTreeMap::new() };
        versions.go_on(client, 0..30).await?;
        Ok(versions)
    }

    /// Changes the table a few times, and notes each version.
    async fn go_on(&mut self, client: &Client, rounds: std::ops::Range<usize>) -> Result<()> {
        for round in rounds {
            let id = 10 * round;
            let change = match round % 4 {
                0 => {
                    format!("INSERT INTO t SELECT n::INT, 'g' || n % 3 FROM generate_series({id}, {}) AS s(n)", id + 9)
                }
                1 => format!("UPDATE t SET g = 'round {round}' WHERE id % 5 = {}", round % 5),
                2 => format!("DELETE FROM t WHERE id % 7 = {}", round % 7),
                _ => format!("INSERT INTO t VALUES ({id}, NULL)"),
            };
            client.run(&change).await?;
            let epoch = client.value("SELECT current_epoch()").await?.parse()?;
            self.table.insert(epoch, rows(client, "SELECT * FROM t").await?);
            self.view.insert(epoch, rows(client, "SELECT * FROM v").await?);
        }
        Ok(())
    }

    async fn check(&self, client: &Client) -> Result<()> {
        for (relation, versions) in [("t", &self.table), ("v", &self.view)] {
            for (epoch, expected) in versions {
                let found = as_of(client, relation, *epoch).await?;
                ensure!(found == *expected, "{relation} at {epoch}: {found:?} instead of {expected:?}");
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn every_version_is_readable_also_after_crashes_and_on_other_numbers_of_workers() -> Result<()> {
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    let mut versions = Versions::make(&client).await?;
    versions.check(&client).await?;
    for (turn, workers) in [2, 3, 1].into_iter().enumerate() {
        server.connect().await?.run("CHECKPOINT").await?;
        server.kill_hard()?;
        server.set_workers(workers);
        server.start_again().await?;
        let client = server.connect().await?;
        versions.check(&client).await.with_context(|| format!("on {workers} workers"))?;
        versions.go_on(&client, 30 + 8 * turn..38 + 8 * turn).await?;
        versions.check(&client).await?;
    }
    server.restart().await?;
    versions.check(&server.connect().await?).await
}

/// The changes after an epoch, up to the one that says that it is the last; by epoch.
async fn changes(client: &Client, subscribe: &str) -> Result<BTreeMap<u64, BTreeMap<String, i64>>> {
    let mut messages = Box::pin(client.simple_query_raw(subscribe).await?);
    let mut changes = BTreeMap::<u64, BTreeMap<String, i64>>::new();
    loop {
        let message = tokio::time::timeout(BOUND, messages.next()).await.context("no change came")?;
        let message = message.context("the subscription ended")??;
        let [row] = &text_rows(&[message])[..] else { continue };
        let (epoch, diff, rest) = (row[0].parse()?, row[1].parse::<i64>()?, row[2..].join(" "));
        if rest == "the end 1 -1" {
            return Ok(changes);
        }
        *changes.entry(epoch).or_default().entry(rest).or_default() += diff;
    }
}

/// What each version should be, if a subscription that begins at `start` tells the truth.
fn add_up(start: &Rows, changes: &BTreeMap<u64, BTreeMap<String, i64>>, until: u64) -> Rows {
    let mut sums = BTreeMap::<&str, i64>::new();
    start.iter().for_each(|row| *sums.entry(row).or_default() += 1);
    for (row, diff) in changes.range(..=until).flat_map(|(_, rows)| rows) {
        *sums.entry(row).or_default() += diff;
    }
    sums.into_iter()
        .filter(|(_, n)| *n != 0)
        .map(|(row, n)| format!("{row}{}", " again".repeat(n as usize - 1)))
        .collect()
}

#[tokio::test]
async fn a_subscription_from_the_past_gives_each_later_change_once() -> Result<()> {
    let mut server = Server::start(2).await?;
    let versions = Versions::make(&server.connect().await?).await?;
    server.restart().await?;
    let client = server.connect().await?;
    client.run("INSERT INTO t VALUES (-1, 'the end')").await?;
    for (start, held) in versions.view.iter().step_by(7) {
        let told =
            changes(&server.connect().await?, &format!("SUBSCRIBE v WITH (SNAPSHOT = false) AS OF {start}")).await?;
        ensure!(told.keys().all(|epoch| epoch > start), "only later changes");
        let with_rows = changes(&server.connect().await?, &format!("SUBSCRIBE v AS OF {start}")).await?;
        let snapshot = with_rows.get(start).cloned().unwrap_or_default();
        ensure!(snapshot.keys().eq(held.iter()) && snapshot.values().all(|n| *n == 1), "{snapshot:?}, not {held:?}");
        ensure!(with_rows.range(start + 1..).eq(told.iter()), "the changes do not depend on the snapshot");
        for (epoch, expected) in versions.view.range(start..) {
            ensure!(add_up(held, &told, *epoch) == *expected, "from {start} to {epoch}");
        }
    }
    Ok(())
}
