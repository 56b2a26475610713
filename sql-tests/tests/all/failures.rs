//! A view that fails: what it takes along, and what goes on.
//!
//! A sum that leaves its type fails a view in the ordinary way.

use std::time::Duration;

use anyhow::{Context, Result};
use freshet_sql_tests::{Client, Server, oracle};

/// Two of these do not fit a BIGINT together.
const LARGE: &str = "INSERT INTO t VALUES (1, 9223372036854775807), (1, 9223372036854775807)";
/// How long a statement may take that has to wait for nobody.
const STATEMENT_BOUND: Duration = Duration::from_secs(10);

const OBJECTS: &str = "
    CREATE TABLE t (g INT, x BIGINT);
    CREATE MATERIALIZED VIEW sums AS SELECT g, sum(x) AS x FROM t GROUP BY g;
    CREATE VIEW plain AS SELECT x FROM sums WHERE x > 0;
    CREATE MATERIALIZED VIEW reader AS SELECT count(*) AS n FROM plain;
    CREATE MATERIALIZED VIEW far AS SELECT reader.n, t.g FROM reader JOIN t ON reader.n = t.g;
    CREATE MATERIALIZED VIEW other AS SELECT g, count(*) AS n FROM t GROUP BY g;
    INSERT INTO t VALUES (1, 1), (2, 2)";

async fn in_time(client: &Client, sql: &str) -> Result<()> {
    let done = tokio::time::timeout(STATEMENT_BOUND, client.run(sql)).await;
    done.with_context(|| format!("{sql} waits for ever"))?
}

#[tokio::test]
async fn views_over_a_failed_view_fail_with_it_and_hold_back_nobody() -> Result<()> {
    for workers in [1, 2] {
        let mut server = Server::start(workers).await?;
        let client = server.connect().await?;
        client.run(OBJECTS).await?;
        client.run(LARGE).await?;
        expect_failed(&client).await?;
        // More epochs than may be in flight, and a checkpoint.
        for n in 0..10 {
            in_time(&client, &format!("INSERT INTO t VALUES (3, {n})")).await?;
        }
        in_time(&client, "CHECKPOINT").await?;
        assert_eq!(client.rows("SELECT * FROM other ORDER BY g").await?, [["1", "3"], ["2", "1"], ["3", "10"]]);
        // What they held last stays readable, alone.
        assert_eq!(client.value("SELECT n FROM reader").await?, "2");
        let error = client.error("SELECT * FROM reader, other").await?;
        assert!(error.starts_with("55000"), "{error}");
        let error = client.error("CREATE MATERIALIZED VIEW late AS SELECT * FROM far").await?;
        assert_eq!(
            error,
            "55000: cannot read materialized view \"far\": it has failed\n\
             DETAIL: reads materialized view \"sums\", which has failed: bigint out of range\n\
             HINT: use DROP MATERIALIZED VIEW sums CASCADE, and create the views again without the cause"
        );
        // After a restart they are computed again, and fail again.
        server.kill_hard()?;
        server.start_again().await?;
        let client = server.connect().await?;
        expect_failed(&client).await?;
        in_time(&client, "INSERT INTO t VALUES (4, 0)").await?;
        in_time(&client, "CHECKPOINT").await?;
        in_time(&client, "DROP MATERIALIZED VIEW sums CASCADE").await?;
        oracle::check(&client).await?;
    }
    Ok(())
}

/// The failed views, the error of each, and what to do.
async fn expect_failed(client: &Client) -> Result<()> {
    let status = "SELECT name, error, hint FROM freshet_catalog.view_status WHERE state = 'failed' ORDER BY name";
    let reads = "reads materialized view \"sums\", which has failed: bigint out of range";
    let hint = "use DROP MATERIALIZED VIEW sums CASCADE, and create the views again without the cause";
    let own = "use DROP MATERIALIZED VIEW sums CASCADE, and create the view again without the cause";
    client
        .wait_for(status, &[&["far", reads, hint], &["reader", reads, hint], &["sums", "bigint out of range", own]])
        .await?;
    let others = "SELECT name FROM freshet_catalog.view_status WHERE state = 'live'";
    client.wait_for(others, &[&["other"]]).await
}

#[tokio::test]
async fn a_view_that_fails_while_it_hydrates_is_told_of() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (g INT, x BIGINT)").await?;
    client.run(LARGE).await?;
    let create = "CREATE MATERIALIZED VIEW sums AS SELECT g, sum(x) AS x FROM t GROUP BY g";
    let error = client.error(create).await?;
    assert!(error.starts_with("55000") && error.contains("bigint out of range"), "{error}");
    in_time(&client, "DROP MATERIALIZED VIEW sums; DELETE FROM t").await?;
    in_time(&client, create).await?;
    oracle::check(&client).await
}
