//! What the engine tells its workers. Every worker sees the commands that reach all workers in the same order,
//! which timely needs to give the channels of a dataflow the same names everywhere.

use std::sync::Arc;

use freshet_types::{Delta, Epoch, RelationId};

use crate::DataflowDescription;
use crate::health::ViewHealth;
use crate::memory::ViewMemory;

pub enum Command {
    Install(Arc<Installation>),
    /// To one worker: its part of a snapshot.
    Snapshot {
        view: RelationId,
        relation: RelationId,
        delta: Delta,
    },
    FinishSnapshot {
        view: RelationId,
        relation: RelationId,
    },
    Remove {
        view: RelationId,
    },
    /// To one worker: its part of an epoch's changes.
    Feed {
        relation: RelationId,
        epoch: Epoch,
        delta: Delta,
    },
    /// The views are to hand over their state at `epoch`, the next one to be sealed.
    Cut {
        epoch: Epoch,
        views: Arc<[RelationId]>,
    },
    Seal {
        epoch: Epoch,
    },
    Shutdown,
}

pub struct Installation {
    pub description: DataflowDescription,
    pub health: ViewHealth,
    /// Whether the state is going to be asked for.
    pub track_state: bool,
    pub memory: Arc<ViewMemory>,
}
