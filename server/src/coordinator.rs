//! The coordinator: the one who says when. It gathers what has arrived, seals it as an epoch, and hands it to the
//! engine.
//!
//! It is a loop with one owner for all that must happen in order: epochs, table writes, source positions, and the
//! moments at which dataflows come and go. An epoch is sealed as soon as anything waits and the views are not too far
//! behind, so that epochs are small when the machine keeps up and grow when it does not; when nothing happens, a
//! heartbeat moves time on. Durability is not its business: table writes arrive here already durable, and a checkpoint
//! takes from here no more than what is in it.
//!
//! Invariant (I-3): all changes of an epoch are fed to the engine before the epoch is sealed, none after, and the
//! source offsets recorded for the epoch are exactly those of the batches in it.

mod sources;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use freshet_connectors::Offsets;
use freshet_dataflow::{DataflowDescription, Engine, SavedState, ViewBudget};
use freshet_planner::plan::Node;
use freshet_storage::WalKey;
use freshet_storage::collection::{Collection, CollectionError, ExpiredRows, ShardWriter};
use freshet_types::{Clock, Delta, Epoch, RelationId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::sources::SourceStates;
pub use self::sources::{SourceInput, SourcePosition};
use crate::limits::{EPOCH_ROWS_MAX, EPOCHS_IN_FLIGHT_MAX, HEARTBEAT_INTERVAL_MS, TICK_INTERVAL_MS_MIN};
use crate::pipeline::reader::Ingest;

/// What sessions ask of the coordinator.
pub enum Command {
    /// Makes durable writes visible, all in one epoch; answers with that epoch.
    Commit {
        writes: Vec<TableWrite>,
        reply: CommitReply,
    },
    /// Takes over the writing of a table's rows.
    AddTable {
        table: RelationId,
        writer: ShardWriter,
    },
    /// Takes over the writing of a source's dead letters.
    AddSource {
        source: RelationId,
        dead_letters: Arc<Collection>,
        /// How far it has been read before, if it has.
        read: Option<SourcePosition>,
    },
    /// Forgets a table or a source that no view reads.
    Forget {
        relation: RelationId,
    },
    /// Starts dataflows; all begin at one epoch.
    Install {
        views: Vec<InstallView>,
        reply: oneshot::Sender<Installed>,
    },
    /// A view has caught up; from now on epochs wait for it.
    Hydrated {
        view: RelationId,
    },
    RemoveView {
        view: RelationId,
        reply: oneshot::Sender<()>,
    },
    /// The next checkpoint has to say something else of sinks than the last one.
    SinksChanged,
    /// Rows lie elsewhere than the last checkpoint says.
    TiersChanged,
    /// Begins to seal epochs: until then, what a restart brings back is put in its place at one epoch.
    Start,
    /// Seals an epoch and has the state of all complete views told at it, if anything changed since the last time.
    Checkpoint {
        wanted: Wanted,
        reply: oneshot::Sender<Option<CheckpointContent>>,
    },
}

/// Whether a checkpoint is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// If anything has changed since the last one.
    IfChanged,
    Anyway,
}

/// What belongs to a checkpoint.
pub struct CheckpointContent {
    pub epoch: Epoch,
    /// The views that tell their state at the epoch.
    pub views: Vec<RelationId>,
    pub tables: Vec<RelationId>,
    /// How far each source has been read, and which there are.
    pub positions: HashMap<RelationId, SourcePosition>,
    pub sources: Vec<RelationId>,
    /// The records of tables' logs that are part of the epoch or of an earlier one, and of no checkpoint before.
    pub contained: Vec<WalKey>,
}

/// Told the epoch at which a write is visible.
pub type CommitReply = oneshot::Sender<Result<Epoch, CollectionError>>;

/// A change of one table.
pub struct TableWrite {
    pub table: RelationId,
    pub delta: Delta,
    pub cause: Cause,
    /// Its record in the table's log.
    pub logged: WalKey,
}

/// Why a table changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Written,
    /// The rows are older than they are kept, counted from when they were written.
    Expired,
}

/// A view whose dataflow is to be started.
pub struct InstallView {
    pub view: RelationId,
    pub name: String,
    pub plan: Arc<Node>,
    pub output: Arc<Collection>,
    /// The sources that it reads.
    pub sources: Vec<SourceInput>,
    /// The state from which it goes on, if it does.
    pub resume: Option<Arc<SavedState>>,
    pub budget: ViewBudget,
}

/// Where new dataflows start.
pub struct Installed {
    pub as_of: Epoch,
    /// How far each source has been read at `as_of`.
    pub offsets: HashMap<RelationId, Offsets>,
}

/// How other tasks reach the coordinator.
#[derive(Clone)]
pub struct CoordinatorHandle {
    commands: mpsc::Sender<Command>,
    sealed: watch::Receiver<Epoch>,
    last_commit: Arc<AtomicU64>,
}

/// The coordinator is gone: the server is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub struct Stopped;

impl CoordinatorHandle {
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Sends a command that is answered.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// The last sealed epoch.
    pub fn sealed(&self) -> Epoch {
        *self.sealed.borrow()
    }

    /// The epoch of the last write of a table, by any session. What reads at this epoch or later sees every write that
    /// was acknowledged before.
    pub fn last_commit(&self) -> Epoch {
        Epoch(self.last_commit.load(Ordering::Acquire))
    }
}

/// The state behind [`CoordinatorHandle`].
pub struct Coordinator {
    clock: Clock,
    engine: Arc<Engine>,
    last: Epoch,
    /// No epoch is sealed that is not later.
    floor: Epoch,
    sealed: watch::Sender<Epoch>,
    last_commit: Arc<AtomicU64>,
    /// No epoch is sealed before this moment.
    next_tick: Instant,
    /// Whether nothing is taken in because memory is short. Epochs are sealed at the pace of heartbeats then.
    memory_short: watch::Receiver<bool>,
    /// Sealed epochs that some live view has not finished.
    in_flight: VecDeque<Epoch>,
    tables: HashMap<RelationId, ShardWriter>,
    sources: SourceStates,
    views: HashMap<RelationId, InstalledView>,
    pending: Pending,
    started: bool,
    /// Whether there is anything that the last checkpoint does not have.
    changed: bool,
    /// Records of tables' logs that are in sealed epochs, since the last checkpoint.
    contained: Vec<WalKey>,
}

struct InstalledView {
    upper: watch::Receiver<Epoch>,
    sources: Vec<RelationId>,
    /// All relations that it reads.
    reads: Vec<RelationId>,
    hydrated: bool,
}

#[derive(Default)]
struct Pending {
    commits: Vec<(Vec<TableWrite>, CommitReply)>,
    ingests: Vec<Ingest>,
    rows: usize,
}

/// The channels that a coordinator listens on.
pub struct Inbox {
    commands: mpsc::Receiver<Command>,
    ingests: mpsc::Receiver<Ingest>,
    /// Views that failed.
    failures: mpsc::UnboundedReceiver<RelationId>,
}

/// What the coordinator hears of others.
pub struct Heard {
    /// Views that failed; each at most once, so that the channel is bounded by the number of views.
    pub failures: mpsc::UnboundedReceiver<RelationId>,
    /// Whether memory is short.
    pub memory_short: watch::Receiver<bool>,
}

/// What keeps the next epoch from being sealed.
enum Gate {
    Open,
    TooSoon(Instant),
    MemoryShort(watch::Receiver<bool>),
    /// These views have yet to finish this epoch.
    Behind(Vec<watch::Receiver<Epoch>>, Epoch),
}

impl Coordinator {
    /// A coordinator whose first epoch comes after `last`.
    pub fn new(
        clock: Clock,
        engine: Arc<Engine>,
        last: Epoch,
        Heard { failures, memory_short }: Heard,
        cancel: CancellationToken,
    ) -> (Self, Inbox, CoordinatorHandle) {
        let (commands, command_inbox) = mpsc::channel(1024);
        let (queue, ingests) = mpsc::channel(crate::limits::INGEST_QUEUE_BATCHES_MAX);
        let (sealed, sealed_watch) = watch::channel(last);
        let last_commit = Arc::new(AtomicU64::new(last.millis()));
        let coordinator = Self {
            clock,
            engine,
            last,
            floor: last,
            sealed,
            last_commit: last_commit.clone(),
            next_tick: Instant::now(),
            memory_short,
            in_flight: VecDeque::new(),
            tables: HashMap::new(),
            sources: SourceStates::new(queue, cancel),
            views: HashMap::new(),
            pending: Pending::default(),
            started: false,
            changed: false,
            contained: Vec::new(),
        };
        let inbox = Inbox { commands: command_inbox, ingests, failures };
        (coordinator, inbox, CoordinatorHandle { commands, sealed: sealed_watch, last_commit })
    }

    /// Has the first epoch come after `floor` as well, whatever the clock says: what is replayed of logs finds the rows of
    /// tables expired that were so when it was decided upon.
    pub fn starting_after(self, floor: Epoch) -> Self {
        Self { floor: floor.max(self.floor), ..self }
    }

    /// Runs until cancelled or until nobody can send commands any more.
    pub async fn run(mut self, mut inbox: Inbox) {
        let mut heartbeat = tokio::time::interval(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
        loop {
            let gate = self.gate();
            let open = matches!(gate, Gate::Open) && self.started;
            // Rows can leave memory only once readers are past them, so epochs go on even then, with what is here already.
            let beats = open || (matches!(gate, Gate::MemoryShort(_)) && self.started);
            tokio::select! {
                biased;
                // Before any command: one may start again what has failed.
                Some(view) = inbox.failures.recv() => self.view_failed(view),
                command = inbox.commands.recv() => match command {
                    Some(command) => inbox.handle(&mut self, command),
                    None => return,
                },
                () = gate.opened(), if !open && self.started => {}
                Some(ingest) = inbox.ingests.recv(), if open => self.pending.push(ingest),
                _ = heartbeat.tick(), if beats => self.seal(),
            }
            while let Ok(command) = inbox.commands.try_recv() {
                inbox.handle(&mut self, command);
            }
            if self.started && matches!(self.gate(), Gate::Open) {
                while self.pending.rows < EPOCH_ROWS_MAX
                    && let Ok(ingest) = inbox.ingests.try_recv()
                {
                    self.pending.push(ingest);
                }
                if !self.pending.is_empty() {
                    self.seal();
                    heartbeat.reset();
                }
            }
        }
    }

    fn gate(&mut self) -> Gate {
        let now = Instant::now();
        if now < self.next_tick {
            return Gate::TooSoon(self.next_tick);
        }
        let live = || self.views.values().filter(|view| view.hydrated);
        while let Some(epoch) = self.in_flight.front()
            && live().all(|view| *view.upper.borrow() >= *epoch)
        {
            self.in_flight.pop_front();
        }
        match self.in_flight.front() {
            Some(epoch) if self.in_flight.len() >= EPOCHS_IN_FLIGHT_MAX => {
                let behind = live().filter(|view| *view.upper.borrow() < *epoch);
                Gate::Behind(behind.map(|view| view.upper.clone()).collect(), *epoch)
            }
            _ if *self.memory_short.borrow() => Gate::MemoryShort(self.memory_short.clone()),
            _ => Gate::Open,
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Commit { writes, reply } => {
                self.pending.rows += writes.iter().map(|write| write.delta.len()).sum::<usize>();
                self.pending.commits.push((writes, reply));
            }
            Command::AddTable { table, mut writer } => {
                writer.begin_at(self.last);
                self.tables.insert(table, writer);
            }
            Command::AddSource { source, dead_letters, read } => {
                self.changed = true;
                self.sources.add(source, &dead_letters, self.last, read);
            }
            Command::Forget { relation } => {
                self.changed = true;
                self.tables.remove(&relation);
                self.sources.forget(relation);
            }
            Command::Install { views, reply } => {
                let installed = self.install(views);
                // The session may have gone away meanwhile; the view is in the catalog all the same.
                let _ = reply.send(installed);
            }
            Command::Hydrated { view } => {
                self.changed = true;
                if let Some(view) = self.views.get_mut(&view) {
                    view.hydrated = true;
                }
            }
            Command::RemoveView { view, reply } => {
                self.remove_view(view);
                let _ = reply.send(());
            }
            Command::SinksChanged | Command::TiersChanged => self.changed = true,
            Command::Start => self.started = true,
            Command::Checkpoint { wanted, reply } => {
                let content = self.checkpoint(wanted);
                // A checkpoint that nobody makes is wanted no more.
                let _ = reply.send(content);
            }
        }
    }

    /// Seals an epoch at which all complete views tell their state.
    fn checkpoint(&mut self, wanted: Wanted) -> Option<CheckpointContent> {
        if wanted == Wanted::IfChanged && !self.changed && self.pending.is_empty() {
            return None;
        }
        let epoch = self.next_epoch();
        let views: Vec<RelationId> = self.views.iter().filter(|(_, view)| view.hydrated).map(|(id, _)| *id).collect();
        self.engine.cut(epoch, views.as_slice().into());
        self.seal_at(epoch);
        self.changed = false;
        Some(CheckpointContent {
            epoch,
            views,
            tables: self.tables.keys().copied().collect(),
            positions: self.sources.positions(),
            sources: self.sources.ids(),
            contained: std::mem::take(&mut self.contained),
        })
    }

    fn install(&mut self, views: Vec<InstallView>) -> Installed {
        let mut offsets = HashMap::new();
        for install in views {
            for source in &install.sources {
                offsets.insert(source.id, self.sources.require(source, self.last));
            }
            let installed = InstalledView {
                upper: install.output.watch_upper(),
                sources: install.sources.iter().map(|source| source.id).collect(),
                reads: install.plan.relations(),
                hydrated: install.resume.is_some(),
            };
            self.views.insert(install.view, installed);
            if install.resume.is_none() {
                install.output.begin_at(self.last);
            }
            self.engine.install(DataflowDescription {
                view: install.view,
                name: install.name,
                plan: install.plan,
                output: install.output,
                as_of: self.last,
                resume: install.resume,
                budget: install.budget,
            });
        }
        // Only now, so that views installed together read a source once.
        self.sources.start_readers();
        Installed { as_of: self.last, offsets }
    }

    fn remove_view(&mut self, view: RelationId) {
        self.changed = true;
        self.engine.remove(view);
        if let Some(removed) = self.views.remove(&view) {
            self.release_sources(&removed.sources);
        }
    }

    /// A failed view neither holds back epochs nor needs its sources any more.
    fn view_failed(&mut self, view: RelationId) {
        self.remove_view(view);
    }

    fn release_sources(&mut self, sources: &[RelationId]) {
        for source in sources {
            if !self.views.values().any(|view| view.sources.contains(source)) {
                self.sources.stop(*source);
            }
        }
    }

    /// Makes all that is pending one epoch, and moves time on even if that is nothing.
    fn seal(&mut self) {
        let epoch = self.next_epoch();
        self.seal_at(epoch);
    }

    fn next_epoch(&self) -> Epoch {
        self.last.max(self.floor).next(self.clock.now_ms())
    }

    fn seal_at(&mut self, epoch: Epoch) {
        self.changed |= !self.pending.is_empty();
        let pending = std::mem::take(&mut self.pending);
        debug!(%epoch, rows = pending.rows, commits = pending.commits.len(), "sealing");
        metrics::histogram!("freshet_epoch_rows").record(pending.rows as f64);
        self.expire(epoch);
        let mut replies = Vec::with_capacity(pending.commits.len());
        for (writes, reply) in pending.commits {
            let outcome = writes.into_iter().try_for_each(|write| self.write_table(epoch, write));
            replies.push((reply, outcome));
        }
        for ingest in pending.ingests {
            if let Some((source, delta)) = self.sources.accept(epoch, ingest) {
                self.engine.feed(source, epoch, delta);
            }
        }
        self.sources.seal(epoch);
        self.engine.seal(epoch);
        for writer in self.tables.values_mut() {
            writer.advance_upper(epoch);
        }
        self.last = epoch;
        self.sealed.send_replace(epoch);
        if !replies.is_empty() {
            self.last_commit.store(epoch.millis(), Ordering::Release);
        }
        self.in_flight.push_back(epoch);
        self.next_tick = Instant::now() + Duration::from_millis(TICK_INTERVAL_MS_MIN);
        for (reply, outcome) in replies {
            // A session that has gone does not want to know.
            let _ = reply.send(outcome.map(|()| epoch));
        }
    }

    /// Has the rows leave that tables do not keep any more at `epoch`. No log tells of it: it follows from the epoch.
    fn expire(&mut self, epoch: Epoch) {
        for (table, writer) in self.tables.iter_mut().filter(|(_, writer)| writer.is_due(epoch)) {
            let is_read = self.views.values().any(|view| view.reads.contains(table));
            let wanted = if is_read { ExpiredRows::Told } else { ExpiredRows::Counted };
            match writer.expire(epoch..=epoch, wanted) {
                Ok(expired) if expired.rows > 0 => {
                    self.changed = true;
                    info!(%table, rows = expired.rows, "rows have expired");
                    metrics::counter!("freshet_expired_rows_total").increment(expired.rows as u64);
                    expired.deltas.into_iter().for_each(|(_, delta)| self.engine.feed(*table, epoch, delta));
                }
                Ok(_) => {}
                Err(error) => warn!(%table, "rows that have expired stay for now: {error}"),
            }
        }
    }

    fn write_table(&mut self, epoch: Epoch, write: TableWrite) -> Result<(), CollectionError> {
        self.contained.push(write.logged);
        let table = write.table;
        let Some(writer) = self.tables.get_mut(&write.table) else {
            // Dropped while the write was on its way: nobody can see it any more.
            return Ok(());
        };
        let applied = match write.cause {
            Cause::Written => writer.kept(epoch, &write.delta).map(Cow::into_owned).and_then(|kept| {
                writer.apply(epoch, &kept)?;
                Ok(kept)
            }),
            Cause::Expired => writer.apply_expired(epoch, &write.delta).map(|()| write.delta),
        };
        let applied =
            applied.inspect_err(|error| error!(%table, "a write that was checked does not apply: {error}"))?;
        self.engine.feed(table, epoch, applied);
        Ok(())
    }
}

impl Inbox {
    /// Has the coordinator handle a command, and first what had failed before that was sent.
    fn handle(&mut self, coordinator: &mut Coordinator, command: Command) {
        while let Ok(view) = self.failures.try_recv() {
            coordinator.view_failed(view);
        }
        coordinator.handle(command);
    }
}

impl Pending {
    fn push(&mut self, ingest: Ingest) {
        self.rows += ingest.batch.rows.num_rows();
        self.ingests.push(ingest);
    }

    fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.ingests.is_empty()
    }
}

impl Gate {
    async fn opened(self) {
        match self {
            Self::Open => {}
            // An error means that the server stops.
            Self::MemoryShort(mut short) => drop(short.wait_for(|short| !short).await),
            Self::TooSoon(instant) => tokio::time::sleep_until(instant).await,
            Self::Behind(uppers, epoch) => {
                for mut upper in uppers {
                    // An error means that the view is gone, which opens the gate as well.
                    let _ = upper.wait_for(|upper| *upper >= epoch).await;
                }
            }
        }
    }
}
