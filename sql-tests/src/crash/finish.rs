//! What is looked at once, after the last kill: it takes longer than a round should.

use anyhow::{Result, ensure};

use super::{Crash, Data, check};
use crate::server::{Server, ServerConfig};
use crate::{Client, iceberg, oracle};

impl Crash<'_> {
    /// The sink's topic, the cold tier as other programs read it, the end of old rows, and a server from the last backup. Gives
    /// the number of messages, and of rows in the cold tier.
    pub(super) async fn finish(&mut self) -> Result<(usize, usize)> {
        let client = self.server.connect().await?;
        self.sink.compare(&client).await?;
        client.wait_for("SELECT count(*) FROM readings WHERE ts < now() - INTERVAL '17 seconds'", &[&["0"]]).await?;
        let rows = if self.options.data == Data::Folder { self.look_at_the_cold_tier(&client).await? } else { 0 };
        oracle::check(&client).await?;
        drop(client);
        self.server.kill_hard()?;
        self.start_from_backup().await?;
        Ok((self.sink.messages, rows))
    }

    /// All rows of `stock` become cold; then the Iceberg table has them.
    async fn look_at_the_cold_tier(&self, client: &Client) -> Result<usize> {
        let tiers = "SELECT DISTINCT tier FROM freshet_catalog.tiers WHERE relation = 'stock'";
        crate::wait::until("all of stock to be cold", async || {
            client.run("ALTER TABLE stock MOVE TIERS").await?;
            let tiers = client.rows(tiers).await?;
            Ok((tiers.is_empty() || tiers == [["cold"]]).then_some(()))
        })
        .await?;
        client.run("CHECKPOINT").await?;
        let mut expected = client.rows("SELECT * FROM stock").await?;
        if expected.is_empty() {
            return Ok(0);
        }
        expected.sort_by_key(|row| row.join("\t"));
        let found = iceberg::rows(&self.server.data().join("cold/public.stock"), "").await?;
        ensure!(found == expected, "the Iceberg table has {found:?}, and not {expected:?}");
        Ok(found.len())
    }

    /// A server that starts from the last backup has views that are right, and reads on from where the backup was made.
    async fn start_from_backup(&self) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        if !self.upkeep.restore(&data).await? {
            return Ok(());
        }
        let location = Some(data.display().to_string());
        let server = Server::start_with(ServerConfig { workers: 2, location, ..ServerConfig::default() }).await?;
        let client = server.connect().await?;
        check::quiet(&client, &self.topic).await?;
        check::records(&client, &self.topic).await?;
        oracle::check(&client).await
    }
}
