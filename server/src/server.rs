//! The running server: the parts that all sessions share, and how they come up and go down.

pub mod objects;
mod recovery;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use freshet_dataflow::{Engine, EngineConfig, Event, RowError};
use freshet_planner::Planner;
use freshet_storage::Store;
use freshet_storage::collection::HistoryBudget;
use freshet_types::{Clock, RelationId, SqlError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::catalog::{Catalog, Object};
use crate::config::Config;
use crate::coordinator::{Coordinator, CoordinatorHandle, Stopped, Wanted};
use crate::pipeline::checkpointer::{CheckpointReports, CheckpointRequest, Checkpointer, Cut};
use crate::pipeline::view_failure;
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
    /// Tells the coordinator of views that have failed.
    pub view_failures: mpsc::UnboundedSender<RelationId>,
    /// Triggered when the server is to stop.
    pub cancel: CancellationToken,
}

/// Runs the server until `shutdown` is triggered.
///
/// # Errors
/// If an address is taken, or the data cannot be opened or read.
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
    running.stop().await?;
    stop_http.cancel();
    // The task reports its own failures.
    let _ = http_task.await;
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
}

impl Running {
    /// Opens the data, starts the engine, and brings all objects back.
    pub async fn start(config: Config, cancel: CancellationToken) -> anyhow::Result<Self> {
        let clock = Clock::System;
        let store =
            Store::open(&config.data).await.with_context(|| format!("cannot open the data at {}", config.data))?;
        let loaded = recovery::load(&store, &clock).await?;

        let (view_failures, failures) = mpsc::unbounded_channel();
        // Bounded by what one checkpoint asks for.
        let (cut, cuts) = mpsc::unbounded_channel();
        let (checkpoint_requests, requests) = mpsc::channel(16);
        let router = EventRouter::default();
        let on_event = router.clone();
        let engine_config = EngineConfig { workers: config.workers, track_state: true };
        let engine = Engine::start(engine_config, Arc::new(move |event| on_event.handle(event, &cut)))
            .map_err(|error| anyhow::anyhow!("cannot start the dataflow workers: {error}"))?;
        let engine = Arc::new(engine);
        let readers = cancel.child_token();
        let (coordinator, inbox, handle) =
            Coordinator::new(clock.clone(), engine.clone(), loaded.epoch, failures, readers);

        let query_state = query_state(&config)?;
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
            view_failures,
            cancel: cancel.clone(),
            config,
        });
        router.connect(&server);
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
        Ok(Self { server, coordinator, stop_coordinator, checkpointer, stop_checkpointer })
    }

    /// Ends what runs and closes the store. What was acknowledged is durable already.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.cancel.cancel();
        self.stop_checkpointer.cancel();
        // The tasks report their own failures.
        let _ = self.checkpointer.await;
        self.stop_coordinator.cancel();
        let _ = self.coordinator.await;
        self.server.store.close().await.context("cannot close the store")?;
        match Arc::into_inner(self.server).and_then(|server| Arc::into_inner(server.engine)) {
            Some(engine) => engine.shutdown(),
            None => warn!("sessions are still at work; the dataflow workers end with the process"),
        }
        Ok(())
    }
}

fn query_state(config: &Config) -> anyhow::Result<SessionState> {
    let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(config.query_memory_bytes()));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
    let session_config = freshet_planner::session_config().with_target_partitions(config.workers);
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
