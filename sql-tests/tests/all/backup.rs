//! Backups of a server at work, on the command line, and servers that start from them.

use std::cell::Cell;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::s3::{self, S3};
use freshet_sql_tests::server::{ServerConfig, binary};
use freshet_sql_tests::{Client, Server, oracle};

const OBJECTS: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, other INT);
    CREATE TABLE u (id INT PRIMARY KEY, other INT);
    CREATE MATERIALIZED VIEW sums AS SELECT id % 7 AS g, count(*) AS n, sum(other) AS s FROM t GROUP BY id % 7;
    CREATE MATERIALIZED VIEW joined AS SELECT t.id, u.other FROM t JOIN u ON t.id = u.id";

/// Runs `freshet` with arguments, without blocking the test.
async fn freshet(arguments: &[&str], environment: &[(String, String)]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).env("NO_COLOR", "1");
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Each statement changes both tables' sums alike, one after the other: `u` never has a row that `t` does not.
async fn write(client: &Client, over: &Cell<bool>) -> Result<usize> {
    let mut id = 0;
    while !over.get() {
        client.run(&format!("INSERT INTO t VALUES ({id}, {id})")).await?;
        client.run(&format!("INSERT INTO u VALUES ({id}, {id})")).await?;
        id += 1;
    }
    Ok(id)
}

/// How many rows there are in each table, at one instant.
async fn count(client: &Client) -> Result<(usize, usize)> {
    let rows = client.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)").await?;
    let (t, u): (usize, usize) = (rows[0][0].parse()?, rows[0][1].parse()?);
    ensure!(t == u || t == u + 1, "{t} rows and {u} are not of one instant");
    Ok((t, u))
}

/// What a server has that is not being written.
async fn look(server: &Server) -> Result<(usize, usize)> {
    let client = server.connect().await?;
    oracle::check(&client).await?;
    let (t, u) = count(&client).await?;
    ensure!(client.value("SELECT count(*) FROM t WHERE other <> id").await? == "0");
    ensure!(client.value("SELECT coalesce(max(id), -1) + 1 FROM t").await? == t.to_string(), "there are gaps");
    ensure!(client.value("SELECT count(*) FROM joined").await? == u.to_string());
    Ok((t, u))
}

/// Backs up a server on `location` to two places while it is written, and starts servers from the backups on others.
async fn back_up_and_restore(config: ServerConfig, places: [(String, String); 2]) -> Result<()> {
    let environment = config.environment.clone();
    let mut server = Server::start_with(config.clone()).await?;
    let client = server.connect().await?;
    client.run(OBJECTS).await?;
    let address = server.postgres().to_string();
    let over = Cell::new(false);
    let writer = server.connect().await?;
    let copying = async {
        let mut before = Vec::new();
        for (to, _) in &places {
            before.push(count(&client).await?);
            let made = freshet(&["backup", "--to", to, "--server", &address], &environment).await?;
            ensure!(made.status.success(), "{}\n{}", said(&made), server.log_tail());
            let told = said(&made);
            ensure!(told.contains("records/00000000.records (") && told.contains(&format!("{to}: ")), "{told}");
        }
        let again = freshet(&["backup", "--to", &places[0].0, "--server", &address], &environment).await?;
        ensure!(!again.status.success() && said(&again).contains("there is something already"), "{}", said(&again));
        Ok(before)
    };
    let copying = async {
        let copied = copying.await;
        over.set(true);
        copied
    };
    let (before, written) = tokio::join!(copying, write(&writer, &over));
    let (before, written) = (before?, written?);
    let now = look(&server).await?;
    ensure!(now == (written, written), "{now:?} of {written}");
    for ((from, data), before) in places.iter().zip(before) {
        let restored = freshet(&["restore", "--from", from, "--data", data], &environment).await?;
        ensure!(restored.status.success(), "{}", said(&restored));
        ensure!(said(&restored).contains(&format!("start the server with --data {data}")), "{}", said(&restored));
        let again = freshet(&["restore", "--from", from, "--data", data], &environment).await?;
        ensure!(!again.status.success() && said(&again).contains("there is something already"), "{}", said(&again));
        let config = ServerConfig { location: Some(data.clone()), workers: 1, ..config.clone() };
        let mut copy = Server::start_with(config).await?;
        let found = look(&copy).await?;
        ensure!(found >= before && found.0 <= written, "{found:?}, not from {before:?} on");
        let client = copy.connect().await?;
        client.run("INSERT INTO t VALUES (1000000, 1); DELETE FROM t WHERE id = 1000000").await?;
        client.run("CHECKPOINT").await?;
        copy.kill_hard()?;
        copy.start_again().await?;
        ensure!(look(&copy).await? == found);
    }
    // The original goes on.
    server.kill_hard()?;
    server.start_again().await?;
    ensure!(look(&server).await? == now);
    Ok(())
}

#[tokio::test]
async fn of_a_folder_to_a_folder_and_a_bucket() -> Result<()> {
    let (s3, folders) = (S3::start()?, tempfile::tempdir()?);
    let folder = |name: &str| folders.path().join(name).display().to_string();
    let config = ServerConfig { workers: 2, environment: s3.environment(), ..ServerConfig::default() };
    let bucket = format!("s3://{}/backups/monday", s3::BUCKET);
    let places = [(folder("backup"), folder("restored")), (bucket, folder("restored from the bucket"))];
    back_up_and_restore(config, places).await
}

#[tokio::test]
async fn of_a_bucket_to_a_folder_and_a_bucket() -> Result<()> {
    let (s3, folders) = (S3::start()?, tempfile::tempdir()?);
    let folder = |name: &str| folders.path().join(name).display().to_string();
    let bucket = |name: &str| format!("s3://{}/{name}", s3::BUCKET);
    let location = Some(bucket("live"));
    let config = ServerConfig { workers: 2, location, environment: s3.environment(), ..ServerConfig::default() };
    let places = [(folder("backup"), folder("restored")), (bucket("backup"), bucket("restored"))];
    back_up_and_restore(config, places).await
}

#[tokio::test]
async fn errors_say_what_is_wrong() -> Result<()> {
    let folders = tempfile::tempdir()?;
    let folder = |name: &str| folders.path().join(name).display().to_string();
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    let error = client.error("BACKUP TO 's4://x/y'").await?;
    ensure!(error.starts_with("22023: ") && error.contains("did you mean \"s3://x/y\"?"), "{error}");
    let files = client.rows(&format!("BACKUP TO '{}'", folder("backup"))).await?;
    ensure!(files.iter().any(|row| row[0] == "records/00000000.records"), "{files:?}");
    let file = files.iter().find(|row| row[0].starts_with("checkpoints/")).context("a file of the checkpoint")?;
    let path = folders.path().join("backup").join(&file[0]);
    let mut bytes = std::fs::read(&path)?;
    bytes[100] ^= 1;
    std::fs::write(&path, bytes)?;
    let restored = freshet(&["restore", "--from", &folder("backup"), "--data", &folder("restored")], &[]).await?;
    let told = format!("the stored record {} is damaged: its checksum does not match", path.display());
    ensure!(!restored.status.success() && said(&restored).contains(&told), "{}", said(&restored));
    let missing = freshet(&["restore", "--from", &folder("nothing"), "--data", &folder("restored")], &[]).await?;
    ensure!(!missing.status.success() && said(&missing).contains("cannot open"), "{}", said(&missing));
    let nobody = freshet(&["backup", "--to", &folder("x"), "--server", "127.0.0.1:1"], &[]).await?;
    ensure!(!nobody.status.success() && said(&nobody).contains("cannot connect to 127.0.0.1:1"), "{}", said(&nobody));
    Ok(())
}
