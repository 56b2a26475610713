//! Backups: a consistent copy of all that a store has at one instant, made while the server runs, and brought back.
//!
//! ```text
//! BACKUP                          what belongs to the backup, written last: without it there is none
//! records/<number>.records        the store's records: catalog, logs of tables, outboxes, the manifest
//! checkpoints/<number>.ckpt       the files of the checkpoint
//! warm/…, cold/…                  the files of the tiers to which it refers
//! ```
//!
//! * A [`BackupSource`] is the instant: a snapshot of the records, and the files to which they refer, which are not deleted
//!   while it is there.
//! * A [`Backup`] copies it to an empty [`Location`](crate::Location), file by file. It checks what it reads: a backup of
//!   damaged files would be found out when it is needed.
//! * [`restore`] makes a store of a backup, in an empty location.
//!
//! `BACKUP` has two lines: a JSON object ([`Contents`]) and the XXH3 of that line, in hexadecimal. It names each file
//! with its size and XXH3, so that nothing can be missing or other than it was without being noticed.

mod contents;
mod copy;
mod records;
mod restore;
#[cfg(test)]
mod tests;

pub use contents::{Contents, CopiedFile};
pub use copy::{Backup, BackupSource};
pub use restore::{Restored, restore};

/// The name of the object that says what belongs to a backup.
const CONTENTS: &str = "BACKUP";
