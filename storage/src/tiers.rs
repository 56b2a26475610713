//! Tiers: where rows lie once they are not in memory any more.
//!
//! * *Hot*: in memory, as Arrow. Not the business of this module.
//! * *Warm*: Parquet files on the local disk.
//! * *Cold*: the same files in an object store, one folder a day of the time column.
//!
//! A [file](TierFile) is written once, never changed, is durable before anything refers to it, and goes once no
//! collection, no snapshot and no checkpoint does ([`Tiers::delete_garbage`]). A [`StoredChunk`] is one row group of a
//! file: the form that a chunk of a segment has when it is not in memory. Deletions never touch a file: which of its
//! rows live is said by the segment's bitmap.
//!
//! Reading is asynchronous and runs on [threads of its own](io), so that whoever must wait, can: a dataflow worker
//! that deletes a cold row waits for it without a runtime. What was read of footers, remote files and key hashes
//! is [cached](files) by bytes.
//!
//! This module does not know segments, epochs, or which rows should move.

mod blocks;
mod bloom;
mod chunk;
mod files;
mod find;
mod io;
mod prune;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use blocks::Checksums;
pub use chunk::{ReadStats, StoredChunk};
pub(crate) use files::stored_path;
pub use files::{CacheBytes, TierFile, Tiers, WarmPlace};
pub(crate) use find::Wanted;
pub use prune::Predicate;
pub use write::can_be_stored;
pub(crate) use write::{RowGroup, encode};

/// Where rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Hot,
    Warm,
    Cold,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a file of a tier could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the {tier} file \"{path}\": {reason}")]
pub struct TierError {
    pub tier: Tier,
    pub path: String,
    pub reason: String,
}

impl From<TierError> for arrow::error::ArrowError {
    fn from(error: TierError) -> Self {
        Self::ExternalError(Box::new(error))
    }
}
