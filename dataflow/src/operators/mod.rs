//! The operators: what each node of a plan does with deltas.
//!
//! | operator | of a plan | state | output |
//! |---|---|---|---|
//! | [`input`] | `Input` | deltas waiting for their turn | snapshot rows at `as_of`, then live deltas |
//! | [`constant`] | `Constant` | none | its rows at `as_of` |
//! | [`filter`] | `Map` | none | surviving rows, projected, at once |
//! | [`union_all`] | `UnionAll` | none | all rows, at once |
//! | [`distinct`] | `Distinct` | a count a row | rows that come or go |
//! | [`aggregate`] | `Aggregate` | accumulators a group | old and new row of each changed group |
//! | [`join`] | `Join`, inner | the rows of both sides | new pairs, and pairs undone |
//! | [`outer_join`] | `Join` | the rows of both sides, or of the left one; the keys that are there | pairs; rows with and without a partner |
//! | [`per_group`] | `Window` | the rows of each group | what differs in the results of changed groups |
//! | [`top_n`] | `TopN` | the rows of each partition in order | rows that enter and leave the top |
//! | [`output`] | the root | none | none: it writes the view's collection |
//!
//! An operator is a synchronous state machine. It is handed the deltas of one epoch after the other: any
//! number of [`Operator::absorb`] calls, then [`Operator::flush`], once or as often as it asks for. Between them nothing may be assumed of the
//! order of deltas: a row may be deleted before it is inserted, as long as its count is right at the flush.
//! After a flush its [`state`] can be told for a checkpoint.

pub mod aggregate;
pub mod constant;
pub mod distinct;
pub mod filter;
mod gathered;
mod ids;
pub mod input;
pub mod join;
mod key_table;
pub mod outer_join;
pub mod output;
pub mod per_group;
mod spilled_table;
pub mod state;
pub mod top_n;
pub mod union_all;

use std::sync::Arc;

use arrow::error::ArrowError;
use freshet_storage::collection::CollectionError;
use freshet_storage::spill::{SpillError, SpillFolder};
use freshet_types::Delta;

use self::state::State;
use crate::memory::StateMemory;
use crate::{RowError, limits};

/// A node of a plan at work.
pub trait Operator {
    /// Takes a delta of the current epoch that came in through `port`.
    ///
    /// # Errors
    /// Any error fails the view.
    fn absorb(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<(), OperatorError>;

    /// The current epoch is complete: gives what is left to say about it. The next call is of a later epoch.
    ///
    /// # Errors
    /// Any error fails the view.
    fn flush(&mut self, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    /// After a flush: whether there is more to say about the epoch. Then it is not complete before another flush, which comes
    /// when what was given so far is on its way.
    fn has_more(&self) -> bool {
        false
    }

    fn timing(&self) -> Timing {
        Timing::ByEpoch
    }

    /// What the operator holds, for budgets. Asked after every batch, so it takes no time.
    fn memory(&self) -> StateMemory {
        StateMemory::default()
    }

    /// Moves what it can out of memory into files of `folder`; see [`StateMemory::spillable_bytes`].
    ///
    /// # Errors
    /// If they cannot be written, which fails the view.
    fn spill(&mut self, _folder: &Arc<SpillFolder>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// What the operator remembers between epochs; `None` if that is nothing.
    fn state(&mut self) -> Option<&mut dyn State>;
}

/// When an operator can take a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// At any time, whatever its epoch: the operator keeps no state and has nothing to flush.
    Anytime,
    /// Once all earlier epochs have been flushed.
    ByEpoch,
}

/// Why a view cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Deltas contradict each other, such as a deletion of what is not there.
    #[error("{0}")]
    BrokenInvariant(String),
    /// A result does not fit its type; names the type.
    #[error("{0} out of range")]
    OutOfRange(&'static str),
    #[error("{0}")]
    Unsupported(String),
    /// The state that was saved cannot be read; says why.
    #[error("cannot read saved state: {0}")]
    Saved(String),
    #[error("internal error: {0}")]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Collection(#[from] CollectionError),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

impl OperatorError {
    /// The number of copies of a row does not fit an `i64`.
    pub(crate) fn weight_overflow() -> Self {
        Self::BrokenInvariant("the number of copies of a row is out of range".to_string())
    }
}

/// Where an operator puts its results.
#[derive(Debug, Default)]
pub struct Output {
    deltas: Vec<Delta>,
    errors: RowErrors,
}

impl Output {
    /// Hands on `delta`, in batches of at most [`limits::BATCH_ROWS_MAX`] rows.
    pub fn push(&mut self, delta: Delta) {
        if delta.len() <= limits::BATCH_ROWS_MAX {
            if !delta.is_empty() {
                self.deltas.push(delta);
            }
            return;
        }
        for offset in (0..delta.len()).step_by(limits::BATCH_ROWS_MAX) {
            self.deltas.push(delta.slice(offset, limits::BATCH_ROWS_MAX.min(delta.len() - offset)));
        }
    }

    pub fn errors(&mut self) -> &mut RowErrors {
        &mut self.errors
    }

    pub fn take_deltas(&mut self) -> Vec<Delta> {
        std::mem::take(&mut self.deltas)
    }

    pub fn take_errors(&mut self) -> RowErrors {
        std::mem::take(&mut self.errors)
    }
}

/// Rows on which an expression failed: the details of the first ones, and how many more there were.
#[derive(Debug, Default)]
pub struct RowErrors {
    details: Vec<RowError>,
    omitted: u64,
}

impl RowErrors {
    /// Adds a failing row; `describe` is called only while there is room for details.
    pub fn add(&mut self, describe: impl FnOnce() -> RowError) {
        if self.details.len() < limits::ROW_ERROR_DETAILS_PER_EPOCH {
            self.details.push(describe());
        } else {
            self.omitted += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.details.is_empty() && self.omitted == 0
    }

    pub fn into_parts(self) -> (Vec<RowError>, u64) {
        (self.details, self.omitted)
    }
}
