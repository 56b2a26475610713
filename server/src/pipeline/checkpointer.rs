//! Makes checkpoints: every second or so if anything changed, when asked, before a backup, and at the end.
//!
//! The coordinator says which epoch, and what belongs to it. The operators of the views hand over what has changed in
//! their state, each when it comes to that epoch; tables, views and dead letters are read from their collections at it.
//! Then all of it becomes durable at once. Nobody waits for any of this but who asked for a checkpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use freshet_dataflow::OperatorChange;
use freshet_storage::WalKey;
use freshet_storage::backup::BackupSource;
use freshet_storage::checkpoint::{Checkpoint, CheckpointStats, Checkpoints};
use freshet_storage::collection::{Collection, Hold};
use freshet_storage::iceberg::folder_named;
use freshet_types::{Epoch, RelationId, SqlError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::catalog::{CatalogState, MaterializedViewObject, Object, dead_letters_id};
use crate::coordinator::{CheckpointContent, Command, SourcePosition, Wanted};
use crate::limits::{CHECKPOINTS_REMEMBERED, LAST_CHECKPOINT_S_MAX};
use crate::pipeline::iceberg::ColdTable;
use crate::pipeline::sink::{Handover, SavedSink};
use crate::pipeline::tiers;
use crate::pipeline::view_status::{SavedErrors, ViewState};
use crate::server::{Server, objects};

/// What a checkpoint keeps beside rows and operator state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CheckpointMeta {
    pub workers: usize,
    /// How far each source has been read.
    pub sources: BTreeMap<RelationId, SourcePosition>,
    pub views: BTreeMap<RelationId, SavedView>,
    #[serde(default)]
    pub sinks: BTreeMap<RelationId, SavedSink>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SavedView {
    /// The plan that the state belongs to, as text: another plan has another state.
    pub plan: Vec<String>,
    pub errors: SavedErrors,
}

/// What one worker hands over of one view.
pub struct Cut {
    pub view: RelationId,
    pub epoch: Epoch,
    pub worker: usize,
    pub operators: Vec<OperatorChange>,
}

/// A checkpoint that was made, or not.
#[derive(Debug, Clone)]
pub struct CheckpointReport {
    pub epoch: Option<Epoch>,
    pub started_ms: u64,
    pub duration: Duration,
    pub outcome: Result<CheckpointStats, String>,
}

/// The last checkpoints, the newest last.
#[derive(Debug, Default)]
pub struct CheckpointReports(Mutex<VecDeque<CheckpointReport>>);

impl CheckpointReports {
    pub fn all(&self) -> Vec<CheckpointReport> {
        self.0.lock().iter().cloned().collect()
    }

    fn add(&self, report: CheckpointReport) {
        let mut reports = self.0.lock();
        if reports.len() == CHECKPOINTS_REMEMBERED {
            reports.pop_front();
        }
        reports.push_back(report);
    }
}

/// Asks for a checkpoint; answered when it is durable.
pub enum CheckpointRequest {
    Make(oneshot::Sender<Result<(), SqlError>>),
    /// And for what to copy, so that it is all there.
    Backup(oneshot::Sender<Result<BackupSource, SqlError>>),
}

/// The one maker of checkpoints.
pub struct Checkpointer {
    pub server: Arc<Server>,
    pub checkpoints: Checkpoints,
    pub cuts: mpsc::UnboundedReceiver<Cut>,
    pub requests: mpsc::Receiver<CheckpointRequest>,
    /// The relations that may be in storage.
    pub stored: BTreeSet<RelationId>,
    /// Of these, views that did not go on with what is stored of their operators: it is void.
    pub void: BTreeSet<RelationId>,
    /// Records of tables' logs that are in the next checkpoint and in none so far.
    pub contained: Vec<WalKey>,
    /// Why no checkpoint can be made any more: what operators told is not all there.
    pub broken: Option<SqlError>,
    /// Whether the next one has to have what one that failed was to have.
    pub wanted: Wanted,
}

impl Checkpointer {
    /// Works until nobody can ask any more, or `cancel` is triggered and the checkpoint at hand is made.
    pub async fn run(mut self, cancel: tokio_util::sync::CancellationToken) {
        let mut ticks = tokio::time::interval(self.server.config.checkpoint_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut requests = Vec::new();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => requests.push(request),
                    None => return,
                },
                _ = ticks.tick() => {}
                () = cancel.cancelled() => return self.make_last().await,
            }
            while let Ok(request) = self.requests.try_recv() {
                requests.push(request);
            }
            let made = self.make().await;
            if let Err(error) = &made {
                let detail = error.detail.as_deref().unwrap_or_default();
                warn!("a checkpoint failed, and is tried again: {error}: {detail}");
            }
            for request in requests {
                // A session that has gone does not want to know.
                match request {
                    CheckpointRequest::Make(reply) => drop(reply.send(made.clone())),
                    CheckpointRequest::Backup(reply) => drop(reply.send(self.backup_source(&made).await)),
                }
            }
        }
    }

    async fn backup_source(&self, made: &Result<(), SqlError>) -> Result<BackupSource, SqlError> {
        made.clone()?;
        let source = self.checkpoints.backup_source().await;
        source.map_err(|error| objects::storage_error("cannot begin a backup", &error))
    }

    /// Nothing depends on the checkpoint at the end but the time that the next start takes.
    async fn make_last(&mut self) {
        if self.server.fenced.load(Ordering::Acquire) {
            return;
        }
        match tokio::time::timeout(Duration::from_secs(LAST_CHECKPOINT_S_MAX), self.make()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("no checkpoint at the end: {error}"),
            Err(_) => warn!("no checkpoint at the end: it took more than {LAST_CHECKPOINT_S_MAX} seconds"),
        }
    }

    /// Makes a checkpoint if anything has changed since the last one that is durable.
    async fn make(&mut self) -> Result<(), SqlError> {
        let started = Instant::now();
        let started_ms = self.server.clock.now_ms();
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let server = self.server.clone();
        let mut void = server.void_state.lock().await;
        self.void.append(&mut void);
        let asked = self.server.coordinator.ask(|reply| Command::Checkpoint { wanted: self.wanted, reply }).await?;
        let Some(content) = asked else { return Ok(()) };
        let epoch = content.epoch;
        self.wanted = Wanted::Anyway;
        let made = self.make_at(content).await;
        if made.is_ok() {
            self.wanted = Wanted::IfChanged;
        }
        self.server.memory.set_checkpoint_bytes(self.checkpoints.memory_bytes() as u64);
        let duration = started.elapsed();
        metrics::histogram!("freshet_checkpoint_seconds").record(duration.as_secs_f64());
        match &made {
            Ok(stats) => {
                debug!(%epoch, bytes = stats.bytes, rows = stats.rows, files = stats.files, "checkpoint in {duration:?}");
                metrics::gauge!("freshet_checkpoint_epoch").set(epoch.millis() as f64);
                metrics::counter!("freshet_checkpoint_bytes_total").increment(stats.bytes);
                metrics::gauge!("freshet_checkpoint_files").set(stats.files as f64);
            }
            Err(_) => metrics::counter!("freshet_checkpoint_failures_total").increment(1),
        }
        let told = made.as_ref().copied().map_err(|error| match &error.detail {
            Some(detail) => format!("{error}: {detail}"),
            None => error.to_string(),
        });
        let report = CheckpointReport { epoch: Some(epoch), started_ms, duration, outcome: told };
        self.server.checkpoint_reports.add(report);
        made.map(|_| ())
    }

    async fn make_at(&mut self, content: CheckpointContent) -> Result<CheckpointStats, SqlError> {
        let catalog = self.server.catalog.state();
        self.contained.extend(&content.contained);
        let held = collections(&catalog, &content);
        let (views, cuts) = self.gather(&catalog, &content).await;
        let mut meta = CheckpointMeta {
            workers: self.server.config.workers,
            sources: content.positions.into_iter().collect(),
            views: BTreeMap::new(),
            sinks: BTreeMap::new(),
        };
        let mut checkpoint = self.checkpoints.begin(content.epoch);
        for view in std::mem::take(&mut self.void) {
            checkpoint.forget_state(view);
        }
        // What operators handed over is handed on, whatever else fails: they do not say it twice.
        for Cut { view, worker, operators, .. } in cuts {
            self.stored.insert(view);
            keep_state(&mut checkpoint, view, worker, operators)
                .await
                .inspect_err(|error| self.broken = Some(error.clone()))?;
        }
        let mut now_stored = BTreeSet::new();
        let mut cold = Vec::new();
        for (relation, collection, _hold) in held? {
            if content.views.contains(&relation) && !views.contains_key(&relation) {
                continue;
            }
            checkpoint.collection(relation, &collection).map_err(|error| SqlError::internal(error.to_string()))?;
            cold.extend(cold_table(&catalog, relation, &checkpoint));
            now_stored.insert(relation);
        }
        let mut handover =
            Handover::new(&catalog, &mut checkpoint, content.epoch, &now_stored).map_err(cannot_checkpoint)?;
        meta.sinks = std::mem::take(&mut handover.saved);
        for relation in self.stored.difference(&now_stored) {
            if handover.needed.contains(relation) {
                checkpoint.forget_state(*relation);
            } else {
                checkpoint.forget(*relation);
            }
        }
        now_stored.extend(self.stored.intersection(&handover.needed));
        for (id, view) in views {
            let plan = plan_text(&view);
            let errors = view.status.lock().errors_at(content.epoch);
            meta.views.insert(id, SavedView { plan, errors });
        }
        let meta = serde_json::to_string(&meta).map_err(|error| SqlError::internal(error.to_string()))?;
        self.stored.extend(&now_stored);
        let (contained, rest) = self.contained.iter().partition(|record| now_stored.contains(&record.table));
        let stats = checkpoint.commit(meta, contained).await.map_err(cannot_checkpoint)?;
        self.server.iceberg.checkpointed(cold, &now_stored);
        // A table that is not in the checkpoint is dropped, and its log with it.
        self.contained = rest;
        self.contained.retain(|record| catalog.get(record.table).is_some());
        self.stored = now_stored;
        handover.done();
        Ok(stats)
    }

    /// Waits until every view has handed over its state and is readable at the epoch. Views that fail or are dropped
    /// meanwhile are left out.
    async fn gather(
        &mut self,
        catalog: &CatalogState,
        content: &CheckpointContent,
    ) -> (HashMap<RelationId, Arc<MaterializedViewObject>>, Vec<Cut>) {
        let mut views: HashMap<RelationId, Arc<MaterializedViewObject>> = HashMap::new();
        for id in &content.views {
            if let Some(Object::MaterializedView(view)) = catalog.get(*id).map(|entry| &entry.object) {
                views.insert(*id, view.clone());
            }
        }
        let mut cuts: Vec<Cut> = Vec::new();
        let mut handed_over: HashMap<RelationId, usize> = HashMap::new();
        loop {
            let workers = self.server.config.workers;
            let is_missing = |id: &RelationId| handed_over.get(id).copied().unwrap_or(0) < workers;
            if !views.keys().any(is_missing) {
                break;
            }
            let waited = tokio::time::timeout(Duration::from_millis(50), self.cuts.recv()).await;
            match waited {
                Ok(Some(cut)) => {
                    if cut.epoch == content.epoch {
                        *handed_over.entry(cut.view).or_default() += 1;
                    }
                    cuts.push(cut);
                }
                // A failed or dropped view hands over nothing, and does not say so here.
                Err(_) => self.leave_out_lost(&mut views),
                // The engine is gone, and with it all views.
                Ok(None) => views.clear(),
            }
        }
        for id in views.keys().copied().collect::<Vec<_>>() {
            // Others may have been lost while one was waited for.
            let Some(view) = views.get(&id) else { continue };
            let mut upper = view.collection.watch_upper();
            while *upper.borrow_and_update() < content.epoch && views.contains_key(&id) {
                if tokio::time::timeout(Duration::from_millis(50), upper.changed()).await.is_err() {
                    self.leave_out_lost(&mut views);
                }
            }
        }
        cuts.retain(|cut| views.contains_key(&cut.view));
        (views, cuts)
    }

    fn leave_out_lost(&self, views: &mut HashMap<RelationId, Arc<MaterializedViewObject>>) {
        let catalog = self.server.catalog.state();
        views.retain(|id, view| {
            let is_lost = catalog.get(*id).is_none() || matches!(view.status.lock().state, ViewState::Failed(_));
            if is_lost {
                info!(view = %id, "is gone or has failed, and is left out of the checkpoint");
            }
            !is_lost
        });
    }
}

/// The collections that a checkpoint has rows of, kept readable at its epoch.
fn collections(
    catalog: &CatalogState,
    content: &CheckpointContent,
) -> Result<Vec<(RelationId, Arc<Collection>, Hold)>, SqlError> {
    let letters = content.sources.iter().map(|source| (*source, dead_letters_id(*source)));
    let others = content.tables.iter().chain(&content.views).map(|id| (*id, *id));
    let mut held = Vec::new();
    for (owner, relation) in others.chain(letters) {
        let collection = match catalog.get(owner).map(|entry| &entry.object) {
            Some(Object::Table(table)) => &table.collection,
            Some(Object::MaterializedView(view)) => &view.collection,
            Some(Object::Source(source)) => &source.dead_letters,
            Some(Object::View(_) | Object::Sink(_)) | None => continue,
        };
        let hold = collection.hold(content.epoch).map_err(|error| SqlError::internal(error.to_string()))?;
        held.push((relation, collection.clone(), hold));
    }
    Ok(held)
}

/// What the checkpoint has in the cold tier of a relation that has one.
fn cold_table(
    catalog: &CatalogState,
    relation: RelationId,
    checkpoint: &Checkpoint<'_>,
) -> Option<(RelationId, ColdTable)> {
    let entry = catalog.get(relation)?;
    let (collection, settings) = tiers::of(&entry.object)?;
    let rows = checkpoint.cold_rows(relation, collection.description().schema.clone())?;
    let folder = folder_named(&tiers::folder(entry.name()));
    Some((relation, ColdTable { folder, time_column: settings.time_column, rows }))
}

async fn keep_state(
    checkpoint: &mut Checkpoint<'_>,
    view: RelationId,
    worker: usize,
    operators: Vec<OperatorChange>,
) -> Result<(), SqlError> {
    let number = |number: usize| u32::try_from(number).expect("there are fewer workers and tables than that");
    for OperatorChange { node, tables } in operators {
        for (table, change) in tables.into_iter().enumerate() {
            let kept = checkpoint.state(view, node, number(worker), number(table), change).await;
            kept.map_err(cannot_checkpoint)?;
        }
    }
    Ok(())
}

/// The plan of a view as text, and what it reads.
pub fn plan_text(view: &MaterializedViewObject) -> Vec<String> {
    let mut lines = freshet_planner::explain(&view.plan.node);
    lines.push(format!("reads {:?}, gives {:?}", view.plan.node.relations(), view.plan.schema));
    lines
}

fn cannot_checkpoint(error: freshet_storage::StorageError) -> SqlError {
    objects::storage_error("cannot write a checkpoint", &error)
}
