//! Tests of the real server from outside, besides the `.slt` files: what takes more than one statement after another.
//!
//! `cargo test --release -p freshet-sql-tests --test all kafka` runs one module.

mod cancel;
mod crash;
mod damage;
mod depth;
mod disk;
mod docs;
mod generators;
mod history;
mod http;
mod kafka;
mod protocol;
mod psql;
mod recovery;
mod serve;
mod sinks;
mod source_status;
mod subscribe;
mod wire;
mod zoo;
