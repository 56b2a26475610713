//! How long a server with a large view takes to come back after `kill -9`: until it answers, and until it is fresh.
//!
//! The view has a group a row, so that it comes back twice: its rows, and the state of its operators. Fresh is a server that
//! shows what went into Kafka while it was down.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use freshet_sql_tests::kafka::{Kafka, Record};
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, wait};

use crate::latencies::Latencies;
use crate::process::{Process, megabytes};

const TOPIC: &str = "later";
const FILL_BOUND: Duration = Duration::from_secs(1800);
const FRESH_BOUND: Duration = Duration::from_secs(300);

#[derive(Args)]
pub struct Arguments {
    /// Rows of the view
    #[arg(long, default_value_t = 20_000_000)]
    rows: u64,
    /// How often to kill the server
    #[arg(long, default_value_t = 3)]
    kills: u64,
    /// Dataflow workers
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Further arguments of `freshet serve`
    #[arg(long, allow_hyphen_values = true)]
    serve: Vec<String>,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 1).await?;
    let serve = arguments.serve.iter().map(Into::into).collect();
    let config = ServerConfig { workers: arguments.workers, arguments: serve, ..ServerConfig::default() };
    let mut server = Server::start_with(config).await?;
    fill(&server.connect().await?, &kafka, arguments.rows).await?;
    println!(
        "{} rows and as many groups on {} workers; RSS {}",
        arguments.rows,
        arguments.workers,
        megabytes(Process(Some(server.process_id())).resident_bytes()?)
    );
    let mut to_answer = Latencies::default();
    for kill in 1..=arguments.kills {
        server.kill_hard()?;
        let id = arguments.rows + kill;
        kafka.produce(TOPIC, &[Record::of(format!("{{\"id\":{id}}}"))]).await?;
        let start = Instant::now();
        server.start_again().await?;
        let client = server.connect().await?;
        let first = client.value("SELECT n FROM v WHERE id = 0").await?;
        let answered = start.elapsed();
        ensure!(first == "1", "the first group is {first}");
        wait::until_within(FRESH_BOUND, "what came meanwhile", async || {
            let found = client.rows(&format!("SELECT n FROM v WHERE id = {id}")).await?;
            Ok((!found.is_empty()).then_some(()))
        })
        .await?;
        let fresh = start.elapsed();
        let counted = client.value("SELECT sum(n) FROM v").await?;
        ensure!(counted == id.to_string(), "{counted} rows were counted, not {id}");
        println!(
            "first answer after {:.2} s, fresh after {:.2} s, all counted after {:.2} s; RSS {}",
            answered.as_secs_f64(),
            fresh.as_secs_f64(),
            start.elapsed().as_secs_f64(),
            megabytes(Process(Some(server.process_id())).resident_bytes()?)
        );
        to_answer.add(answered);
        client.run("CHECKPOINT").await?;
    }
    println!("first answer  {to_answer}");
    Ok(())
}

/// Makes the view `v` with `rows` groups, all of them in a checkpoint.
async fn fill(client: &Client, kafka: &Kafka, rows: u64) -> Result<()> {
    client
        .run(&format!(
            "CREATE SOURCE numbers (id BIGINT, x BIGINT) WITH (connector = 'datagen', rows = '{rows}',
             rows_per_second = 'max', fields.id.kind = 'sequence');
             CREATE SOURCE {TOPIC} (id BIGINT) WITH (connector = 'kafka', topic = '{TOPIC}',
             bootstrap_servers = '{}', start = 'earliest') FORMAT PLAIN ENCODE JSON;
             CREATE MATERIALIZED VIEW v AS SELECT id, count(*) AS n, sum(x) AS x FROM (
                 SELECT id, x FROM numbers UNION ALL SELECT id, CAST(0 AS BIGINT) FROM {TOPIC}
             ) AS u GROUP BY id",
            kafka.bootstrap_servers()
        ))
        .await?;
    let all = rows.to_string();
    wait::until_within(FILL_BOUND, "the view to fill", async || {
        Ok((client.value("SELECT count(*) FROM v").await? == all).then_some(()))
    })
    .await?;
    client.run("CHECKPOINT").await
}
