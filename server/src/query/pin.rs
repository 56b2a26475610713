//! One instant for one query (I-3): everything it reads is pinned to one epoch.
//!
//! Planning comes before the epoch is known, so the plan holds [`PinnedTable`]s, which look up what they read in the
//! query's [`Reads`]. Once the plan says which relations there are, [`Reads::pin`] waits until they can be read
//! together, picks the epoch, and takes the snapshots; only then is the plan executed. What is to be read
//! [as it was](past) has an epoch of its own, and is read once for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use freshet_connectors::Offsets;
use freshet_storage::collection::{Collection, CollectionError, Snapshot};
use freshet_storage::scan::SnapshotTable;
use freshet_types::{Epoch, RelationId, SqlError, SqlState};
use parking_lot::Mutex;

use crate::catalog::{MaterializedViewObject, SourceObject};
use crate::pipeline::view_failure::ViewFailure;
use crate::pipeline::view_status::ViewState;
use crate::query::past::{self, Passed};
use crate::query::source_scan::SourceTable;

/// What a query reads.
#[derive(Default)]
pub struct Reads {
    relations: Mutex<BTreeMap<Read, Readable>>,
    pinned: OnceLock<HashMap<Read, Pinned>>,
}

/// A relation that is read, and when: as it was at an epoch, or, with `None`, as it is at the query's own.
pub type Read = (RelationId, Option<Epoch>);

/// Where the rows of a relation are.
#[derive(Clone)]
pub enum Readable {
    Table(Arc<Collection>),
    View { name: String, object: Arc<MaterializedViewObject> },
    Source { name: String, object: Arc<SourceObject> },
}

enum Pinned {
    Snapshot(Snapshot),
    Source { object: Arc<SourceObject>, until: Offsets },
}

/// What pinning found.
pub struct PinnedAt {
    pub epoch: Epoch,
    /// Things that the user should know.
    pub notices: Vec<SqlError>,
}

impl Reads {
    /// A table for the plan, in the place of `readable`.
    pub fn table(self: &Arc<Self>, read: Read, schema: SchemaRef, readable: Readable) -> Arc<dyn TableProvider> {
        self.relations.lock().insert(read, readable);
        Arc::new(PinnedTable { read, schema, reads: self.clone() })
    }

    /// Picks the epoch: the least upper of all that is read, and not before `not_before` (the last acknowledged write);
    /// waits until there is one. What is read as it was does not count. `passed` tells the last sealed epoch, for
    /// queries that read no collection.
    pub async fn pin(&self, not_before: Epoch, passed: Passed) -> Result<PinnedAt, SqlError> {
        let relations: Vec<_> =
            self.relations.lock().iter().map(|(read, readable)| (*read, readable.clone())).collect();
        let mut pinned = HashMap::new();
        for (read, readable) in &relations {
            if let (_, Some(at)) = read {
                pinned.insert(*read, pin_past(readable, *at, passed).await?);
            }
        }
        let (mut notices, mut epoch) = (Vec::new(), None);
        for (_, readable) in relations.iter().filter(|((_, at), _)| at.is_none()) {
            let upper = match readable {
                Readable::Table(collection) => wait_for(collection, not_before).await,
                Readable::View { name, object } => {
                    let (upper, notice) = view_upper(name, object, not_before, relations.len() == 1).await?;
                    notices.extend(notice);
                    upper
                }
                Readable::Source { .. } => continue,
            };
            epoch = Some(epoch.map_or(upper, |epoch: Epoch| epoch.min(upper)));
        }
        let epoch = epoch.unwrap_or(passed.sealed);
        for (read, readable) in relations.into_iter().filter(|((_, at), _)| at.is_none()) {
            pinned.insert(read, pin_one(&readable, epoch).await?);
        }
        // A second execution of the same plan would need new reads; there is none.
        if self.pinned.set(pinned).is_err() {
            return Err(SqlError::internal("a query was pinned twice"));
        }
        Ok(PinnedAt { epoch, notices })
    }
}

async fn wait_for(collection: &Collection, not_before: Epoch) -> Epoch {
    let mut upper = collection.watch_upper();
    // The sender lives in the collection that we hold.
    let reached = upper.wait_for(|upper| *upper >= not_before).await;
    reached.map_or(not_before, |upper| *upper)
}

/// The upper of a view; one that is still hydrating has none, and is waited for.
async fn view_upper(
    name: &str,
    view: &MaterializedViewObject,
    not_before: Epoch,
    alone: bool,
) -> Result<(Epoch, Option<SqlError>), SqlError> {
    let mut upper = view.collection.watch_upper();
    let wanted = not_before.max(Epoch(1));
    loop {
        if let ViewState::Failed(failure) = &view.status.lock().state {
            return stale(name, failure, view.collection.upper(), alone);
        }
        if *upper.borrow_and_update() >= wanted {
            return Ok((*upper.borrow(), None));
        }
        // A view fails without moving its upper, so look again now and then.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), upper.changed()).await;
    }
}

fn stale(name: &str, failure: &ViewFailure, upper: Epoch, alone: bool) -> Result<(Epoch, Option<SqlError>), SqlError> {
    let told = SqlError::new(
        SqlState::ObjectNotInPrerequisiteState,
        format!("materialized view \"{name}\" {}", failure.verdict()),
    )
    .with_detail(failure.error());
    if upper == Epoch::ZERO {
        return Err(told.with_hint(format!("it never became complete; {}", failure.hint())));
    }
    if !alone {
        return Err(told.with_hint(format!("read it alone, or {}", failure.hint())));
    }
    let message = format!("materialized view \"{name}\" is stale: {} at epoch {}", failure.event(), failure.since);
    Ok((upper, Some(SqlError { message, ..told })))
}

async fn pin_one(readable: &Readable, epoch: Epoch) -> Result<Pinned, SqlError> {
    match readable {
        Readable::Table(collection) => collection.snapshot(epoch).map(Pinned::Snapshot).map_err(read_error),
        Readable::View { object, .. } => object.collection.snapshot(epoch).map(Pinned::Snapshot).map_err(read_error),
        Readable::Source { name, object } => {
            let until = match object.progress.at(epoch) {
                Some(offsets) => offsets,
                None => object.connector.end().await?.ok_or_else(|| never_ends(name))?,
            };
            Ok(Pinned::Source { object: object.clone(), until })
        }
    }
}

/// The rows of a table or a view at an epoch that was asked for.
async fn pin_past(readable: &Readable, at: Epoch, passed: Passed) -> Result<Pinned, SqlError> {
    let (collection, view) = match readable {
        Readable::Table(collection) => (collection, None),
        Readable::View { object, .. } => (&object.collection, Some(&**object)),
        Readable::Source { name, .. } => {
            return Err(SqlError::internal(format!("source \"{name}\" is read as it was")));
        }
    };
    let name = &collection.description().name;
    passed.check(name, at)?;
    past::wait_for(name, collection, view, at).await?;
    collection.snapshot(at).map(Pinned::Snapshot).map_err(|error| past::not_kept(collection, error))
}

fn never_ends(name: &str) -> SqlError {
    let message = format!("source \"{name}\" keeps no rows that could be selected");
    SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
        .with_detail("it is generated, without an end, and no view reads it at the moment")
        .with_hint(format!("keep its rows with CREATE MATERIALIZED VIEW ... AS SELECT * FROM {name}"))
}

/// What a user is told if a collection cannot be read.
pub fn read_error(error: CollectionError) -> SqlError {
    match error {
        CollectionError::NotReadable { wanted, since, upper } => SqlError::new(
            SqlState::ObjectNotInPrerequisiteState,
            "what the query reads is too far apart in time to be read at one epoch",
        )
        .with_detail(format!("epoch {wanted} is wanted, and one relation is readable from {since} to {upper}"))
        .with_hint("a view that the query reads lags behind; see freshet_catalog.view_status"),
        other => SqlError::internal(other.to_string()),
    }
}

/// A relation in a plan whose epoch is not known yet.
pub struct PinnedTable {
    read: Read,
    schema: SchemaRef,
    reads: Arc<Reads>,
}

impl std::fmt::Debug for PinnedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedTable").field("read", &self.read).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for PinnedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // Keys are looked up, all else is filtered again above the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let pinned = self.reads.pinned.get().and_then(|pinned| pinned.get(&self.read));
        match pinned {
            Some(Pinned::Snapshot(snapshot)) => {
                SnapshotTable::new(snapshot.clone()).scan(state, projection, filters, limit).await
            }
            Some(Pinned::Source { object, until }) => {
                let table = SourceTable { source: object.clone(), until: until.clone() };
                table.scan(state, projection, filters, limit).await
            }
            None => Err(DataFusionError::Internal("a query was executed before it was pinned".into())),
        }
    }
}
