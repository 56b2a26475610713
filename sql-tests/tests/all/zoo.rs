//! Random changes under a zoo of views, judged by the oracle.
//!
//! The seed is printed with a failure; `FRESHET_SEED=n` replays it. A bug found here becomes an `.slt` file.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freshet_sql_tests::{Client, Server, oracle};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// How long changes are made, each worker count for itself.
const DURATION: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE a (id INT PRIMARY KEY, k INT, g TEXT, x BIGINT, d DOUBLE PRECISION, m NUMERIC(12,2), ok BOOLEAN, at TIMESTAMP);
    CREATE TABLE b (k INT, g TEXT, y INT)";

const VIEWS: &[&str] = &[
    "CREATE MATERIALIZED VIEW filtered AS SELECT id, x * 2 AS x, upper(g) AS g FROM a WHERE ok OR x > 3",
    "CREATE MATERIALIZED VIEW united AS SELECT k, g FROM a UNION ALL SELECT k, g FROM b",
    "CREATE MATERIALIZED VIEW different AS SELECT DISTINCT k, g FROM united",
    "CREATE MATERIALIZED VIEW groups AS SELECT g, count(*) AS n, count(x) AS nx, count(DISTINCT x) AS dx, sum(x) AS sx, sum(d) AS sd, sum(m) AS sm, avg(x) AS ax, avg(m) AS am, min(x) AS x0, max(x) AS x1, min(d) AS d0, max(g) AS g1, max(at) AS at1, bool_and(ok) AS all_ok, bool_or(ok) AS any_ok, count(*) FILTER (WHERE ok) AS n_ok, stddev_pop(d) AS sd_pop FROM a GROUP BY g",
    "CREATE MATERIALIZED VIEW overall AS SELECT count(*) AS n, sum(x) AS x, min(m) AS m0, max(m) AS m1 FROM a",
    "CREATE MATERIALIZED VIEW joined AS SELECT a.id, a.g, b.y FROM a JOIN b ON a.k = b.k",
    "CREATE MATERIALIZED VIEW matched AS SELECT a.id, b.y FROM a JOIN b ON a.k = b.k AND a.g = b.g AND a.x < b.y",
    "CREATE MATERIALIZED VIEW left_joined AS SELECT a.id, a.k, b.g, b.y FROM a LEFT JOIN b ON a.k = b.k",
    "CREATE MATERIALIZED VIEW fully_joined AS SELECT a.id, b.g, b.y FROM a FULL JOIN b ON a.k = b.k AND a.x < b.y",
    "CREATE MATERIALIZED VIEW found AS SELECT id, g FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.y > 1)",
    "CREATE MATERIALIZED VIEW not_found AS SELECT id, g FROM a WHERE g NOT IN (SELECT g FROM b WHERE y > 0)",
    "CREATE MATERIALIZED VIEW marked AS SELECT id FROM a WHERE ok OR EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
    "CREATE MATERIALIZED VIEW subtracted AS SELECT k, g FROM a EXCEPT SELECT k, g FROM b",
    "CREATE MATERIALIZED VIEW compared AS SELECT id, x - (SELECT min(x) FROM a) AS above, (SELECT count(*) FROM b WHERE b.g = a.g) AS n FROM a",
    "CREATE MATERIALIZED VIEW itself AS SELECT l.id AS l, r.id AS r FROM a l JOIN a r ON l.k = r.k AND l.id < r.id",
    "CREATE MATERIALIZED VIEW chain AS SELECT a.g, count(*) AS n, sum(b.y) AS y FROM a JOIN b ON a.k = b.k JOIN b c ON b.y = c.y GROUP BY a.g",
    "CREATE MATERIALIZED VIEW above AS SELECT n, count(*) AS groups FROM chain GROUP BY n",
    "CREATE MATERIALIZED VIEW windows AS SELECT window_start, g, count(*) AS n FROM TUMBLE(a, at, INTERVAL '10 minutes') GROUP BY window_start, g",
    "CREATE MATERIALIZED VIEW extremes AS SELECT groups.g, joined.id FROM groups JOIN joined ON groups.n = joined.y",
];

#[tokio::test]
async fn random_changes_on_one_worker() -> Result<()> {
    run(1).await
}

#[tokio::test]
async fn random_changes_on_three_workers() -> Result<()> {
    run(3).await
}

async fn run(workers: usize) -> Result<()> {
    let seed = match std::env::var("FRESHET_SEED") {
        Ok(seed) => seed.parse().context("FRESHET_SEED is a number")?,
        Err(_) => rand::random(),
    };
    let mut history = Vec::new();
    let outcome = make_changes(workers, seed, &mut history).await;
    let last = history[history.len().saturating_sub(5)..].join(";\n");
    outcome.with_context(|| format!("seed {seed}, after {} statements, the last of which:\n{last}", history.len()))
}

async fn make_changes(workers: usize, seed: u64, history: &mut Vec<String>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start(workers).await?;
    let client = server.connect().await?;
    client.run(TABLES).await?;
    let mut missing: Vec<&str> = VIEWS.to_vec();
    let end = Instant::now() + DURATION;
    while Instant::now() < end {
        // Views come one by one, so that some are filled from rows that are there and others from changes.
        if !missing.is_empty() && random.random_bool(0.3) {
            let sql = missing.remove(0);
            history.push(sql.to_owned());
            client.run(sql).await?;
        }
        let sql = statement(&mut random);
        history.push(sql.clone());
        run_unless_duplicate(&client, &sql).await?;
        oracle::check(&client).await?;
    }
    Ok(())
}

/// A key that is taken is an error that random keys cannot avoid.
async fn run_unless_duplicate(client: &Client, sql: &str) -> Result<()> {
    match client.simple_query(sql).await {
        Ok(_) => Ok(()),
        Err(error) if error.code().is_some_and(|state| state.code() == "23505") => Ok(()),
        Err(error) => Err(error).context(sql.to_owned()),
    }
}

fn statement(random: &mut StdRng) -> String {
    match random.random_range(0..12) {
        0..=3 => {
            let rows: Vec<String> = (0..random.random_range(1..8)).map(|_| row_of_a(random)).collect();
            format!("INSERT INTO a VALUES {}", rows.join(", "))
        }
        4..=5 => {
            let rows: Vec<String> = (0..random.random_range(1..6))
                .map(|_| format!("({}, {}, {})", number(random, 6), text(random), number(random, 6)))
                .collect();
            format!("INSERT INTO b VALUES {}", rows.join(", "))
        }
        6 => format!("UPDATE a SET k = {}, x = x + 1 WHERE g = {}", number(random, 6), text(random)),
        7 => format!("UPDATE a SET g = {}, ok = NOT ok WHERE k = {}", text(random), number(random, 6)),
        8 => format!("UPDATE b SET y = {} WHERE k = {}", number(random, 6), number(random, 6)),
        9 => format!("DELETE FROM a WHERE id % 5 = {}", random.random_range(0..5)),
        10 => format!("DELETE FROM b WHERE y = {}", number(random, 6)),
        _ => format!(
            "UPDATE a SET d = d + 0.5, m = m - 1, at = at + INTERVAL '7 minutes' WHERE id % 3 = {}",
            random.random_range(0..3)
        ),
    }
}

fn row_of_a(random: &mut StdRng) -> String {
    let doubles = ["0", "'-0'", "0.1", "-2.5", "40.5", "1e10", "'NaN'", "NULL"];
    let booleans = ["true", "false", "NULL"];
    let double = doubles.choose(random).copied().unwrap_or("0");
    let boolean = booleans.choose(random).copied().unwrap_or("true");
    let minute = random.random_range(0..60);
    format!(
        "({}, {}, {}, {}, {double}, {}.25, {boolean}, '2024-01-01 10:{minute:02}:00')",
        random.random_range(0..60),
        number(random, 6),
        text(random),
        number(random, 5),
        random.random_range(-9..10),
    )
}

fn number(random: &mut StdRng, below: i32) -> String {
    if random.random_bool(0.1) { "NULL".to_owned() } else { random.random_range(0..below).to_string() }
}

fn text(random: &mut StdRng) -> &'static str {
    ["'red'", "'green'", "'blue'", "''", "NULL"].choose(random).copied().unwrap_or("NULL")
}
