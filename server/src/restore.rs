//! `freshet restore`: makes the data of a server from a backup, and shows how it comes along.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use freshet_storage::{Location, backup};

use crate::backup::in_words;

/// Brings the backup at `from` back to `to`, where nothing may be yet.
///
/// # Errors
/// If there is no backup, a file of it is damaged, or something cannot be read or written.
pub async fn run(from: &str, to: &Location) -> anyhow::Result<()> {
    let started = Instant::now();
    let from = Location::parse(from)?;
    let (mut files, mut bytes) = (0, 0);
    let mut out = std::io::stdout();
    let restored = backup::restore(&from, to, |file, contents| {
        files += 1;
        bytes += file.bytes;
        let (all, all_bytes) = (contents.files.len(), in_words(contents.bytes()));
        // Who does not listen misses nothing that counts.
        let _ = writeln!(out, "{} ({files} of {all} files, {} of {all_bytes})", file.path, in_words(bytes));
    });
    let restored = restored.await.with_context(|| format!("cannot restore {from}"))?;
    let size = in_words(restored.bytes);
    writeln!(std::io::stdout(), "{to}: {} files, {size} in {:.1?}", restored.files, started.elapsed())?;
    writeln!(std::io::stdout(), "start the server with --data {to}")?;
    Ok(())
}
