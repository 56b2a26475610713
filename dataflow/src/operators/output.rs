//! View output: the root of a plan, written to the view's collection.
//!
//! Input          deltas of the view; a row and its retraction come to the same worker.
//! Output         none here; what is written is also handed to the views that read this one.
//! State          deltas of epochs that are not complete.
//! On retraction  the collection deletes the row.
//! Cost           time O(changed rows), memory O(changed rows of the open epochs).
//!
//! An epoch is written when it is complete, deletions first, so that no row or key is there twice. Plain insertions that cannot
//! clash with a deletion to come are written as they arrive: nobody reads them before the upper moves.

use std::collections::BTreeMap;

use freshet_storage::collection::ShardWriter;
use freshet_types::{Delta, Epoch, Weights};

use crate::operators::OperatorError;

/// What is known of the deltas that reach the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discipline {
    /// Each is an insertion.
    AppendOnly,
    /// Within an epoch, each deletion is of a row that was there before the epoch.
    Settled,
    /// A row may come and go within an epoch, in any order; but not while the first one brings the snapshots of the inputs.
    Unordered,
    /// A row may come and go within any epoch.
    Revised,
}

/// The writer of one worker's shard of a view.
pub struct Publisher {
    writer: ShardWriter,
    as_of: u64,
    discipline: Discipline,
    waiting: BTreeMap<u64, Vec<Delta>>,
    frontier: u64,
}

impl Publisher {
    pub fn new(writer: ShardWriter, as_of: u64, discipline: Discipline) -> Self {
        Self { writer, as_of, discipline, waiting: BTreeMap::new(), frontier: 0 }
    }

    /// A change of `epoch`, to be published in its time.
    pub fn wait(&mut self, epoch: u64, delta: Delta) {
        self.waiting.entry(epoch).or_default().push(delta);
    }

    /// Writes all epochs before `frontier`, of which nothing more will come, hands each change to `forward`, and
    /// moves the upper. Gives the frontier of what is now readable, if it moved.
    ///
    /// # Errors
    /// If a change does not fit the collection.
    pub fn publish(
        &mut self,
        frontier: u64,
        mut forward: impl FnMut(u64, &Delta),
    ) -> Result<Option<u64>, OperatorError> {
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() < frontier
        {
            let (epoch, deltas) = entry.remove_entry();
            for change in self.settle(deltas)? {
                self.writer.apply(Epoch(epoch), &change)?;
                forward(epoch, &change);
            }
        }
        if let Some(deltas) = self.waiting.get_mut(&frontier)
            && match self.discipline {
                Discipline::AppendOnly => true,
                Discipline::Settled | Discipline::Unordered => frontier == self.as_of,
                Discipline::Revised => false,
            }
        {
            for delta in deltas.extract_if(.., |delta| delta.is_inserts()) {
                self.writer.apply(Epoch(frontier), &delta)?;
                forward(frontier, &delta);
            }
        }
        if frontier <= self.frontier.max(self.as_of) {
            return Ok(None);
        }
        self.frontier = frontier;
        self.writer.advance_upper(Epoch(frontier - 1));
        Ok(Some(frontier))
    }

    /// The change of an epoch as deltas that can be applied one after the other.
    fn settle(&self, deltas: Vec<Delta>) -> Result<Vec<Delta>, OperatorError> {
        let Some(first) = deltas.first() else { return Ok(vec![]) };
        if self.discipline >= Discipline::Unordered {
            return Ok(vec![Delta::concat(&first.schema(), &deltas)?.consolidate()?]);
        }
        let (deletions, others): (Vec<Delta>, Vec<Delta>) = deltas.into_iter().partition(deletes_only);
        // Rows that a collection deletes first are out of the way of new ones with their keys.
        if others.iter().all(Delta::is_inserts) {
            return Ok(deletions.into_iter().chain(others).collect());
        }
        let all: Vec<Delta> = deletions.into_iter().chain(others).collect();
        Ok(vec![Delta::concat(&all[0].schema(), &all)?])
    }
}

fn deletes_only(delta: &Delta) -> bool {
    match delta.weights() {
        Weights::Inserts => false,
        Weights::Each(weights) => weights.iter().all(|weight| *weight < 0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use freshet_storage::collection::{Collection, CollectionDescription};

    use super::*;

    fn delta(keys: &[i64], weights: &[i64]) -> Delta {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(keys.to_vec()))]).unwrap();
        if weights.is_empty() { Delta::inserts(rows) } else { Delta::new(rows, weights.to_vec()) }
    }

    fn collection() -> Arc<Collection> {
        let description = CollectionDescription::new("v", delta(&[], &[]).schema(), Some(vec![0]));
        Collection::new(description, 1).unwrap()
    }

    #[test]
    fn an_epoch_is_written_when_the_frontier_has_passed_it() {
        let collection = collection();
        let mut publisher = Publisher::new(collection.writer(0), 3, Discipline::Unordered);
        let mut forwarded = Vec::new();
        publisher.wait(3, delta(&[1, 2], &[]));
        publisher.wait(5, delta(&[2], &[-1]));
        publisher.publish(3, |epoch, delta| forwarded.push((epoch, delta.len()))).unwrap();
        assert_eq!(collection.upper(), Epoch::ZERO);
        publisher.publish(4, |epoch, delta| forwarded.push((epoch, delta.len()))).unwrap();
        assert_eq!((collection.upper(), collection.row_count()), (Epoch(3), 2));
        publisher.publish(6, |epoch, delta| forwarded.push((epoch, delta.len()))).unwrap();
        assert_eq!((collection.upper(), collection.row_count()), (Epoch(5), 1));
        assert_eq!(forwarded, vec![(3, 2), (5, 1)]);
    }

    #[test]
    fn nothing_is_written_early_that_may_be_taken_back() {
        let collection = collection();
        let mut publisher = Publisher::new(collection.writer(0), 3, Discipline::Revised);
        publisher.wait(3, delta(&[1], &[]));
        publisher.publish(3, |_, _| panic!("the epoch is not complete")).unwrap();
        publisher.wait(3, delta(&[1], &[-1]));
        publisher.wait(3, delta(&[1], &[]));
        publisher.publish(4, |_, delta| assert_eq!(delta.len(), 1)).unwrap();
        assert_eq!(collection.row_count(), 1);
    }

    #[test]
    fn rows_may_come_and_go_in_any_order_within_an_epoch() {
        let collection = collection();
        let mut publisher = Publisher::new(collection.writer(0), 3, Discipline::Unordered);
        publisher.wait(4, delta(&[1], &[-1]));
        publisher.wait(4, delta(&[2], &[]));
        publisher.wait(4, delta(&[1], &[]));
        publisher.publish(5, |_, delta| assert_eq!(delta.len(), 1)).unwrap();
        assert_eq!(collection.row_count(), 1);
    }
}
