//! A session that asks for what runs beside the load: moves between tiers, backups, and queries of the past, whose answers
//! are known.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::past::Past;
use super::{Outcome, unless_cut_off};
use crate::client::Client;
use crate::server::binary;
use crate::wait::let_pass;

/// What has tiers.
const MOVES: [&str; 5] = [
    "ALTER TABLE stock MOVE TIERS",
    "ALTER TABLE notes MOVE TIERS",
    "ALTER TABLE readings MOVE TIERS",
    "ALTER MATERIALIZED VIEW seen MOVE TIERS",
    "ALTER MATERIALIZED VIEW stock_groups MOVE TIERS",
];

pub struct Upkeep {
    random: StdRng,
    backups: TempDir,
    next_backup: usize,
    /// The last backup that was acknowledged.
    complete: Option<PathBuf>,
    pub moves: usize,
    pub made: usize,
    pub asked: usize,
}

impl Upkeep {
    pub fn new(seed: u64) -> Result<Self> {
        let (random, backups) = (StdRng::seed_from_u64(seed), tempfile::tempdir()?);
        Ok(Self { random, backups, next_backup: 0, complete: None, moves: 0, made: 0, asked: 0 })
    }

    /// Where the backups are.
    pub fn backups(&self) -> &Path {
        self.backups.path()
    }

    /// Moves, copies and asks until the server is gone. `past` is what is known of the past.
    pub async fn work(&mut self, client: &Client, past: &Past, over: &Cell<bool>) -> Result<()> {
        while !over.get() {
            let outcome = match self.random.random_range(0..10) {
                0 => self.back_up(client).await?,
                1..=3 => match past.ask(client, &mut self.random).await {
                    Ok(outcome) => {
                        self.asked += 1;
                        outcome
                    }
                    Err(error) => return Err(error.context("a query of the past")),
                },
                _ => {
                    let moves = MOVES.choose(&mut self.random).copied().context("a move")?;
                    self.moves += 1;
                    unless_cut_off(client, moves).await?
                }
            };
            if outcome == Outcome::Unknown {
                break;
            }
            let pause_ms = self.random.random_range(0..40);
            let_pass(Duration::from_millis(pause_ms)).await;
        }
        Ok(())
    }

    async fn back_up(&mut self, client: &Client) -> Result<Outcome> {
        let folder = self.backups.path().join(self.next_backup.to_string());
        self.next_backup += 1;
        let outcome = unless_cut_off(client, &format!("BACKUP TO '{}'", folder.display())).await?;
        let left = match outcome {
            Outcome::Acknowledged => {
                self.made += 1;
                ensure!(folder.join("BACKUP").is_file(), "a backup was acknowledged and is not complete");
                self.complete.replace(folder)
            }
            Outcome::Unknown => Some(folder),
        };
        if let Some(left) = left {
            // There may be nothing yet.
            let _ = std::fs::remove_dir_all(left);
        }
        Ok(outcome)
    }

    /// Brings the last complete backup back, into the folder `to`; false if there is none.
    pub async fn restore(&self, to: &Path) -> Result<bool> {
        let Some(backup) = &self.complete else { return Ok(false) };
        let mut restore = std::process::Command::new(binary()?);
        restore.arg("restore").arg("--from").arg(backup).arg("--data").arg(to);
        let output = tokio::task::spawn_blocking(move || restore.output()).await??;
        if !output.status.success() {
            bail!("the backup cannot be restored: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(true)
    }
}
