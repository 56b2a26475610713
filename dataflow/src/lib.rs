//! The incremental engine: runs plans on timely workers and keeps view collections up to date.
//!
//! The owner (the server's coordinator) drives an [`Engine`] by commands, which every worker carries out in the
//! order given: deltas are fed for an epoch, then the epoch is sealed, then the next one. A dataflow installed
//! between the sealing of epoch `e` and the first delta of a later one has `as_of = e`: it starts from the content
//! of its inputs at `e`, which the owner feeds as snapshots, and follows all later epochs by itself. Inputs that are
//! views are followed inside the worker, from the output of the view's own dataflow.
//!
//! What holds of a view `v` whose collection has the upper `u >= as_of`:
//!
//! * its content at any epoch `t` with `as_of <= t <= u` is its query over its inputs at `t` (I-1);
//! * `u` follows the sealed epochs as soon as all snapshots are finished, and stops for good if the view fails, or if a
//!   view that it reads fails or is removed.
//!
//! From the outside in: [`Engine`] turns calls into commands, `worker` carries them out on each thread, `build` makes
//! a timely dataflow of a plan, `hub` brings deltas to the dataflows that read them, and [`operators`] do the work.
//! An operator knows nothing of timely: it takes deltas and gives deltas, and can be driven by hand.
//!
//! No SQL, no sockets (but timely's own), no tokio; no files but those of state that memory has no room for.

mod build;
mod commands;
mod container;
mod cuts;
mod engine;
mod exchange;
mod expressions;
mod health;
mod hub;
mod limits;
mod memory;
pub mod operators;
mod runner;
mod saved;
mod worker;

use std::sync::Arc;

use freshet_planner::plan::Node;
use freshet_storage::collection::Collection;
use freshet_types::{Epoch, RelationId};

pub use build::output_shards;
pub use container::DeltaContainer;
pub use cuts::OperatorChange;
pub use engine::Engine;
pub use exchange::Route;
pub use memory::{EngineMemory, OnLimit, OperatorMemory, StateBudget, StateMemory, ViewBudget};
pub use saved::{SavedRows, SavedState};

/// How to run the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Worker threads.
    pub workers: usize,
    /// Whether views are going to be asked for their state, see [`Engine::cut`]: noting changes takes some time and memory.
    pub track_state: bool,
    /// What the state of all views may hold in memory.
    pub state: StateBudget,
}

/// A view to maintain.
#[derive(Clone)]
pub struct DataflowDescription {
    pub view: RelationId,
    /// Names the view in logs and errors.
    pub name: String,
    pub plan: Arc<Node>,
    /// Where the result goes. Has one shard a worker.
    pub output: Arc<Collection>,
    pub as_of: Epoch,
    /// The state of its operators at `as_of`, if they go on from there: `output` then holds the view at `as_of`, and no
    /// snapshots are fed. Must have come from the same plan.
    pub resume: Option<Arc<SavedState>>,
    /// What its state may hold in memory.
    pub budget: ViewBudget,
}

/// What the engine tells its owner; called on worker threads, so it must not block.
#[derive(Debug, Clone)]
pub enum Event {
    /// Rows on which an expression failed. They are not part of the view. The details of at most
    /// 100 rows an epoch, operator and worker are given; `omitted` counts the rows beyond.
    RowErrors { view: RelationId, epoch: Epoch, errors: Vec<RowError>, omitted: u64 },
    /// What has changed in the state of a view on one worker; see [`Engine::cut`].
    Cut { view: RelationId, epoch: Epoch, worker: usize, operators: Vec<OperatorChange> },
    /// The view's dataflow has stopped because its state holds more than it may; its last complete epoch stays readable.
    /// Said once, and nothing is said of the view afterwards.
    Paused { view: RelationId, used_bytes: u64, bytes_max: u64 },
    /// The view's dataflow stopped for good; its last complete epoch stays readable. Said once.
    Failed { view: RelationId, error: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    pub message: String,
    /// The input row, as text, `column=value` separated by commas.
    pub row: String,
    /// How often the row was inserted (deleted, if negative).
    pub weight: i64,
}
