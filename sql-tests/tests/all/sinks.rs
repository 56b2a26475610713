//! Sinks into a real Kafka broker, read as any consumer of committed records reads them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use freshet_sql_tests::kafka::{Kafka, Record};
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, oracle, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// `CREATE SINK name FROM relation` into the topic of the same name; `more` are further options.
async fn create_sink(
    client: &Client,
    kafka: &Kafka,
    name: &str,
    relation: &str,
    format: &str,
    more: &str,
) -> Result<()> {
    client
        .run(&format!(
            "CREATE SINK {name} FROM {relation} WITH (connector = 'kafka', topic = '{name}',
             bootstrap_servers = '{}' {more}) FORMAT {format} ENCODE JSON",
            kafka.bootstrap_servers()
        ))
        .await
}

/// A server that makes a checkpoint every `interval`.
async fn server_with_checkpoints(interval: &str, workers: usize) -> Result<Server> {
    let arguments = vec!["--checkpoint-interval".into(), interval.into()];
    Server::start_with(ServerConfig { workers, arguments, ..ServerConfig::default() }).await
}

/// The rows of a relation as a multiset of JSON objects, in the words of the sinks.
async fn rows_of(client: &Client, relation: &str, columns: &[&str]) -> Result<BTreeMap<String, usize>> {
    let mut rows = BTreeMap::new();
    for row in client.rows(&format!("SELECT {} FROM {relation}", columns.join(", "))).await? {
        let values = row.iter().map(|value| if value == "NULL" { "null" } else { value });
        let row: Vec<String> = columns.iter().zip(values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        *rows.entry(format!("{{{}}}", row.join(","))).or_default() += 1;
    }
    Ok(rows)
}

fn text(record: &Record) -> Result<Option<String>> {
    Ok(record.payload.clone().map(String::from_utf8).transpose()?)
}

/// What a consumer of a topic in FORMAT UPSERT has in its table.
fn upserted(records: &[Record]) -> Result<BTreeMap<String, usize>> {
    let mut table = BTreeMap::new();
    for record in records {
        let key = record.key.clone().context("each message has a key")?;
        match text(record)? {
            Some(row) => table.insert(key, row),
            None => Some(table.remove(&key).context("what is deleted was there")?),
        };
    }
    let mut rows = BTreeMap::new();
    table.into_values().for_each(|row| *rows.entry(row).or_default() += 1);
    Ok(rows)
}

/// What a consumer of a topic in FORMAT DEBEZIUM has in its table. Each message has to fit to what was there before.
fn replayed(records: &[Record]) -> Result<BTreeMap<String, usize>> {
    let mut table = BTreeMap::<String, Value>::new();
    for record in records {
        let key = record.key.clone().context("each message has a key")?;
        let mut change: Value = serde_json::from_str(&text(record)?.context("each message has a value")?)?;
        let (before, after) = (change["before"].take(), change["after"].take());
        let op = match (before.is_null(), after.is_null()) {
            (true, false) => "c",
            (false, false) => "u",
            (false, true) => "d",
            (true, true) => "",
        };
        ensure!(change["op"] == op, "{change}");
        let was = table.remove(&key).unwrap_or(Value::Null);
        ensure!(was == before, "{key} was {was}, and not {before}");
        if !after.is_null() {
            table.insert(key, after);
        }
    }
    let mut rows = BTreeMap::new();
    table.into_values().for_each(|row| *rows.entry(row.to_string()).or_default() += 1);
    Ok(rows)
}

fn added(records: &[Record]) -> Result<BTreeMap<String, usize>> {
    let mut rows = BTreeMap::new();
    for record in records {
        *rows.entry(text(record)?.context("each message has a value")?).or_default() += 1;
    }
    Ok(rows)
}

/// JSON objects with sorted names, as [`Value`] writes them.
fn sorted(rows: BTreeMap<String, usize>) -> Result<BTreeMap<String, usize>> {
    let sorted = rows.into_iter().map(|(row, count)| Ok((serde_json::from_str::<Value>(&row)?.to_string(), count)));
    sorted.collect()
}

type Reading = fn(&[Record]) -> Result<BTreeMap<String, usize>>;

/// Waits until what consumers make of the topic is the relation. At no time may it contradict itself.
async fn wait_until_equal(
    client: &Client,
    kafka: &Kafka,
    topic: &str,
    read: Reading,
    relation: &str,
    columns: &[&str],
) -> Result<()> {
    let expected = sorted(rows_of(client, relation, columns).await?)?;
    let what = format!("topic {topic} to be {relation}");
    let equal = wait::until(&what, async || {
        let found = sorted(read(&kafka.committed(topic).await?)?)?;
        Ok((found == expected).then_some(()))
    });
    match equal.await {
        Ok(()) => Ok(()),
        Err(error) => {
            let found = sorted(read(&kafka.committed(topic).await?)?)?;
            let status = client.rows("SELECT * FROM freshet_catalog.sink_status").await?;
            Err(error.context(format!("found {found:?}\nexpected {expected:?}\n{status:?}")))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_format_tells_what_the_view_is() -> Result<()> {
    let kafka = Kafka::shared().await?;
    for topic in ["sums_upsert", "sums_debezium", "rows_debezium", "table_upsert", "later"] {
        kafka.create_topic(topic, 2).await?;
    }
    let server = server_with_checkpoints("100ms", 2).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, g INT, x INT);
             INSERT INTO t SELECT n, n % 5, n FROM generate_series(1, 20) AS s(n);
             CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, sum(x) AS x FROM t GROUP BY g;
             CREATE MATERIALIZED VIEW rows AS SELECT g, x % 2 AS odd FROM t",
        )
        .await?;
    create_sink(&client, kafka, "sums_upsert", "sums", "UPSERT", "").await?;
    create_sink(&client, kafka, "sums_debezium", "sums", "DEBEZIUM", "").await?;
    create_sink(&client, kafka, "rows_debezium", "rows", "DEBEZIUM", "").await?;
    create_sink(&client, kafka, "table_upsert", "t", "UPSERT", "").await?;
    create_sink(&client, kafka, "later", "sums", "UPSERT", ", snapshot = false").await?;
    for change in [
        "SELECT 1",
        "UPDATE t SET x = x + 1 WHERE g < 2",
        "DELETE FROM t WHERE g = 3",
        "INSERT INTO t VALUES (100, 3, 7), (101, NULL, NULL)",
        "UPDATE t SET g = 4 WHERE g = 0",
    ] {
        client.run(change).await?;
        let sums = ["g", "n", "x"];
        wait_until_equal(&client, kafka, "sums_upsert", upserted, "sums", &sums).await?;
        wait_until_equal(&client, kafka, "sums_debezium", replayed, "sums", &sums).await?;
        wait_until_equal(&client, kafka, "table_upsert", upserted, "t", &["id", "g", "x"]).await?;
    }
    // Rows without a key are told one by one.
    let net = wait::until("the rows", async || {
        let mut net = BTreeMap::<String, i64>::new();
        for record in kafka.committed("rows_debezium").await? {
            let change: Value = serde_json::from_str(&text(&record)?.context("a value")?)?;
            for (row, weight) in [(&change["before"], -1), (&change["after"], 1)] {
                if !row.is_null() {
                    *net.entry(row.to_string()).or_default() += weight;
                }
            }
        }
        net.retain(|_, count| *count != 0);
        let expected = sorted(rows_of(&client, "rows", &["g", "odd"]).await?)?;
        let found: BTreeMap<String, usize> =
            net.into_iter().map(|(row, count)| Ok((row, usize::try_from(count)?))).collect::<Result<_>>()?;
        Ok((found == expected).then_some(()))
    });
    net.await?;
    // Without a snapshot there is nothing of what never changed.
    let later = kafka.committed("later").await?;
    ensure!(later.iter().all(|record| record.key.as_deref() != Some(r#"{"g":2}"#)), "{later:?}");
    ensure!(later.iter().any(|record| record.key.as_deref() == Some(r#"{"g":4}"#)), "{later:?}");
    let status = "SELECT sink, relation, state, waiting_changes, last_error FROM freshet_catalog.sink_status
                  WHERE sink = 'sums_upsert' AND sent_epoch > 0 AND records > 5 AND bytes > 50";
    client.wait_for(status, &[&["sums_upsert", "sums", "running", "0", "NULL"]]).await?;
    oracle::check(&client).await
}

/// Killed 20 times at random moments, and one broker that goes and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_arrives_once_across_kill_9() -> Result<()> {
    let mut kafka = Kafka::start().await?;
    kafka.create_topic("input", 2).await?;
    for topic in ["upserts", "changes", "plain"] {
        kafka.create_topic(topic, 3).await?;
    }
    let mut server = server_with_checkpoints("60ms", 2).await?;
    let client = server.connect().await?;
    client
        .run(&format!(
            "CREATE SOURCE input (n INT, g INT) WITH (connector = 'kafka', topic = 'input',
             bootstrap_servers = '{}') FORMAT PLAIN ENCODE JSON;
             CREATE TABLE names (g INT PRIMARY KEY, label INT);
             INSERT INTO names SELECT g, 0 FROM generate_series(0, 16) AS s(g);
             CREATE MATERIALIZED VIEW sums AS SELECT i.g, count(*) AS c, sum(n) AS s, max(label) AS l
             FROM input AS i JOIN names ON i.g = names.g GROUP BY i.g;
             CREATE MATERIALIZED VIEW odd AS SELECT n, g FROM input WHERE n % 2 = 1",
            kafka.bootstrap_servers()
        ))
        .await?;
    create_sink(&client, &kafka, "upserts", "sums", "UPSERT", "").await?;
    create_sink(&client, &kafka, "changes", "sums", "DEBEZIUM", "").await?;
    create_sink(&client, &kafka, "plain", "odd", "PLAIN", "").await?;
    let mut random = StdRng::seed_from_u64(7);
    let mut n = 0;
    for round in 0..20 {
        let client = server.connect().await?;
        let end = Instant::now() + Duration::from_millis(random.random_range(20..500));
        while Instant::now() < end {
            let batch: Vec<Record> = (n..n + random.random_range(1..200))
                .map(|n| Record::of(format!(r#"{{"n": {n}, "g": {}}}"#, n % 17)))
                .collect();
            n += batch.len();
            kafka.produce("input", &batch).await?;
            let g = random.random_range(0..17);
            client
                .run(&format!(
                    "INSERT INTO names VALUES ({g}, {n}) ON CONFLICT (g) DO UPDATE SET label = excluded.label"
                ))
                .await?;
        }
        if round == 10 {
            kafka.stop()?;
        }
        server.kill_hard()?;
        server.start_again().await?;
        if round == 10 {
            let client = server.connect().await?;
            client.run("INSERT INTO names VALUES (99, 99)").await?;
            kafka.start_again().await?;
        }
    }
    let client = server.connect().await?;
    client.wait_for("SELECT sum(c) FROM sums", &[&[&n.to_string()]]).await?;
    client.run("CHECKPOINT").await?;
    let columns = ["g", "c", "s", "l"];
    wait_until_equal(&client, &kafka, "upserts", upserted, "sums", &columns).await?;
    wait_until_equal(&client, &kafka, "changes", replayed, "sums", &columns).await?;
    wait_until_equal(&client, &kafka, "plain", added, "odd", &["n", "g"]).await?;
    let waiting = "SELECT count(*) FROM freshet_catalog.sink_status WHERE state = 'running' AND waiting_changes = 0";
    client.wait_for(waiting, &[&["3"]]).await?;
    oracle::check(&client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_broker_holds_back_nobody_else() -> Result<()> {
    let mut kafka = Kafka::start().await?;
    kafka.create_topic("out", 1).await?;
    let mut server = server_with_checkpoints("100ms", 1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (k INT PRIMARY KEY, v INT); CREATE MATERIALIZED VIEW v AS SELECT k, v FROM t").await?;
    create_sink(&client, &kafka, "out", "t", "DEBEZIUM", "").await?;
    client.run("INSERT INTO t VALUES (1, 1)").await?;
    wait_until_equal(&client, &kafka, "out", replayed, "t", &["k", "v"]).await?;
    kafka.stop()?;
    for n in 2..30 {
        client.run(&format!("INSERT INTO t VALUES ({n}, {n}); UPDATE t SET v = v + 1 WHERE k = 1")).await?;
        assert_eq!(client.value("SELECT count(*) FROM v").await?, n.to_string());
        client.run("CHECKPOINT").await?;
    }
    let status = "SELECT state, last_error IS NULL, waiting_changes > 10 FROM freshet_catalog.sink_status";
    client.wait_for(status, &[&["retrying", "f", "t"]]).await?;
    // What waits is on the disk.
    server.restart().await?;
    let client = server.connect().await?;
    kafka.start_again().await?;
    wait_until_equal(&client, &kafka, "out", replayed, "t", &["k", "v"]).await?;
    let status = "SELECT state, waiting_changes FROM freshet_catalog.sink_status";
    client.wait_for(status, &[&["running", "0"]]).await
}

/// Puts a copy of one folder in the place of another.
fn put(folder: &Path, in_place_of: &Path) -> Result<()> {
    if in_place_of.exists() {
        std::fs::remove_dir_all(in_place_of)?;
    }
    let status = std::process::Command::new("cp").arg("-a").arg(folder).arg(in_place_of).status()?;
    ensure!(status.success(), "cannot copy {}", folder.display());
    Ok(())
}

/// A server that died after a transaction was committed, and before it took note of that, is one whose data is what it
/// was before the transaction. One whose data is older still has sent what it does not know of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_arrived_is_asked_of_the_broker() -> Result<()> {
    let mut kafka = Kafka::start().await?;
    kafka.create_topic("asked", 2).await?;
    let mut server = server_with_checkpoints("1h", 1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (k INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2)").await?;
    create_sink(&client, &kafka, "asked", "t", "DEBEZIUM", "").await?;
    wait_until_equal(&client, &kafka, "asked", replayed, "t", &["k", "v"]).await?;
    kafka.stop()?;
    for sql in ["UPDATE t SET v = 3", "CHECKPOINT", "INSERT INTO t VALUES (3, 3)", "CHECKPOINT"] {
        client.run(sql).await?;
    }
    server.kill_hard()?;
    let folder = tempfile::tempdir()?;
    let before = folder.path().join("before");
    put(server.data(), &before)?;
    kafka.start_again().await?;
    let idle = "SELECT state, waiting_changes FROM freshet_catalog.sink_status";
    server.start_again().await?;
    let client = server.connect().await?;
    client.wait_for(idle, &[&["running", "0"]]).await?;
    wait_until_equal(&client, &kafka, "asked", replayed, "t", &["k", "v"]).await?;
    let sent = kafka.committed("asked").await?.len();
    server.kill_hard()?;

    put(&before, server.data())?;
    server.start_again().await?;
    let client = server.connect().await?;
    client.wait_for(idle, &[&["running", "0"]]).await?;
    assert_eq!(kafka.committed("asked").await?.len(), sent);
    for sql in ["DELETE FROM t WHERE k = 2", "CHECKPOINT"] {
        client.run(sql).await?;
    }
    wait_until_equal(&client, &kafka, "asked", replayed, "t", &["k", "v"]).await?;
    server.kill_hard()?;

    put(&before, server.data())?;
    server.start_again().await?;
    let client = server.connect().await?;
    let failed = "SELECT state, last_error LIKE '%older copy' FROM freshet_catalog.sink_status";
    client.wait_for(failed, &[&["failed", "t"]]).await?;
    assert_eq!(kafka.committed("asked").await?.len(), sent + 1);
    Ok(())
}

/// A view whose state is damaged is computed again at the next start. What the sink has sent of it is not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_computed_again_is_compared_with_what_was_sent() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("again", 1).await?;
    let mut server = server_with_checkpoints("50ms", 2).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, g INT, x BIGINT);
             INSERT INTO t SELECT n, n % 500, n FROM generate_series(1, 2000) AS s(n);
             CREATE MATERIALIZED VIEW v AS SELECT g, sum(x) AS x, count(DISTINCT id) AS n FROM t GROUP BY g",
        )
        .await?;
    create_sink(&client, kafka, "again", "v", "DEBEZIUM", "").await?;
    wait_until_equal(&client, kafka, "again", replayed, "v", &["g", "x", "n"]).await?;
    client.run("CHECKPOINT").await?;
    let sent = kafka.committed("again").await?.len();
    server.kill_hard()?;
    start_with_damaged_state(&mut server, "v").await?;
    let client = server.connect().await?;
    client.run("DELETE FROM t WHERE g = 2").await?;
    for _ in 0..3 {
        server.kill_hard()?;
        server.start_again().await?;
    }
    let client = server.connect().await?;
    wait_until_equal(&client, kafka, "again", replayed, "v", &["g", "x", "n"]).await?;
    assert_eq!(kafka.committed("again").await?.len(), sent + 1);
    client.run("UPDATE t SET x = x + 1 WHERE g = 0").await?;
    wait_until_equal(&client, kafka, "again", replayed, "v", &["g", "x", "n"]).await
}

/// Starts the server with a byte of a checkpoint changed that is of what the operators of `view` remember.
async fn start_with_damaged_state(server: &mut Server, view: &str) -> Result<()> {
    const PLACES: usize = 60;
    let copy = tempfile::tempdir()?;
    let original = copy.path().join("data");
    copy_folder(server.data(), &original)?;
    let folder = server.data().join("checkpoints");
    for file in std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()? {
        let bytes = std::fs::read(&file)?;
        for place in (0..PLACES).map(|place| place * bytes.len() / PLACES) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            std::fs::write(&file, damaged)?;
            let started = server.start_again().await;
            let is_hit =
                |line: &String| line.contains("computed again") && line.contains("node") && line.contains(view);
            // Its rows may be in the same file, whose header may have been hit.
            let is_too_much = |line: &String| line.contains("cannot read what sinks have sent of it");
            if started.is_ok() && server.log().iter().any(is_hit) && !server.log().iter().any(is_too_much) {
                return Ok(());
            }
            if started.is_ok() {
                server.kill_hard()?;
            }
            std::fs::remove_dir_all(server.data())?;
            copy_folder(&original, server.data())?;
        }
    }
    bail!("no place of a checkpoint is of the state of \"{view}\"")
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_declaration_is_said() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("declared", 1).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (a INT, b INT); CREATE VIEW p AS SELECT a FROM t;
             CREATE MATERIALIZED VIEW m AS SELECT a, b FROM t",
        )
        .await?;
    let servers = kafka.bootstrap_servers();
    let with = format!("connector = 'kafka', topic = 'declared', bootstrap_servers = '{servers}'");
    let json = "FORMAT DEBEZIUM ENCODE JSON";
    for (sql, code) in [
        (format!("CREATE SINK s FROM nothing WITH ({with}) {json}"), "42P01"),
        (format!("CREATE SINK s FROM p WITH ({with}) {json}"), "42809"),
        (format!("CREATE SINK s FROM m WITH ({with}) FORMAT PLAIN ENCODE JSON"), "55000"),
        (format!("CREATE SINK s FROM m WITH ({with}) FORMAT UPSERT ENCODE JSON"), "55000"),
        (format!("CREATE SINK s FROM m WITH ({with}, key = 'c') FORMAT UPSERT ENCODE JSON"), "42703"),
        (format!("CREATE SINK s FROM m WITH ({with}) FORMAT DEBEZIUM ENCODE AVRO"), "0A000"),
        (format!("CREATE SINK s FROM m WITH ({with}) FORMAT DEBESIUM ENCODE JSON"), "22023"),
        (format!("CREATE SINK s FROM m WITH ({with}, snapshot = 'maybe') {json}"), "22023"),
        (format!("CREATE SINK s FROM m WITH ({with}, topik = 'x') {json}"), "22023"),
        (format!("CREATE SINK s FROM m WITH ({with})"), "22023"),
        (format!("CREATE SINK s FROM m WITH (connector = 'webhook') {json}"), "0A000"),
        (format!("CREATE SINK s FROM m WITH (connector = 'kafak') {json}"), "22023"),
        (format!("CREATE SINK s FROM m WITH ({}) {json}", with.replace("declared", "missing")), "42704"),
        (format!("CREATE SINK s AS SELECT 1 WITH ({with}) {json}"), "0A000"),
    ] {
        let error = client.error(&sql).await?;
        assert!(error.starts_with(code), "{sql}: {error}");
    }
    assert!(client.error(&format!("CREATE SINK s FROM m WITH ({with}, topik = 'x') {json}")).await?.contains("topic"));
    let start = Instant::now();
    let unreachable = with.replace(&servers, "127.0.0.1:1");
    let error = client.error(&format!("CREATE SINK s FROM m WITH ({unreachable}) {json}")).await?;
    assert!(error.starts_with("08"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert!(client.rows("SHOW SINKS").await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_an_object_like_others() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("object", 1).await?;
    let mut server = server_with_checkpoints("100ms", 1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (a INT PRIMARY KEY); CREATE MATERIALIZED VIEW m AS SELECT a FROM t").await?;
    create_sink(&client, kafka, "object", "m", "DEBEZIUM", "").await?;
    client.run("COMMENT ON SINK object IS 'what a says'; CREATE SINK IF NOT EXISTS object FROM m").await?;
    for _ in 0..2 {
        let client = server.connect().await?;
        assert_eq!(client.rows("SHOW SINKS").await?, [["object", "what a says"]]);
        let created = client.rows("SHOW CREATE SINK object").await?;
        assert!(created[0][1].starts_with("CREATE SINK object FROM m WITH ("), "{created:?}");
        let error = create_sink(&client, kafka, "object", "m", "DEBEZIUM", "").await.err().context("an error")?;
        assert!(format!("{error:#}").contains("42P07"), "{error:#}");
        for (sql, code) in [
            ("SELECT * FROM object", "42P01"),
            ("SUBSCRIBE object", "42P01"),
            ("INSERT INTO object VALUES (1)", "42809"),
            ("DROP VIEW object", "42809"),
            ("DROP SINK m", "42809"),
            ("DROP MATERIALIZED VIEW m", "2BP01"),
            ("DROP SINK other", "42P01"),
        ] {
            let error = client.error(sql).await?;
            assert!(error.starts_with(code), "{sql}: {error}");
        }
        assert_eq!(client.value("SELECT count(*) FROM pg_class WHERE relname = 'object'").await?, "0");
        server.kill_hard()?;
        server.start_again().await?;
    }
    let client = server.connect().await?;
    client.run("DROP SINK IF EXISTS other; DROP TABLE t CASCADE").await?;
    assert!(client.rows("SHOW SINKS").await?.is_empty());
    assert!(client.rows("SELECT * FROM freshet_catalog.sink_status").await?.is_empty());
    Ok(())
}
