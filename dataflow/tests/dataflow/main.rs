//! Tests of the engine and its operators, in one binary.

// A test stops where something is missing.
#![allow(clippy::unwrap_used)]

mod cluster;
mod disk;
mod engine;
mod faults;
mod outer_joins;
mod random;
mod rewrite;
mod rows;
mod running;
mod scripts;
mod top_n;
