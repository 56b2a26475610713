//! The cold tier as other programs see it.

use std::path::Path;

use anyhow::Result;
use freshet_sql_tests::{Client, Server, iceberg};

const TABLE: &str = "CREATE TABLE calls (id BIGINT PRIMARY KEY, agent TEXT, wait DOUBLE PRECISION, cost NUMERIC(10,2),
     skills TEXT[], at TIMESTAMP) WITH (hot = '0s', warm = '0s', cold = '36500 days', time_column = at)";

/// Moves all rows to the cold tier, and publishes it.
async fn publish(client: &Client) -> Result<()> {
    client.run("ALTER TABLE calls MOVE TIERS").await?;
    client.run("CHECKPOINT").await
}

/// What another program finds is what a query gives.
async fn compare(client: &Client, folder: &Path) -> Result<usize> {
    let found = iceberg::rows(folder, "").await?;
    let query = "SELECT id, agent, wait, cost, CASE WHEN skills IS NULL THEN NULL ELSE '[''' || array_to_string(skills, ''', ''') || ''']' END, at FROM calls";
    let mut expected = client.rows(query).await?;
    expected.sort_by_key(|row| row.join("\t"));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    Ok(found.len())
}

#[tokio::test]
async fn other_programs_read_the_cold_tier() -> Result<()> {
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    client.run(TABLE).await?;
    let insert = "INSERT INTO calls SELECT n, CASE WHEN n % 7 > 0 THEN 'agent ' || (n % 7) END, n + 0.5, n * 1.25,
         CASE WHEN n % 3 = 0 THEN ARRAY['sales', 'level ' || n] END,
         CASE WHEN n % 50 > 0 THEN TIMESTAMP '2020-03-01 00:00:00' + n * INTERVAL '1 hour' END";
    client.run(&format!("{insert} FROM generate_series(1, 100) AS g(n)")).await?;
    publish(&client).await?;
    let folder = server.data().join("cold/public.calls");
    assert_eq!(compare(&client, &folder).await?, 100);
    // Files that cannot have such rows are left out by what the table says of them.
    let late = iceberg::rows(&folder, "at >= '2020-03-04T00:00:00' and cost < 100").await?;
    assert_eq!(
        late.len().to_string(),
        client.value("SELECT count(*) FROM calls WHERE at >= '2020-03-04' AND cost < 100").await?
    );

    client.run("DELETE FROM calls WHERE id % 10 = 3").await?;
    client.run("UPDATE calls SET agent = 'nobody' WHERE id BETWEEN 40 AND 45").await?;
    client.run("CHECKPOINT").await?;
    assert_eq!(iceberg::rows(&folder, "").await?.len(), 85, "new rows are hot");
    publish(&client).await?;
    assert_eq!(compare(&client, &folder).await?, 90);

    server.kill_hard()?;
    server.set_workers(1);
    server.start_again().await?;
    let client = server.connect().await?;
    assert_eq!(compare(&client, &folder).await?, 90);
    client.run(&format!("{insert} FROM generate_series(101, 130) AS g(n)")).await?;
    client.run("DELETE FROM calls WHERE at < '2020-03-02'").await?;
    publish(&client).await?;
    compare(&client, &folder).await?;

    client.run("DROP TABLE calls; CHECKPOINT").await?;
    assert!(iceberg::rows(&folder, "").await.is_err());
    Ok(())
}
