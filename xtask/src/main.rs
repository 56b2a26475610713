//! `cargo xtask`: the chores of this repository. `cargo xtask test` is what CI runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool reports on its standard output")]

mod edges;
mod iceberg_reader;
mod kafka;
mod steps;
mod style;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::steps::Steps;

/// Build, check and test Freshet
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run everything that CI runs: tools, format, crate edges, style, clippy, build, tests
    ///
    /// On a fresh Debian, as root, it installs what the tests need (psql, a JDK, Maven, Python) and fetches Apache Kafka and pyiceberg;
    /// elsewhere it names what is missing and how to get it. The first build takes about 20 minutes on two cores.
    Test {
        /// Skip clippy, Kafka and all but the unit tests and the .slt files on one worker
        #[arg(long)]
        quick: bool,
    },
    /// Check format, crate edges, style and clippy, without running a test
    Check,
    /// Check which crate knows which: the allow-list of docs/src/architecture.md
    Edges,
    /// Fetch Apache Kafka with Maven into ~/.cache/freshet, and print where it is
    Kafka,
    /// Run single .slt files against a server of their own
    ///
    /// All arguments go to the runner: `cargo xtask sql --help` tells them.
    #[command(disable_help_flag = true)]
    Sql {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a benchmark: `cargo xtask bench --help` lists them
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Test { quick: false } => test(),
        Chore::Test { quick: true } => quick_test(),
        Chore::Check => {
            let mut steps = Steps::default();
            look(&mut steps)?;
            clippy(&mut steps)
        }
        Chore::Edges => edges::check(&root()),
        Chore::Kafka => {
            println!("{}", kafka::fetch()?.display());
            Ok(())
        }
        Chore::Sql { arguments } => {
            build_server_for(&arguments)?;
            run_tool(&["--package", "freshet-sql-tests", "--bin", "slt"], &arguments)
        }
        Chore::Bench { arguments } => {
            build_server_for(&arguments)?;
            run_tool(&["--package", "bench"], &arguments)
        }
    }
}

/// What CI runs.
fn test() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("toolchain", tools::check_toolchain)?;
    steps.run("tools", || tools::ensure(&[tools::FOR_BUILDING, tools::FOR_TESTS]))?;
    steps.run("Apache Kafka", || kafka::fetch().map(drop))?;
    steps.run("pyiceberg", || iceberg_reader::fetch().map(drop))?;
    look(&mut steps)?;
    clippy(&mut steps)?;
    // With the test targets, so that the tests after it find the same dependencies, with the same features, built.
    steps.run("build", || cargo(&["build", "--release", "--workspace", "--all-targets"]))?;
    steps.run("tests", || cargo(&["test", "--release", "--workspace", "--no-fail-fast"]))?;
    steps.summary();
    Ok(())
}

fn quick_test() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("toolchain", tools::check_toolchain)?;
    steps.run("tools", || tools::ensure(&[tools::FOR_BUILDING]))?;
    look(&mut steps)?;
    steps.run("build", || cargo(&["build", "--release", "--workspace", "--all-targets"]))?;
    steps.run("unit tests", || cargo(&["test", "--release", "--workspace", "--lib", "--bins", "--no-fail-fast"]))?;
    let slt = ["test", "--release", "--package", "freshet-sql-tests", "--test", "slt", "--", "::workers-1"];
    steps.run(".slt files", || cargo(&slt))?;
    steps.summary();
    Ok(())
}

/// What can be seen without compiling.
fn look(steps: &mut Steps) -> Result<()> {
    steps.run("format", || cargo(&["fmt", "--all", "--check"]))?;
    steps.run("crate edges", || edges::check(&root()))?;
    steps.run("style", || style::check(&root()))
}

fn clippy(steps: &mut Steps) -> Result<()> {
    let arguments = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.run("clippy", || cargo(&arguments))
}

/// Builds what a tool starts, unless it is only asked for help.
fn build_server_for(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return Ok(());
    }
    cargo(&["build", "--release", "--package", "freshet-server"])
}

fn run_tool(which: &[&str], arguments: &[String]) -> Result<()> {
    let mut line = vec!["run", "--quiet", "--release"];
    line.extend(which);
    line.push("--");
    line.extend(arguments.iter().map(String::as_str));
    cargo(&line)
}

/// Runs cargo in the root of the workspace, with its output as it is.
fn cargo(arguments: &[&str]) -> Result<()> {
    steps::run_command(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments).current_dir(root()),
    )
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The folder for what is fetched once: `~/.cache/freshet`.
fn cache() -> Result<PathBuf> {
    let home = std::env::home_dir().context("there is no home folder to keep a cache in")?;
    Ok(home.join(".cache/freshet"))
}
