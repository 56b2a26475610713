//! Look-ups by key in a large view.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use freshet_sql_tests::{Server, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::latencies::Latencies;
use crate::process::{Process, megabytes};

const FILL_BOUND: Duration = Duration::from_secs(300);

#[derive(Args)]
pub struct Arguments {
    /// Rows of the view
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// Look-ups of each kind
    #[arg(long, default_value_t = 20_000)]
    lookups: i64,
}

pub async fn run(arguments: &Arguments) -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(&format!(
            "CREATE SOURCE numbers (id BIGINT, x BIGINT) WITH (connector = 'datagen', rows = '{}', rows_per_second = 'max',
             fields.id.kind = 'sequence');
             CREATE MATERIALIZED VIEW v AS SELECT id, count(*) AS n, sum(x) AS x FROM numbers GROUP BY id",
            arguments.rows
        ))
        .await?;
    let rows = arguments.rows.to_string();
    wait::until_within(FILL_BOUND, "the view to fill", async || {
        Ok((client.value("SELECT count(*) FROM v").await? == rows).then_some(()))
    })
    .await?;

    let process = Process(Some(server.process_id()));
    let cpu = process.cpu_time()?;
    let statement = client.prepare("SELECT id, n, x FROM v WHERE id = $1").await?;
    let mut prepared = Latencies::default();
    for lookup in 0..arguments.lookups {
        let start = Instant::now();
        client.query_one(&statement, &[&key(lookup, arguments.rows)]).await?;
        prepared.add(start.elapsed());
    }
    let cpu = process.cpu_time()? - cpu;
    let mut simple = Latencies::default();
    for lookup in 0..arguments.lookups {
        let sql = format!("SELECT id, n, x FROM v WHERE id = {}", key(lookup, arguments.rows));
        let start = Instant::now();
        client.simple_query(&sql).await?;
        simple.add(start.elapsed());
    }
    println!("{} rows, {} look-ups of each kind, one after the other", arguments.rows, prepared.len());
    println!("prepared, as the client sees it    {prepared}");
    println!("simple, as the client sees it      {simple}");
    for line in statement_times(server.http()).await? {
        println!("at the server, of all SELECTs       {line}");
    }
    println!("prepared, CPU time of the server   {:.3} ms each", cpu.as_secs_f64() * 1e3 / prepared.len() as f64);
    println!("RSS of the server                  {}", megabytes(process.resident_bytes()?));
    Ok(())
}

/// What the server's metrics say of the time that SELECTs took.
async fn statement_times(http: SocketAddr) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(http).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let wanted = |line: &&str| line.starts_with("freshet_statement_seconds{") && line.contains("SELECT");
    Ok(answer.lines().filter(wanted).map(str::to_owned).collect())
}

/// Keys all over the view.
fn key(lookup: i64, rows: i64) -> i64 {
    lookup * 7_919 % rows
}
