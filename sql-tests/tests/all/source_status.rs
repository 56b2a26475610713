//! `freshet_catalog.source_status`, and the sum that must always hold: every record is a row or a dead letter, whoever
//! reads the source, and whenever.

use anyhow::Result;
use freshet_sql_tests::kafka::Kafka;
use freshet_sql_tests::{Client, Server, oracle};

/// Kinds of records: what is wrong with each is in one column, or in none that a view could avoid.
const RECORDS: [&str; 6] = [
    r#"{"user_id": 1, "page": "/", "ms": 10}"#,
    r#"{"user_id": 1, "page": "/", "ms": "slow"}"#,
    r#"{"user_id": "ann", "page": "/", "ms": 10}"#,
    r#"{"user_id": 2, "page": "\ud800", "ms": 10}"#,
    r#"{"user_id": 2, "page": "/", "ms": 0}"#,
    "[]",
];

async fn one_view_after_another(client: &Client, records: &str, rows: &str, letters: &str) -> Result<()> {
    let counts = ["count(*)", "count(page)", "count(ms)", "count(user_id) FILTER (WHERE ms >= 0 AND page <> '')"];
    for (number, count) in counts.iter().enumerate() {
        client.run(&format!("CREATE MATERIALIZED VIEW v{number} AS SELECT {count} AS n FROM clicks")).await?;
        // Views that are there must not change because another one reads more.
        for view in 0..=number {
            client.wait_for(&format!("SELECT n FROM v{view}"), &[&[rows]]).await?;
        }
        oracle::check(client).await?;
        let distinct = "SELECT count(*), count(DISTINCT (partition, \"offset\")) FROM clicks_dead_letters";
        client.wait_for(distinct, &[&[letters, letters]]).await?;
        let status = "SELECT DISTINCT state, records, dead_letters FROM freshet_catalog.source_status
                      WHERE source = 'clicks'";
        client.wait_for(status, &[&["running", records, letters]]).await?;
    }
    client.run(&(0..counts.len()).map(|n| format!("DROP MATERIALIZED VIEW v{n};")).collect::<String>()).await?;
    let status = "SELECT DISTINCT state FROM freshet_catalog.source_status WHERE source = 'clicks'";
    client.wait_for(status, &[&["idle"]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_a_row_or_a_dead_letter_whoever_reads() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("whoever_reads", 2).await?;
    kafka.produce_texts("whoever_reads", &RECORDS.repeat(5)).await?;
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    client
        .run(&format!(
            "CREATE SOURCE clicks (user_id BIGINT, page TEXT, ms INT, rate INT AS 1000 / ms) WITH (connector = 'kafka',
             topic = 'whoever_reads', bootstrap_servers = '{}') FORMAT PLAIN ENCODE JSON",
            kafka.bootstrap_servers()
        ))
        .await?;
    // Of six kinds of records one is whole. Read again from the start, nothing is counted or kept twice.
    one_view_after_another(&client, "30", "5", "25").await?;
    one_view_after_another(&client, "30", "5", "25").await?;
    kafka.produce_texts("whoever_reads", &RECORDS).await?;
    one_view_after_another(&client, "36", "6", "30").await?;
    server.kill_hard()?;
    server.start_again().await?;
    one_view_after_another(&server.connect().await?, "36", "6", "30").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_a_moment_ago_can_be_read() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    for (number, start) in ["earliest", "latest", "2024-01-01T00:00:00Z"].iter().cycle().take(6).enumerate() {
        let topic = format!("made_a_moment_ago_{number}");
        kafka.create_topic(&topic, 8).await?;
        client
            .run(&format!(
                "CREATE SOURCE s{number} (n INT) WITH (connector = 'kafka', topic = '{topic}', start = '{start}',
                 bootstrap_servers = '{}') FORMAT PLAIN ENCODE JSON",
                kafka.bootstrap_servers()
            ))
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn generators_tell_how_far_they_are() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE SOURCE numbers (id BIGINT, CHECK (id % 10 <> 3)) WITH (connector = 'datagen', rows = '1000',
             rows_per_second = 'max', fields.id.kind = 'sequence');
             CREATE SOURCE bid WITH (connector = 'nexmark', type = 'bid', rate = '1000')",
        )
        .await?;
    let status = "SELECT state, next_offset, lag_records, records, dead_letters, bytes > 0
                  FROM freshet_catalog.source_status WHERE source = 'numbers'";
    assert_eq!(client.rows(status).await?, [["idle", "NULL", "NULL", "0", "0", "f"]]);
    client
        .run(
            "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM numbers;
             CREATE MATERIALIZED VIEW bids AS SELECT count(*) AS n FROM bid",
        )
        .await?;
    client.wait_for(status, &[&["ended", "1000", "0", "1000", "100", "t"]]).await?;
    let running =
        "SELECT state, records > 100, bytes > records FROM freshet_catalog.source_status WHERE source = 'bid'";
    client.wait_for(running, &[&["running", "t", "t"]]).await?;
    client.run("DROP MATERIALIZED VIEW bids").await?;
    client.wait_for("SELECT state FROM freshet_catalog.source_status WHERE source = 'bid'", &[&["idle"]]).await
}
