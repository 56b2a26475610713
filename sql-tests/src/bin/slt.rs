//! Runs or records single `.slt` files: `cargo xtask sql --help`.
#![allow(clippy::print_stdout, reason = "a command-line tool reports on its standard output")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use freshet_sql_tests::slt::{self, Batches, MODES, Mode, Target};
use tokio_postgres::Config;

/// Run .slt files against a Freshet of their own, or against a PostgreSQL
///
/// After every statement each materialized view is compared with its own query. A file is given by its path, or by
/// a part of it: `slt joins` runs all files with "joins" in their path. Without files, all are run.
#[derive(Parser)]
#[command(name = "slt", after_help = EXAMPLES)]
struct Arguments {
    /// Files, or parts of their paths
    files: Vec<String>,
    /// Dataflow workers of the server
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Insert rows one by one, in another order
    #[arg(long, conflicts_with = "crash")]
    tiny: bool,
    /// Kill the server and start it again between statements
    #[arg(long)]
    crash: bool,
    /// Write the answers into the files instead of comparing
    #[arg(long)]
    record: bool,
    /// Run against this PostgreSQL (materialized views become plain views); its schema public is emptied!
    #[arg(long, value_name = "URL")]
    postgres: Option<Config>,
}

const EXAMPLES: &str = "Examples:
  cargo xtask sql aggregates              # straight, on one worker
  cargo xtask sql joins --workers 4 --tiny
  cargo xtask sql types --record --postgres postgres://postgres@localhost/scratch";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let files = chosen(&arguments.files)?;
    let mut failed = 0;
    for file in &files {
        let outcome = if arguments.record {
            runtime.block_on(slt::record(file, target(&arguments)))
        } else {
            runtime.block_on(slt::run(file, target(&arguments)))
        };
        match outcome {
            Ok(()) => println!("ok      {}", file.display()),
            Err(error) => {
                failed += 1;
                println!("FAILED  {}\n{error:#}\n", file.display());
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} files failed", files.len());
    }
    Ok(())
}

fn chosen(wanted: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = slt::files()?;
    if !wanted.is_empty() {
        files.retain(|file| wanted.iter().any(|part| is_meant(file, part)));
    }
    if files.is_empty() {
        bail!("no file matches {}", wanted.join(", "));
    }
    Ok(files)
}

fn is_meant(file: &Path, part: &str) -> bool {
    let same = Path::new(part).canonicalize().context("not a path").is_ok_and(|path| path == file);
    same || file.to_string_lossy().rsplit_once("/slt/").is_some_and(|(_, path)| path.contains(part))
}

fn target(arguments: &Arguments) -> Target {
    if let Some(config) = &arguments.postgres {
        return Target::Postgres(Box::new(config.clone()));
    }
    let batches = match (arguments.tiny, arguments.crash) {
        (true, _) => Batches::Tiny,
        (_, true) => Batches::Crash,
        _ => Batches::AsWritten,
    };
    let name = MODES.first().map_or("", |mode| mode.name);
    Target::Freshet(Mode { name, workers: arguments.workers, batches })
}
