//! Statements and views as deep as they may be, and deeper: an answer or an error, and the server stays up.

use anyhow::Result;
use freshet_sql_tests::{Client, Server, oracle};

async fn refused(client: &Client, sql: &str) -> Result<()> {
    let error = client.error(sql).await?;
    anyhow::ensure!(error.starts_with("54001"), "{error}");
    Ok(())
}

#[tokio::test]
async fn plain_views_upon_views() -> Result<()> {
    let mut server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run("CREATE TABLE t (a INT PRIMARY KEY); CREATE VIEW v1 AS SELECT a FROM t; INSERT INTO t VALUES (1)")
        .await?;
    for depth in 2..=64 {
        client.run(&format!("CREATE VIEW v{depth} AS SELECT a + 1 AS a FROM v{}", depth - 1)).await?;
    }
    refused(&client, "CREATE VIEW v65 AS SELECT a FROM v64; SELECT * FROM v65").await?;
    client.run("CREATE MATERIALIZED VIEW m AS SELECT max(a) AS a FROM v64").await?;
    assert_eq!(client.value("SELECT a FROM m").await?, "64");
    server.kill_hard()?;
    server.start_again().await?;
    let client = server.connect().await?;
    assert_eq!(client.value("SELECT a FROM m").await?, "64");
    oracle::check(&client).await
}

#[tokio::test]
async fn long_and_deep_statements() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    let sum = |terms: usize| vec!["a"; terms].join(" + ");
    let unions = |terms: usize| vec!["SELECT a FROM t"; terms].join(" UNION ALL ");
    let nested = |depth: usize| format!("{}t{}", "(SELECT * FROM ".repeat(depth), ") x".repeat(depth));
    assert_eq!(client.value(&format!("SELECT {} FROM t", sum(1_000))).await?, "1000");
    assert_eq!(client.rows(&unions(1_000)).await?.len(), 1_000);
    assert_eq!(client.value(&format!("SELECT * FROM {}", nested(25))).await?, "1");
    client.run(&format!("CREATE MATERIALIZED VIEW m AS SELECT {} AS s FROM t", sum(1_000))).await?;
    client.run(&format!("CREATE MATERIALIZED VIEW u AS SELECT count(*) AS n FROM ({}) x", unions(100))).await?;
    client.run("INSERT INTO t VALUES (2)").await?;
    assert_eq!(client.value("SELECT sum(s) FROM m").await?, "3000");
    assert_eq!(client.value("SELECT n FROM u").await?, "200");
    for sql in [
        format!("SELECT {} FROM t", sum(10_000)),
        unions(10_000),
        format!("SELECT * FROM {}", nested(10_000)),
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
    ] {
        refused(&client, &sql).await?;
    }
    assert_eq!(client.value("SELECT count(*) FROM t").await?, "2");
    Ok(())
}
