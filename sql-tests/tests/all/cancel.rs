//! What a cancel request does, and a client that goes away: to writes, and to queries that take all the CPU they get.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::{Client, Server, wait};
use tokio_postgres::NoTls;

/// The aim is one second; the rest is for machines that are busy with other tests.
const SOON: Duration = Duration::from_secs(5);

/// Ticks of `/proc/PID/stat` in a second, on every Linux that runs these tests.
const TICKS_A_SECOND: u64 = 100;

/// Queries that compute for minutes, and give nothing meanwhile.
const ENDLESS: [&str; 6] = [
    // A nested loop that finds rows, and one that finds none.
    "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 30000) b WHERE (a.value * b.value) % 7 = 3",
    "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 30000) b WHERE (a.value * b.value) % 7 = 9",
    // All pairs.
    "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b",
    // A hash join with few keys, none of whose pairs is wanted.
    "SELECT count(*) FROM generate_series(1, 3000000) a JOIN generate_series(1, 3000000) b
     ON a.value % 3 = b.value % 3 AND a.value * b.value < 0",
    // Large states over many rows.
    "SELECT count(*) FROM (SELECT a.value % 1000003 FROM generate_series(1, 1000000000) a GROUP BY 1) x",
    "SELECT sum(x) FROM (SELECT row_number() OVER (ORDER BY a.value % 1000) AS x FROM generate_series(1, 50000000) a) y",
];

/// A write either is cancelled and leaves nothing, or takes effect and is told as done: a session's next statement never
/// meets a write that is still on its way.
#[tokio::test]
async fn a_write_is_cancelled_or_done_and_nothing_between() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    let canceller = client.cancel_token();
    let mut done = Vec::new();
    for id in 0..150 {
        let cancel = async {
            // At one moment of the write after the other.
            for _ in 0..id % 15 * 50 {
                tokio::task::yield_now().await;
            }
            canceller.cancel_query(NoTls).await
        };
        let insert = format!("INSERT INTO t VALUES ({id})");
        let (inserted, cancelled) = tokio::join!(client.simple_query(&insert), cancel);
        cancelled?;
        match inserted {
            Ok(_) => done.push(id.to_string()),
            Err(error) => assert_eq!(error.code().map(|state| state.code()), Some("57014"), "{error}"),
        }
        let found = uncancelled(&client, "SELECT id FROM t ORDER BY id").await?;
        assert_eq!(found.concat(), done, "after {insert}");
    }
    // And nothing came later.
    assert_eq!(server.connect().await?.rows("SELECT id FROM t ORDER BY id").await?.concat(), done);
    Ok(())
}

/// The rows of a query; a cancel request that was meant for the statement before may still hit it.
async fn uncancelled(client: &Client, sql: &str) -> Result<Vec<Vec<String>>> {
    wait::until(sql, async || match client.rows(sql).await {
        Err(error) if error.to_string().starts_with("57014") => Ok(None),
        outcome => outcome.map(Some),
    })
    .await
}

#[tokio::test]
async fn a_cancelled_query_stops_computing() -> Result<()> {
    let server = Server::start(2).await?;
    for sql in ENDLESS {
        let client = server.connect().await?;
        let query = client.simple_query(sql);
        let cancel = async {
            busy(&server).await?;
            client.cancel_token().cancel_query(NoTls).await?;
            anyhow::Ok(Instant::now())
        };
        let (outcome, cancelled) = tokio::join!(query, cancel);
        let error = outcome.err().with_context(|| format!("cancelled, but: {sql}"))?;
        assert_eq!(error.code().map(|state| state.code()), Some("57014"), "{error} in {sql}");
        idle_since(&server, cancelled?).await.with_context(|| format!("cancelled: {sql}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_query_of_a_client_that_went_away_stops_computing() -> Result<()> {
    let server = Server::start(2).await?;
    for sql in ENDLESS {
        let client = server.connect().await?;
        tokio::select! {
            outcome = client.simple_query(sql) => { outcome.with_context(|| format!("ended by itself: {sql}"))?; }
            outcome = busy(&server) => outcome?,
        }
        drop(client);
        idle_since(&server, Instant::now()).await.with_context(|| format!("left alone: {sql}"))?;
    }
    Ok(())
}

/// Others neither wait for a query that takes all the CPU that it can get, nor for one that has been left alone.
#[tokio::test]
async fn heavy_queries_do_not_keep_others_waiting() -> Result<()> {
    let server = Server::start(2).await?;
    let other = server.connect().await?;
    for (number, sql) in ENDLESS.iter().enumerate() {
        let client = server.connect().await?;
        let work = async {
            busy(&server).await?;
            promptly(&other, number, "running").await
        };
        tokio::select! {
            outcome = client.simple_query(sql) => { outcome.with_context(|| format!("ended by itself: {sql}"))?; }
            outcome = work => outcome.with_context(|| format!("beside {sql}"))?,
        }
        drop(client);
        promptly(&other, number, "left").await.with_context(|| format!("after {sql}"))?;
        idle_since(&server, Instant::now()).await?;
    }
    Ok(())
}

async fn promptly(client: &Client, number: usize, when: &str) -> Result<()> {
    let table = format!("t_{when}_{number}");
    let statements = [
        format!("CREATE TABLE {table} (id INT PRIMARY KEY)"),
        format!("INSERT INTO {table} VALUES (1), (2)"),
        format!("CREATE MATERIALIZED VIEW v_{table} AS SELECT count(*) AS n FROM {table}"),
        format!("SELECT n FROM v_{table}"),
    ];
    for sql in statements {
        let started = Instant::now();
        client.run(&sql).await?;
        ensure!(started.elapsed() < SOON, "{sql} took {:?}", started.elapsed());
    }
    Ok(())
}

/// Waits until the server computes with all its might.
async fn busy(server: &Server) -> Result<()> {
    let mut load = Load::of(server)?;
    wait::until("the query to compute", async || Ok((load.now()? > 0.5).then_some(()))).await
}

/// Waits until the server computes nothing any more, which must be soon after `moment`.
async fn idle_since(server: &Server, moment: Instant) -> Result<()> {
    let mut load = Load::of(server)?;
    wait::until("the server to be idle", async || Ok((load.now()? < 0.2).then_some(()))).await?;
    ensure!(moment.elapsed() < SOON, "the server went on for {:?}", moment.elapsed());
    Ok(())
}

/// How many CPUs a server takes.
struct Load {
    process_id: u32,
    since: Instant,
    ticks: u64,
    last: f64,
}

impl Load {
    fn of(server: &Server) -> Result<Self> {
        let process_id = server.process_id();
        Ok(Self { process_id, since: Instant::now(), ticks: ticks(process_id)?, last: f64::NAN })
    }

    /// The mean of the last half second; not a number before.
    fn now(&mut self) -> Result<f64> {
        let elapsed = self.since.elapsed();
        if elapsed >= Duration::from_millis(500) {
            let ticks = ticks(self.process_id)?;
            self.last = (ticks - self.ticks) as f64 / TICKS_A_SECOND as f64 / elapsed.as_secs_f64();
            (self.since, self.ticks) = (Instant::now(), ticks);
        }
        Ok(self.last)
    }
}

/// The CPU time that a process has taken.
fn ticks(process_id: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat"))?;
    // The second field is a name in parentheses, which may hold anything; utime and stime are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
    let times: Vec<&str> = fields.split_whitespace().skip(11).take(2).collect();
    Ok(times.iter().map(|time| time.parse::<u64>()).sum::<Result<u64, _>>()?)
}
