//! Cuts: what the operators of a view hand over for a checkpoint.
//!
//! A cut is announced before its epoch is sealed. Each operator hands over what has changed in its state once it has
//! flushed all epochs up to that of the cut, and before it takes in any later one, so that the parts of a cut are the
//! state at one epoch, whenever each operator comes to it. The stream does not stop for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use freshet_storage::checkpoint::TableChange;
use freshet_types::Epoch;

use crate::Event;
use crate::health::ViewHealth;

/// What has changed in the state of one operator on one worker since the last cut.
#[derive(Debug, Clone)]
pub struct OperatorChange {
    /// The number of the operator in its plan.
    pub node: u32,
    pub tables: Vec<TableChange>,
}

/// The cuts of one view on one worker. Clones are the same.
#[derive(Clone)]
pub struct ViewCuts(Rc<RefCell<Inner>>);

struct Inner {
    health: ViewHealth,
    worker: usize,
    /// How many operators hand over their state.
    operators: usize,
    /// In ascending order, with what has been handed over so far.
    open: VecDeque<(u64, Vec<OperatorChange>)>,
}

impl ViewCuts {
    pub fn new(health: ViewHealth, worker: usize) -> Self {
        Self(Rc::new(RefCell::new(Inner { health, worker, operators: 0, open: VecDeque::new() })))
    }

    /// Another operator takes part.
    pub fn add_operator(&self) {
        self.0.borrow_mut().operators += 1;
    }

    /// There will be a cut at `epoch`, which is not sealed yet.
    pub fn announce(&self, epoch: u64) {
        let mut inner = self.0.borrow_mut();
        inner.open.push_back((epoch, Vec::new()));
        inner.report_complete();
    }

    /// The first cut after `epoch` to which some operator has not come yet.
    pub fn first_after(&self, epoch: u64) -> Option<u64> {
        self.0.borrow().open.iter().map(|(cut, _)| *cut).find(|cut| *cut > epoch)
    }

    pub fn hand_over(&self, epoch: u64, change: OperatorChange) {
        let mut inner = self.0.borrow_mut();
        if let Some((_, changes)) = inner.open.iter_mut().find(|(cut, _)| *cut == epoch) {
            changes.push(change);
        }
        inner.report_complete();
    }
}

impl Inner {
    fn report_complete(&mut self) {
        while self.open.front().is_some_and(|(_, changes)| changes.len() == self.operators) {
            let Some((epoch, operators)) = self.open.pop_front() else { return };
            self.health.tell(Event::Cut {
                view: self.health.view(),
                epoch: Epoch(epoch),
                worker: self.worker,
                operators,
            });
        }
    }
}
