//! The tools that building and testing need, and how to get them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::steps::run_command;

/// A program, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

/// What the tests run.
pub const FOR_TESTS: &[Tool] = &[
    Tool { program: "psql", package: "postgresql-client", purpose: "the tests of psql's commands" },
    Tool { program: "java", package: "default-jdk-headless", purpose: "the Kafka broker" },
    Tool { program: "mvn", package: "maven", purpose: "fetching Apache Kafka" },
    Tool { program: "python3", package: "python3-venv", purpose: "pyiceberg, which reads what Freshet publishes" },
];

/// What compiling C dependencies (librdkafka, zstd) runs.
pub const FOR_BUILDING: &[Tool] = &[
    Tool { program: "cc", package: "build-essential", purpose: "building C dependencies" },
    Tool { program: "c++", package: "build-essential", purpose: "building C++ dependencies" },
    Tool { program: "make", package: "build-essential", purpose: "building librdkafka" },
];

/// Checks that cargo has its components; rustup reads their list, and the version, from `rust-toolchain.toml`.
pub fn check_toolchain() -> Result<()> {
    for arguments in [["fmt", "--version"], ["clippy", "--version"]] {
        let mut command = Command::new("cargo");
        if run_command(command.args(arguments)).is_err() {
            bail!("`cargo {}` is missing: run `rustup component add rustfmt clippy`", arguments[0]);
        }
    }
    Ok(())
}

/// Checks that all of `lists` are there; installs them where that is ours to do. What is missing is told at once, so
/// that nobody has to come back for each list.
pub fn ensure(lists: &[&[Tool]]) -> Result<()> {
    let missing: Vec<&Tool> = lists.iter().copied().flatten().filter(|tool| !is_there(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    if !may_install() {
        for tool in &missing {
            eprintln!("missing: {} for {}", tool.program, tool.purpose);
        }
        bail!("on Debian or Ubuntu, run: sudo apt-get install --yes {}", packages.join(" "));
    }
    println!("installing {}", packages.join(" "));
    run_command(apt_get().arg("update"))?;
    run_command(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("--quiet=2").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Root on a machine with apt: a container or a CI machine, where installing is expected.
fn may_install() -> bool {
    Path::new("/etc/debian_version").is_file() && is_there("apt-get") && user_id().is_some_and(|id| id == 0)
}

fn user_id() -> Option<u32> {
    let output = Command::new("id").arg("-u").output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
