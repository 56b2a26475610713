//! What rests: collections of rows, and the durable records that bring them back.
//!
//! * A [`Collection`](collection::Collection) is a multiset of rows that is read at an epoch while it is
//!   written. Tables, results of views and operator state are collections. One [`ShardWriter`](collection::ShardWriter)
//!   a dataflow worker writes it; a [`Snapshot`](collection::Snapshot) is all of it at one epoch.
//! * A [`SnapshotTable`](scan::SnapshotTable) lets DataFusion query a snapshot.
//! * The [`Store`] is the durable part: the catalog's records, a few named values, and the write-ahead log of
//!   each table. What it has acknowledged survives a power cut.
//! * A [`Location`] says where: a folder, or a prefix in a bucket.
//! * [`Checkpoints`](checkpoint::Checkpoints) make collections, and what operators remember, durable at one epoch, and
//!   bring them back after a restart. With each they put into the [`outbox`] of a sink what it has to send.
//! * [`SpilledRows`](spill::SpilledRows) are rows of operator state for which memory has no room.
//!
//! Collections live in memory, except for what has moved to the files of the warm and cold [`tiers`]. What came after
//! the last checkpoint is in the logs and the sources.
//!
//! This crate does not know SQL, sessions, sources, or timely; it does not know what a catalog record says, which
//! views there are, or when an epoch is complete. Its callers tell it.

pub mod backup;
mod bucket;
pub mod catalog_store;
pub mod checkpoint;
pub mod collection;
mod group_commit;
mod half_written;
pub mod iceberg;
pub mod location;
mod object_writer;
mod open_db;
pub mod outbox;
pub mod scan;
pub mod spill;
pub mod store;
pub mod table_wal;
pub mod tiers;
mod wal_record;
mod watched;

pub use catalog_store::CatalogChange;
pub use location::Location;
pub use outbox::OutboxBatch;
pub use store::{DiskCache, StorageError, Store};
pub use table_wal::WalKey;
