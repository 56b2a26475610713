//! What a kill is aimed at: the server is watched from outside, by the files that it makes and deletes, and killed as soon
//! as it does what is waited for.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use crate::wait::let_pass;

/// How long a sign is waited for; after that the kill comes at any time.
const SIGN_BOUND: Duration = Duration::from_secs(2);
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long after the sign the kill comes, at most: what was begun goes on meanwhile.
const LATER_US_MAX: u64 = 20_000;

/// What the server is to be doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aim {
    /// Whatever it does.
    AnyTime,
    /// The file of a checkpoint is there, in part or as a whole, and was not before.
    Checkpoint,
    /// A file of the warm or cold tier is there that no checkpoint refers to yet.
    TierMove,
    /// Files that others have taken the place of are being deleted.
    Compaction,
    /// A relation is being created, altered or dropped.
    Ddl,
    /// A backup is being made.
    Backup,
    /// It is coming up.
    Recovery,
}

/// What rounds aim at; a recovery is killed besides.
const AIMS: [Aim; 6] = [Aim::AnyTime, Aim::Checkpoint, Aim::TierMove, Aim::Compaction, Aim::Ddl, Aim::Backup];

impl Aim {
    pub fn choose(random: &mut StdRng) -> Self {
        AIMS.choose(random).copied().unwrap_or(Self::AnyTime)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::AnyTime => "any time",
            Self::Checkpoint => "checkpoint",
            Self::TierMove => "tier move",
            Self::Compaction => "compaction",
            Self::Ddl => "DDL",
            Self::Backup => "backup",
            Self::Recovery => "recovery",
        }
    }
}

/// How many kills hit what.
#[derive(Debug, Clone, Default)]
pub struct Hits(BTreeMap<Aim, usize>);

impl Hits {
    pub fn add(&mut self, aim: Aim) {
        *self.0.entry(aim).or_default() += 1;
    }

    pub fn text(&self) -> String {
        let hits: Vec<String> = self.0.iter().map(|(aim, count)| format!("{} {count}", aim.name())).collect();
        hits.join(", ")
    }
}

/// Where signs show.
pub struct Signs<'a> {
    /// Where the server keeps its data.
    pub data: PathBuf,
    /// Where it makes backups.
    pub backups: PathBuf,
    /// Whether a statement of DDL is under way.
    pub ddl: &'a Cell<bool>,
}

impl Signs<'_> {
    /// Waits until the server does what is aimed at, and up to a moment longer. Gives what it was doing as far as one can tell.
    pub async fn wait_for(&self, aim: Aim, random: &mut StdRng) -> Aim {
        let later = Duration::from_micros(random.random_range(0..LATER_US_MAX));
        let before = self.files(aim);
        let end = Instant::now() + SIGN_BOUND;
        while aim != Aim::AnyTime && Instant::now() < end {
            if self.is_there(aim, &before) {
                // Half of the kills come as soon as they can.
                if random.random_bool(0.5) {
                    let_pass(later).await;
                }
                return aim;
            }
            let_pass(LOOK_EVERY).await;
        }
        Aim::AnyTime
    }

    fn is_there(&self, aim: Aim, before: &BTreeSet<PathBuf>) -> bool {
        match aim {
            Aim::AnyTime | Aim::Recovery => false,
            Aim::Ddl => self.ddl.get(),
            Aim::Checkpoint | Aim::TierMove | Aim::Backup => self.files(aim).difference(before).next().is_some(),
            Aim::Compaction => before.difference(&self.files(aim)).next().is_some(),
        }
    }

    /// The files at which a sign shows.
    fn files(&self, aim: Aim) -> BTreeSet<PathBuf> {
        let folders = match aim {
            Aim::AnyTime | Aim::Recovery | Aim::Ddl => vec![],
            Aim::Checkpoint => vec![self.data.join("checkpoints")],
            Aim::TierMove => vec![self.data.join("warm"), self.data.join("cold")],
            Aim::Compaction => {
                ["warm", "cold", "checkpoints", "store/compacted"].map(|name| self.data.join(name)).into()
            }
            Aim::Backup => vec![self.backups.clone()],
        };
        let mut files = BTreeSet::new();
        folders.iter().for_each(|folder| collect(folder, &mut files));
        if aim == Aim::TierMove {
            // Others beside them belong to the Iceberg table, which follows a checkpoint.
            files.retain(|file| {
                !file.components().any(|part| matches!(part.as_os_str().to_str(), Some("metadata" | "data")))
            });
        }
        files
    }
}

/// Adds all files below a folder.
fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(_) => {
                files.insert(entry.path());
            }
            // It is gone again.
            Err(_) => {}
        }
    }
}
