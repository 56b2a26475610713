//! Hydration: feeds a new view what its inputs held at the epoch at which it starts.
//!
//! Tables and views are read from their collections at that epoch, sources from their start up to the offsets sealed
//! with it. Meanwhile the dataflow already receives what came later, and holds it back until it is complete. A source that
//! cannot be reached is waited for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use freshet_connectors::{Offsets, Range, SourceError};
use freshet_planner::plan::{Node, Op};
use freshet_storage::collection::{Collection, Hold, Snapshot};
use freshet_types::{Delta, Epoch, RelationId, SqlError};
use tracing::warn;

use crate::catalog::{CatalogState, Object, SourceObject};
use crate::limits::{HYDRATION_QUEUE_BYTES_MAX, RETRY_INTERVAL_S_MAX};
use crate::query::pin::read_error;
use crate::server::Server;

/// A view to hydrate.
pub struct Backfill {
    pub view: RelationId,
    pub plan: Arc<Node>,
    pub catalog: Arc<CatalogState>,
    pub server: Arc<Server>,
    pub as_of: Epoch,
    pub offsets: HashMap<RelationId, Offsets>,
    /// Keep the inputs readable at `as_of`, however late the hydration comes to them.
    pub holds: Vec<Hold>,
}

/// Keeps what `plan` reads readable at `as_of`, the last sealed epoch.
///
/// # Errors
/// If it is not any more.
pub fn hold_inputs(catalog: &CatalogState, plan: &Node, as_of: Epoch) -> Result<Vec<Hold>, SqlError> {
    let collection = |relation| match &catalog.get(relation)?.object {
        Object::Table(table) => Some(table.collection.clone()),
        Object::MaterializedView(view) => Some(view.collection.clone()),
        Object::Source(_) | Object::View(_) | Object::Sink(_) => None,
    };
    let collections = plan.relations().into_iter().filter_map(collection);
    collections.map(|collection| collection.hold(as_of).map_err(read_error)).collect()
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
    pub async fn run(mut self) -> Result<(), SqlError> {
        let mut inputs = Vec::new();
        for relation in self.plan.relations() {
            inputs.push((relation, self.input(relation)?));
        }
        for (relation, input) in inputs {
            match input {
                Input::Snapshot(snapshot) => self.feed(relation, &snapshot).await?,
                Input::Upstream(collection) => {
                    let mut upper = collection.watch_upper();
                    let gone = |_| SqlError::internal("an input was dropped while a view over it was hydrating");
                    upper.wait_for(|upper| *upper >= self.as_of).await.map_err(gone)?;
                    self.feed(relation, &collection.snapshot(self.as_of).map_err(read_error)?).await?;
                }
                Input::Source(source, until) => self.feed_source(relation, &source, until).await?,
            }
            self.server.engine.finish_snapshot(self.view, relation);
        }
        self.holds.clear();
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

    async fn feed(&self, relation: RelationId, snapshot: &Snapshot) -> Result<(), SqlError> {
        for batch in snapshot.batches(None).map_err(read_error)? {
            self.room().await;
            self.server.engine.feed_snapshot(self.view, relation, Delta::inserts(batch));
        }
        Ok(())
    }

    /// Waits until the operators have worked off most of what is on its way to them.
    async fn room(&self) {
        let bytes_max = HYDRATION_QUEUE_BYTES_MAX.min(self.server.config.memory_bytes / 16);
        let short = self.server.memory.short();
        while self.server.engine.memory().queued_bytes() > bytes_max || *short.borrow() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn feed_source(&self, relation: RelationId, source: &SourceObject, until: Offsets) -> Result<(), SqlError> {
        if until == source.start {
            return Ok(());
        }
        let columns = columns_read(&self.plan, relation);
        let mut from = source.start.clone();
        let mut wait = Duration::from_secs(1);
        loop {
            let before = from.clone();
            let range = |from: &Offsets| Range { from: from.clone(), until: Some(until.clone()) };
            match self.feed_range(relation, source, range(&from), &columns, &mut from).await {
                Err(SourceError::Unreachable { message, .. }) if self.is_wanted() => {
                    if from != before {
                        wait = Duration::from_secs(1);
                    }
                    warn!(view = %self.view, "hydration waits for its source, and tries again in {wait:?}: {message}");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(RETRY_INTERVAL_S_MAX));
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Feeds what a range of a source has; `reached` follows.
    async fn feed_range(
        &self,
        relation: RelationId,
        source: &SourceObject,
        range: Range,
        columns: &[usize],
        reached: &mut Offsets,
    ) -> Result<(), SourceError> {
        let mut reading = source.connector.read(range, columns).await?;
        while let Some(batch) = reading.next().await? {
            self.room().await;
            reached.0.extend(batch.offsets.0);
            self.server.engine.feed_snapshot(self.view, relation, Delta::inserts(batch.rows));
        }
        Ok(())
    }

    /// Whether the view is still there.
    fn is_wanted(&self) -> bool {
        self.server.catalog.state().get(self.view).is_some()
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
