//! Sources that make up their rows: nexmark and datagen.

use anyhow::Result;
use freshet_sql_tests::{Server, oracle};

const BASE_TIME: &str = "2024-01-01T00:00:00Z";

#[tokio::test]
async fn nexmark_tells_one_story_on_any_number_of_workers() -> Result<()> {
    let mut answers = Vec::new();
    for workers in [1, 3] {
        let server = Server::start(workers).await?;
        let client = server.connect().await?;
        for kind in ["person", "auction", "bid"] {
            client
                .run(&format!(
                    "CREATE SOURCE {kind} WITH (connector = 'nexmark', type = '{kind}', events = '50000', rate = 'max',
                     base_time = '{BASE_TIME}')"
                ))
                .await?;
        }
        client
            .run(
                "CREATE MATERIALIZED VIEW per_auction AS
                     SELECT auction, count(*) AS bids, max(price) AS price FROM bid GROUP BY auction;
                 CREATE MATERIALIZED VIEW sellers AS
                     SELECT p.state, count(*) AS auctions FROM auction a JOIN person p ON a.seller = p.id GROUP BY p.state;
                 CREATE MATERIALIZED VIEW windows AS SELECT window_start, count(DISTINCT bidder) AS bidders
                     FROM TUMBLE(bid, date_time, INTERVAL '1 second') GROUP BY window_start;
                 CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS people FROM person",
            )
            .await?;
        // Of 50 events one is a person, three are auctions, and 46 are bids.
        client.wait_for("SELECT people FROM counts", &[&["1000"]]).await?;
        client.wait_for("SELECT sum(bids) FROM per_auction", &[&["46000"]]).await?;
        let mut answer = Vec::new();
        for view in ["per_auction", "sellers", "windows"] {
            oracle::check(&client).await?;
            let mut rows = client.rows(&format!("SELECT * FROM {view}")).await?;
            rows.sort();
            answer.push(rows);
        }
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
    Ok(())
}

#[tokio::test]
async fn datagen_makes_sequences_and_random_values() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(&format!(
            "CREATE SOURCE g (id BIGINT, n INT, name TEXT, at TIMESTAMP, twice BIGINT AS id * 2) WITH (connector = 'datagen',
             rows = '1000', rows_per_second = 'max', base_time = '{BASE_TIME}', fields.id.kind = 'sequence',
             fields.id.start = '1', fields.n.min = '5', fields.n.max = '7', fields.name.values = 'a,b',
             fields.name.null_rate = '0.5');
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, count(DISTINCT id) AS ids, min(id) AS id0, max(id) AS id1,
             min(n) AS n0, max(n) AS n1, max(twice) AS twice FROM g;
             CREATE MATERIALIZED VIEW names AS SELECT DISTINCT name FROM g"
        ))
        .await?;
    client.wait_for("SELECT * FROM v", &[&["1000", "1000", "1", "1000", "5", "7", "2000"]]).await?;
    client.wait_for("SELECT * FROM names ORDER BY name", &[&["a"], &["b"], &["NULL"]]).await
}

#[tokio::test]
async fn an_endless_source_keeps_its_pace_and_can_be_dropped() -> Result<()> {
    let server = Server::start(2).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE SOURCE g (id BIGINT) WITH (connector = 'datagen', rows_per_second = '1000', fields.id.kind = 'sequence');
             CREATE MATERIALIZED VIEW v AS SELECT count(*) > 500 AS many FROM g",
        )
        .await?;
    client.wait_for("SELECT many FROM v", &[&["t"]]).await?;
    client.run("DROP SOURCE g CASCADE").await?;
    let error = client.error("SELECT * FROM v").await?;
    assert!(error.starts_with("42P01"), "{error}");
    Ok(())
}

#[tokio::test]
async fn rows_that_violate_the_declaration_become_dead_letters() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE SOURCE g (id BIGINT, CHECK (id % 10 <> 3)) WITH (connector = 'datagen', rows = '100', rows_per_second = 'max',
             fields.id.kind = 'sequence');
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM g",
        )
        .await?;
    client.wait_for("SELECT n FROM v", &[&["90"]]).await?;
    client.wait_for("SELECT count(*) FROM g_dead_letters", &[&["10"]]).await
}
