//! An engine under test, with its views and events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use freshet_dataflow::{
    DataflowDescription, Engine, EngineConfig, Event, SavedState, StateBudget, ViewBudget, output_shards,
};
use freshet_planner::plan::Node;
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_storage::collection::{Collection, CollectionDescription};
use freshet_types::{Delta, Epoch, RelationId};

use crate::rows::{self, Rows};

/// How long a test waits for something that must happen, before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running {
    pub engine: Engine,
    workers: usize,
    state: StateBudget,
    pub views: HashMap<u64, Arc<Collection>>,
    pub events: Receiver<Event>,
    /// What the operators of each view told so far, by operator, worker and table.
    told: HashMap<u64, BTreeMap<(u32, usize), Vec<StateRows>>>,
}

impl Running {
    pub fn start(workers: usize) -> Self {
        Self::start_with(workers, StateBudget::default())
    }

    pub fn start_with(workers: usize, state: StateBudget) -> Self {
        let (sender, events) = channel();
        let sink = move |event| drop(sender.send(event));
        let config = EngineConfig { workers, track_state: true, state: state.clone() };
        let engine = Engine::start(config, Arc::new(sink)).unwrap();
        Self { engine, workers, state, views: HashMap::new(), events, told: HashMap::new() }
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    pub fn install(&mut self, view: u64, plan: Node, as_of: u64) {
        let output = self.output(view, &plan);
        self.engine.install(DataflowDescription {
            view: RelationId(view),
            name: format!("v{view}"),
            plan: Arc::new(plan),
            output,
            as_of: Epoch(as_of),
            resume: None,
            budget: ViewBudget::default(),
        });
    }

    fn output(&mut self, view: u64, plan: &Node) -> Arc<Collection> {
        let key = plan.properties.key.clone();
        let mut description = CollectionDescription::new(format!("v{view}"), plan.schema.clone(), key);
        description.append_only = plan.properties.append_only;
        let output = Collection::new(description, self.workers).unwrap();
        self.views.insert(view, output.clone());
        output
    }

    /// Asks for the state of a view at `epoch`, which is the next one to be sealed, and seals it.
    pub fn cut_and_seal(&mut self, view: u64, epoch: u64) {
        self.engine.cut(Epoch(epoch), [RelationId(view)].into());
        self.seal(epoch);
        for _ in 0..self.workers {
            let Event::Cut { epoch: at, worker, operators, .. } = self.next_event() else { panic!("a cut") };
            assert_eq!(at, Epoch(epoch));
            for operator in operators {
                let told = self.told.entry(view).or_default().entry((operator.node, worker)).or_default();
                told.resize_with(operator.tables.len(), || StateRows { ids: vec![], rows: no_rows() });
                told.iter_mut().zip(operator.tables).for_each(|(told, change)| merge(told, change));
            }
        }
    }

    /// Another engine, with `workers` workers, that goes on with `view` at `epoch`, where its state was told.
    pub fn resume(mut self, workers: usize, view: u64, plan: Node, epoch: u64) -> Self {
        let rows = self.views[&view].snapshot(Epoch(epoch)).unwrap().batches(None).unwrap();
        let told = self.told.remove(&view).unwrap_or_default();
        let operators = told
            .iter()
            .map(|(place, tables)| (*place, tables.iter().map(|t| Arc::new(vec![t.clone()]) as _).collect()));
        let saved = SavedState { workers: self.workers, operators: operators.collect() };
        let same_workers = self.workers == workers;
        self.engine.shutdown();
        let mut resumed = Self::start_with(workers, self.state);
        let output = resumed.output(view, &plan);
        let mut writers: Vec<_> = (0..workers).map(|worker| output.writer(worker)).collect();
        for rows in rows {
            let shards = output_shards(&plan, &rows, workers).unwrap();
            for (shard, writer) in writers.iter_mut().enumerate() {
                let mask: BooleanArray = shards.iter().map(|found| Some(*found == shard)).collect();
                writer.apply(Epoch(epoch), &Delta::inserts(filter_record_batch(&rows, &mask).unwrap())).unwrap();
            }
        }
        writers.iter_mut().for_each(|writer| writer.advance_upper(Epoch(epoch)));
        drop(writers);
        resumed.engine.seal(Epoch(epoch));
        resumed.engine.install(DataflowDescription {
            view: RelationId(view),
            name: format!("v{view}"),
            plan: Arc::new(plan),
            output,
            as_of: Epoch(epoch),
            resume: Some(Arc::new(saved)),
            budget: ViewBudget::default(),
        });
        if same_workers {
            resumed.told.insert(view, told);
        }
        resumed
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

fn no_rows() -> RecordBatch {
    RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()))
}

/// Brings what is known of a state table up to date.
fn merge(known: &mut StateRows, change: TableChange) {
    let TableChange { reset, gone, mut changed, spilled } = change;
    for piece in spilled.iter().flat_map(|spilled| (0..spilled.pieces()).map(|piece| spilled.piece(piece).unwrap())) {
        changed.ids.extend(piece.ids);
        changed.rows = concat_batches(&changed.rows.schema(), [&changed.rows, &piece.rows]).unwrap();
    }
    if reset || known.ids.is_empty() {
        known.ids.clear();
        known.rows = changed.rows.slice(0, 0);
    }
    let void: HashSet<u32> = gone.iter().chain(&changed.ids).copied().collect();
    let kept: UInt32Array =
        (0..).zip(&known.ids).filter(|(_, id)| !void.contains(id)).map(|(index, _): (u32, _)| index).collect();
    let rows = take_record_batch(&known.rows, &kept).unwrap();
    known.ids.retain(|id| !void.contains(id));
    known.ids.extend(&changed.ids);
    assert_eq!(known.ids.iter().collect::<HashSet<_>>().len(), known.ids.len(), "an id is told twice");
    known.rows = concat_batches(&changed.rows.schema(), [&rows, &changed.rows]).unwrap();
}
