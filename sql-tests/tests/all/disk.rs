//! A disk that is full, and has room again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Client, Server, oracle, wait};

/// Room for the data of a server, and some rows.
const DISK_BYTES: u64 = 24 * 1024 * 1024;
/// A write that must be answered, whether with success or not.
const ANSWER_BOUND: Duration = Duration::from_secs(30);

/// A small file system in memory.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` where one may not mount.
    fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        Ok(mounted.then_some(Self { folder }))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no room.
    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.ballast())?;
        // It ends when the disk is full.
        let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).context("the ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It stays mounted until the machine restarts, which a test has no way to mend.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_checkpoints_but_not_the_server() -> Result<()> {
    let Some(disk) = Disk::mount()? else {
        // Only in containers without the right to mount.
        return Ok(());
    };
    // Checkpoints are made only where the test asks for one.
    let arguments = vec!["--checkpoint-interval".into(), "1h".into()];
    let parent = Some(disk.path().to_owned());
    let config = ServerConfig { parent, workers: 2, arguments, ..ServerConfig::default() };
    let mut server = Server::start_with(config).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, s TEXT);
             CREATE MATERIALIZED VIEW v AS SELECT id % 3 AS g, count(*) AS n FROM t GROUP BY id % 3;
             INSERT INTO t VALUES (0, 'first')",
        )
        .await?;
    disk.fill()?;
    let refused = write(&client, 1).await?.err().context("there was no room for a row")?;
    ensure!(refused.starts_with("53100: cannot write to the store"), "{refused}");
    // What is there is served.
    ensure!(client.value("SELECT s FROM t WHERE id = 0").await? == "first");
    for _ in 0..2 {
        let failed = client.error("CHECKPOINT").await?;
        ensure!(failed.starts_with("53100: cannot write a checkpoint"), "{failed}");
    }
    let told = "SELECT count(*) FROM freshet_catalog.checkpoints WHERE error LIKE '%no room left%'";
    ensure!(client.value(told).await? == "2");
    ensure!(
        server.log().iter().any(|line| line.contains("WARN") && line.contains("checkpoint")),
        "{}",
        server.log_tail()
    );
    disk.make_room()?;
    let mut last = String::new();
    let succeed = wait::until("writes to succeed again", async || match write(&client, 2).await? {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            last = error;
            Ok(None)
        }
    });
    succeed.await.with_context(|| last.clone())?;
    client.run("CHECKPOINT").await?;
    ensure!(client.value("SELECT count(*) FROM t WHERE id IN (0, 2)").await? == "2");
    oracle::check(&client).await?;
    server.kill_hard()?;
    server.start_again().await?;
    let client = server.connect().await?;
    ensure!(client.value("SELECT count(*) FROM t WHERE id IN (0, 2)").await? == "2");
    oracle::check(&client).await
}

/// Inserts a row; gives the error, if the server says that it could not.
async fn write(client: &Client, id: i32) -> Result<std::result::Result<(), String>> {
    let sql = format!("INSERT INTO t VALUES ({id}, 'row') ON CONFLICT (id) DO NOTHING");
    let answer = tokio::time::timeout(ANSWER_BOUND, client.simple_query(&sql));
    match answer.await.context("a write was not answered")? {
        Ok(_) => Ok(Ok(())),
        Err(error) => Ok(Err(freshet_sql_tests::client::describe(&error))),
    }
}
