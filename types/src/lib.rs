//! The nouns that every part of Freshet shares.
//!
//! What moves is a [`Delta`]; when it happened is an [`Epoch`]; what it belongs to is a
//! [`RelationId`]; which rows are the same row is decided by [`Keys`]; what went wrong is told to a
//! user as a [`SqlError`]; and time enters the program through a [`Clock`], nowhere else.
//!
//! This crate does no IO and knows no SQL, no timely, no storage and no sockets.

pub mod clock;
pub mod delta;
pub mod epoch;
pub mod ids;
pub mod keys;
pub mod row_table;
pub mod sql_error;

pub use clock::Clock;
pub use delta::{Delta, Weights};
pub use epoch::Epoch;
pub use ids::RelationId;
pub use keys::{KeyEncoder, Keys, virtual_node};
pub use row_table::RowTable;
pub use sql_error::{SqlError, SqlState};
