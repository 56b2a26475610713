//! What survives: `kill -9`, an orderly stop, and a start on data that is there.

use anyhow::Result;
use freshet_sql_tests::{Server, oracle};

#[tokio::test]
async fn an_acknowledged_insert_survives_kill_9() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)").await?;
    let mut acknowledged = 0;
    for round in 0..4 {
        let client = server.connect().await?;
        for _ in 0..25 {
            acknowledged += 1;
            client.run(&format!("INSERT INTO t VALUES ({acknowledged}, 'round {round}')")).await?;
        }
        server.kill_hard()?;
        server.start_again().await?;
        let client = server.connect().await?;
        let found = client.rows("SELECT count(*), max(id) FROM t").await?;
        assert_eq!(found, [[acknowledged.to_string(), acknowledged.to_string()]]);
    }
    Ok(())
}

/// Killed while inserts are on their way: each is there wholly or not at all, and what was acknowledged is there.
#[tokio::test]
async fn killed_in_the_middle_of_inserts() -> Result<()> {
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (batch INT, n INT); CREATE MATERIALIZED VIEW v AS SELECT batch, count(*) AS n FROM t GROUP BY batch").await?;
    for round in 0..3 {
        let client = server.connect().await?;
        let mut acknowledged = Vec::new();
        for batch in round * 1000..round * 1000 + 40 {
            let values: Vec<String> = (0..50).map(|n| format!("({batch}, {n})")).collect();
            client.run(&format!("INSERT INTO t VALUES {}", values.join(","))).await?;
            acknowledged.push(batch);
        }
        let next = round * 1000 + 999;
        let sql = format!("INSERT INTO t VALUES ({next}, 1), ({next}, 2)");
        tokio::select! {
            biased;
            _ = client.simple_query(&sql) => {}
            () = tokio::task::yield_now() => {}
        }
        server.kill_hard()?;
        server.start_again().await?;
        let client = server.connect().await?;
        let whole = "SELECT count(*) FROM (SELECT batch FROM t GROUP BY batch HAVING count(*) NOT IN (2, 50)) x";
        assert_eq!(client.value(whole).await?, "0");
        for batch in acknowledged {
            assert_eq!(client.value(&format!("SELECT n FROM v WHERE batch = {batch}")).await?, "50");
        }
        oracle::check(&client).await?;
    }
    Ok(())
}

/// A client that cancels or vanishes while its write becomes durable: the write is visible afterwards as well, so that
/// nobody writes the same key again.
#[tokio::test]
async fn cancelled_writes_leave_log_and_table_in_step() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    let canceller = client.cancel_token();
    for round in 0..200 {
        let insert = format!("INSERT INTO t VALUES ({})", round % 20);
        let cancel = async {
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            canceller.cancel_query(tokio_postgres::NoTls).await
        };
        // Whether the insert succeeds, is a duplicate or is cancelled is all the same here.
        let (_, cancelled) = tokio::join!(client.simple_query(&insert), cancel);
        cancelled?;
        if round % 3 == 0 {
            let _ = client.simple_query(&format!("DELETE FROM t WHERE id = {}", round % 20)).await;
        }
    }
    let rows = "SELECT id FROM t ORDER BY id";
    let before = server.connect().await?.rows(rows).await?;
    server.kill_hard()?;
    server.start_again().await?;
    let client = server.connect().await?;
    assert_eq!(client.rows(rows).await?, before);
    oracle::check(&client).await
}

#[tokio::test]
async fn all_objects_come_back() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, g TEXT NOT NULL DEFAULT 'x', amount NUMERIC(10,2) CHECK (amount >= 0));
             CREATE VIEW p AS SELECT g, amount FROM t WHERE amount > 1;
             CREATE MATERIALIZED VIEW m AS SELECT g, sum(amount) AS s FROM p GROUP BY g;
             CREATE MATERIALIZED VIEW mm AS SELECT max(s) AS most FROM m;
             COMMENT ON MATERIALIZED VIEW m IS 'sums';
             INSERT INTO t VALUES (1, 'a', 5), (2, 'a', 0.5), (3, 'b', 7.25);
             UPDATE t SET amount = amount + 1 WHERE id = 2;
             DELETE FROM t WHERE id = 3",
        )
        .await?;
    for kill in [false, true] {
        if kill {
            server.kill_hard()?;
            server.start_again().await?;
        } else {
            server.restart().await?;
        }
        let client = server.connect().await?;
        assert_eq!(client.rows("SELECT * FROM m").await?, [["a", "6.50"]]);
        assert_eq!(client.value("SELECT most FROM mm").await?, "6.50");
        oracle::check(&client).await?;
        let error = client.error("INSERT INTO t VALUES (1, 'dup', 1)").await?;
        assert!(error.starts_with("23505"), "{error}");
        let error = client.error("INSERT INTO t VALUES (9, 'x', -1)").await?;
        assert!(error.starts_with("23514"), "{error}");
        let error = client.error("DROP TABLE t").await?;
        assert!(error.starts_with("2BP01"), "{error}");
    }
    let client = server.connect().await?;
    client.run("INSERT INTO t (id, amount) VALUES (10, 2)").await?;
    assert_eq!(client.rows("SELECT * FROM m ORDER BY g").await?, [["a", "6.50"], ["x", "2.00"]]);
    Ok(())
}

#[tokio::test]
async fn what_was_dropped_stays_dropped() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1);
             CREATE MATERIALIZED VIEW m AS SELECT id FROM t;
             DROP TABLE t CASCADE;
             CREATE TABLE t (id INT PRIMARY KEY)",
        )
        .await?;
    server.kill_hard()?;
    server.start_again().await?;
    let client = server.connect().await?;
    assert_eq!(client.value("SELECT count(*) FROM t").await?, "0");
    let error = client.error("SELECT * FROM m").await?;
    assert!(error.starts_with("42P01"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_orderly_stop_waits_for_nobody() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    // A subscription and an idle session are told, not waited for.
    let _subscription = client.simple_query_raw("SUBSCRIBE t").await?;
    let _idle = server.connect().await?;
    server.stop().await
}
