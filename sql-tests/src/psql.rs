//! The real psql, for what only it asks: its `\d` family, and COPY to its standard output.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

/// How long psql may take; past it, it is ended, which counts as an error only for [`run`].
const BOUND: Duration = Duration::from_secs(20);

/// Runs `commands`, each SQL or a backslash command, and gives what psql prints.
///
/// # Errors
/// If psql is missing, fails or hangs; with what it said.
pub fn run(server: SocketAddr, commands: &[&str]) -> Result<String> {
    let output = command(server, BOUND, commands).output().context("cannot run psql: is it installed?")?;
    if !output.status.success() {
        bail!("psql failed with {}\n{}", output.status, said(&output));
    }
    // psql ends with success after errors of backslash commands, so what it complains of counts as well; only an
    // empty list is no error.
    let complaints = String::from_utf8_lossy(&output.stderr);
    if complaints.lines().any(|line| !line.starts_with("Did not find any")) {
        bail!("psql complained\n{}", said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// psql with `commands`, interrupted after `bound` as by Ctrl-C: for statements that do not end by themselves.
pub fn command(server: SocketAddr, bound: Duration, commands: &[&str]) -> Command {
    let mut psql = Command::new("timeout");
    psql.args(["--signal", "INT", &format!("{}s", bound.as_secs_f64())])
        .args(["psql", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--username", "tester", "--dbname", "freshet"])
        .args(["--host", &server.ip().to_string(), "--port", &server.port().to_string()])
        .env("PAGER", "cat")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    for text in commands {
        psql.args(["--command", text]);
    }
    psql
}

/// A psql at work, whose output is read line by line. Dropping it ends it.
pub struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Running {
    /// # Errors
    /// If psql is missing.
    pub fn start(server: SocketAddr, commands: &[&str]) -> Result<Self> {
        let mut child = command(server, BOUND, commands).stdout(Stdio::piped()).spawn().context("cannot run psql")?;
        let stdout = child.stdout.take().context("psql's standard output is not piped")?;
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody reads on once the test has failed.
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line that is printed; `None` at the end.
    ///
    /// # Errors
    /// If none comes.
    pub async fn line(&mut self) -> Result<Option<String>> {
        tokio::time::timeout(BOUND, self.lines.recv()).await.context("psql prints nothing")
    }

    /// As Ctrl-C.
    ///
    /// # Errors
    /// If there is no process to interrupt.
    pub fn interrupt(&self) -> Result<()> {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        if !status.success() {
            bail!("cannot interrupt psql");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
