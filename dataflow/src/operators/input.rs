//! Import of a relation: its content at `as_of`, then its changes.
//!
//! Input          snapshot deltas at `as_of`; live deltas of a table or source, or of another view's output.
//! Output         the same rows, of the columns that the plan reads.
//! State          deltas that wait for their turn, by epoch.
//! On retraction  as an insertion.
//! Cost           no copy: columns are shared.
//!
//! The frontier stands at `as_of` until the snapshot is complete, and then follows the relation. Live deltas of epochs
//! up to `as_of` are dropped: they are part of the snapshot (an upstream view may publish them late).

use std::collections::{BTreeMap, VecDeque};

use arrow::datatypes::SchemaRef;
use freshet_types::Delta;

use crate::memory::Queue;
use crate::operators::OperatorError;

/// The state of one `Input` node on one worker.
pub struct Import {
    as_of: u64,
    columns: Vec<usize>,
    schema: SchemaRef,
    waiting: BTreeMap<u64, VecDeque<(Delta, usize)>>,
    /// The bytes of what waits; those of each delta stand beside it.
    queue: Queue,
    stage: Stage,
    /// The first epoch of which the relation may still change.
    relation_frontier: u64,
}

#[derive(PartialEq)]
enum Stage {
    /// Snapshot rows may still come.
    Snapshot,
    Live,
    /// The view failed: whatever comes is dropped.
    Closed,
}

impl Import {
    pub fn new(as_of: u64, columns: Vec<usize>, schema: SchemaRef) -> Self {
        let stage = Stage::Snapshot;
        let (waiting, queue) = (BTreeMap::new(), Queue::default());
        Self { as_of, columns, schema, waiting, queue, stage, relation_frontier: 0 }
    }

    /// An import whose rows of `as_of` have been handed on in an earlier life.
    pub fn resumed(as_of: u64, columns: Vec<usize>, schema: SchemaRef) -> Self {
        Self { stage: Stage::Live, ..Self::new(as_of, columns, schema) }
    }

    /// Counts what waits as part of `queue`; called before anything does.
    pub fn counted_in(self, queue: Queue) -> Self {
        Self { queue, ..self }
    }

    /// Some rows of the relation at `as_of`.
    pub fn push_snapshot(&mut self, delta: &Delta) {
        if self.stage == Stage::Snapshot {
            self.wait(self.as_of, delta);
        }
    }

    /// Changes of the relation at `epoch`.
    pub fn push_live(&mut self, epoch: u64, delta: &Delta) {
        if self.stage != Stage::Closed && epoch > self.as_of {
            self.wait(epoch, delta);
        }
    }

    fn wait(&mut self, epoch: u64, delta: &Delta) {
        let bytes = delta.slice_bytes();
        self.queue.add(bytes);
        self.waiting.entry(epoch).or_default().push_back((delta.clone(), bytes));
    }

    pub fn finish_snapshot(&mut self) {
        if self.stage == Stage::Snapshot {
            self.stage = Stage::Live;
        }
    }

    /// The relation will not change any more at epochs before `frontier`.
    pub fn advance(&mut self, frontier: u64) {
        self.relation_frontier = self.relation_frontier.max(frontier);
    }

    /// Drops what waits and what is still to come.
    pub fn close(&mut self) {
        self.stage = Stage::Closed;
        self.waiting.clear();
        self.queue.clear();
    }

    /// The first epoch at which [`Import::take_next`] may still give something.
    pub fn frontier(&self) -> u64 {
        let to_come = match self.stage {
            Stage::Snapshot => self.as_of,
            Stage::Live | Stage::Closed => self.relation_frontier.max(self.as_of + 1),
        };
        self.waiting.first_key_value().map_or(to_come, |(epoch, _)| to_come.min(*epoch))
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next delta to hand on, of the lowest epoch that waits.
    ///
    /// # Errors
    /// If the rows do not have the columns that the plan expects.
    pub fn take_next(&mut self) -> Result<Option<(u64, Delta)>, OperatorError> {
        let Some(mut entry) = self.waiting.first_entry() else { return Ok(None) };
        let epoch = *entry.key();
        let delta = entry.get_mut().pop_front();
        if entry.get().is_empty() {
            entry.remove();
        }
        let Some((delta, bytes)) = delta else { return Ok(None) };
        self.queue.take(bytes);
        Ok(Some((epoch, delta.project(&self.columns)?.with_schema(&self.schema)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn schema(names: &[&str]) -> SchemaRef {
        Arc::new(Schema::new(names.iter().map(|n| Field::new(*n, DataType::Int64, true)).collect::<Vec<_>>()))
    }

    fn delta(value: i64) -> Delta {
        let column = |v| Arc::new(Int64Array::from(vec![v])) as _;
        Delta::inserts(RecordBatch::try_new(schema(&["a", "b"]), vec![column(value), column(-value)]).unwrap())
    }

    fn drain(import: &mut Import) -> Vec<(u64, i64)> {
        let mut given = Vec::new();
        while let Some((epoch, delta)) = import.take_next().unwrap() {
            assert_eq!(delta.columns().len(), 1);
            let column = delta.columns()[0].as_any().downcast_ref::<Int64Array>().unwrap().clone();
            given.push((epoch, column.value(0)));
        }
        given
    }

    #[test]
    fn live_deltas_flow_while_the_snapshot_holds_the_frontier() {
        let mut import = Import::new(5, vec![1], schema(&["b"]));
        import.push_live(4, &delta(40));
        import.push_live(5, &delta(50));
        import.push_live(7, &delta(70));
        import.push_snapshot(&delta(1));
        import.advance(8);
        assert_eq!(drain(&mut import), vec![(5, -1), (7, -70)]);
        assert_eq!(import.frontier(), 5);
        import.finish_snapshot();
        assert_eq!(import.frontier(), 8);
    }

    #[test]
    fn waiting_deltas_hold_the_frontier() {
        let mut import = Import::new(5, vec![0], schema(&["a"]));
        import.finish_snapshot();
        assert_eq!(import.frontier(), 6);
        import.push_live(9, &delta(1));
        import.advance(10);
        assert_eq!(import.frontier(), 9);
        assert_eq!(drain(&mut import), vec![(9, 1)]);
        assert_eq!(import.frontier(), 10);
    }

    #[test]
    fn a_closed_import_keeps_nothing() {
        let mut import = Import::new(5, vec![0], schema(&["a"]));
        import.push_snapshot(&delta(1));
        import.close();
        import.push_snapshot(&delta(1));
        import.push_live(6, &delta(1));
        assert!(!import.has_waiting());
    }
}
