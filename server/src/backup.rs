//! `freshet backup`: has a running server make a backup, and shows how it comes along.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, bail};
use futures::StreamExt;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Has the server at `address` copy what it has to `to`.
///
/// # Errors
/// If the server cannot be reached, or says why it cannot.
pub async fn run(to: &str, address: &str) -> anyhow::Result<()> {
    let (host, port) = address.rsplit_once(':').context("--server is an address like 127.0.0.1:7432")?;
    let mut config = tokio_postgres::Config::new();
    config.host(host.trim_matches(['[', ']'])).port(port.parse().context("--server: the port is a number")?);
    config.user("freshet").dbname("freshet").application_name("freshet backup");
    let (client, connection) = config.connect(NoTls).await.with_context(|| format!("cannot connect to {address}"))?;
    tokio::select! {
        copied = copy(&client, to) => copied,
        // It ends before only if it breaks, which the statement tells as well.
        broken = connection => bail!("the server has gone: {}", broken.err().map_or_else(String::new, |e| e.to_string())),
    }
}

async fn copy(client: &tokio_postgres::Client, to: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    let statement = format!("BACKUP TO '{}'", to.replace('\'', "''"));
    let rows = client.simple_query_raw(&statement).await.map_err(told)?;
    let mut rows = std::pin::pin!(rows);
    let (mut files, mut bytes) = (0_u64, 0_u64);
    let mut out = std::io::stdout();
    while let Some(message) = rows.next().await {
        let SimpleQueryMessage::Row(row) = message.map_err(told)? else { continue };
        let size: u64 = row.get("bytes").and_then(|size| size.parse().ok()).context("a file has a size")?;
        files += 1;
        bytes += size;
        writeln!(out, "{} ({})", row.get("file").unwrap_or_default(), in_words(size))?;
    }
    writeln!(out, "{to}: {files} files, {} in {:.1?}", in_words(bytes), started.elapsed())?;
    Ok(())
}

/// What the server said, in its words.
fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(told) => match told.detail() {
            Some(detail) => anyhow::anyhow!("{}: {detail}", told.message()),
            None => anyhow::anyhow!("{}", told.message()),
        },
        None => error.into(),
    }
}

/// A size for people.
pub fn in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let scaled = bytes as f64 / f64::from(2_u32).powi(10 * i32::try_from(unit).unwrap_or(0));
    if unit == 0 { format!("{bytes} B") } else { format!("{scaled:.1} {}", UNITS[unit as usize]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_nearest_unit() {
        let sizes = [0, 1023, 1024, 1536, 5 << 20, u64::MAX].map(in_words);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "16777216.0 TiB"]);
    }
}
