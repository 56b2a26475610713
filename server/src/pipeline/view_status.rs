//! How a materialized view is doing: hydrating, live, or failed; and the rows that it had to set aside.

use std::collections::HashMap;

use freshet_dataflow::RowError;
use freshet_types::Epoch;

use crate::limits::VIEW_ERRORS_MAX;

/// The state and the row errors of one materialized view.
#[derive(Debug, Default)]
pub struct ViewStatus {
    pub state: ViewState,
    errors: HashMap<(String, String), FailingRow>,
    /// Row errors that were counted, but not kept.
    pub errors_not_kept: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ViewState {
    /// Reading what its inputs held when it was created.
    #[default]
    Hydrating,
    Live,
    /// Stopped for good; readable as it was.
    Failed {
        error: String,
        since: Epoch,
    },
}

/// A row on which an expression fails, as often as it is in the view's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingRow {
    pub count: i64,
    pub since: Epoch,
}

impl ViewState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hydrating => "hydrating",
            Self::Live => "live",
            Self::Failed { .. } => "failed",
        }
    }
}

impl ViewStatus {
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
            let key = (error.message, error.row);
            if at_bound && !self.errors.contains_key(&key) {
                self.errors_not_kept += 1;
                continue;
            }
            let row = self.errors.entry(key.clone()).or_insert(FailingRow { count: 0, since: epoch });
            row.count += error.weight;
            if row.count == 0 {
                self.errors.remove(&key);
            }
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
    }
}
