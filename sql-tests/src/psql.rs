//! The real psql, for what only it asks: its `\d` family, and COPY to its standard output.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

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

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
