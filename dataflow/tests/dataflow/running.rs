//! An engine under test, with its views and events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use freshet_dataflow::{DataflowDescription, Engine, EngineConfig, Event};
use freshet_planner::plan::Node;
use freshet_storage::collection::{Collection, CollectionDescription};
use freshet_types::{Delta, Epoch, RelationId};

use crate::rows::{self, Rows};

/// How long a test waits for something that must happen, before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running {
    pub engine: Engine,
    workers: usize,
    pub views: HashMap<u64, Arc<Collection>>,
    pub events: Receiver<Event>,
}

impl Running {
    pub fn start(workers: usize) -> Self {
        let (sender, events) = channel();
        let sink = move |event| drop(sender.send(event));
        let engine = Engine::start(EngineConfig { workers }, Arc::new(sink)).unwrap();
        Self { engine, workers, views: HashMap::new(), events }
    }

    pub fn install(&mut self, view: u64, plan: Node, as_of: u64) {
        let key = plan.properties.key.clone();
        let mut description = CollectionDescription::new(format!("v{view}"), plan.schema.clone(), key);
        description.append_only = plan.properties.append_only;
        let output = Collection::new(description, self.workers).unwrap();
        self.views.insert(view, output.clone());
        self.engine.install(DataflowDescription {
            view: RelationId(view),
            name: format!("v{view}"),
            plan: Arc::new(plan),
            output,
            as_of: Epoch(as_of),
        });
    }

    /// Installs a view over relations that are empty so far.
    pub fn install_over_nothing(&mut self, view: u64, plan: Node, as_of: u64) {
        let relations = plan.relations();
        self.install(view, plan, as_of);
        for relation in relations {
            self.engine.finish_snapshot(RelationId(view), relation);
        }
    }

    pub fn snapshot(&self, view: u64, relation: u64, delta: Delta) {
        self.engine.feed_snapshot(RelationId(view), RelationId(relation), delta);
        self.engine.finish_snapshot(RelationId(view), RelationId(relation));
    }

    pub fn feed(&self, relation: u64, epoch: u64, delta: Delta) {
        self.engine.feed(RelationId(relation), Epoch(epoch), delta);
    }

    pub fn seal(&self, epoch: u64) {
        self.engine.seal(Epoch(epoch));
    }

    /// The content of a view at `epoch`, when it is there.
    pub fn rows(&self, view: u64, epoch: u64) -> Rows {
        let collection = &self.views[&view];
        let mut upper = collection.watch_upper();
        // On a thread of its own, so that a view that has failed fails the test instead of blocking it.
        let (sender, reached) = channel();
        std::thread::spawn(move || {
            let waited = futures::executor::block_on(upper.wait_for(|upper| *upper >= Epoch(epoch))).is_ok();
            let _ = sender.send(waited);
        });
        let reached = reached.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("view {view} does not reach epoch {epoch}; {:?}", self.events.try_iter().collect::<Vec<_>>())
        });
        assert!(reached, "view {view} is gone");
        let batches = collection.snapshot(Epoch(epoch)).unwrap().batches(None).unwrap();
        rows::of(batches.into_iter().map(Delta::inserts))
    }

    pub fn next_event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event within a minute")
    }
}
