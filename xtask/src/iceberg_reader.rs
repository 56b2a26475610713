//! Another reader of Iceberg tables for the tests: pyiceberg, in a Python environment of its own in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::run_command;
use crate::{cache, tools};

/// As in `freshet_sql_tests::iceberg`, which runs what is fetched here.
const VERSION: &str = "0.12.0";

/// The folder of the environment, made if it is not there yet.
pub fn fetch() -> Result<PathBuf> {
    let folder = cache()?.join(format!("pyiceberg-{VERSION}"));
    if folder.join("complete").is_file() {
        return Ok(folder);
    }
    tools::ensure(&[tools::FOR_TESTS])?;
    let mut python = Command::new("python3");
    run_command(python.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    let package = format!("pyiceberg[pyarrow]=={VERSION}");
    run_command(pip.args(["install", "--quiet", "--disable-pip-version-check", &package]))?;
    // Last, as an environment is there before all packages are in it.
    std::fs::write(folder.join("complete"), "").context("cannot write into the environment")?;
    Ok(folder)
}
