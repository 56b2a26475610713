//! Checkpoints: the state of the whole database at one epoch, made durable at once.
//!
//! * Collections and state tables consist of segments. A checkpoint writes what is new of each since the last
//!   one into one [file], and then changes the [manifest] in one atomic batch: that is the
//!   moment from which on it counts.
//! * What an operator remembers comes as [`TableChange`]s and is filed in a [log](state_log) by table.
//! * Of a large state table, [parts](staging) go to files before.
//! * With the rows of a collection go its [versions], so that what was readable of the past stays so.
//! * After a restart, [`Recovered`] gives all of it back as it was at the checkpoint's epoch.
//! * [Files that nobody needs](garbage) are deleted after a commit, never before.
//!
//! A checkpoint does not know what an epoch is of, which relations there are, or what the caller adds to it.

mod change;
mod commit;
mod file;
mod garbage;
mod manifest;
mod places;
mod recover;
mod segments;
mod staging;
mod state_log;
#[cfg(test)]
mod tests;
mod tiered;
mod versions;

pub use change::{SpilledChange, StateRows, TableChange};
pub use commit::{Checkpoint, CheckpointStats, Checkpoints};
pub(crate) use file::{CheckpointFiles, PartRef, path as file_path};
pub(crate) use manifest::Manifest;
pub use manifest::{Part, PieceId};
pub use recover::{Recovered, Redistribute, StoredTable};
pub(crate) use tiered::tier_files;

pub use crate::collection::restore::ShardOf;
