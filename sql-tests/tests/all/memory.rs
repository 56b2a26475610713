//! Little memory: queries that spill or fail, views that pause, and a server that stays up.

use std::path::Path;

use anyhow::{Result, ensure};
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, oracle};

/// A server that may use very little.
async fn small_server() -> Result<Server> {
    let arguments = vec!["--memory".into(), "64MiB".into()];
    Server::start_with(ServerConfig { workers: 2, arguments, ..ServerConfig::default() }).await
}

const ROWS: u64 = 400_000;

/// A relation that is made by the query itself, so that only the query needs memory.
fn numbers(rows: u64) -> String {
    format!(
        "(SELECT value AS a, 'a rather long text, number ' || CAST(value AS TEXT) AS t FROM generate_series(1, {rows}) AS s(value)) AS n"
    )
}

fn files_in(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn a_sort_and_a_group_by_larger_than_their_share_spill() -> Result<()> {
    let mut server = small_server().await?;
    let client = server.connect().await?;
    let from = numbers(ROWS);
    // All rows pass through the sort: the limit cannot be pushed below the row numbers.
    let sorted =
        format!("SELECT sum(a * (p % 7)) FROM (SELECT a, t, row_number() OVER (ORDER BY t) AS p FROM {from}) AS o");
    let of_sorted = client.value(&sorted).await?;
    let grouped = format!(
        "SELECT sum(c), max(l) FROM (SELECT t, count(*) AS c, max(length(t)) AS l FROM {from} GROUP BY t) AS g"
    );
    let of_grouped = client.rows(&grouped).await?;
    ensure!(of_grouped == [[ROWS.to_string(), "33".to_owned()]], "{of_grouped:?}");

    let mut texts: Vec<(String, u64)> = (1..=ROWS).map(|a| (a.to_string(), a)).collect();
    texts.sort_unstable();
    let expected: u64 = (1..).zip(&texts).map(|(p, (_, a)): (u64, _)| a * (p % 7)).sum();
    ensure!(of_sorted == expected.to_string(), "{of_sorted} instead of {expected}");
    ensure!(files_in(&server.data().join("query-spill")) == 0, "files of queries go with them");

    // What a process leaves behind that is killed goes when the next one starts.
    std::fs::write(server.data().join("query-spill/left-behind"), b"rows")?;
    server.kill_hard()?;
    server.start_again().await?;
    ensure!(files_in(&server.data().join("query-spill")) == 0, "what was left behind is deleted");
    Ok(())
}

#[tokio::test]
async fn a_join_larger_than_its_share_is_an_error_and_the_server_stays_up() -> Result<()> {
    let server = small_server().await?;
    let client = server.connect().await?;
    let (left, right) = (numbers(ROWS), numbers(ROWS).replace("AS n", "AS m"));
    let error = client.error(&format!("SELECT count(*) FROM {left} JOIN {right} ON n.t = m.t")).await?;
    ensure!(error.starts_with("53200"), "{error}");
    ensure!(client.value("SELECT count(*) FROM (VALUES (1), (2)) AS v(a)").await? == "2");
    Ok(())
}

async fn tables(client: &Client) -> Result<()> {
    client
        .run("CREATE TABLE l (id BIGINT PRIMARY KEY, k BIGINT); CREATE TABLE r (id BIGINT PRIMARY KEY, k BIGINT)")
        .await
}

fn insert(table: &str, first: u64, last: u64) -> String {
    format!("INSERT INTO {table} SELECT value, value FROM generate_series({first}, {last}) AS s(value)")
}

#[tokio::test]
async fn a_view_at_its_limit_pauses_alone() -> Result<()> {
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    tables(&client).await?;
    client
        .run("CREATE MATERIALIZED VIEW paused WITH (memory = '256KiB', on_limit = 'pause') AS SELECT l.id FROM l JOIN r ON l.k = r.k")
        .await?;
    client.run("CREATE MATERIALIZED VIEW reader AS SELECT count(*) AS n FROM paused").await?;
    client.run("CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM l").await?;
    client.run(&insert("l", 1, 10)).await?;
    client.run(&insert("r", 1, 10)).await?;
    ensure!(client.value("SELECT n FROM reader").await? == "10");
    client.run(&insert("l", 11, 20_000)).await?;
    let states = "SELECT name, state FROM freshet_catalog.view_status ORDER BY name";
    client.wait_for(states, &[&["other", "live"], &["paused", "paused"], &["reader", "paused"]]).await?;
    ensure!(client.value("SELECT n FROM other").await? == "20000", "others go on");
    ensure!(client.value("SELECT count(*) FROM paused").await? == "10", "what it held is there");
    let told = client.rows("SELECT error, hint FROM freshet_catalog.view_status WHERE name = 'paused'").await?;
    let told = format!("{told:?}");
    ensure!(told.contains("its limit is 262144") && told.contains("on_limit = 'spill'"), "{told}");
    let error = client.error("SELECT * FROM paused p JOIN l ON p.id = l.id").await?;
    ensure!(error.starts_with("55000") && error.contains("is paused"), "{error}");
    let freed = "SELECT count(*) FROM freshet_catalog.view_memory WHERE view = 'paused' AND operator = 'Join'";
    client.wait_for(freed, &[&["0"]]).await?;
    let error = client.error("ALTER MATERIALIZED VIEW paused RESTART").await?;
    ensure!(error.starts_with("55000") && error.contains("was restarted, but could not be computed"), "{error}");
    client.run("DELETE FROM l WHERE id > 20").await?;
    ensure!(client.error("ALTER MATERIALIZED VIEW reader RESTART").await?.contains("\"paused\": it is paused"));
    client.run("ALTER MATERIALIZED VIEW paused RESTART").await?;
    client.wait_for(states, &[&["other", "live"], &["paused", "live"], &["reader", "live"]]).await?;
    client.run(&insert("r", 11, 15)).await?;
    ensure!(client.value("SELECT n FROM reader").await? == "15");
    oracle::check(&client).await?;
    client.run("DELETE FROM r WHERE id > 10").await?;
    client.run(&insert("l", 21, 20_000)).await?;
    client.run("DROP MATERIALIZED VIEW paused CASCADE").await?;
    client
        .run("CREATE MATERIALIZED VIEW paused WITH (memory = '256KiB', on_limit = 'spill') AS SELECT l.id FROM l JOIN r ON l.k = r.k")
        .await?;
    client.run(&insert("r", 11, 15_000)).await?;
    ensure!(client.value("SELECT count(*) FROM paused").await? == "15000");
    let on_disk = "SELECT sum(disk_bytes) > 0 FROM freshet_catalog.view_memory WHERE view = 'paused'";
    client.wait_for(on_disk, &[&["t"]]).await?;
    server.restart().await?;
    let client = server.connect().await?;
    client.wait_for(on_disk, &[&["t"]]).await?;
    client.run("DELETE FROM r WHERE id <= 1000").await?;
    oracle::check(&client).await
}

#[tokio::test]
async fn groups_and_distinct_rows_go_to_the_disk_and_come_back() -> Result<()> {
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    tables(&client).await?;
    client
        .run("CREATE MATERIALIZED VIEW groups WITH (memory = '256KiB') AS SELECT k, count(*) AS n, min(id) AS first, count(DISTINCT id % 3) AS d FROM l GROUP BY k")
        .await?;
    client.run("CREATE MATERIALIZED VIEW keys WITH (memory = '256KiB') AS SELECT DISTINCT k FROM l").await?;
    client.run(&insert("l", 1, 20_000)).await?;
    let on_disk = "SELECT view FROM freshet_catalog.view_memory WHERE disk_bytes > 0 GROUP BY view ORDER BY view";
    client.wait_for(on_disk, &[&["groups"], &["keys"]]).await?;
    server.restart().await?;
    let client = server.connect().await?;
    client.wait_for(on_disk, &[&["groups"], &["keys"]]).await?;
    let held = "SELECT max(memory_bytes) < 1000000 FROM freshet_catalog.view_memory WHERE operator <> 'Rows'";
    ensure!(client.value(held).await? == "t", "what is on the disk is not in memory");
    client.run("DELETE FROM l WHERE id % 3 = 0").await?;
    client.run("INSERT INTO l SELECT id + 50000, k + 1 FROM l WHERE id % 3 = 1").await?;
    ensure!(client.value("SELECT sum(n) FROM groups").await? == "20001");
    oracle::check(&client).await
}
