//! Every `.slt` file in every mode, each a test of its own: `tables/insert.slt::workers-2`.
//!
//! `cargo test --release -p freshet-sql-tests --test slt -- joins` runs those whose name has "joins" in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use freshet_sql_tests::slt::{self, MODES, Mode, Target};
use libtest_mimic::{Arguments, Failed, Trial};

/// Servers at a time: each has threads of its own, and tests are about answers, not about speed.
const TESTS_AT_A_TIME: usize = 2;

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TESTS_AT_A_TIME);
    let mut trials = Vec::new();
    for file in slt::files()? {
        for mode in MODES {
            if slt::runs_in(&file, *mode)? {
                trials.push(trial(&file, *mode)?);
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit()
}

fn trial(file: &Path, mode: Mode) -> Result<Trial> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let name = file.strip_prefix(root).context("the file is below the folder slt")?.display().to_string();
    let file = file.to_owned();
    Ok(Trial::test(format!("{name}::{}", mode.name), move || {
        run(file, mode).map_err(|error| Failed::from(format!("{error:#}")))
    }))
}

fn run(file: PathBuf, mode: Mode) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(slt::run(&file, Target::Freshet(mode)))
}
