//! The real server, as a process of its own on free ports with a data folder of its own.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::wait;

/// What the server says once it takes connections.
const READY: &str = "freshet is ready: postgres on ";
/// How long a server may take to say so; the aim is one second, the rest is for busy machines.
const START_BOUND: Duration = Duration::from_secs(30);
/// Lines of the log shown when something went wrong.
const LOG_LINES_SHOWN: usize = 40;

/// A running server. Dropping it kills the process and removes its data.
pub struct Server {
    config: ServerConfig,
    data: TempDir,
    process: Process,
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub workers: usize,
    /// Further arguments of `freshet serve`.
    pub arguments: Vec<OsString>,
    /// Where to make the data folder, if not among the temporary ones.
    pub parent: Option<PathBuf>,
    /// Where to keep the data, if not in that folder.
    pub location: Option<String>,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { workers: 1, arguments, parent: None, location: None, environment }
    }
}

impl Server {
    /// Starts a server with `workers` dataflow workers on an empty data folder, and waits until it takes connections.
    ///
    /// # Errors
    /// If the binary has not been built, or does not come up.
    pub async fn start(workers: usize) -> Result<Self> {
        Self::start_with(ServerConfig { workers, ..ServerConfig::default() }).await
    }

    /// The same, with every choice.
    ///
    /// # Errors
    /// If the binary has not been built, or does not come up.
    pub async fn start_with(config: ServerConfig) -> Result<Self> {
        let parent = config.parent.clone().unwrap_or_else(std::env::temp_dir);
        let data = tempfile::Builder::new().prefix("freshet-test-").tempdir_in(parent)?;
        let process = Process::start(&config, data.path()).await?;
        Ok(Self { config, data, process })
    }

    /// A new session.
    ///
    /// # Errors
    /// If the server does not take the connection; the message ends with its log.
    pub async fn connect(&self) -> Result<Client> {
        Client::connect(self.process.addresses.postgres).await.with_context(|| self.log_tail())
    }

    pub fn postgres(&self) -> SocketAddr {
        self.process.addresses.postgres
    }

    pub fn http(&self) -> SocketAddr {
        self.process.addresses.http
    }

    pub fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.child.try_wait()?)
    }

    /// The folder for its data; empty if [`ServerConfig::location`] is elsewhere.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Kills the process as `kill -9` does: it gets no chance to say goodbye.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn kill_hard(&mut self) -> Result<()> {
        self.process.child.kill().context("cannot kill the server")?;
        self.process.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    /// How many workers the server has when it is started again.
    pub fn set_workers(&mut self, workers: usize) {
        self.config.workers = workers;
    }

    /// With which further arguments the server is started again.
    pub fn set_arguments(&mut self, arguments: Vec<OsString>) {
        self.config.arguments = arguments;
    }

    /// Sends the process a signal, named as `kill` does.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let process = self.process_id().to_string();
        let status = Command::new("kill").args(["-s", signal, &process]).status()?;
        if !status.success() {
            bail!("cannot send {signal} to the server");
        }
        Ok(())
    }

    /// Starts the server, which must be gone, and kills it after so long, whether it is up or not.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn kill_while_starting(&mut self, after: Duration) -> Result<()> {
        let mut starting = Starting::new(&self.config, self.data.path())?;
        wait::let_pass(after).await;
        starting.child.kill().context("cannot kill the server")?;
        starting.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    /// Starts the server again on the same data, on other ports.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Process::start(&self.config, self.data.path()).await?;
        Ok(())
    }

    /// Asks the server to stop, waits until it has, and starts it again.
    ///
    /// # Errors
    /// If it does not stop with success, or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Asks the server to stop and waits until it has.
    ///
    /// # Errors
    /// If it does not stop in time, or not with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let child = &mut self.process.child;
        let exit = wait::until("the server to stop", async || Ok(child.try_wait()?)).await;
        match exit.with_context(|| self.log_tail())? {
            status if status.success() => Ok(()),
            status => bail!("the server stopped with {status}\n{}", self.log_tail()),
        }
    }

    /// All lines that the server has logged since it was started last.
    pub fn log(&self) -> Vec<String> {
        self.process.log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The end of the server's log, for messages.
    pub fn log_tail(&self) -> String {
        self.process.log.tail()
    }
}

/// The path of the binary under test: `FRESHET_BIN`, or the one built beside the running test.
///
/// # Errors
/// If there is none, saying how to build it.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FRESHET_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    let beside = test.ancestors().skip(1).take(2).map(|folder| folder.join("freshet")).find(|path| path.is_file());
    beside.ok_or_else(|| {
        anyhow!(
            "the server's binary is not beside {}: build it with `cargo build --release`, or set FRESHET_BIN",
            test.display()
        )
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    postgres: SocketAddr,
    http: SocketAddr,
}

struct Process {
    child: Child,
    addresses: Addresses,
    log: Log,
}

/// A process that is not known to be ready.
struct Starting {
    child: Child,
    log: Log,
    ready: oneshot::Receiver<Addresses>,
}

impl Starting {
    fn new(config: &ServerConfig, data: &Path) -> Result<Self> {
        let binary = binary()?;
        let mut child = Command::new(&binary)
            .arg("serve")
            .arg("--data")
            .arg(config.location.as_deref().map_or(data.as_os_str(), OsStr::new))
            .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", &config.workers.to_string()])
            .args(&config.arguments)
            .current_dir(data)
            .envs(config.environment.iter().map(|(name, value)| (name, value)))
            .env("NO_COLOR", "1")
            // A panic is told in a few lines, which the end of the log has room for.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let log = Log::default();
        let (ready_sender, ready) = oneshot::channel();
        let stderr = child.stderr.take().context("the server's standard error is not piped")?;
        let writer = log.clone();
        std::thread::spawn(move || writer.follow(BufReader::new(stderr), ready_sender));
        Ok(Self { child, log, ready })
    }
}

impl Process {
    async fn start(config: &ServerConfig, data: &Path) -> Result<Self> {
        let Starting { mut child, log, ready } = Starting::new(config, data)?;
        match tokio::time::timeout(START_BOUND, ready).await {
            Ok(Ok(addresses)) => Ok(Self { child, addresses, log }),
            outcome => {
                let _ = child.kill();
                let _ = child.wait();
                let what =
                    if outcome.is_err() { "did not become ready in time" } else { "stopped before it was ready" };
                bail!("the server {what}\n{}", log.tail())
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server has said so far.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Takes in all lines, and reports the addresses once they are there; ends with the process.
    fn follow(&self, stderr: impl BufRead, ready: oneshot::Sender<Addresses>) {
        let mut ready = Some(ready);
        for line in stderr.lines().map_while(Result::ok) {
            if let Some(addresses) = addresses_in(&line)
                && let Some(ready) = ready.take()
            {
                // Nobody waits any longer if the bound has passed.
                let _ = ready.send(addresses);
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    fn tail(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        let mut text = String::from("the end of the server's log:\n");
        for line in &lines[from..] {
            let _ = writeln!(text, "    {line}");
        }
        text
    }
}

/// The addresses in a line of the log, if it is the one that says that the server is ready.
fn addresses_in(line: &str) -> Option<Addresses> {
    let (_, rest) = line.split_once(READY)?;
    let (postgres, rest) = rest.split_once(", http on ")?;
    let http: &str = rest.split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).next()?;
    Some(Addresses { postgres: postgres.parse().ok()?, http: http.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_plain_and_structured_logs() {
        let expected = Addresses { postgres: "127.0.0.1:7432".parse().unwrap(), http: "[::1]:80".parse().unwrap() };
        let ready = "freshet is ready: postgres on 127.0.0.1:7432, http on [::1]:80";
        assert_eq!(addresses_in(&format!("2026-01-01T00:00:00Z  INFO {ready}")), Some(expected));
        assert_eq!(addresses_in(&format!("{{\"message\":\"{ready}\",\"level\":\"INFO\"}}")), Some(expected));
        assert_eq!(addresses_in(&format!("{ready} (data in ./freshet-data)")), Some(expected));
        assert_eq!(addresses_in("freshet is getting ready"), None);
    }

    #[test]
    fn the_tail_of_a_log_is_its_end() {
        let log = Log::default();
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        let (sender, _receiver) = oneshot::channel();
        log.follow(lines.join("\n").as_bytes(), sender);
        assert!(log.tail().ends_with("    line 98\n    line 99\n"));
        assert!(!log.tail().contains("line 59"));
    }
}
