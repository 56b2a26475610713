//! Tests of the real server from outside, besides the `.slt` files: what takes more than one statement after another.
//!
//! `cargo test --release -p freshet-sql-tests --test all kafka` runs one module.

mod backup;
mod cancel;
mod crash;
mod damage;
mod depth;
mod disk;
mod docs;
mod generators;
mod history;
mod http;
mod iceberg;
mod kafka;
mod memory;
mod object_store;
mod pause;
mod protocol;
mod psql;
mod recovery;
mod retention;
mod serve;
mod sinks;
mod source_status;
mod subscribe;
mod tiers;
mod upgrade;
mod wire;
mod zoo;
