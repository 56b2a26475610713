//! How a materialized view is doing: hydrating, live, or failed; and the rows that it had to set aside.

use std::collections::{HashMap, VecDeque};

use freshet_dataflow::RowError;
use freshet_types::Epoch;
use serde::{Deserialize, Serialize};

use crate::limits::VIEW_ERRORS_MAX;
use crate::pipeline::view_failure::ViewFailure;

/// The state and the row errors of one materialized view.
#[derive(Debug, Default)]
pub struct ViewStatus {
    pub state: ViewState,
    errors: HashMap<(String, String), FailingRow>,
    /// Row errors that were counted, but not kept.
    pub errors_not_kept: u64,
    /// The last changes of the errors, by which they can be taken back to a recent epoch.
    recent: VecDeque<(Epoch, RowError)>,
}

/// The row errors of a view at one epoch, as they are saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedErrors {
    rows: Vec<(String, String, FailingRow)>,
    not_kept: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ViewState {
    /// Reading what its inputs held when it was created.
    #[default]
    Hydrating,
    Live,
    /// Stopped, because it has failed or is paused; readable as it was.
    Failed(ViewFailure),
}

/// A row on which an expression fails, as often as it is in the view's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingRow {
    pub count: i64,
    pub since: Epoch,
}

impl ViewState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hydrating => "hydrating",
            Self::Live => "live",
            Self::Failed(failure) => failure.state(),
        }
    }
}

impl ViewStatus {
    /// The status of a view that goes on with what was saved.
    pub fn resumed(saved: SavedErrors) -> Self {
        let errors = saved.rows.into_iter().map(|(message, row, failing)| ((message, row), failing)).collect();
        Self { state: ViewState::Live, errors, errors_not_kept: saved.not_kept, recent: VecDeque::new() }
    }

    /// The row errors at `epoch`, a recent one.
    pub fn errors_at(&self, epoch: Epoch) -> SavedErrors {
        let mut errors = self.errors.clone();
        for (later, error) in self.recent.iter().rev().take_while(|(later, _)| *later > epoch) {
            add(&mut errors, *later, RowError { weight: -error.weight, ..error.clone() });
        }
        let rows = errors.into_iter().map(|((message, row), failing)| (message, row, failing)).collect();
        SavedErrors { rows, not_kept: self.errors_not_kept }
    }

    /// Notes that the view is complete; false if it has failed meanwhile.
    pub fn hydrated(&mut self) -> bool {
        let hydrating = self.state == ViewState::Hydrating;
        if hydrating {
            self.state = ViewState::Live;
        }
        hydrating
    }

    /// Notes rows on which an expression failed, and how many more there were. A row that is deleted from the input
    /// takes its error with it.
    pub fn record(&mut self, epoch: Epoch, errors: Vec<RowError>, omitted: u64) {
        self.errors_not_kept += omitted;
        for error in errors {
            let at_bound = self.errors.len() >= VIEW_ERRORS_MAX;
            if at_bound && !self.errors.contains_key(&(error.message.clone(), error.row.clone())) {
                self.errors_not_kept += 1;
                continue;
            }
            if self.recent.len() == VIEW_ERRORS_MAX {
                self.recent.pop_front();
            }
            // Workers are at different epochs for a moment.
            let place = self.recent.partition_point(|(other, _)| *other <= epoch);
            self.recent.insert(place, (epoch, error.clone()));
            add(&mut self.errors, epoch, error);
        }
    }

    /// (message, row) and how often, in no order.
    pub fn errors(&self) -> impl Iterator<Item = (&(String, String), &FailingRow)> {
        self.errors.iter()
    }

    pub fn error_count(&self) -> usize {
        self.errors.len()
    }
}

fn add(errors: &mut HashMap<(String, String), FailingRow>, epoch: Epoch, error: RowError) {
    let key = (error.message, error.row);
    let row = errors.entry(key.clone()).or_insert(FailingRow { count: 0, since: epoch });
    row.count += error.weight;
    if row.count == 0 {
        errors.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_goes_with_its_row() {
        let error = |weight| RowError { message: "division by zero".into(), row: "a=0".into(), weight };
        let mut status = ViewStatus::default();
        status.record(Epoch(1), vec![error(2)], 0);
        status.record(Epoch(2), vec![error(-1)], 0);
        assert_eq!(status.errors().next().unwrap().1, &FailingRow { count: 1, since: Epoch(1) });
        status.record(Epoch(3), vec![error(-1)], 0);
        assert_eq!(status.error_count(), 0);
        let counts = |epoch| status.errors_at(Epoch(epoch)).rows.iter().map(|row| row.2.count).collect::<Vec<_>>();
        assert_eq!([counts(0), counts(1), counts(2), counts(3)], [vec![], vec![2], vec![1], vec![]]);
        let resumed = ViewStatus::resumed(status.errors_at(Epoch(2)));
        assert_eq!((resumed.error_count(), resumed.state), (1, ViewState::Live));
    }
}
