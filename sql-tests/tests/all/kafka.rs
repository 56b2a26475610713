//! Sources over a real Kafka broker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freshet_sql_tests::kafka::{Kafka, Record};
use freshet_sql_tests::{Client, Server, oracle, wait};

/// `CREATE SOURCE … FORMAT PLAIN ENCODE JSON` over a topic of the same name; `columns` and `more` as in SQL.
async fn create_source(client: &Client, kafka: &Kafka, name: &str, columns: &str, more: &str) -> Result<()> {
    client
        .run(&format!(
            "CREATE SOURCE {name} ({columns}) {more} WITH (connector = 'kafka', topic = '{name}',
             bootstrap_servers = '{}', start = 'earliest') FORMAT PLAIN ENCODE JSON",
            kafka.bootstrap_servers()
        ))
        .await
}

fn click(user: i64, page: &str, ms: i64, ts: &str) -> String {
    format!(r#"{{"user_id": {user}, "page": "{page}", "ms": {ms}, "ts": "{ts}", "ignored": [1, 2]}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_topic_to_a_live_view() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("clicks", 3).await?;
    let server = Server::start(2).await?;
    let client = server.connect().await?;
    let columns = "user_id BIGINT, page TEXT, ms INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 minutes'";
    create_source(&client, kafka, "clicks", columns, "").await?;
    client
        .run(
            "CREATE MATERIALIZED VIEW per_page AS SELECT page, window_start, count(*) AS views, avg(ms) AS avg_ms,
             count(DISTINCT user_id) AS users FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY page, window_start",
        )
        .await?;
    let clicks = [
        click(1, "/", 10, "2024-01-01T10:00:00Z"),
        click(2, "/", 20, "2024-01-01T10:00:59.999"),
        click(1, "/", 30, "2024-01-01 10:00:30"),
        click(1, "/a", 5, "2024-01-01T10:01:00Z"),
    ];
    kafka.produce("clicks", &clicks.map(Record::of)).await?;
    let select = "SELECT page, window_start, views, avg_ms::INT, users FROM per_page ORDER BY page";
    let expected: [&[&str]; 2] =
        [&["/", "2024-01-01 10:00:00", "3", "20", "2"], &["/a", "2024-01-01 10:01:00", "1", "5", "1"]];
    client.wait_for(select, &expected).await?;
    // What Kafka retains can be asked for from scratch.
    assert_eq!(client.value("SELECT count(*) FROM clicks").await?, "4");
    oracle::check(&client).await?;
    kafka.produce("clicks", &[Record::of(click(9, "/a", 15, "2024-01-01T10:01:30Z"))]).await?;
    client.wait_for("SELECT views, avg_ms::INT, users FROM per_page WHERE page = '/a'", &[&["2", "10", "2"]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_become_dead_letters() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("orders", 1).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    let columns = "id BIGINT NOT NULL, price INT, doubled INT AS price * 2, CHECK (price >= 0)";
    create_source(&client, kafka, "orders", columns, "").await?;
    client.run("CREATE MATERIALIZED VIEW v AS SELECT id, price, doubled FROM orders").await?;
    let payloads = [
        r#"{"id": 1, "price": 10}"#,
        r#"{"id": 2, "price": "#,
        r#"{"id": 3, "price": -1}"#,
        r#"{"price": 5}"#,
        r#"{"id": "seven", "price": 1}"#,
        "\u{0}\u{1} not json",
        r#"{"id": 8, "price": 99999999999}"#,
        r#"{"id": 9, "price": null}"#,
    ];
    kafka.produce_texts("orders", &payloads).await?;
    client.wait_for("SELECT * FROM v ORDER BY id", &[&["1", "10", "20"], &["9", "NULL", "NULL"]]).await?;
    let letters = "SELECT \"offset\" FROM orders_dead_letters ORDER BY 1";
    client.wait_for(letters, &[&["1"], &["2"], &["3"], &["4"], &["5"], &["6"]]).await?;
    let letters =
        "SELECT \"column\", partition, error <> '', payload IS NOT NULL FROM orders_dead_letters WHERE \"offset\" = 6";
    assert_eq!(client.rows(letters).await?, [["price", "0", "t", "t"]]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_added_later_are_read() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("growing", 1).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    create_source(&client, kafka, "growing", "n INT", "INCLUDE partition").await?;
    client
        .run("CREATE MATERIALIZED VIEW v AS SELECT _partition AS p, sum(n) AS n FROM growing GROUP BY _partition")
        .await?;
    kafka.produce_texts("growing", &[r#"{"n": 1}"#]).await?;
    client.wait_for("SELECT * FROM v ORDER BY p", &[&["0", "1"]]).await?;
    kafka.add_partitions("growing", 3).await?;
    let records = [2, 1].map(|partition| Record::of(format!(r#"{{"n": {partition}0}}"#)).in_partition(partition));
    kafka.produce("growing", &records).await?;
    client.wait_for("SELECT * FROM v ORDER BY p", &[&["0", "1"], &["1", "10"], &["2", "20"]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_knows_of_a_record() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("included", 1).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    let include = "INCLUDE key, partition, offset AS position, timestamp, headers, payload";
    create_source(&client, kafka, "included", "n INT", include).await?;
    client
        .run(
            "CREATE MATERIALIZED VIEW v AS SELECT n, convert_from(_key, 'UTF8') AS k, _partition, position, _timestamp,
             _headers IS NOT NULL AS has_headers, length(_payload) AS bytes FROM included",
        )
        .await?;
    let record = Record {
        key: Some("the key".to_owned()),
        payload: Some(br#"{"n":7}"#.to_vec()),
        timestamp_ms: Some(1_700_000_000_123),
        headers: vec![("h".to_owned(), "1".to_owned())],
        partition: Some(0),
    };
    kafka.produce("included", &[record]).await?;
    let select = "SELECT n, k, _partition, position, bytes FROM v";
    client.wait_for(select, &[&["7", "the key", "0", "0", "7"]]).await?;
    let at = client.value("SELECT _timestamp FROM v").await?;
    assert!(at.starts_with("2023-11-14 22:13:20.123"), "{at}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_reading_starts() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("starts", 1).await?;
    let record =
        |n: i64| Record { timestamp_ms: Some(1_700_000_000_000 + n * 1000), ..Record::of(format!(r#"{{"n": {n}}}"#)) };
    kafka.produce("starts", &[record(0), record(1), record(2), record(3)]).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    for (name, start) in [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("by_time", "2023-11-14T22:13:22Z"),
        ("by_offset", r#"{"0": 3}"#),
    ] {
        client
            .run(&format!(
                "CREATE SOURCE {name} (n INT) WITH (connector = 'kafka', topic = 'starts', bootstrap_servers = '{}',
                 start = '{start}') FORMAT PLAIN ENCODE JSON;
                 CREATE MATERIALIZED VIEW {name}_v AS SELECT min(n) AS least, count(*) AS n FROM {name}",
                kafka.bootstrap_servers()
            ))
            .await?;
    }
    kafka.produce("starts", &[record(4)]).await?;
    client.wait_for("SELECT * FROM earliest_v", &[&["0", "5"]]).await?;
    client.wait_for("SELECT * FROM latest_v", &[&["4", "1"]]).await?;
    client.wait_for("SELECT * FROM by_time_v", &[&["2", "3"]]).await?;
    client.wait_for("SELECT * FROM by_offset_v", &[&["3", "2"]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_created_later_equals_one_created_earlier() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("numbers", 2).await?;
    let server = Server::start(2).await?;
    let client = server.connect().await?;
    create_source(&client, kafka, "numbers", "n BIGINT", "").await?;
    client.run("CREATE MATERIALIZED VIEW early AS SELECT n % 10 AS d, count(*) AS c, sum(n) AS s FROM numbers GROUP BY n % 10").await?;
    let records: Vec<Record> = (0..20_000).map(|n| Record::of(format!(r#"{{"n": {n}}}"#))).collect();
    kafka.produce("numbers", &records[..10_000]).await?;
    client.wait_for("SELECT sum(c) FROM early", &[&["10000"]]).await?;
    client.run("CREATE MATERIALIZED VIEW late AS SELECT n % 10 AS d, count(*) AS c, sum(n) AS s FROM numbers GROUP BY n % 10").await?;
    kafka.produce("numbers", &records[10_000..]).await?;
    client.wait_for("SELECT (SELECT sum(c) FROM early), (SELECT sum(c) FROM late)", &[&["20000", "20000"]]).await?;
    let both = "SELECT count(*) FROM early e JOIN late l ON e.d = l.d AND e.c = l.c AND e.s = l.s";
    assert_eq!(client.value(both).await?, "10");
    // Two views over one source never disagree at one instant: not while it flows either.
    kafka.produce("numbers", &records[..5_000]).await?;
    wait::until("all records", async || {
        let rows = client.rows("SELECT (SELECT sum(c) FROM early), (SELECT sum(c) FROM late)").await?;
        assert_eq!(rows[0][0], rows[0][1]);
        Ok((rows[0][0] == "25000").then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_broker_is_shown_and_its_return_noticed() -> Result<()> {
    let mut kafka = Kafka::start().await?;
    kafka.create_topic("events", 1).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    create_source(&client, &kafka, "events", "n INT", "").await?;
    client.run("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM events").await?;
    kafka.produce_texts("events", &[r#"{"n": 1}"#]).await?;
    client.wait_for("SELECT n FROM v", &[&["1"]]).await?;
    let state = "SELECT state, last_error IS NULL FROM freshet_catalog.source_status WHERE source = 'events'";
    client.wait_for(state, &[&["running", "t"]]).await?;
    kafka.stop()?;
    client.wait_for(state, &[&["retrying", "f"]]).await?;
    // What is there stays readable.
    assert_eq!(client.value("SELECT n FROM v").await?, "1");
    kafka.start_again().await?;
    kafka.produce_texts("events", &[r#"{"n": 2}"#]).await?;
    client.wait_for("SELECT n FROM v", &[&["2"]]).await?;
    let state = "SELECT state FROM freshet_catalog.source_status WHERE source = 'events'";
    client.wait_for(state, &[&["running"]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_be_reached_is_refused_at_create() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    let start = Instant::now();
    let error = client
        .error(
            "CREATE SOURCE s (n INT) WITH (connector = 'kafka', topic = 't', bootstrap_servers = '127.0.0.1:1')
             FORMAT PLAIN ENCODE JSON",
        )
        .await?;
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert!(error.starts_with("08"), "{error}");
    let error = client.error("SELECT * FROM s").await?;
    assert!(error.starts_with("42P01"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_is_named() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    let error = create_source(&client, kafka, "no_such_topic", "n INT", "").await.err().context("an error")?;
    assert!(format!("{error:#}").contains("no_such_topic"), "{error:#}");
    // Something answers there, but it is no broker.
    let not_kafka = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'kafka', topic = 't', bootstrap_servers = '{}') FORMAT PLAIN ENCODE JSON",
        server.http()
    );
    let error = client.error(&not_kafka).await?;
    assert!(error.starts_with("08") && error.contains("does not speak Kafka's protocol"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_beyond_the_end_is_refused() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("short", 1).await?;
    kafka.produce_texts("short", &[r#"{"n": 1}"#]).await?;
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    let create = |start: &str| {
        format!(
            "CREATE SOURCE s (n INT) WITH (connector = 'kafka', topic = 'short', bootstrap_servers = '{}',
             start = '{start}') FORMAT PLAIN ENCODE JSON",
            kafka.bootstrap_servers()
        )
    };
    let error = client.error(&create(r#"{"0": 2}"#)).await?;
    assert!(error.starts_with("22023: partition 0 of topic \"short\" has no offset 2 yet"), "{error}");
    client.run(&create(r#"{"0": 1}"#)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_over_topics_and_tables_come_back_after_kill_9() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("sales", 2).await?;
    let mut server = Server::start(2).await?;
    let client = server.connect().await?;
    create_source(&client, kafka, "sales", "item INT, amount INT", "").await?;
    client
        .run(
            "CREATE TABLE items (id INT PRIMARY KEY, name TEXT);
             INSERT INTO items VALUES (1, 'tea'), (2, 'mug');
             CREATE MATERIALIZED VIEW v AS SELECT name, count(*) AS n, sum(amount) AS amount
             FROM sales JOIN items ON item = id GROUP BY name",
        )
        .await?;
    let batch: Vec<Record> =
        (0..1000).map(|n| Record::of(format!(r#"{{"item": {}, "amount": {n}}}"#, n % 3))).collect();
    let select = "SELECT name, n FROM v ORDER BY name";
    for round in 1..4 {
        kafka.produce("sales", &batch).await?;
        let client = server.connect().await?;
        let (mugs, teas) = ((333 * round).to_string(), (333 * round).to_string());
        client.wait_for(select, &[&["mug", &mugs], &["tea", &teas]]).await?;
        server.kill_hard()?;
        server.start_again().await?;
    }
    let client = server.connect().await?;
    client.wait_for(select, &[&["mug", "999"], &["tea", "999"]]).await?;
    client.run("UPDATE items SET name = 'cup' WHERE id = 2").await?;
    client.wait_for(select, &[&["cup", "999"], &["tea", "999"]]).await
}
