//! Data that earlier versions wrote: this server goes on from it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::old_data::{copy_folder, folders};
use freshet_sql_tests::server::{ServerConfig, binary};
use freshet_sql_tests::{Client, Server, oracle};

async fn start(data: &Path, workers: usize) -> Result<Server> {
    let location = Some(data.display().to_string());
    Server::start_with(ServerConfig { workers, location, ..ServerConfig::default() }).await
}

/// What `freshet_sql_tests::old_data` wrote, up to the checkpoint.
async fn look(client: &Client) -> Result<()> {
    client.wait_for("SELECT sum(n) FROM per_k", &[&["700"]]).await?;
    let sums = client.rows("SELECT count(*), sum(n), sum(s), max(most) FROM sums").await?;
    ensure!(
        sums == client.rows("SELECT count(DISTINCT g), count(*), sum(amount), max(id) FROM large").await?,
        "{sums:?}"
    );
    ensure!(client.value("SELECT count(*) FROM log WHERE tags[2] = n::TEXT").await? == "200");
    ensure!(client.value("SELECT sum(n * groups) FROM sizes").await? == sums[0][1]);
    ensure!(client.value("SELECT count(*) FROM freshet_catalog.view_errors WHERE view = 'quotients'").await? == "4");
    oracle::check(client).await
}

#[tokio::test]
async fn data_of_each_format_is_brought_back() -> Result<()> {
    for folder in folders()? {
        let copies = tempfile::tempdir()?;
        let data = copies.path().join("data");
        copy_folder(&folder.join("data"), &data)?;
        for workers in [2, 3] {
            let mut server = start(&data, workers).await.with_context(|| folder.display().to_string())?;
            // Nothing had to be computed again.
            let told = server.log().join("\n");
            ensure!(!told.contains("WARN") && told.contains("hydrating=0"), "{told}");
            let client = server.connect().await?;
            look(&client).await?;
            ensure!(client.value("SELECT count(*) FROM t").await? == "365");
            let later = client.rows("SELECT id, g, n FROM matches WHERE id > 1000").await?;
            ensure!(later == [["1001", "x", "1001"]], "{later:?}");
            client.run("INSERT INTO t (id) VALUES (2000); DELETE FROM t WHERE id = 2000; CHECKPOINT").await?;
            server.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn backups_of_each_format_are_restored() -> Result<()> {
    for folder in folders()? {
        let copies = tempfile::tempdir()?;
        let data = copies.path().join("data");
        let mut restore = std::process::Command::new(binary()?);
        restore.arg("restore").arg("--from").arg(folder.join("backup")).arg("--data").arg(&data);
        let restored = tokio::task::spawn_blocking(move || restore.output()).await??;
        ensure!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        let server = start(&data, 1).await.with_context(|| folder.display().to_string())?;
        let client = server.connect().await?;
        look(&client).await?;
        ensure!(client.value("SELECT count(*) FROM t").await? == "364");
    }
    Ok(())
}
