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
//!
//! Of a view that does not keep its rows for ever, what is written is what is [kept](freshet_storage::collection::Retention) at each epoch: rows that expire
//! leave before the changes of that epoch come, and changes of rows that have expired are dropped.

use std::collections::BTreeMap;

use freshet_storage::collection::{ExpiredRows, ShardWriter};
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

    /// Deletes the rows that expire up to `epoch`, and hands their deletions to `forward`. All earlier changes are written.
    fn expire(
        &mut self,
        epoch: u64,
        expired: ExpiredRows,
        forward: &mut impl FnMut(u64, &Delta),
    ) -> Result<(), OperatorError> {
        let first = self.frontier.max(self.as_of).min(epoch);
        for (gone, delta) in self.writer.expire(Epoch(first)..=Epoch(epoch), expired)?.deltas {
            forward(gone.0, &delta);
        }
        Ok(())
    }

    /// Writes what is kept of a change, and hands it to `forward`.
    fn write(
        &mut self,
        epoch: u64,
        change: &Delta,
        forward: &mut impl FnMut(u64, &Delta),
    ) -> Result<(), OperatorError> {
        let kept = self.writer.kept(Epoch(epoch), change)?;
        self.writer.apply(Epoch(epoch), &kept)?;
        if !kept.is_empty() {
            forward(epoch, &kept);
        }
        Ok(())
    }

    /// A change of `epoch`, to be published in its time.
    pub fn wait(&mut self, epoch: u64, delta: Delta) {
        self.waiting.entry(epoch).or_default().push(delta);
    }

    /// Writes all epochs before `frontier`, of which nothing more will come, hands each change to `forward`, and
    /// moves the upper; that of rows that expire only if they are to be told. Gives the frontier of what is now readable, if
    /// it moved.
    ///
    /// # Errors
    /// If a change does not fit the collection.
    pub fn publish(
        &mut self,
        frontier: u64,
        expired: ExpiredRows,
        mut forward: impl FnMut(u64, &Delta),
    ) -> Result<Option<u64>, OperatorError> {
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() < frontier
        {
            let (epoch, deltas) = entry.remove_entry();
            self.expire(epoch, expired, &mut forward)?;
            for change in self.settle(deltas)? {
                self.write(epoch, &change, &mut forward)?;
            }
        }
        if let Some(deltas) = self.waiting.get_mut(&frontier)
            && match self.discipline {
                Discipline::AppendOnly => true,
                Discipline::Settled | Discipline::Unordered => frontier == self.as_of,
                Discipline::Revised => false,
            }
        {
            let early: Vec<Delta> = deltas.extract_if(.., |delta| delta.is_inserts()).collect();
            self.expire(frontier, expired, &mut forward)?;
            for delta in early {
                self.write(frontier, &delta, &mut forward)?;
            }
        }
        if frontier <= self.frontier.max(self.as_of) {
            return Ok(None);
        }
        self.expire(frontier - 1, expired, &mut forward)?;
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
    use freshet_storage::collection::{Collection, CollectionDescription, Retention};

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
        publisher.publish(3, ExpiredRows::Told, |epoch, delta| forwarded.push((epoch, delta.len()))).unwrap();
        assert_eq!(collection.upper(), Epoch::ZERO);
        publisher.publish(4, ExpiredRows::Told, |epoch, delta| forwarded.push((epoch, delta.len()))).unwrap();
        assert_eq!((collection.upper(), collection.row_count()), (Epoch(3), 2));
        publisher.publish(6, ExpiredRows::Told, |epoch, delta| forwarded.push((epoch, delta.len()))).unwrap();
        assert_eq!((collection.upper(), collection.row_count()), (Epoch(5), 1));
        assert_eq!(forwarded, vec![(3, 2), (5, 1)]);
    }

    #[test]
    fn nothing_is_written_early_that_may_be_taken_back() {
        let collection = collection();
        let mut publisher = Publisher::new(collection.writer(0), 3, Discipline::Revised);
        publisher.wait(3, delta(&[1], &[]));
        publisher.publish(3, ExpiredRows::Told, |_, _| panic!("the epoch is not complete")).unwrap();
        publisher.wait(3, delta(&[1], &[-1]));
        publisher.wait(3, delta(&[1], &[]));
        publisher.publish(4, ExpiredRows::Told, |_, delta| assert_eq!(delta.len(), 1)).unwrap();
        assert_eq!(collection.row_count(), 1);
    }

    #[test]
    fn rows_expire_between_changes_and_changes_of_expired_rows_are_none() {
        let retention = Some(Retention { time_column: 0, keep_ms: 1_000 });
        let description = CollectionDescription::new("v", delta(&[], &[]).schema(), Some(vec![0]));
        let collection = Collection::new(CollectionDescription { retention, ..description }, 1).unwrap();
        let mut publisher = Publisher::new(collection.writer(0), 10_000, Discipline::Settled);
        let mut forwarded = Vec::new();
        let mut publish = |publisher: &mut Publisher, frontier| {
            let forward = |epoch, delta: &Delta| forwarded.push((epoch, delta.weight_column().iter().sum::<i64>()));
            publisher.publish(frontier, ExpiredRows::Told, forward).unwrap();
            collection.row_count()
        };
        publisher.wait(10_000, delta(&[8_999_999, 9_000_000, 9_500_000, 10_500_000], &[]));
        assert_eq!(publish(&mut publisher, 10_001), 3);
        assert_eq!(publish(&mut publisher, 11_000), 3);
        // Later than the epoch at which they leave: of one that has left, of one that leaves then, and of one that never was.
        publisher.wait(11_500, delta(&[9_000_000, 10_500_000], &[-1, -1]));
        publisher.wait(11_700, delta(&[9_900_000, 11_000_000], &[]));
        assert_eq!(publish(&mut publisher, 11_701), 1);
        publisher.wait(13_000, delta(&[11_000_000, 12_500_000], &[-1, 1]));
        assert_eq!(publish(&mut publisher, 20_000), 0);
        assert_eq!(collection.upper(), Epoch(19_999));
        assert_eq!(
            forwarded,
            [(10_000, 3), (11_000, -2), (11_500, -1), (11_700, 1), (13_000, -1), (13_000, 1), (14_000, -1)]
        );
    }

    #[test]
    fn rows_may_come_and_go_in_any_order_within_an_epoch() {
        let collection = collection();
        let mut publisher = Publisher::new(collection.writer(0), 3, Discipline::Unordered);
        publisher.wait(4, delta(&[1], &[-1]));
        publisher.wait(4, delta(&[2], &[]));
        publisher.wait(4, delta(&[1], &[]));
        publisher.publish(5, ExpiredRows::Told, |_, delta| assert_eq!(delta.len(), 1)).unwrap();
        assert_eq!(collection.row_count(), 1);
    }
}
