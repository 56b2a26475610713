//! A server whose data is in a bucket of a real S3 server: restarts, a second server, and an object store in trouble.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use freshet_sql_tests::client::describe;
use freshet_sql_tests::proxy::{Fault, Proxy};
use freshet_sql_tests::s3::{self, S3};
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, oracle, wait};

/// How long an object store is out of order: longer than a write is tried.
const OUTAGE: Duration = Duration::from_secs(45);
/// By when a write is answered while it is, whether with success or not.
const ANSWER_BOUND: Duration = Duration::from_secs(120);
/// By when a server whose data another one has taken over is gone.
const FENCED_BOUND: Duration = Duration::from_secs(15);

const OBJECTS: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, s TEXT);
    CREATE MATERIALIZED VIEW groups AS SELECT id % 10 AS g, count(*) AS n, max(s) AS s FROM t GROUP BY id % 10;
    CREATE MATERIALIZED VIEW sizes AS SELECT n, count(*) AS groups FROM groups GROUP BY n";

fn config(environment: Vec<(String, String)>, workers: usize) -> ServerConfig {
    ServerConfig {
        workers,
        arguments: vec!["--checkpoint-interval".into(), "300ms".into()],
        location: Some(format!("s3://{}/a/prefix", s3::BUCKET)),
        environment,
        ..ServerConfig::default()
    }
}

async fn insert(client: &Client, ids: std::ops::Range<usize>) -> Result<()> {
    let rows: Vec<String> = ids.map(|id| format!("({id}, 'row {id}')")).collect();
    client.run(&format!("INSERT INTO t VALUES {}", rows.join(", "))).await
}

async fn count(client: &Client) -> Result<usize> {
    Ok(client.value("SELECT count(*) FROM t").await?.parse()?)
}

/// Waits until a server has stopped by itself, not with success.
async fn stopped(server: &mut Server) -> Result<()> {
    let ended = wait::until_within(FENCED_BOUND, "the server to stop", async || server.exit_status()).await;
    ensure!(!ended.with_context(|| server.log_tail())?.success(), "{}", server.log_tail());
    let told = "another server has opened s3://bucket/a/prefix; this one has stopped";
    let told = server.log().iter().any(|line| line.contains("ERROR") && line.contains(told));
    ensure!(told, "{}", server.log_tail());
    Ok(())
}

/// Whoever changes rows in files waits for the bucket; that must not be who brings its answer, even if there is but one thread.
#[tokio::test]
async fn rows_in_the_bucket_are_changed_on_one_thread() -> Result<()> {
    let s3 = S3::start()?;
    let mut environment = s3.environment();
    environment.push(("TOKIO_WORKER_THREADS".to_owned(), "1".to_owned()));
    let mut server = Server::start_with(config(environment, 2)).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, s TEXT) WITH (hot = '0s', warm = '0s', cold = '1 day');
             CREATE MATERIALIZED VIEW v WITH (hot = '0s') AS SELECT id, length(s) AS n FROM t",
        )
        .await?;
    insert(&client, 0..2000).await?;
    client.run("ALTER TABLE t MOVE TIERS; ALTER MATERIALIZED VIEW v MOVE TIERS; CHECKPOINT").await?;
    for round in 0..3 {
        server.kill_hard()?;
        server.start_again().await?;
        let client = server.connect().await?;
        // Twice: the second time, connections are used again that the first has made.
        for id in [100 * round + 7, 100 * round + 8] {
            let update = format!("UPDATE t SET s = 'changed' WHERE id = {id}");
            tokio::time::timeout(Duration::from_secs(10), client.run(&update)).await.context("the update hangs")??;
            client.run(&format!("DELETE FROM t WHERE id = {}", id + 50)).await?;
        }
        oracle::check(&client).await?;
    }
    let client = server.connect().await?;
    ensure!(
        client.value("SELECT count(*) FROM v WHERE n = 7").await?
            == client.value("SELECT count(*) FROM t WHERE length(s) = 7").await?
    );
    ensure!(count(&client).await? == 2000 - 6);
    Ok(())
}

#[tokio::test]
async fn all_is_in_the_bucket_and_comes_back() -> Result<()> {
    let s3 = S3::start()?;
    let mut server = Server::start_with(config(s3.environment(), 2)).await?;
    server.connect().await?.run(OBJECTS).await?;
    let mut rows = 0;
    for (round, workers) in [1, 3, 2, 2].into_iter().enumerate() {
        let client = server.connect().await?;
        insert(&client, rows..rows + 500).await?;
        rows += 500;
        if round % 2 == 1 {
            client.run("CHECKPOINT").await?;
        }
        insert(&client, rows..rows + 7).await?;
        client.run(&format!("DELETE FROM t WHERE id = {rows}")).await?;
        client.run(&format!("INSERT INTO t VALUES ({rows}, 'again')")).await?;
        rows += 7;
        if round == 3 {
            server.stop().await?;
        } else {
            server.kill_hard()?;
        }
        server.set_workers(workers);
        server.start_again().await?;
        let client = server.connect().await?;
        ensure!(count(&client).await? == rows, "round {round}: {}", server.log_tail());
        oracle::check(&client).await?;
    }
    // Nothing but copies is on the local disk.
    let local: Vec<_> = std::fs::read_dir(server.data())?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    ensure!(local.iter().all(|name| name.as_ref().is_ok_and(|name| name == "freshet-cache")), "{local:?}");
    ensure!(s3.objects().join("a/prefix/checkpoints").is_dir() && s3.objects().join("a/prefix/store").is_dir());
    Ok(())
}

#[tokio::test]
async fn a_second_server_ends_the_first_at_work_and_idle() -> Result<()> {
    let s3 = S3::start()?;
    let mut first = Server::start_with(config(s3.environment(), 1)).await?;
    let client = first.connect().await?;
    client.run(OBJECTS).await?;
    insert(&client, 0..10).await?;
    // At work: whatever was acknowledged is there, and nothing is acknowledged afterwards.
    let mut second = None;
    let mut acknowledged = 10;
    let taking_over = async {
        second = Some(Server::start_with(config(s3.environment(), 1)).await?);
        Ok::<_, anyhow::Error>(())
    };
    let writing = async {
        loop {
            let sql = format!("INSERT INTO t VALUES ({acknowledged}, 'x')");
            match client.simple_query(&sql).await {
                Ok(_) => acknowledged += 1,
                Err(error) => return describe(&error),
            }
        }
    };
    let (took_over, refused) = tokio::join!(taking_over, writing);
    took_over?;
    ensure!(refused.starts_with("57P01") || refused.starts_with("no answer"), "{refused}");
    stopped(&mut first).await?;
    let mut second = second.context("the second server has started")?;
    let client = second.connect().await?;
    let found = count(&client).await?;
    ensure!(found == acknowledged || found == acknowledged + 1, "{found} rows, {acknowledged} acknowledged");
    oracle::check(&client).await?;
    // Idle: it only looks now and then.
    client.run("CHECKPOINT").await?;
    let third = Server::start_with(config(s3.environment(), 1)).await?;
    stopped(&mut second).await?;
    ensure!(count(&third.connect().await?).await? == found);
    Ok(())
}

/// Inserts rows one by one, whatever becomes of them, until told to stop; gives how many were acknowledged.
async fn write_through(
    client: &Client,
    first: usize,
    over: &std::cell::Cell<bool>,
) -> Result<(Vec<usize>, Vec<String>)> {
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    let mut id = first;
    while !over.get() {
        let sql = format!("INSERT INTO t VALUES ({id}, 'row {id}')");
        match tokio::time::timeout(ANSWER_BOUND, client.simple_query(&sql)).await {
            Err(_) => bail!("a write was not answered within {ANSWER_BOUND:?}"),
            Ok(Ok(_)) => acknowledged.push(id),
            Ok(Err(error)) => refused.push(describe(&error)),
        }
        id += 1;
    }
    Ok((acknowledged, refused))
}

async fn survives(fault: Fault) -> Result<()> {
    let s3 = S3::start()?;
    let proxy = Proxy::start(s3.address()).await?;
    let mut server = Server::start_with(config(s3::environment(proxy.address()), 2)).await?;
    let clients = [server.connect().await?, server.connect().await?, server.connect().await?];
    clients[0].run(OBJECTS).await?;
    insert(&clients[0], 0..100).await?;
    let source = "CREATE SOURCE clock (n BIGINT) WITH (connector = 'datagen', rows_per_second = 1000);
        CREATE MATERIALIZED VIEW ticks AS SELECT count(*) AS n FROM clock";
    clients[0].run(source).await?;
    let over = std::cell::Cell::new(false);
    let reader = server.connect().await?;
    let watching = async {
        let ticks = async || anyhow::Ok(reader.value("SELECT n FROM ticks").await?.parse::<u64>()?);
        proxy.set(fault);
        let begun = ticks().await?;
        wait::let_pass(OUTAGE).await;
        // Views go on meanwhile, and queries.
        let flowed = ticks().await? - begun;
        ensure!(flowed >= 20_000, "{flowed} rows in {OUTAGE:?}");
        Ok(())
    };
    let trouble = async {
        let watched = watching.await;
        proxy.set(Fault::None);
        over.set(true);
        watched
    };
    let writing = futures::future::try_join_all(
        clients.iter().zip([1_000, 10_000, 20_000]).map(|(client, first)| write_through(client, first, &over)),
    );
    let (passed, written) = tokio::join!(trouble, writing);
    passed.with_context(|| server.log_tail())?;
    let written = written.with_context(|| server.log_tail())?;
    // It goes on by itself.
    let succeed = wait::until("writes to succeed again", async || Ok(insert(&clients[0], 500..501).await.ok()));
    succeed.await.with_context(|| server.log_tail())?;
    clients[0].run("CHECKPOINT").await?;
    let refused: Vec<&String> = written.iter().flat_map(|(_, refused)| refused).collect();
    ensure!(refused.iter().all(|error| error.starts_with("58030: cannot write to the store")), "{refused:?}");
    if !matches!(fault, Fault::Delay(_)) {
        let told = server.log().iter().any(|line| line.contains("WARN") && line.contains("the object store fails to"));
        let again = server.log().iter().any(|line| line.contains("the object store answers again"));
        ensure!(told && again, "{}", server.log_tail());
    }
    oracle::check(&clients[0]).await?;
    let expected: Vec<String> =
        written.iter().flat_map(|(acknowledged, _)| acknowledged).map(usize::to_string).collect();
    for restarted in [false, true] {
        if restarted {
            server.kill_hard()?;
            server.start_again().await?;
        }
        let client = server.connect().await?;
        let found = client.rows("SELECT id FROM t WHERE id >= 1000").await?;
        let missing: Vec<&String> = expected.iter().filter(|id| !found.iter().any(|row| row[0] == **id)).collect();
        ensure!(missing.is_empty(), "restarted: {restarted}, acknowledged and lost: {missing:?}");
        // What was refused is not there.
        ensure!(found.len() == expected.len(), "{} rows, {} acknowledged", found.len(), expected.len());
        oracle::check(&client).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_object_store() -> Result<()> {
    survives(Fault::Delay(Duration::from_millis(150))).await
}

#[tokio::test]
async fn an_object_store_that_drops_connections() -> Result<()> {
    survives(Fault::Drop).await
}

#[tokio::test]
async fn an_object_store_that_is_overloaded() -> Result<()> {
    survives(Fault::Unavailable).await
}

#[tokio::test]
async fn an_object_store_that_hangs() -> Result<()> {
    survives(Fault::Hang).await
}

/// What `freshet serve` says when it cannot start.
async fn refused(location: &str, environment: Vec<(String, String)>) -> Result<String> {
    let config = ServerConfig { location: Some(location.to_owned()), environment, ..ServerConfig::default() };
    match Server::start_with(config).await {
        Ok(_) => bail!("the server has started on {location}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_with_what_to_look_at() -> Result<()> {
    let s3 = S3::start()?;
    let endpoint = format!("http://{}", s3.address());
    let told = refused("s3://no-such-bucket/x", s3.environment()).await?;
    ensure!(told.contains(&format!("there is no bucket \"no-such-bucket\" at {endpoint}")), "{told}");
    let mut wrong_key = s3.environment();
    wrong_key.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned()));
    let told = refused("s3://bucket/x", wrong_key).await?;
    ensure!(told.contains("refuses the credentials; look at AWS_ACCESS_KEY_ID"), "{told}");
    let proxy = Proxy::start(s3.address()).await?;
    proxy.set(Fault::Hang);
    let told = refused("s3://bucket/x", s3::environment(proxy.address())).await?;
    ensure!(told.contains("has not answered for 10 seconds; look at AWS_ENDPOINT_URL"), "{told}");
    proxy.set(Fault::Drop);
    let told = refused("s3://bucket/x", s3::environment(proxy.address())).await?;
    ensure!(told.contains(&format!("http://{}", proxy.address())) && told.contains("AWS_ENDPOINT_URL"), "{told}");
    let told = refused("s4://bucket/x", Vec::new()).await?;
    ensure!(told.contains("did you mean \"s3://bucket/x\"?"), "{told}");
    Ok(())
}

/// What cannot be read now is not damaged: the server does not start without it, and does with it.
#[tokio::test]
async fn a_start_while_files_cannot_be_read_loses_nothing() -> Result<()> {
    let s3 = S3::start()?;
    let proxy = Proxy::start(s3.address()).await?;
    let mut server = Server::start_with(config(s3::environment(proxy.address()), 2)).await?;
    let client = server.connect().await?;
    let source = "CREATE SOURCE numbers (n BIGINT) WITH (connector = 'datagen', rows_per_second = 10000, rows = 300);
        CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM numbers";
    client.run(source).await?;
    client.run(OBJECTS).await?;
    insert(&client, 0..100).await?;
    client.wait_for("SELECT n FROM counted", &[&["300"]]).await?;
    client.run("CHECKPOINT").await?;
    server.kill_hard()?;
    // Only requests for the files themselves, not those that list them.
    proxy.set(Fault::DropRequests("/checkpoints/0"));
    let told = format!("{:#}", server.start_again().await.err().context("it has started without its files")?);
    ensure!(told.contains("ERROR") && told.contains("cannot be read") && !told.contains("damaged"), "{told}");
    ensure!(!told.contains("computed again") && !told.contains("are lost"), "{told}");
    proxy.set(Fault::None);
    server.start_again().await?;
    ensure!(server.log().iter().any(|line| line.contains("hydrating=0")), "{}", server.log_tail());
    let client = server.connect().await?;
    ensure!(client.value("SELECT n FROM counted").await? == "300" && count(&client).await? == 100);
    oracle::check(&client).await
}

#[tokio::test]
async fn damaged_objects_are_named() -> Result<()> {
    let s3 = S3::start()?;
    let mut server = Server::start_with(config(s3.environment(), 1)).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY, s TEXT)").await?;
    insert(&client, 0..1_000).await?;
    client.run("CHECKPOINT").await?;
    server.kill_hard()?;
    let mut damaged = 0;
    for entry in std::fs::read_dir(s3.objects().join("a/prefix/checkpoints"))? {
        let path = entry?.path();
        let whole = std::fs::read(&path)?;
        let flipped = [&whole[..500], &[!whole[500]], &whole[501..]].concat();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
        let damages = [
            (Some(flipped), "its checksum does not match"),
            (Some(whole[..600].to_vec()), "the file is too short"),
            (Some(whole[..30].to_vec()), "the file is too short"),
            (None, "the file is missing"),
        ];
        for (bytes, reason) in damages {
            match bytes {
                Some(bytes) => std::fs::write(&path, bytes)?,
                None => std::fs::remove_file(&path)?,
            }
            let Err(error) = server.start_again().await else { bail!("it has started: {reason}") };
            let told = format!("{error:#}");
            ensure!(told.contains("its rows are lost") && told.contains(&name) && told.contains(reason), "{told}");
            damaged += 1;
        }
        std::fs::write(&path, &whole)?;
    }
    ensure!(damaged > 0, "there was nothing to damage");
    server.start_again().await?;
    ensure!(count(&server.connect().await?).await? == 1_000);
    Ok(())
}
