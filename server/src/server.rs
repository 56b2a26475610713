//! The running server: the parts that all sessions share, and how they come up and go down.

pub mod objects;
mod recovery;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use freshet_dataflow::{Engine, EngineConfig, Event, RowError, StateBudget};
use freshet_planner::Planner;
use freshet_storage::Store;
use freshet_storage::collection::HistoryBudget;
use freshet_storage::spill::SpillFolder;
use freshet_storage::tiers::CacheBytes;
use freshet_types::{Clock, RelationId, SqlError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::catalog::{Catalog, Object};
use crate::config::Config;
use crate::coordinator::{Coordinator, CoordinatorHandle, Heard, Stopped, Wanted};
use crate::limits::{QUERY_PARTITION_BYTES_MIN, QUERY_SPILL_BYTES_MAX, TIER_CACHE_SHARE};
use crate::memory::{self, Memory};
use crate::pipeline::checkpointer::{CheckpointReports, CheckpointRequest, Checkpointer, Cut};
use crate::pipeline::iceberg::IcebergTables;
use crate::pipeline::{iceberg, tiers, view_failure};
use crate::query::runtime::QueryRuntime;
use crate::session::Session;
use crate::session::settings::Settings;
use crate::{http, pg, system, task};

/// What all sessions share.
pub struct Server {
    pub config: Config,
    pub clock: Clock,
    pub catalog: Catalog,
    /// Held by a statement that changes the catalog: DDL goes one at a time.
    pub ddl: Arc<tokio::sync::Mutex<()>>,
    pub store: Store,
    /// What the past of all relations takes together.
    pub history_budget: Arc<HistoryBudget>,
    pub engine: Arc<Engine>,
    pub coordinator: CoordinatorHandle,
    pub planner: Planner,
    /// How ad-hoc queries run: functions, settings, memory.
    pub query_state: SessionState,
    /// Where they compute.
    pub query_runtime: QueryRuntime,
    /// Where to ask for a checkpoint, and what became of the last ones.
    pub checkpoint_requests: mpsc::Sender<CheckpointRequest>,
    pub checkpoint_reports: CheckpointReports,
    /// What of the cold tier is published, and what should be.
    pub iceberg: IcebergTables,
    /// Held by whoever moves rows between tiers.
    pub tiers_lock: tokio::sync::Mutex<()>,
    /// Tells the coordinator of views that have failed.
    pub view_failures: mpsc::UnboundedSender<RelationId>,
    /// Views that begin anew, and of whose operators the last checkpoint has another state. Held while a checkpoint is made.
    pub void_state: tokio::sync::Mutex<BTreeSet<RelationId>>,
    pub memory: Memory,
    /// Triggered when the server is to stop.
    pub cancel: CancellationToken,
    /// Whether another server has taken the data over.
    pub fenced: AtomicBool,
}

/// Runs the server until `shutdown` is triggered.
///
/// # Errors
/// If an address is taken, the data cannot be opened or read, or another server takes it over.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    serve_with(config, shutdown, |_| ()).await
}

/// [`serve`], telling `when_ready` once clients can connect.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    config: Config,
    shutdown: CancellationToken,
    when_ready: impl FnOnce(Arc<Server>),
) -> anyhow::Result<()> {
    let metrics = http::install_metrics()?;
    let pg_listener = listen(&config.listen, "Postgres clients").await?;
    let http_listener = listen(&config.http, "HTTP").await?;
    let (pg_address, http_address) = (pg_listener.local_addr()?, http_listener.local_addr()?);

    let ready = Arc::new(AtomicBool::new(false));
    let http_state = http::HttpState { metrics, ready: ready.clone() };
    let stop_http = CancellationToken::new();
    let http_task = task::spawn("http", stop_http.clone(), {
        let stop = stop_http.clone();
        async move {
            if let Err(error) = http::serve(http_listener, http_state, stop).await {
                error!("the HTTP listener has failed: {error}");
            }
        }
    });

    let running = Running::start(config, shutdown.clone()).await?;
    ready.store(true, Ordering::Release);
    info!("freshet is ready: postgres on {pg_address}, http on {http_address}");
    when_ready(running.server.clone());
    let sessions = Arc::new(Sessions { server: running.server.clone() });
    pg::serve(pg_listener, sessions, shutdown).await;

    ready.store(false, Ordering::Release);
    let stopped = running.stop().await;
    stop_http.cancel();
    // The task reports its own failures.
    let _ = http_task.await;
    stopped?;
    info!("freshet has stopped");
    Ok(())
}

async fn listen(address: &str, whom: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {whom}"))
}

/// A server with its coordinator, without listeners.
pub struct Running {
    pub server: Arc<Server>,
    coordinator: tokio::task::JoinHandle<()>,
    stop_coordinator: CancellationToken,
    checkpointer: tokio::task::JoinHandle<()>,
    stop_checkpointer: CancellationToken,
    /// What ends with the server at once.
    watchers: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Opens the data, starts the engine, and brings all objects back.
    pub async fn start(config: Config, cancel: CancellationToken) -> anyhow::Result<Self> {
        let clock = Clock::System;
        let store = Store::open_at(&config.data, Some(&config.cache)).await?;
        let loaded = recovery::load(&store, &clock).await?;

        let (view_failures, failures) = mpsc::unbounded_channel();
        // Bounded by what one checkpoint asks for.
        let (cut, cuts) = mpsc::unbounded_channel();
        let (checkpoint_requests, requests) = mpsc::channel(16);
        let (router, on_event) = EventRouter::pair();
        let state = state_budget(&config)?;
        let engine_config = EngineConfig { workers: config.workers, track_state: true, state };
        let engine = Engine::start(engine_config, Arc::new(move |event| on_event.handle(event, &cut)))
            .map_err(|error| anyhow::anyhow!("cannot start the dataflow workers: {error}"))?;
        let engine = Arc::new(engine);
        let readers = cancel.child_token();
        let memory = Memory::default();
        let heard = Heard { failures, memory_short: memory.short() };
        let (coordinator, inbox, handle) =
            Coordinator::new(clock.clone(), engine.clone(), loaded.epoch, heard, readers);
        let coordinator = coordinator.starting_after(loaded.logged);

        let query_state = query_state(&config, &config.local_folder().join("query-spill"))?;
        let server = Arc::new(Server {
            clock,
            catalog: Catalog::default(),
            ddl: Arc::default(),
            store,
            history_budget: Arc::new(HistoryBudget::new(config.history_bytes_max())),
            engine,
            coordinator: handle,
            planner: Planner::new(query_state.clone()),
            query_runtime: QueryRuntime::start(config.workers).context("cannot start the query threads")?,
            query_state,
            checkpoint_requests,
            checkpoint_reports: CheckpointReports::default(),
            iceberg: IcebergTables::default(),
            tiers_lock: tokio::sync::Mutex::default(),
            void_state: tokio::sync::Mutex::default(),
            view_failures,
            memory,
            cancel: cancel.clone(),
            fenced: AtomicBool::new(false),
            config,
        });
        router.connect(&server);
        let cache_bytes = CacheBytes::of(server.config.memory_bytes / TIER_CACHE_SHARE);
        server.store.tiers().set_cache_bytes(cache_bytes);
        let mut watchers = vec![task::spawn("fence", cancel, stop_when_fenced(server.clone()))];
        let stop_coordinator = CancellationToken::new();
        let coordinator = task::spawn("coordinator", stop_coordinator.clone(), coordinator.run(inbox));
        let (checkpoints, restored) = recovery::restore(&server, loaded).await?;
        let recovery::Restored { stored, void } = restored;
        let checkpointer = Checkpointer {
            server: server.clone(),
            checkpoints,
            cuts,
            requests,
            stored,
            void,
            contained: Vec::new(),
            broken: None,
            wanted: Wanted::IfChanged,
        };
        let stop_checkpointer = CancellationToken::new();
        let checkpointer =
            task::spawn("checkpoints", CancellationToken::new(), checkpointer.run(stop_checkpointer.clone()));
        watchers.extend(watch(&server));
        Ok(Self { server, coordinator, stop_coordinator, checkpointer, stop_checkpointer, watchers })
    }

    /// Ends what runs and closes the store. What was acknowledged is durable already.
    ///
    /// # Errors
    /// If the store cannot be closed, or belongs to another server by now.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.cancel.cancel();
        self.stop_checkpointer.cancel();
        // The tasks report their own failures.
        for watcher in self.watchers {
            let _ = watcher.await;
        }
        let _ = self.checkpointer.await;
        self.stop_coordinator.cancel();
        let _ = self.coordinator.await;
        if self.server.fenced.load(Ordering::Acquire) {
            bail!("another server has opened {}; this one has stopped", self.server.config.data);
        }
        self.server.store.close().await.context("cannot close the store")?;
        match Arc::into_inner(self.server).and_then(|server| Arc::into_inner(server.engine)) {
            Some(engine) => engine.shutdown(),
            None => warn!("sessions are still at work; the dataflow workers end with the process"),
        }
        Ok(())
    }
}

/// What goes on beside the coordinator, until the server is to stop.
fn watch(server: &Arc<Server>) -> [tokio::task::JoinHandle<()>; 3] {
    let cancel = || server.cancel.clone();
    [
        task::spawn("memory", cancel(), memory::watch(server.clone())),
        task::spawn("tiers", cancel(), tiers::run(server.clone())),
        task::spawn("iceberg", cancel(), iceberg::run(server.clone())),
    ]
}

/// Stops a server whose data another one has opened: it could neither keep nor tell anything that counts.
async fn stop_when_fenced(server: Arc<Server>) {
    server.store.fenced().await;
    error!("another server has opened {}: stopping", server.config.data);
    server.fenced.store(true, Ordering::Release);
    server.cancel.cancel();
}

/// What operators may hold in memory, and where the rest goes.
fn state_budget(config: &Config) -> anyhow::Result<StateBudget> {
    let folder = config.local_folder().join("state-spill");
    let spill = SpillFolder::open(&folder).context("cannot empty the folder of spilled state")?;
    Ok(StateBudget { bytes_max: config.state_memory_bytes(), folder: Some(spill) })
}

/// What does not fit into the queries' share of memory goes to files in `spill`, which an earlier process may have left.
fn query_state(config: &Config, spill: &Path) -> anyhow::Result<SessionState> {
    match std::fs::remove_dir_all(spill) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", spill.display()));
        }
        _ => std::fs::create_dir_all(spill).with_context(|| format!("cannot make {}", spill.display()))?,
    }
    let pool_bytes = config.query_memory_bytes();
    let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(pool_bytes));
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]))
        .with_max_temp_directory_size(QUERY_SPILL_BYTES_MAX);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()?;
    let partitions = (pool_bytes / QUERY_PARTITION_BYTES_MIN).clamp(1, config.workers);
    let session_config = freshet_planner::session_config().with_target_partitions(partitions);
    // Each partition of a sort keeps so much back for merging what it has spilled: not all that there is, in a small pool.
    let merge_bytes = session_config.options().execution.sort_spill_reservation_bytes;
    let merge_bytes = merge_bytes.min(pool_bytes / (4 * partitions));
    let session_config = session_config.with_sort_spill_reservation_bytes(merge_bytes);
    let builder =
        SessionStateBuilder::new().with_default_features().with_config(session_config).with_runtime_env(runtime);
    let mut state = system::register_functions(builder).build();
    crate::functions::register(&mut state)?;
    Ok(state)
}

impl Server {
    /// Hands out an id that no object has had before.
    pub async fn next_id(&self) -> Result<RelationId, SqlError> {
        const KEY: &str = "last_relation_id";
        let corrupt = || SqlError::internal("the record of the last relation id is damaged");
        let last = match self.store.get_meta(KEY).await.map_err(objects::store_error)? {
            Some(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(corrupt)?,
            None => 0_u64,
        };
        let next = last + 1;
        self.store.put_meta(KEY, next.to_string().into()).await.map_err(objects::store_error)?;
        Ok(RelationId(next))
    }
}

impl From<Stopped> for SqlError {
    fn from(stopped: Stopped) -> Self {
        SqlError::new(freshet_types::SqlState::AdminShutdown, stopped.to_string())
    }
}

/// Opens sessions for the Postgres listener.
struct Sessions {
    server: Arc<Server>,
}

impl pg::SessionFactory for Sessions {
    fn open(&self, user: &str, _database: &str, parameters: &[(String, String)]) -> Result<Arc<Session>, SqlError> {
        let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Arc::new(Session::new(self.server.clone(), user, Settings::from_startup(parameters))))
    }

    fn access(&self) -> pg::Access {
        if self.server.config.trust_network { pg::Access::Anywhere } else { pg::Access::LoopbackOnly }
    }
}

/// Takes what the engine tells to the view that it is about.
#[derive(Clone, Default)]
struct EventRouter {
    server: Arc<std::sync::OnceLock<std::sync::Weak<Server>>>,
}

impl EventRouter {
    /// Two handles of one router.
    fn pair() -> (Self, Self) {
        let router = Self::default();
        (router.clone(), router)
    }

    /// The engine starts before the server exists; no view is installed before this.
    fn connect(&self, server: &Arc<Server>) {
        self.server.get_or_init(|| Arc::downgrade(server));
    }

    /// Called on worker threads.
    fn handle(&self, event: Event, cut: &mpsc::UnboundedSender<Cut>) {
        let Some(server) = self.server.get().and_then(std::sync::Weak::upgrade) else { return };
        match event {
            Event::Cut { view, epoch, worker, operators } => {
                // Nobody makes checkpoints any more only at shutdown.
                let _ = cut.send(Cut { view, epoch, worker, operators });
            }
            Event::RowErrors { view, epoch, errors, omitted } => {
                metrics::counter!("freshet_view_row_errors_total").increment(errors.len() as u64 + omitted);
                let errors = errors.into_iter().map(in_sql_terms).collect();
                with_view(&server, view, |status| status.record(epoch, errors, omitted));
            }
            Event::Failed { view, error } => view_failure::fail(&server, view, &error),
            Event::Paused { view, used_bytes, bytes_max } => {
                view_failure::pause(&server, view, &memory::over_limit(used_bytes, bytes_max));
            }
        }
    }
}

/// The error in the words that a query would use.
fn in_sql_terms(error: RowError) -> RowError {
    let told = freshet_planner::sql_error(DataFusionError::Execution(error.message));
    RowError { message: told.message, ..error }
}

fn with_view(server: &Server, view: RelationId, then: impl FnOnce(&mut crate::pipeline::view_status::ViewStatus)) {
    if let Some(entry) = server.catalog.state().get(view)
        && let Object::MaterializedView(object) = &entry.object
    {
        then(&mut object.status.lock());
    }
}
