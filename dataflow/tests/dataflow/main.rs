//! Tests of the engine and its operators, in one binary.

// A test stops where something is missing.
#![allow(clippy::unwrap_used)]

mod cluster;
mod disk;
mod engine;
mod faults;
mod random;
mod rewrite;
mod rows;
mod running;
mod scripts;
