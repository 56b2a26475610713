//! A real S3 server for tests: `src/bin/s3_server.rs`, as a process of its own over a temporary folder.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

/// What the server wants to be shown.
pub const ACCESS_KEY: &str = "freshet-tests";
pub const SECRET_KEY: &str = "not-a-secret";
/// The bucket that there is.
pub const BUCKET: &str = "bucket";

/// A running server. Dropping it ends the process and removes its data.
pub struct S3 {
    folder: TempDir,
    address: SocketAddr,
    process: Child,
}

impl S3 {
    /// Starts a server with an empty bucket, and waits until it listens.
    ///
    /// # Errors
    /// If the binary has not been built, or does not come up.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("freshet-s3-").tempdir()?;
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let (process, address) = start(folder.path(), 0)?;
        Ok(Self { folder, address, process })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the process; what it has acknowledged stays.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again, at the same address.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        (self.process, self.address) = start(self.folder.path(), self.address.port())?;
        Ok(())
    }

    /// Where it keeps the objects of the bucket.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The variables with which a client reaches it.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(self.address)
    }
}

/// The variables with which a client reaches a server, or a proxy before it, at `address`.
pub fn environment(address: SocketAddr) -> Vec<(String, String)> {
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.stop();
    }
}

fn start(folder: &Path, port: u16) -> Result<(Child, SocketAddr)> {
    let binary = binary()?;
    let mut process = Command::new(&binary)
        .arg(folder)
        .arg(port.to_string())
        // It ends when this end is closed, however the test ends.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let output = process.stdout.take().context("its output is piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address =
        line.trim().parse().with_context(|| format!("the S3 server did not say where it listens: {line:?}"))?;
    Ok((process, address))
}

fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let beside = test.ancestors().skip(1).take(2).map(|folder| folder.join("s3-server")).find(|path| path.is_file());
    beside.ok_or_else(|| {
        anyhow!(
            "the S3 server is not beside {}: build it with `cargo build --release -p freshet-sql-tests`",
            test.display()
        )
    })
}
