//! Hydration: feeds a new view what its inputs held at the epoch at which it starts.
//!
//! Tables and views are read from their collections at that epoch, sources from their start up to the offsets sealed
//! with it. Meanwhile the dataflow already receives what came later, and holds it back until it is complete.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use freshet_connectors::{Offsets, Range};
use freshet_dataflow::Engine;
use freshet_planner::plan::{Node, Op};
use freshet_storage::collection::{Collection, Snapshot};
use freshet_types::{Delta, Epoch, RelationId, SqlError};

use crate::catalog::{CatalogState, Object, SourceObject};
use crate::query::pin::read_error;

/// A view to hydrate.
pub struct Backfill {
    pub view: RelationId,
    pub plan: Arc<Node>,
    pub catalog: Arc<CatalogState>,
    pub engine: Arc<Engine>,
    pub as_of: Epoch,
    pub offsets: HashMap<RelationId, Offsets>,
}

enum Input {
    Snapshot(Snapshot),
    Upstream(Arc<Collection>),
    Source(Arc<SourceObject>, Offsets),
}

impl Backfill {
    /// Feeds all inputs, one after the other.
    ///
    /// # Errors
    /// If an input cannot be read; the view then never becomes complete.
    pub async fn run(self) -> Result<(), SqlError> {
        // Snapshots of tables first, all of them: they hold on to the versions of `as_of` while slower inputs are read.
        let mut inputs = Vec::new();
        for relation in self.plan.relations() {
            inputs.push((relation, self.input(relation)?));
        }
        for (relation, input) in inputs {
            match input {
                Input::Snapshot(snapshot) => self.feed(relation, &snapshot)?,
                Input::Upstream(collection) => {
                    let mut upper = collection.watch_upper();
                    let gone = |_| SqlError::internal("an input was dropped while a view over it was hydrating");
                    upper.wait_for(|upper| *upper >= self.as_of).await.map_err(gone)?;
                    self.feed(relation, &collection.snapshot(self.as_of).map_err(read_error)?)?;
                }
                Input::Source(source, until) => self.feed_source(relation, &source, until).await?,
            }
            self.engine.finish_snapshot(self.view, relation);
        }
        Ok(())
    }

    fn input(&self, relation: RelationId) -> Result<Input, SqlError> {
        let entry = self.catalog.get(relation).ok_or_else(|| SqlError::internal("a view reads what does not exist"))?;
        match &entry.object {
            Object::Table(table) => Ok(Input::Snapshot(table.collection.snapshot(self.as_of).map_err(read_error)?)),
            Object::MaterializedView(view) => Ok(Input::Upstream(view.collection.clone())),
            Object::Source(source) => {
                let until = self.offsets.get(&relation).cloned().unwrap_or_else(|| source.start.clone());
                Ok(Input::Source(source.clone(), until))
            }
            Object::View(_) | Object::Sink(_) => Err(SqlError::internal("a plan reads what has no rows")),
        }
    }

    fn feed(&self, relation: RelationId, snapshot: &Snapshot) -> Result<(), SqlError> {
        for batch in snapshot.batches(None).map_err(read_error)? {
            self.engine.feed_snapshot(self.view, relation, Delta::inserts(batch));
        }
        Ok(())
    }

    async fn feed_source(&self, relation: RelationId, source: &SourceObject, until: Offsets) -> Result<(), SqlError> {
        if until == source.start {
            return Ok(());
        }
        let range = Range { from: source.start.clone(), until: Some(until) };
        let mut reading = source.connector.read(range, &columns_read(&self.plan, relation)).await?;
        while let Some(batch) = reading.next().await? {
            self.engine.feed_snapshot(self.view, relation, Delta::inserts(batch.rows));
        }
        Ok(())
    }
}

/// The columns of `relation` that a plan reads, each once.
pub fn columns_read(plan: &Node, relation: RelationId) -> Vec<usize> {
    let mut read = BTreeSet::new();
    plan.visit(&mut |node| {
        if let Op::Input { relation: input, columns, .. } = &node.op
            && *input == relation
        {
            read.extend(columns.iter().copied());
        }
    });
    read.into_iter().collect()
}
