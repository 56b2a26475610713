//! Data as some version of Freshet left it: `sql-tests/testdata/format-<n>`.
//!
//! ```text
//! data/      the folder of a server that was killed
//! backup/    a backup that the same server made before
//! ```
//!
//! Folders are made once for each format (`cargo run --release -p freshet-sql-tests --bin old-data -- FOLDER`, at the last
//! commit that writes it) and never changed: that a later server reads them is what
//! `sql-tests/tests/all/upgrade.rs` looks at.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::server::{Server, ServerConfig};

/// Objects of all kinds that need nothing from outside.
const OBJECTS: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, g TEXT NOT NULL DEFAULT 'x', amount NUMERIC(10,2) CHECK (amount >= 0), at TIMESTAMP);
    CREATE TABLE log (n BIGINT, tags TEXT[]);
    CREATE SOURCE numbers (id BIGINT, k INT)
      WITH (connector = 'datagen', rows_per_second = 10000, rows = 700, seed = 7, \"fields.k.min\" = 0, \"fields.k.max\" = 9);
    CREATE VIEW large AS SELECT id, g, amount FROM t WHERE amount > 10;
    CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, sum(amount) AS s, max(id) AS most FROM large GROUP BY g;
    CREATE MATERIALIZED VIEW sizes AS SELECT n, count(*) AS groups FROM sums GROUP BY n;
    CREATE MATERIALIZED VIEW per_k AS SELECT k, count(*) AS n, count(DISTINCT id) AS ids FROM numbers GROUP BY k;
    CREATE MATERIALIZED VIEW matches AS SELECT t.id, t.g, log.n FROM t JOIN log ON t.id = log.n;
    CREATE MATERIALIZED VIEW distinct_g AS SELECT DISTINCT g FROM t;
    CREATE MATERIALIZED VIEW quotients AS SELECT id, 100 / (id % 100) AS q FROM t;
    COMMENT ON MATERIALIZED VIEW sums IS 'of large amounts'";

/// What is in the checkpoint.
const ROWS: &str = "
    INSERT INTO t SELECT n::INT, 'g' || (n % 7), n / 10.0, TIMESTAMP '2026-11-21 12:00:00' FROM generate_series(1, 400) AS s(n);
    INSERT INTO log SELECT n, ARRAY['a', n::TEXT] FROM generate_series(1, 600, 3) AS s(n);
    DELETE FROM t WHERE id % 11 = 0;
    UPDATE t SET amount = amount + 1 WHERE id % 13 = 0";

/// What came after it, and is in the log alone.
const LATER_ROWS: &str = "
    INSERT INTO t (id, amount) VALUES (1001, 50), (1002, 60);
    DELETE FROM t WHERE id = 5;
    INSERT INTO log VALUES (1001, NULL)";

/// Where all that was kept is.
///
/// # Errors
/// If there is none.
pub fn folders() -> Result<Vec<PathBuf>> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut folders = std::fs::read_dir(all)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    folders.sort();
    ensure!(!folders.is_empty(), "there is no old data");
    Ok(folders)
}

/// Has the server at hand write such a folder.
///
/// # Errors
/// If the folder exists, or the server fails.
pub async fn write(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder)?;
    let folder = folder.canonicalize()?;
    let config = ServerConfig {
        workers: 2,
        arguments: vec!["--checkpoint-interval".into(), "1h".into()],
        location: Some(folder.join("data").display().to_string()),
        ..ServerConfig::default()
    };
    let mut server = Server::start_with(config).await?;
    let client = server.connect().await?;
    client.run(OBJECTS).await?;
    client.run(ROWS).await?;
    client.wait_for("SELECT sum(n) FROM per_k", &[&["700"]]).await?;
    client.run("CHECKPOINT").await?;
    client.run(&format!("BACKUP TO '{}'", folder.join("backup").display())).await?;
    client.run(LATER_ROWS).await?;
    server.kill_hard()
}

/// Copies a folder with all that is in it; `to` must not be there.
///
/// # Errors
/// If it cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cannot copy {}", from.display());
    Ok(())
}
