//! Rows in files: moved because memory is short, lost, and left behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Server, oracle, wait};

/// The Parquet files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn when_memory_is_short_rows_leave_it() -> Result<()> {
    let arguments = vec!["--memory".into(), "64MiB".into()];
    let mut server = Server::start_with(ServerConfig { arguments, workers: 1, ..ServerConfig::default() }).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, g BIGINT, s TEXT);
             CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(length(s)) AS length FROM t GROUP BY g",
        )
        .await?;
    for part in 0..8 {
        let rows = format!("generate_series({}, {}) AS g(n)", part * 50_000 + 1, (part + 1) * 50_000);
        let insert = format!("INSERT INTO t SELECT n, n % 10, 'some text that takes memory: ' || n FROM {rows}");
        // Refused (53200) while memory is shorter than rows can leave it.
        wait::until("room for more rows", async || Ok(client.run(&insert).await.ok())).await?;
    }
    let moved = "SELECT count(*) > 0 FROM freshet_catalog.tiers WHERE relation = 't' AND tier = 'warm'";
    client.wait_for(moved, &[&["t"]]).await?;
    client.run("UPDATE t SET g = 10 WHERE id % 1000 = 0; DELETE FROM t WHERE id % 1000 = 1").await?;
    for _ in 0..2 {
        let client = server.connect().await?;
        ensure!(client.value("SELECT sum(n) FROM v").await? == "399600");
        ensure!(client.value("SELECT n FROM v WHERE g = 10").await? == "400");
        ensure!(client.value("SELECT s FROM t WHERE id = 77777").await? == "some text that takes memory: 77777");
        ensure!(client.rows("SELECT s FROM t WHERE id = 1001").await?.is_empty());
        oracle::check(&client).await?;
        client.run("CHECKPOINT").await?;
        server.kill_hard()?;
        server.start_again().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_told_and_half_written_ones_go() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, s TEXT, ts TIMESTAMP) WITH (hot = '0s', time_column = 'ts');
             CREATE TABLE other (id BIGINT PRIMARY KEY) WITH (hot = '0s');
             INSERT INTO t SELECT n, 'some text ' || n, TIMESTAMP '2020-01-01' FROM generate_series(1, 20000) AS g(n);
             INSERT INTO other VALUES (1), (2);
             ALTER TABLE t MOVE TIERS;
             ALTER TABLE other MOVE TIERS;
             CHECKPOINT",
        )
        .await?;
    server.kill_hard()?;
    let folder = server.data().join("warm/public.t");
    let file = files(&folder).pop().context("a file of the table")?;
    let sound = std::fs::read(&file)?;
    for place in [sound.len() / 3, sound.len() / 2, sound.len() - 20] {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x10;
        std::fs::write(&file, damaged)?;
        let half_written = folder.join("00000000000000000007.parquet#1");
        std::fs::write(&half_written, &sound[..100])?;
        server.start_again().await?;
        ensure!(!half_written.exists(), "nobody will write it to its end");
        let client = server.connect().await?;
        let told = client.error("SELECT max(s), max(ts) FROM t").await?;
        let name = file.file_name().context("its name")?.to_string_lossy().into_owned();
        ensure!(told.contains(&name) && told.contains("are not those that were written"), "{told}");
        ensure!(client.value("SELECT max(id) FROM other").await? == "2");
        server.kill_hard()?;
    }
    std::fs::write(&file, &sound)?;
    server.start_again().await?;
    ensure!(server.connect().await?.value("SELECT count(s) FROM t").await? == "20000");
    Ok(())
}

#[tokio::test]
async fn a_lost_file_costs_what_needs_it() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, ts TIMESTAMP) WITH (hot = '0s', time_column = 'ts');
             CREATE TABLE other (id BIGINT PRIMARY KEY) WITH (hot = '0s');
             INSERT INTO t SELECT n, TIMESTAMP '2020-01-01' FROM generate_series(1, 1000) AS g(n);
             INSERT INTO other VALUES (1), (2);
             ALTER TABLE t MOVE TIERS;
             ALTER TABLE other MOVE TIERS;
             CHECKPOINT",
        )
        .await?;
    server.kill_hard()?;
    let stray = server.data().join("warm/public.t/00000000000000000001.parquet");
    std::fs::write(&stray, "left behind")?;
    let found = files(&server.data().join("warm/public.t"));
    let lost = found.iter().find(|file| **file != stray).context("a file of the table")?;
    std::fs::remove_file(lost)?;
    server.start_again().await?;
    let client = server.connect().await?;
    ensure!(!stray.exists(), "what a process left behind is deleted");
    ensure!(client.value("SELECT count(*) FROM other WHERE id > 1").await? == "1");
    let told = client.error("SELECT max(id) FROM t").await?;
    let name = lost.file_name().context("its name")?.to_string_lossy().into_owned();
    ensure!(told.contains(&name) && told.contains("the file is missing"), "{told}");
    ensure!(client.value("SELECT count(*) FROM t").await? == "1000");
    client.run("INSERT INTO other VALUES (3)").await?;
    Ok(())
}
