//! The Postgres protocol: parameters, formats, portals, cancelling, and everything that a client may do wrong.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use freshet_sql_tests::{Server, wait};
use futures::future::try_join_all;
use tokio_postgres::NoTls;

use crate::http;
use crate::wire::{Wire, kinds};

#[tokio::test]
async fn parameters_and_binary_results_of_every_type() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE t (id INT PRIMARY KEY, s SMALLINT, b BIGINT, r REAL, d DOUBLE PRECISION, f BOOLEAN, x TEXT, at TIMESTAMP)",
        )
        .await?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8)").await?;
    let count = client.execute(&insert, &[&1_i32, &-2_i16, &i64::MIN, &1.5_f32, &f64::MIN, &true, &"é", &at]).await?;
    assert_eq!(count, 1);
    let null = None::<&str>;
    client
        .execute(
            &insert,
            &[
                &2_i32,
                &None::<i16>,
                &None::<i64>,
                &None::<f32>,
                &None::<f64>,
                &None::<bool>,
                &null,
                &None::<SystemTime>,
            ],
        )
        .await?;

    let row = client.query_one("SELECT * FROM t WHERE id = $1", &[&1_i32]).await?;
    assert_eq!(row.get::<_, i32>("id"), 1);
    assert_eq!(row.get::<_, i16>("s"), -2);
    assert_eq!(row.get::<_, i64>("b"), i64::MIN);
    assert!((row.get::<_, f32>("r") - 1.5).abs() < f32::EPSILON);
    assert!((row.get::<_, f64>("d") - f64::MIN).abs() < f64::EPSILON);
    assert!(row.get::<_, bool>("f"));
    assert_eq!(row.get::<_, &str>("x"), "é");
    assert_eq!(row.get::<_, SystemTime>("at"), at);

    let row = client.query_one("SELECT * FROM t WHERE id = $1", &[&2_i32]).await?;
    assert_eq!(row.get::<_, Option<i16>>("s"), None);
    assert_eq!(row.get::<_, Option<&str>>("x"), None);
    assert_eq!(row.get::<_, Option<SystemTime>>("at"), None);
    Ok(())
}

#[tokio::test]
async fn types_of_parameters_are_inferred_from_where_they_stand() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        .await?;
    let statement = client.prepare("SELECT name FROM t WHERE id > $1 AND name <> $2 LIMIT $3").await?;
    let types: Vec<&str> = statement.params().iter().map(tokio_postgres::types::Type::name).collect();
    assert_eq!(types, ["int8", "text", "int8"]);
    let rows = client.query(&statement, &[&0_i64, &"a", &10_i64]).await?;
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["b"]);
    let update = client.execute("UPDATE t SET name = $2 WHERE id = $1", &[&2_i64, &"z"]).await?;
    assert_eq!(update, 1);
    let rows = client.query("DELETE FROM t WHERE name = $1 RETURNING id", &[&"z"]).await?;
    assert_eq!(rows[0].get::<_, i64>(0), 2);
    Ok(())
}

#[tokio::test]
async fn parameters_have_the_types_of_their_places() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE p (id BIGINT, ok BOOLEAN, at TIMESTAMPTZ, b BYTEA)").await?;
    client.run("INSERT INTO p VALUES (1, true, '2024-01-01', '\\x00ff'), (2, false, '2024-01-02', NULL)").await?;
    let count = |row: tokio_postgres::Row| row.get::<_, i64>(0);
    let ids = vec![1_i64, 2, 3];
    assert_eq!(count(client.query_one("SELECT count(*) FROM p WHERE id = ANY($1)", &[&ids]).await?), 2);
    assert_eq!(count(client.query_one("SELECT count(*) FROM p WHERE id = ANY($1::bigint[])", &[&ids]).await?), 2);
    assert_eq!(count(client.query_one("SELECT count(*) FROM p WHERE ok AND $1", &[&true]).await?), 1);
    assert_eq!(count(client.query_one("SELECT count(*) FROM p WHERE $1", &[&true]).await?), 2);
    assert_eq!(count(client.query_one("SELECT count(*) FROM p WHERE NOT $1", &[&true]).await?), 0);
    assert_eq!(count(client.query_one("SELECT count(*) FROM p WHERE b = $1", &[&vec![0_u8, 255]]).await?), 1);
    let sum = client.query_one("SELECT $1 + 1", &[&1_i32]).await?;
    assert_eq!(sum.get::<_, i32>(0), 2);
    Ok(())
}

#[tokio::test]
async fn text_results_over_the_extended_protocol() -> Result<()> {
    let server = Server::start(1).await?;
    let mut wire = Wire::start(server.postgres()).await?;
    wire.extended("SELECT $1::INT + 1 AS n, NULL AS nothing, 'x' AS x", &["41"], 0).await?;
    wire.send('S', b"").await?;
    let messages = wire.until_ready().await?;
    // ParseComplete, BindComplete, RowDescription, DataRow, CommandComplete, ReadyForQuery
    assert_eq!(kinds(&messages), "12TDCZ");
    assert_eq!(messages[3].values()?, [Some(b"42".to_vec()), None, Some(b"x".to_vec())]);
    Ok(())
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_portions() -> Result<()> {
    let server = Server::start(1).await?;
    let mut wire = Wire::start(server.postgres()).await?;
    wire.extended("VALUES (1), (2), (3)", &[], 2).await?;
    wire.execute(2).await?;
    wire.send('S', b"").await?;
    // Two rows and PortalSuspended, then one row and the end.
    assert_eq!(kinds(&wire.until_ready().await?), "12TDDsDCZ");
    Ok(())
}

#[tokio::test]
async fn after_an_error_the_rest_up_to_sync_is_skipped() -> Result<()> {
    let server = Server::start(1).await?;
    let mut wire = Wire::start(server.postgres()).await?;
    wire.extended("SELECT nonsense FROM nowhere", &[], 0).await?;
    wire.send('S', b"").await?;
    let messages = wire.until_ready().await?;
    let [error, _ready] = &messages[..] else { bail!("an error and ready: {messages:?}") };
    assert_eq!(kinds(&messages), "EZ");
    assert_eq!(error.field('S').as_deref(), Some("ERROR"));
    assert_eq!(error.field('C').as_deref(), Some("42P01"));
    wire.extended("SELECT 1", &[], 0).await?;
    wire.send('S', b"").await?;
    assert_eq!(kinds(&wire.until_ready().await?), "12TDCZ");
    Ok(())
}

/// Names are looked up by Parse, as in Postgres, and types of parameters inferred; other statements wait until they run.
#[tokio::test]
async fn parse_tells_what_is_wrong_with_names() -> Result<()> {
    let server = Server::start(1).await?;
    let mut wire = Wire::start(server.postgres()).await?;
    let prepare = async |wire: &mut Wire, sql: &str| {
        wire.send('P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()).await?;
        wire.send('S', b"").await?;
        wire.until_ready().await
    };
    wire.send('Q', b"CREATE TABLE t (a INT)\0").await?;
    wire.until_ready().await?;
    for (sql, state) in [
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT b FROM t WHERE a > $1", "42703"),
        ("SELECT nothing(a) FROM t", "42883"),
        ("INSERT INTO nowhere VALUES ($1)", "42P01"),
        ("UPDATE t SET b = $1", "42703"),
        ("DELETE FROM nowhere", "42P01"),
        ("EXPLAIN SELECT * FROM nowhere", "42P01"),
        ("SUBSCRIBE nowhere", "42P01"),
    ] {
        let messages = prepare(&mut wire, sql).await?;
        assert_eq!(kinds(&messages), "EZ", "{sql}");
        assert_eq!(messages[0].field('C').as_deref(), Some(state), "{sql}");
    }
    for sql in [
        "SELECT a FROM t WHERE a > $1",
        "EXPLAIN SELECT a FROM t WHERE a > $1",
        "FETCH 1 FROM nowhere",
        "DROP TABLE nowhere",
        "CREATE VIEW v AS SELECT * FROM nowhere",
    ] {
        assert_eq!(kinds(&prepare(&mut wire, sql).await?), "1Z", "{sql}");
    }
    // In a transaction block that has failed, only its end is parsed.
    wire.send('Q', b"BEGIN; SELECT * FROM nowhere\0").await?;
    wire.until_ready().await?;
    let messages = prepare(&mut wire, "SELECT 1").await?;
    assert_eq!(messages[0].field('C').as_deref(), Some("25P02"));
    assert_eq!(kinds(&prepare(&mut wire, "ROLLBACK").await?), "1Z");
    Ok(())
}

#[tokio::test]
async fn parameters_of_explained_queries_are_known() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    assert!(!client.query("EXPLAIN SELECT * FROM t WHERE id = $1", &[&1_i64]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_reserved_word_is_no_relation() -> Result<()> {
    let server = Server::start(1).await?;
    let mut wire = Wire::start(server.postgres()).await?;
    wire.send('Q', b"SELECT 1 FROM WHERE\0").await?;
    let messages = wire.until_ready().await?;
    assert_eq!(messages[0].field('C').as_deref(), Some("42601"));
    assert_eq!(messages[0].field('M').as_deref(), Some("syntax error at or near \"WHERE\""));
    assert_eq!(messages[0].field('P').as_deref(), Some("15"));
    Ok(())
}

#[tokio::test]
async fn errors_have_a_position() -> Result<()> {
    let server = Server::start(1).await?;
    let mut wire = Wire::start(server.postgres()).await?;
    wire.send('Q', b"CREATE TABLE t (a INT,, b INT)\0").await?;
    let messages = wire.until_ready().await?;
    assert_eq!(messages[0].field('C').as_deref(), Some("42601"));
    assert_eq!(messages[0].field('P').as_deref(), Some("23"));
    Ok(())
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() -> Result<()> {
    let mut server = Server::start(1).await?;
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 64],
        &[0xff; 64],
        // A start-up message of a protocol that does not exist.
        &[0, 0, 0, 8, 0, 9, 0, 0],
        // A start-up message that says it is 2 GB long, and one that is shorter than its own length.
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0, 1, 2, 3],
        &[0, 0, 0, 1, 0, 3, 0, 0],
    ];
    for bytes in garbage {
        let mut wire = Wire::open(server.postgres()).await?;
        wire.write(bytes).await?;
        wire.until_closed().await.with_context(|| format!("after {bytes:?}"))?;
    }
    // And after having been let in: an unknown message, one longer than any may be, and one shorter than its length.
    for bytes in [
        &b"\x01\0\0\0\x04"[..],
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &b"Q\x7f\xff\xff\xff"[..],
        &b"S\x7f\xff\xff\xff"[..],
        &b"Q\0\0\0\x01"[..],
    ] {
        let mut wire = Wire::start(server.postgres()).await?;
        wire.write(bytes).await?;
        // Told what is wrong, and let go, at once.
        let answer = wire.until_closed().await.with_context(|| format!("after {bytes:?}"))?;
        assert_eq!(kinds(&answer), "E", "after {bytes:?}");
        assert_eq!(answer[0].field('S').as_deref(), Some("FATAL"), "after {bytes:?}");
        assert_eq!(answer[0].field('C').as_deref(), Some("08P01"), "after {bytes:?}");
    }
    // A message that lies about what is in it is refused, and the next one is read.
    let mut wire = Wire::start(server.postgres()).await?;
    wire.write(b"B\0\0\0\x08\0\0\x7f\xff").await?;
    let error = wire.read().await?.context("an answer at once")?;
    assert_eq!((error.kind, error.field('C').as_deref()), ('E', Some("08P01")));
    wire.send('S', b"").await?;
    assert_eq!(kinds(&wire.until_ready().await?), "Z");
    assert!(server.is_running());
    assert_eq!(server.connect().await?.value("SELECT 1").await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_hundred_megabytes_in_one_statement() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    let sql = format!("SELECT length('{}')", "x".repeat(100_000_000));
    // Answered, or refused with an error: either way the server stays.
    match client.rows(&sql).await {
        Ok(rows) => assert_eq!(rows, [["100000000"]]),
        Err(error) => assert!(!format!("{error}").is_empty()),
    }
    assert!(server.is_running());
    assert_eq!(server.connect().await?.value("SELECT 1").await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_result() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id BIGINT PRIMARY KEY)").await?;
    let values: Vec<String> = (0..20_000).map(|id| format!("({id})")).collect();
    client.run(&format!("INSERT INTO t VALUES {}", values.join(","))).await?;
    for _ in 0..20 {
        let mut wire = Wire::start(server.postgres()).await?;
        wire.send('Q', b"SELECT a.id, b.id FROM t a CROSS JOIN t b\0").await?;
        let first = wire.read().await?.context("the result begins")?;
        assert_eq!(first.kind, 'T');
    }
    // The queries have ended with their clients: what is left is the one session that looks.
    wait::until("the sessions to end", async || {
        let (_, metrics) = http::get(&server, "/metrics").await?;
        Ok(metrics.lines().any(|line| line == "freshet_sessions 1").then_some(()))
    })
    .await
}

#[tokio::test]
async fn many_connections_at_once() -> Result<()> {
    let server = Server::start(2).await?;
    let client = server.connect().await?;
    client
        .run("CREATE TABLE t (id INT PRIMARY KEY); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t")
        .await?;
    let clients = try_join_all((0..100).map(|_| server.connect())).await?;
    try_join_all(clients.iter().enumerate().map(|(id, client)| async move {
        client.run(&format!("INSERT INTO t VALUES ({id})")).await?;
        // Each reads at least its own write.
        let seen = client.value(&format!("SELECT count(*) FROM t WHERE id = {id}")).await?;
        assert_eq!(seen, "1");
        anyhow::Ok(())
    }))
    .await?;
    client.wait_for("SELECT n FROM v", &[&["100"]]).await
}

#[tokio::test]
async fn a_query_can_be_cancelled() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    let token = client.cancel_token();
    let subscription = client.simple_query("SUBSCRIBE t WITH (SNAPSHOT = true)");
    let cancel = async {
        // A request that comes before the query has begun cancels nothing, so it is repeated.
        wait::until("the query to be cancelled", async || {
            token.cancel_query(NoTls).await?;
            Ok(None::<()>)
        })
        .await
    };
    let error = tokio::select! {
        outcome = subscription => outcome.err().context("a cancelled query fails")?,
        outcome = cancel => return outcome,
    };
    assert_eq!(error.code().map(|state| state.code()), Some("57014"));
    assert_eq!(client.value("SELECT 1").await?, "1");
    Ok(())
}

#[tokio::test]
async fn several_statements_in_one_message() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    let rows =
        client.rows("CREATE TABLE t (a INT); INSERT INTO t VALUES (1); SELECT a FROM t; SELECT a + 1 FROM t").await?;
    assert_eq!(rows, [["1"], ["2"]]);
    // What comes after an error is not run.
    let error = client.error("INSERT INTO t VALUES (2); SELECT nothing; INSERT INTO t VALUES (3)").await?;
    assert!(error.starts_with("42703"), "{error}");
    assert_eq!(client.value("SELECT count(*) FROM t WHERE a = 3").await?, "0");
    Ok(())
}

/// A client whose machine died must not hold its session for ever: TCP asks whether it is still there.
#[tokio::test]
async fn connections_are_kept_alive() -> Result<()> {
    let server = Server::start(1).await?;
    let _client = server.connect().await?;
    let local = format!(":{:04X}", server.postgres().port());
    // The timer of what was just sent may be the one that is shown, until it has arrived.
    let rings = wait::until("the keepalive timer", async || {
        // A line for each socket: number, local and remote address, state, queues, timer, … in hexadecimal.
        let sockets = std::fs::read_to_string("/proc/net/tcp")?;
        let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut connected = fields.filter(|fields| fields[1].ends_with(&local) && fields[3] == "01");
        let timer = connected.next().context("the server's side of the connection")?[5];
        // 02 is the keepalive timer, and then come the hundredths of a second until it rings.
        Ok(timer.strip_prefix("02:").map(|rings| u32::from_str_radix(rings, 16)).transpose()?)
    })
    .await?;
    assert!(rings <= 6_000, "in {rings} hundredths of a second");
    Ok(())
}
