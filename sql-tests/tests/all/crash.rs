//! `kill -9` under load; `crash --help` tells of the same for longer.

use std::time::Duration;

use anyhow::{Context, Result};
use freshet_sql_tests::crash::{self, Data, Options};
use freshet_sql_tests::kafka::Kafka;

#[tokio::test]
async fn nothing_is_lost_or_counted_twice() -> Result<()> {
    crash(20, Data::Folder).await
}

#[tokio::test]
async fn nothing_is_lost_or_counted_twice_in_a_bucket() -> Result<()> {
    crash(8, Data::S3).await
}

/// The seed is printed with a failure; `FRESHET_SEED=n` replays it.
async fn crash(kills: usize, data: Data) -> Result<()> {
    let seed = match std::env::var("FRESHET_SEED") {
        Ok(seed) => seed.parse().context("FRESHET_SEED is a number")?,
        Err(_) => rand::random(),
    };
    let options = Options { kills, seed, time: Duration::from_secs(50), pauses: true, data };
    crash::run(Kafka::shared().await?, &options, |_| ()).await?;
    Ok(())
}
