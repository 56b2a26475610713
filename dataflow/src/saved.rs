//! The saved state of a view: what its operators told at a checkpoint, and how it comes back on other workers.

use std::collections::HashMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use freshet_storage::checkpoint::StateRows;

use crate::exchange::shards;
use crate::operators::OperatorError;
use crate::operators::state::{Placement, State, Telling, id_column, ids_of_column};

/// The state of a view's operators at one epoch.
#[derive(Debug, Clone, Default)]
pub struct SavedState {
    /// How many workers there were.
    pub workers: usize,
    /// By the number of the operator in its plan and the worker: the rows of each state table.
    pub operators: HashMap<(u32, usize), Vec<Vec<StateRows>>>,
}

impl SavedState {
    /// Gives `operator`, whose number is `node`, the part of its state that belongs to worker `worker` of `workers`.
    ///
    /// # Errors
    /// If what was saved is not of this operator.
    pub fn restore(
        &self,
        node: u32,
        operator: &mut dyn State,
        placements: &[Placement],
        (worker, workers): (usize, usize),
    ) -> Result<(), OperatorError> {
        let nothing = || vec![Vec::new(); placements.len()];
        if self.workers == workers {
            let own = self.operators.get(&(node, worker)).cloned().unwrap_or_else(nothing);
            return operator.restore(&own, Telling::OnlyChanges);
        }
        let mut share = Share { tables: nothing(), next_ids: vec![0; placements.len()] };
        for old_worker in 0..self.workers {
            if let Some(tables) = self.operators.get(&(node, old_worker)) {
                share.take_from(tables, placements, (worker, workers))?;
            }
        }
        operator.restore(&share.tables, Telling::All)
    }
}

/// The rows that belong to one worker, under new ids.
struct Share {
    tables: Vec<Vec<StateRows>>,
    next_ids: Vec<u32>,
}

impl Share {
    /// Adds the rows of one former worker.
    fn take_from(
        &mut self,
        tables: &[Vec<StateRows>],
        placements: &[Placement],
        (worker, workers): (usize, usize),
    ) -> Result<(), OperatorError> {
        let mut id_of_first: HashMap<u32, u32> = HashMap::new();
        for (table, (parts, placement)) in tables.iter().zip(placements).enumerate() {
            for StateRows { ids, rows } in parts {
                let mask: BooleanArray = match placement {
                    Placement::ByColumns(columns) => {
                        shards(rows, columns, workers)?.into_iter().map(|shard| Some(shard == worker)).collect()
                    }
                    Placement::WithFirstTable => {
                        ids_of_column(rows.column(0)).iter().map(|id| Some(id_of_first.contains_key(id))).collect()
                    }
                };
                let mut rows = filter_record_batch(rows, &mask)?;
                if *placement == Placement::WithFirstTable {
                    rows = with_new_ids(&rows, &id_of_first)?;
                }
                let first = self.next_ids[table];
                let count = u32::try_from(rows.num_rows()).expect("ids are u32");
                self.next_ids[table] += count;
                if table == 0 {
                    let kept = mask.values().set_indices().map(|row| ids[row]);
                    id_of_first.extend(kept.zip(first..));
                }
                self.tables[table].push(StateRows { ids: (first..first + count).collect(), rows });
            }
        }
        Ok(())
    }
}

/// Rows that refer to others by the ids in their first column, which are new now.
fn with_new_ids(rows: &RecordBatch, new: &HashMap<u32, u32>) -> Result<RecordBatch, ArrowError> {
    let mut columns = rows.columns().to_vec();
    columns[0] = id_column(ids_of_column(&columns[0]).iter().map(|id| new[id]).collect());
    RecordBatch::try_new(rows.schema(), columns)
}
