//! Checkpoints: the state of the whole database at one epoch, made durable at once.

mod change;

pub use change::{StateRows, TableChange};
