//! How deltas travel between workers: each row to the worker that keeps the state for its key.
//!
//! A key belongs to one of 256 virtual nodes, and virtual node `n` to worker `n mod workers`, so that state can be
//! moved between clusters of different sizes a virtual node at a time.

use std::rc::Rc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use freshet_types::{Delta, KeyEncoder, virtual_node};
use timely::communication::{Pull, Push};
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{DistributorPact, ParallelizationContract, Pipeline};
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::logging::TimelyLogger;
use timely::progress::Timestamp;
use timely::worker::Worker;

use crate::container::DeltaContainer;

/// The way that rows take from one operator to the next.
#[derive(Debug, Clone)]
pub enum Route {
    /// They stay on their worker.
    Local,
    /// Each row goes to the worker of its key.
    ByKey(KeyRoute),
}

/// Sends rows by the hash of some of their columns.
#[derive(Debug, Clone)]
pub struct KeyRoute {
    columns: Vec<usize>,
    encoder: KeyEncoder,
}

impl Route {
    /// By the hash of `columns`; without columns all rows go to [`owner_of_all`].
    ///
    /// # Errors
    /// If a type cannot be a key.
    pub fn by_key(schema: &Schema, columns: &[usize]) -> Result<Self, ArrowError> {
        let types: Vec<DataType> = columns.iter().map(|column| schema.field(*column).data_type().clone()).collect();
        Ok(Self::ByKey(KeyRoute { columns: columns.to_vec(), encoder: KeyEncoder::new(&types)? }))
    }
}

/// The worker to which rows go that are sent by no column at all: where a global aggregate lives.
pub fn owner_of_all(workers: usize) -> usize {
    let encoder = KeyEncoder::new(&[]).expect("no columns need no row format");
    let keys = encoder.encode(&[], 1).expect("no columns are always encoded");
    worker_of(keys.hashes()[0], workers)
}

/// The worker of each row, by the hash of `columns`.
///
/// # Errors
/// If a type cannot be a key.
pub fn shards(rows: &RecordBatch, columns: &[usize], workers: usize) -> Result<Vec<usize>, ArrowError> {
    let columns: Vec<ArrayRef> = columns.iter().map(|column| rows.column(*column).clone()).collect();
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let keys = KeyEncoder::new(&types)?.encode(&columns, rows.num_rows())?;
    Ok(keys.hashes().into_iter().map(|hash| worker_of(hash, workers)).collect())
}

fn worker_of(hash: u64, workers: usize) -> usize {
    virtual_node(hash) % workers
}

impl KeyRoute {
    /// Cuts `delta` into the parts for each of `workers` workers.
    fn split(&self, delta: Delta, workers: usize) -> Vec<Option<Delta>> {
        let columns: Vec<_> = self.columns.iter().map(|column| delta.columns()[*column].clone()).collect();
        let keys = self.encoder.encode(&columns, delta.len()).expect("the columns have the types of the schema");
        let mut rows_of_worker = vec![Vec::with_capacity(delta.len() / workers + 1); workers];
        for (row, hash) in (0_u32..).zip(keys.hashes()) {
            rows_of_worker[worker_of(hash, workers)].push(row);
        }
        if let Some(only) = rows_of_worker.iter().position(|rows| rows.len() == delta.len()) {
            return (0..workers).map(|worker| (worker == only).then(|| delta.clone())).collect();
        }
        let part = |rows: Vec<u32>| {
            let take = |rows| delta.take(&UInt32Array::from(rows)).expect("the indices are within the batch");
            (!rows.is_empty()).then(|| take(rows))
        };
        rows_of_worker.into_iter().map(part).collect()
    }
}

impl Distributor<DeltaContainer> for KeyRoute {
    fn partition<T: Clone, P: Push<Message<T, DeltaContainer>>>(
        &mut self,
        container: &mut DeltaContainer,
        time: &T,
        pushers: &mut [P],
    ) {
        let Some(delta) = container.take() else { return };
        for (part, pusher) in self.split(delta, pushers.len()).into_iter().zip(pushers) {
            if let Some(part) = part {
                Message::push_at(&mut DeltaContainer::from(part), time.clone(), pusher);
            }
        }
    }

    /// Nothing is held back: every part has been sent at once.
    fn flush<T: Clone, P: Push<Message<T, DeltaContainer>>>(&mut self, _time: &T, _pushers: &mut [P]) {}
}

impl<T: Timestamp> ParallelizationContract<T, DeltaContainer> for Route {
    type Pusher = Box<dyn Push<Message<T, DeltaContainer>>>;
    type Puller = Box<dyn Pull<Message<T, DeltaContainer>>>;

    fn connect(
        self,
        worker: &Worker,
        identifier: usize,
        address: Rc<[usize]>,
        logging: Option<TimelyLogger>,
    ) -> (Self::Pusher, Self::Puller) {
        match self {
            Self::Local => {
                let (pusher, puller) = Pipeline.connect(worker, identifier, address, logging);
                (Box::new(pusher), Box::new(puller))
            }
            Self::ByKey(route) => {
                let pact = DistributorPact(move |_workers| route);
                let (pusher, puller) = pact.connect(worker, identifier, address, logging);
                (Box::new(pusher), Box::new(puller))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{Field, Int64Type};

    use super::*;

    fn delta(keys: Vec<i64>, weights: Vec<i64>) -> Delta {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        Delta::new(RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(keys))]).unwrap(), weights)
    }

    #[test]
    fn a_key_goes_to_one_worker_with_its_weight() {
        let whole = delta((0..1000).map(|i| i % 100).collect(), (0..1000).collect());
        let Route::ByKey(route) = Route::by_key(&whole.schema(), &[0]).unwrap() else { panic!("by key") };
        let mut owner_of_key = [None; 100];
        let mut weight_sum = 0;
        for (worker, part) in route.split(whole, 3).into_iter().enumerate() {
            let part = part.unwrap();
            weight_sum += part.weight_column().iter().sum::<i64>();
            for key in part.columns()[0].as_primitive::<Int64Type>().values() {
                let owner = owner_of_key[*key as usize].get_or_insert(worker);
                assert_eq!(*owner, worker);
            }
        }
        assert_eq!(weight_sum, (0..1000).sum::<i64>());
    }

    #[test]
    fn no_columns_bring_all_rows_to_one_worker() {
        let whole = delta(vec![1, 2, 3], vec![1, 1, 1]);
        let Route::ByKey(route) = Route::by_key(&whole.schema(), &[]).unwrap() else { panic!("by key") };
        let parts = route.split(whole, 4);
        assert_eq!(parts.iter().flatten().count(), 1);
        assert_eq!(parts[owner_of_all(4)].as_ref().map(Delta::len), Some(3));
    }
}
