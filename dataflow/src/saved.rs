//! The saved state of a view: what its operators told at a checkpoint, and how it comes back on other workers.
//!
//! Rows are read part by part as operators take them in, so that memory need not hold all of them at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use freshet_storage::checkpoint::StateRows;

use crate::exchange::shards;
use crate::operators::OperatorError;
use crate::operators::state::{Placement, SavedParts, State, Telling, id_column, ids_of_column};

/// The rows of a state table, wherever they are.
pub trait SavedRows: Debug + Send + Sync {
    /// How many parts there are.
    fn parts(&self) -> usize;

    /// The rows of a part. It may wait for a disk: called on a worker thread, while a view is installed.
    ///
    /// # Errors
    /// If they cannot be read, and why.
    fn read(&self, part: usize) -> Result<Vec<StateRows>, String>;
}

/// Rows in memory, which are one part.
impl SavedRows for Vec<StateRows> {
    fn parts(&self) -> usize {
        1
    }

    fn read(&self, _part: usize) -> Result<Vec<StateRows>, String> {
        Ok(self.clone())
    }
}

/// The state of a view's operators at one epoch.
#[derive(Debug, Clone, Default)]
pub struct SavedState {
    /// How many workers there were.
    pub workers: usize,
    /// By the number of the operator in its plan and the worker: its state tables.
    pub operators: HashMap<(u32, usize), Vec<Arc<dyn SavedRows>>>,
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
        if self.workers == workers {
            let own = |table| -> SavedParts<'_> { Box::new(self.rows_of((node, worker), table)) };
            return operator.restore((0..placements.len()).map(own).collect(), Telling::OnlyChanges);
        }
        let share = Share { worker, workers, id_of_first: RefCell::default() };
        let table = |(table, placement)| -> SavedParts<'_> { Box::new(self.rows_for(&share, node, table, placement)) };
        operator.restore(placements.iter().enumerate().map(table).collect(), Telling::All)
    }

    /// What one operator told of a table on one worker.
    fn rows_of(
        &self,
        operator: (u32, usize),
        table: usize,
    ) -> impl Iterator<Item = Result<StateRows, OperatorError>> + '_ {
        let saved = self.operators.get(&operator).and_then(|tables| tables.get(table));
        saved.into_iter().flat_map(|saved| (0..saved.parts()).map(|part| saved.read(part))).flat_map(
            |read| match read {
                Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(OperatorError::Saved(error))],
            },
        )
    }

    /// The rows of a table that belong to the worker of `share`, of all former workers.
    fn rows_for<'a>(
        &'a self,
        share: &'a Share,
        node: u32,
        table: usize,
        placement: &'a Placement,
    ) -> impl Iterator<Item = Result<StateRows, OperatorError>> + 'a {
        let mut next_id = 0;
        let rows = (0..self.workers)
            .flat_map(move |worker| self.rows_of((node, worker), table).map(move |rows| (worker, rows)));
        rows.map(move |(former, rows)| share.part_of(former, &rows?, table, placement, &mut next_id))
    }
}

/// What belongs to one worker, under new ids.
struct Share {
    worker: usize,
    workers: usize,
    /// The new ids of rows of the first table, by the worker on which they were and their ids there.
    id_of_first: RefCell<HashMap<(usize, u32), u32>>,
}

impl Share {
    fn part_of(
        &self,
        former: usize,
        StateRows { ids, rows }: &StateRows,
        table: usize,
        placement: &Placement,
        next_id: &mut u32,
    ) -> Result<StateRows, OperatorError> {
        let mut id_of_first = self.id_of_first.borrow_mut();
        let mask: BooleanArray = match placement {
            Placement::ByColumns(columns) => {
                shards(rows, columns, self.workers)?.into_iter().map(|shard| Some(shard == self.worker)).collect()
            }
            Placement::WithFirstTable => {
                let firsts = ids_of_column(rows.column(0)).iter();
                firsts.map(|id| Some(id_of_first.contains_key(&(former, *id)))).collect()
            }
        };
        let mut rows = filter_record_batch(rows, &mask)?;
        if *placement == Placement::WithFirstTable {
            rows = with_new_ids(&rows, |id| id_of_first[&(former, id)])?;
        }
        let first = *next_id;
        *next_id += u32::try_from(rows.num_rows()).expect("ids are u32");
        if table == 0 {
            let kept = mask.values().set_indices().map(|row| (former, ids[row]));
            id_of_first.extend(kept.zip(first..));
        }
        Ok(StateRows { ids: (first..*next_id).collect(), rows })
    }
}

/// Rows that refer to others by the ids in their first column, which are new now.
fn with_new_ids(rows: &RecordBatch, new: impl Fn(u32) -> u32) -> Result<RecordBatch, ArrowError> {
    let mut columns = rows.columns().to_vec();
    columns[0] = id_column(ids_of_column(&columns[0]).iter().map(|id| new(*id)).collect());
    RecordBatch::try_new(rows.schema(), columns)
}
