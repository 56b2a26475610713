//! The HTTP port: health and metrics.

use anyhow::{Context, Result};
use freshet_sql_tests::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status line and the body of the answer to a GET.
pub async fn get(server: &Server, path: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(server.http()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: freshet\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head and a body")?;
    let status = head.lines().next().unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}

#[tokio::test]
async fn the_server_says_that_it_is_well() -> Result<()> {
    let server = Server::start(1).await?;
    let (status, _) = get(&server, "/healthz").await?;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let (status, _) = get(&server, "/readyz").await?;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let (status, _) = get(&server, "/no/such/path").await?;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    Ok(())
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus() -> Result<()> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client.run("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)").await?;
    let (status, body) = get(&server, "/metrics").await?;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let samples: Vec<&str> = body.lines().filter(|line| line.starts_with("freshet_")).collect();
    assert!(!samples.is_empty(), "{body}");
    for sample in samples {
        let value = sample.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{sample}");
    }
    Ok(())
}
