//! Brings the database back after a restart: from the last checkpoint, and from the logs of what tables got since.
//!
//! Every object comes back from the statement that made it, in the order of creation, so that each finds what it
//! reads. Rows and operator state come back as they were at the epoch of the checkpoint. Views go on from there: sources
//! are read on from the offsets of that epoch, and what the logs have of later writes follows as one epoch of its own.
//! A view that was not in the checkpoint hydrates again, while the server serves.
//!
//! What is damaged and can be had again is had again: the state of a view from what it reads, dead letters from
//! their source. Only the rows of a table are nowhere else; without them there is no start.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use freshet_dataflow::{SavedRows, SavedState, output_shards};
use freshet_planner::Statement;
use freshet_planner::statement::{CreateMaterializedView, CreateSink, CreateSource, CreateTable};
use freshet_storage::checkpoint::{Checkpoints, Part, Recovered, Redistribute, StateRows, StoredTable};
use freshet_storage::collection::{Collection, CollectionDescription, HistoryPolicy};
use freshet_storage::{OutboxBatch, StorageError, Store, WalKey};
use freshet_types::{Clock, Delta, Epoch, RelationId, SqlError};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::catalog::{Entry, MaterializedViewObject, Object, Record, SourceObject, TableObject, dead_letters_id};
use crate::coordinator::{Cause, Command, TableWrite};
use crate::execute::create_materialized_view::{Created, hydrate};
use crate::pipeline::checkpointer::{CheckpointMeta, plan_text};
use crate::pipeline::dead_letters;
use crate::pipeline::sink::{Rows, SinkObject};
use crate::pipeline::sink_sender;
use crate::pipeline::view_status::ViewStatus;
use crate::query::names::{Names, now_us};
use crate::server::{Server, objects};
use crate::status::Status;

/// What the store holds.
pub struct Loaded {
    records: Vec<Record>,
    logs: HashMap<RelationId, Vec<(WalKey, Delta)>>,
    checkpoint: Option<Recovered>,
    meta: CheckpointMeta,
    outboxes: BTreeMap<RelationId, BTreeMap<Epoch, OutboxBatch>>,
    pub checkpoints: Checkpoints,
    /// The epoch of the checkpoint; without one, no epoch so far was later than this.
    pub epoch: Epoch,
    /// No record of a log was decided upon at a later epoch than this.
    pub logged: Epoch,
}

/// What the maker of checkpoints has to know of the last one.
pub struct Restored {
    /// The relations that it has.
    pub stored: BTreeSet<RelationId>,
    /// Of these, the views that do not go on with their operators' state as it is stored.
    pub void: BTreeSet<RelationId>,
}

/// Reads the catalog, the tables' logs, and what there is in the last checkpoint.
pub async fn load(store: &Store, clock: &Clock) -> anyhow::Result<Loaded> {
    let mut records = Vec::new();
    for (id, bytes) in store.load_catalog().await.context("cannot read the catalog")? {
        let record: Record =
            serde_json::from_slice(&bytes).with_context(|| format!("the catalog's record of {id} is damaged"))?;
        records.push(record);
    }
    records.sort_by_key(|record| record.id);
    let (checkpoints, checkpoint) = Checkpoints::open(store).await.context("cannot read the last checkpoint")?;
    let meta = match &checkpoint {
        Some(checkpoint) => serde_json::from_str(&checkpoint.meta).context("the last checkpoint is damaged")?,
        None => CheckpointMeta::default(),
    };
    let mut logs = HashMap::new();
    let mut logged = Epoch::ZERO;
    for record in &records {
        let log: Vec<(WalKey, Epoch, Delta)> = store.replay(record.id).await?.try_collect().await?;
        logged = log.iter().fold(logged, |latest, (_, epoch, _)| latest.max(*epoch));
        logs.insert(record.id, log.into_iter().map(|(key, _, delta)| (key, delta)).collect());
    }
    let without_checkpoint = logged.max(Epoch(clock.now_ms()));
    let epoch = checkpoint.as_ref().map_or(without_checkpoint, |checkpoint| checkpoint.epoch);
    let outboxes = store.outboxes().await.context("cannot read the outboxes")?;
    Ok(Loaded { records, logs, checkpoint, meta, outboxes, checkpoints, epoch, logged })
}

/// Makes all objects again. Returns when tables are complete and views go on or have begun to hydrate.
pub async fn restore(server: &Arc<Server>, loaded: Loaded) -> anyhow::Result<(Checkpoints, Restored)> {
    let Loaded { records, logs, checkpoint, meta, outboxes, checkpoints, .. } = loaded;
    let stored = checkpoint.iter().flat_map(|checkpoint| checkpoint.relations()).collect();
    let count = records.len();
    let (views, resumed, restarted, rows_before) = (Vec::new(), HashSet::new(), HashSet::new(), HashMap::new());
    let mut restoring = Restoring { server, checkpoint, meta, logs, outboxes, views, resumed, restarted, rows_before };
    for record in records {
        let name = record.name.clone();
        let object = restoring.object(&record).await.with_context(|| format!("cannot bring back \"{name}\""))?;
        let entry = Arc::new(Entry { record, object });
        server.catalog.replace(server.catalog.state().with(entry));
    }
    let Restoring { meta, logs, outboxes, views, resumed, .. } = restoring;
    // Of sinks that were dropped while a checkpoint added to them.
    for (sink, backlog) in outboxes {
        let epochs: Vec<Epoch> = backlog.into_keys().collect();
        server.store.delete_from_outbox(sink, &epochs).await?;
    }
    if count > 0 {
        let hydrating = views.len() - resumed.len();
        info!(objects = count, views = views.len(), hydrating, "brought back");
    }
    let void = views.iter().map(|view| view.id);
    let void = void.filter(|id| !resumed.contains(id) || meta.workers != server.config.workers).collect();
    hydrate(server, views).await?;
    server.coordinator.send(Command::Start).await?;
    write_again(server, logs).await?;
    for (entry, sink) in server.catalog.state().sinks() {
        sink_sender::start(server, entry.id(), entry.name(), sink);
    }
    Ok((checkpoints, Restored { stored, void }))
}

/// Makes visible what tables got after the checkpoint.
async fn write_again(server: &Server, logs: HashMap<RelationId, Vec<(WalKey, Delta)>>) -> Result<(), SqlError> {
    let mut writes = Vec::new();
    for (table, log) in logs {
        let state = server.catalog.state();
        let Some(Object::Table(object)) = state.get(table).map(|entry| &entry.object) else { continue };
        for (logged, delta) in log {
            let delta = delta.with_schema(&object.schema).map_err(|error| SqlError::internal(error.to_string()))?;
            writes.push(TableWrite { table, delta, cause: Cause::Written, logged });
        }
    }
    if !writes.is_empty() {
        let epoch = server.coordinator.ask(|reply| Command::Commit { writes, reply }).await?;
        epoch.map_err(objects::collection_error)?;
    }
    Ok(())
}

/// Whether something may be there, and cannot be read now.
fn is_out_of_reach(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { .. } | StorageError::Fenced)
}

/// A state table that workers read from the checkpoint.
#[derive(Debug)]
struct StoredState {
    table: StoredTable,
    runtime: Handle,
}

impl SavedRows for StoredState {
    fn parts(&self) -> usize {
        self.table.parts()
    }

    fn read(&self, part: usize) -> Result<Vec<StateRows>, String> {
        self.runtime.block_on(self.table.read(part)).map_err(|error| error.to_string())
    }
}

struct Restoring<'a> {
    server: &'a Arc<Server>,
    checkpoint: Option<Recovered>,
    meta: CheckpointMeta,
    logs: HashMap<RelationId, Vec<(WalKey, Delta)>>,
    /// Those of the sinks that have not come back yet.
    outboxes: BTreeMap<RelationId, BTreeMap<Epoch, OutboxBatch>>,
    views: Vec<Created>,
    /// The views that go on from the checkpoint.
    resumed: HashSet<RelationId>,
    /// The sources that are read from their start again.
    restarted: HashSet<RelationId>,
    /// What the checkpoint has of others, where a sink needs it.
    rows_before: HashMap<RelationId, Arc<Collection>>,
}

impl Restoring<'_> {
    async fn object(&mut self, record: &Record) -> anyhow::Result<Object> {
        let mut statements = freshet_planner::parse(&record.create_sql)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            bail!("its statement is not one statement: {}", record.create_sql);
        };
        Ok(match statement {
            Statement::CreateTable(create) => Object::Table(Arc::new(self.table(record, &create).await?)),
            Statement::CreateSource(create) => Object::Source(Arc::new(self.source(record, &create).await?)),
            Statement::CreateView(create) => {
                let status = Status { server: self.server };
                Object::View(Arc::new(objects::view(self.server, &create, &self.names(&status))?))
            }
            Statement::CreateMaterializedView(create) => Object::MaterializedView(self.view(record, &create).await?),
            Statement::CreateSink(create) => Object::Sink(Arc::new(self.sink(record, &create).await?)),
            other => {
                warn!(name = record.name, "the catalog holds a statement of an unknown kind");
                bail!("{} makes no object", other.tag())
            }
        })
    }

    fn names<'b>(&self, status: &'b Status<'b>) -> Names<'b> {
        let now_us = now_us(&self.server.clock);
        Names { catalog: self.server.catalog.state(), reads: Arc::default(), status, now_us }
    }

    async fn table(&self, record: &Record, create: &CreateTable) -> anyhow::Result<TableObject> {
        let description = objects::table_description(self.server, create)?;
        let collection = self.whole_collection(record.id, description).await;
        let collection = collection.map_err(|error| self.lost_rows(&error))?;
        let table = objects::table(self.server, create, collection)?;
        let writer = table.collection.writer(0);
        self.server.coordinator.send(Command::AddTable { table: record.id, writer }).await?;
        Ok(table)
    }

    /// The rows of a table are nowhere else.
    fn lost_rows(&self, error: &StorageError) -> anyhow::Error {
        let data = &self.server.config.data;
        match error {
            StorageError::Damaged { .. } => anyhow!(
                "its rows are lost: {error}; put this file back from a copy of \"{data}\" and start again, \
                 or start with another folder; nothing has been changed"
            ),
            _ => anyhow!("its rows cannot be read: {error}"),
        }
    }

    async fn source(&mut self, record: &Record, create: &CreateSource) -> anyhow::Result<SourceObject> {
        let opened = objects::source(self.server, &record.name, &create.declaration)?;
        let start = record.start.clone().context("the catalog does not tell where the source starts")?;
        let description = dead_letters::description(&record.name);
        let mut read = self.meta.sources.get(&record.id).cloned();
        let dead_letters = match self.whole_collection(dead_letters_id(record.id), description.clone()).await {
            Ok(Some(dead_letters)) => dead_letters,
            Ok(None) => Collection::new(description, 1)?,
            Err(error @ StorageError::Damaged { .. }) => {
                warn!(
                    source = record.name,
                    "cannot read the dead letters, and reads all from the start again: {error}"
                );
                self.restarted.insert(record.id);
                read = None;
                Collection::new(description, 1)?
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(position) = &read {
            opened.connector.status().resume(position.counted);
        }
        let command = Command::AddSource { source: record.id, dead_letters: dead_letters.clone(), read };
        self.server.coordinator.send(command).await?;
        Ok(opened.starting_at(start, dead_letters))
    }

    /// A collection of one shard, if the checkpoint has it.
    async fn whole_collection(
        &self,
        relation: RelationId,
        description: CollectionDescription,
    ) -> Result<Option<Arc<Collection>>, StorageError> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(None) };
        let all_in_one = |rows: &arrow::array::RecordBatch| vec![0; rows.num_rows()];
        checkpoint.collection(relation, description, 1, Redistribute::IfShardsDiffer(&all_in_one)).await
    }

    async fn view(
        &mut self,
        record: &Record,
        create: &CreateMaterializedView,
    ) -> anyhow::Result<Arc<MaterializedViewObject>> {
        let status = Status { server: self.server };
        let mut view = objects::materialized_view(self.server, create, &self.names(&status))?;
        let resume = match self.resume(record, &mut view).await {
            Ok(resume) => resume,
            // It would be computed again for nothing.
            Err(error) if error.downcast_ref().is_some_and(is_out_of_reach) => return Err(error),
            Err(error) => {
                warn!(view = record.name, "cannot go on from the checkpoint, and is computed again: {error:#}");
                None
            }
        };
        if resume.is_some() {
            self.resumed.insert(record.id);
        }
        let view = Arc::new(view);
        self.views.push(Created { id: record.id, name: record.name.clone(), view: view.clone(), resume });
        Ok(view)
    }

    async fn sink(&mut self, record: &Record, create: &CreateSink) -> anyhow::Result<SinkObject> {
        let identity = record.identity.as_ref().context("the catalog does not tell its identity")?;
        let catalog = self.server.catalog.state();
        let sink = objects::sink(self.server, &catalog, create, identity)?;
        let saved = self.meta.sinks.remove(&record.id);
        let backlog = self.outboxes.remove(&record.id).unwrap_or_default();
        let relation = catalog.get(sink.relation).context("its relation is not there")?;
        let rows = match &relation.object {
            Object::MaterializedView(view) if !self.resumed.contains(&sink.relation) => {
                Rows::Anew(self.rows_before(relation, view).await?)
            }
            Object::MaterializedView(view) => Rows::GoOn(view.collection.clone()),
            Object::Table(table) => Rows::GoOn(table.collection.clone()),
            _ => bail!("it sends what has no rows"),
        };
        sink.restore(saved, backlog, rows);
        Ok(sink)
    }

    /// What the checkpoint has of a view that does not go on from it.
    async fn rows_before(
        &mut self,
        relation: &Entry,
        view: &MaterializedViewObject,
    ) -> anyhow::Result<Option<Arc<Collection>>> {
        if let Some(known) = self.rows_before.get(&relation.id()) {
            return Ok(Some(known.clone()));
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(None) };
        let all_in_one = |rows: &arrow::array::RecordBatch| vec![0; rows.num_rows()];
        let description = objects::view_description(relation.name(), &view.plan, HistoryPolicy::recent(), None);
        let rows = checkpoint.collection(relation.id(), description, 1, Redistribute::Always(&all_in_one)).await;
        let rows = match rows {
            Err(error) if !is_out_of_reach(&error) => {
                warn!(view = relation.name(), "cannot read what sinks have sent of it: {error}");
                None
            }
            rows => rows?,
        };
        self.rows_before.extend(rows.iter().map(|rows| (relation.id(), rows.clone())));
        Ok(rows)
    }

    /// The state from which a view goes on, if the checkpoint has one for this very plan; `view` then has its rows.
    async fn resume(
        &mut self,
        record: &Record,
        view: &mut MaterializedViewObject,
    ) -> anyhow::Result<Option<Arc<SavedState>>> {
        let (Some(checkpoint), Some(saved)) = (&self.checkpoint, self.meta.views.remove(&record.id)) else {
            return Ok(None);
        };
        if saved.plan != plan_text(view) {
            info!(view = record.name, "has another plan than before, and is computed again");
            return Ok(None);
        }
        let state = self.server.catalog.state();
        let is_view =
            |id: &RelationId| state.get(*id).is_some_and(|entry| matches!(entry.object, Object::MaterializedView(_)));
        if view.plan.node.relations().iter().any(|id| is_view(id) && !self.resumed.contains(id)) {
            info!(view = record.name, "reads a view that is computed again, and is so too");
            return Ok(None);
        }
        if view.plan.node.relations().iter().any(|id| self.restarted.contains(id)) {
            info!(view = record.name, "reads a source that is read from its start again, and is computed again");
            return Ok(None);
        }
        // First what may be damaged: the rows stay with the checkpoint then, for sinks that have sent them.
        let mut operators: HashMap<(u32, usize), Vec<Arc<dyn SavedRows>>> = HashMap::new();
        for (part, stored) in checkpoint.state(record.id).await? {
            let Part::State { node, worker, table } = part else { continue };
            let tables = operators.entry((node, worker as usize)).or_default();
            tables.resize_with(tables.len().max(table as usize + 1), || Arc::new(Vec::<StateRows>::new()));
            tables[table as usize] = Arc::new(StoredState { table: stored, runtime: Handle::current() });
        }
        let workers = self.server.config.workers;
        let failure = Mutex::new(None);
        let plan = view.plan.clone();
        let shard_of = |rows: &arrow::array::RecordBatch| {
            output_shards(&plan.node, rows, workers).unwrap_or_else(|error| {
                *failure.lock() = Some(error);
                vec![0; rows.num_rows()]
            })
        };
        let description = view.collection.description().clone();
        let redistribute = Redistribute::IfShardsDiffer(&shard_of);
        let collection = checkpoint.collection(record.id, description, workers, redistribute).await?;
        if let Some(error) = failure.into_inner() {
            bail!("its rows cannot be spread over the workers: {error}");
        }
        let collection = collection.context("the checkpoint does not have its rows")?;
        view.collection = collection;
        view.status = Mutex::new(ViewStatus::resumed(saved.errors));
        Ok(Some(Arc::new(SavedState { workers: self.meta.workers, operators })))
    }
}
