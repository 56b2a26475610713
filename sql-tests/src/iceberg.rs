//! Another reader of the Iceberg tables that Freshet publishes: pyiceberg, in the environment that `cargo xtask test` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::client::TextRow;

/// The version that `cargo xtask` fetches.
pub const VERSION: &str = "0.12.0";

/// Prints the rows of a table whose `condition` holds, sorted, a line each, with tabs between values.
const PROGRAM: &str = r#"
import sys
from pyiceberg.table import StaticTable
folder, condition = sys.argv[1:3]
table = StaticTable.from_metadata(folder)
scan = table.scan(row_filter=condition) if condition else table.scan()
rows = zip(*(column.to_pylist() for column in scan.to_arrow().columns))
for row in sorted(["\t".join("NULL" if value is None else str(value) for value in row) for row in rows]):
    print(row)
"#;

/// The rows of the table in `folder` for which `condition` holds (all if it is empty), sorted as text, each value as
/// Python writes it.
///
/// # Errors
/// If pyiceberg has not been fetched, or cannot read the table; the message ends with what it said.
pub async fn rows(folder: &Path, condition: &str) -> Result<Vec<TextRow>> {
    let mut python = Command::new(python()?);
    python.args(["-c", PROGRAM]).arg(folder).arg(condition);
    let output = tokio::task::spawn_blocking(move || python.output()).await??;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pyiceberg cannot read {}:\n{complaint}", folder.display());
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn python() -> Result<PathBuf> {
    let home = std::env::home_dir().context("there is no home folder")?;
    let python = home.join(format!(".cache/freshet/pyiceberg-{VERSION}/bin/python"));
    ensure!(python.is_file(), "{} is missing: `cargo xtask test` fetches it", python.display());
    Ok(python)
}
