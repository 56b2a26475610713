//! One view of an engine in this process, fed epoch by epoch, no faster than it follows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use freshet_dataflow::{DataflowDescription, Engine, EngineConfig, EngineMemory, Event, StateBudget, ViewBudget};
use freshet_planner::plan::Node;
use freshet_storage::collection::Collection;
use freshet_types::{Delta, Epoch, RelationId};

const VIEW: RelationId = RelationId(1000);
/// The view is there from here on, over relations without rows.
const START: Epoch = Epoch(1);
/// Epochs sealed ahead of the view.
const EPOCHS_IN_FLIGHT: u64 = 3;

pub struct Running {
    engine: Engine,
    view: Arc<Collection>,
    failures: Arc<Mutex<Vec<String>>>,
    /// The last epoch that was sealed.
    pub epoch: Epoch,
}

impl Running {
    /// Starts an engine with `view`, which has a shard a worker and no rows.
    pub fn start(plan: &Node, view: Arc<Collection>, workers: usize, state: StateBudget) -> Result<Self> {
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = failures.clone();
        let on_event = Arc::new(move |event: Event| {
            let text = match event {
                Event::Failed { error, .. } => error,
                Event::RowErrors { errors, .. } => format!("rows failed: {errors:?}"),
                Event::Paused { .. } => "the view paused".to_owned(),
                Event::Cut { .. } => "state was told that nobody asked for".to_owned(),
            };
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        });
        let engine = Engine::start(EngineConfig { workers, track_state: false, state }, on_event);
        let engine = engine.map_err(anyhow::Error::msg)?;
        engine.seal(START);
        engine.install(DataflowDescription {
            view: VIEW,
            name: view.description().name.clone(),
            plan: Arc::new(plan.clone()),
            output: view.clone(),
            as_of: START,
            resume: None,
            budget: ViewBudget::default(),
        });
        plan.relations().into_iter().for_each(|relation| engine.finish_snapshot(VIEW, relation));
        Ok(Self { engine, view, failures, epoch: START })
    }

    /// Feeds new rows as an epoch, and waits until the view is no more than a few epochs behind.
    pub fn feed(&mut self, rows: impl IntoIterator<Item = (RelationId, RecordBatch)>) -> Result<()> {
        self.epoch = Epoch(self.epoch.millis() + 1);
        for (relation, rows) in rows {
            self.engine.feed(relation, self.epoch, Delta::inserts(rows));
        }
        self.engine.seal(self.epoch);
        self.wait_for(Epoch(self.epoch.millis().saturating_sub(EPOCHS_IN_FLIGHT)))
    }

    /// Waits until the view has all that was fed.
    pub fn catch_up(&self) -> Result<()> {
        self.wait_for(self.epoch)
    }

    fn wait_for(&self, epoch: Epoch) -> Result<()> {
        while self.view.upper() < epoch {
            // A view that fails never gets there.
            if let Some(failure) = self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                bail!("the view failed: {failure}");
            }
            // Short enough not to matter beside an epoch, long enough to leave the core to the workers.
            std::thread::park_timeout(Duration::from_micros(200));
        }
        Ok(())
    }

    pub fn memory(&self) -> &Arc<EngineMemory> {
        self.engine.memory()
    }

    pub fn stop(self) {
        self.engine.shutdown();
    }
}
