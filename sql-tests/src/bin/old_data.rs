//! Writes data for tests of later versions: `cargo run --release -p freshet-sql-tests --bin old-data -- FOLDER`.
//!
//! It is run once for each format, as `freshet_sql_tests::old_data` tells.

use std::path::Path;

use anyhow::{Context, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("old-data FOLDER")?;
    freshet_sql_tests::old_data::write(Path::new(&folder)).await
}
