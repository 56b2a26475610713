//! The server's memory: who uses how much of `--memory`, and what happens when it runs short.
//!
//! State beyond its share goes to the disk by itself, and queries are held to theirs. The rest can only be slowed: while what
//! is used comes close to the limit nothing is taken in, so queues fill and connectors stop polling. If that does not
//! help for some seconds, the view that has grown most is paused, which frees its state; nothing is killed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use freshet_types::{RelationId, SqlError, SqlState};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::catalog::Object;
use crate::config::Config;
use crate::limits::{MEMORY_INTERVAL_MS, MEMORY_SHORTAGE_MS_MAX};
use crate::pipeline::view_failure;
use crate::pipeline::view_status::ViewState;
use crate::server::Server;

/// Percent of the limit: what is accounted for is too much from the first on, and enough below the second.
const SHORT_PERCENT: u64 = 90;
const ENOUGH_PERCENT: u64 = 85;
/// Percent of the limit that must be accounted for before what the process holds beyond it counts: allocators keep what
/// was freed, and give it out again.
const ACCOUNTED_PERCENT_MIN: u64 = 70;

/// What the watch over memory knows, for all others.
#[derive(Debug)]
pub struct Memory {
    checkpoint_bytes: AtomicU64,
    short: watch::Sender<bool>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { checkpoint_bytes: AtomicU64::new(0), short: watch::Sender::new(false) }
    }
}

impl Memory {
    pub fn set_checkpoint_bytes(&self, bytes: u64) {
        self.checkpoint_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether memory is short: nothing is taken in then.
    pub fn short(&self) -> watch::Receiver<bool> {
        self.short.subscribe()
    }

    /// Refuses what would only make a shortage worse.
    pub fn refuse_if_short(&self) -> Result<(), SqlError> {
        if !*self.short.borrow() {
            return Ok(());
        }
        Err(SqlError::new(SqlState::OutOfMemory, "out of memory: no rows can be added now")
            .with_detail("what the server holds comes close to --memory; see freshet_catalog.memory")
            .with_hint("delete rows or drop views, or start the server with more --memory"))
    }
}

/// Bytes in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Rows of tables, views and dead letters.
    pub collections: u64,
    /// State of operators.
    pub state: u64,
    /// State of operators on the disk.
    pub state_on_disk: u64,
    /// Deltas on their way to operators.
    pub queues: u64,
    pub queries: u64,
    /// What is kept to tell the next checkpoint from the last one.
    pub checkpoints: u64,
    /// Of the process, as the system counts it, without its code.
    pub resident: Option<u64>,
}

impl Usage {
    pub fn now(server: &Server) -> Self {
        let catalog = server.catalog.state();
        let collections = catalog.entries().map(|entry| match &entry.object {
            Object::Table(table) => table.collection.memory_bytes(),
            Object::MaterializedView(view) => view.collection.memory_bytes(),
            Object::Source(source) => source.dead_letters.memory_bytes(),
            Object::View(_) | Object::Sink(_) => 0,
        });
        let engine = server.engine.memory();
        Self {
            collections: collections.sum::<usize>() as u64,
            state: engine.state_bytes(),
            state_on_disk: engine.operators().iter().map(|operator| operator.disk_bytes).sum(),
            queues: engine.queued_bytes(),
            queries: server.query_state.runtime_env().memory_pool.reserved() as u64,
            checkpoints: server.memory.checkpoint_bytes.load(Ordering::Relaxed),
            resident: resident_bytes(),
        }
    }

    /// All that is accounted for.
    pub fn accounted(&self) -> u64 {
        self.collections + self.state + self.queues + self.queries + self.checkpoints
    }

    /// Each part, its bytes, and the most that it may have.
    pub fn parts(&self, config: &Config) -> Vec<(&'static str, Option<u64>, Option<u64>)> {
        vec![
            ("collections", Some(self.collections), None),
            ("state", Some(self.state), Some(config.state_memory_bytes())),
            ("state on disk", Some(self.state_on_disk), None),
            ("queues", Some(self.queues), None),
            ("queries", Some(self.queries), Some(config.query_memory_bytes() as u64)),
            ("checkpoints", Some(self.checkpoints), None),
            ("all accounted for", Some(self.accounted()), Some(config.memory_bytes)),
            ("process", self.resident, Some(config.memory_bytes)),
        ]
    }

    /// Whether it is too much, if it was `before`.
    fn is_short(&self, bytes_max: u64, before: bool) -> bool {
        let percent = |bytes: u64| u128::from(bytes) * 100 / u128::from(bytes_max.max(1));
        let accounted = percent(self.accounted());
        let bound = if before { ENOUGH_PERCENT } else { SHORT_PERCENT };
        let process = self.resident.map_or(0, percent);
        accounted >= u128::from(bound) || (process >= 100 && accounted >= u128::from(ACCOUNTED_PERCENT_MIN))
    }

    fn publish(&self) {
        let parts = [
            ("collections", self.collections),
            ("state", self.state),
            ("state_on_disk", self.state_on_disk),
            ("queues", self.queues),
            ("queries", self.queries),
            ("checkpoints", self.checkpoints),
            ("process", self.resident.unwrap_or(0)),
        ];
        for (part, bytes) in parts {
            metrics::gauge!("freshet_memory_bytes", "part" => part).set(bytes as f64);
        }
    }
}

/// The memory of the process that is not backed by files.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Why a view is paused that was given a limit.
pub fn over_limit(used_bytes: u64, bytes_max: u64) -> String {
    format!("its state takes {used_bytes} bytes, and its limit is {bytes_max}")
}

/// Looks at the memory until the server stops.
pub async fn watch(server: Arc<Server>) {
    let limit = server.config.memory_bytes;
    info!(
        "memory: {} MiB in all, of which {} MiB for the state of views and {} MiB for queries",
        limit >> 20,
        server.config.state_memory_bytes() >> 20,
        server.config.query_memory_bytes() >> 20
    );
    let mut ticks = tokio::time::interval(Duration::from_millis(MEMORY_INTERVAL_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut since, mut before) = (None, HashMap::new());
    loop {
        ticks.tick().await;
        let usage = Usage::now(&server);
        usage.publish();
        let was_short = since.is_some();
        if !usage.is_short(limit, was_short) {
            if was_short {
                info!("memory is no longer short: {} MiB are in use", usage.accounted() >> 20);
                metrics::gauge!("freshet_memory_short").set(0.0);
                server.memory.short.send_replace(false);
                since = None;
            }
            before = view_bytes(&server);
            continue;
        }
        let started = *since.get_or_insert_with(Instant::now);
        if !was_short {
            warn!("memory is short, and sources wait: {} MiB of {} are in use", usage.accounted() >> 20, limit >> 20);
            metrics::gauge!("freshet_memory_short").set(1.0);
            server.memory.short.send_replace(true);
        } else if started.elapsed() >= Duration::from_millis(MEMORY_SHORTAGE_MS_MAX) {
            pause_one(&server, &before, &usage);
            since = Some(Instant::now());
        }
    }
}

/// What the state of each view that runs holds in memory.
fn view_bytes(server: &Server) -> HashMap<RelationId, u64> {
    let mut bytes = HashMap::new();
    for operator in server.engine.memory().operators() {
        *bytes.entry(operator.view).or_default() += operator.memory_bytes;
    }
    bytes
}

/// Pauses the view whose state has grown most since memory was enough; of several that have not grown, the largest.
fn pause_one(server: &Server, before: &HashMap<RelationId, u64>, usage: &Usage) {
    let catalog = server.catalog.state();
    let is_running = |view: &RelationId| match catalog.get(*view).map(|entry| &entry.object) {
        Some(Object::MaterializedView(view)) => !matches!(view.status.lock().state, ViewState::Failed(_)),
        _ => false,
    };
    let growth =
        |(view, bytes): &(RelationId, u64)| (bytes.saturating_sub(before.get(view).copied().unwrap_or(0)), *bytes);
    let grown = view_bytes(server).into_iter().filter(|(view, _)| is_running(view)).max_by_key(growth);
    match grown {
        Some((view, bytes)) => {
            metrics::counter!("freshet_memory_paused_views_total").increment(1);
            let reason = format!(
                "memory is short: the server holds {} bytes and may hold {}, and the state of this view, {bytes} bytes, \
                 has grown most",
                usage.accounted(),
                server.config.memory_bytes
            );
            view_failure::pause(server, view, &reason);
        }
        None => warn!("memory is short, and no view holds any state: {usage:?}"),
    }
}
