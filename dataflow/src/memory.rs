//! Who holds how much: the state of operators, by view and in all, and what waits on its way to them.
//!
//! Each operator tells what it holds after every batch; the sums are kept as it does, so that asking whether a budget is
//! used up costs two loads. An operator whose view, or the engine, is over its budget moves to the disk what it can.
//! Which of several does so first is left to chance: the one that works, and holds its share. Those that have
//! nothing to do look with every epoch that is sealed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use freshet_storage::spill::SpillFolder;
use freshet_types::{Delta, RelationId};
use parking_lot::Mutex;

use crate::operators::state::Room;

/// What an operator holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateMemory {
    pub memory_bytes: usize,
    /// The part of it that can be moved to the disk.
    pub spillable_bytes: usize,
    pub disk_bytes: usize,
}

impl StateMemory {
    /// What stays in memory.
    pub fn fixed(memory_bytes: usize) -> Self {
        Self { memory_bytes, ..Self::default() }
    }
}

/// What the state of all views may hold in memory, and where the rest goes.
#[derive(Debug, Clone)]
pub struct StateBudget {
    pub bytes_max: u64,
    /// Without one, nothing can go anywhere.
    pub folder: Option<Arc<SpillFolder>>,
}

impl Default for StateBudget {
    fn default() -> Self {
        Self { bytes_max: u64::MAX, folder: None }
    }
}

/// What the state of one view may hold in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewBudget {
    /// `None`: as much as the engine has.
    pub bytes_max: Option<u64>,
    pub on_limit: OnLimit,
}

/// What becomes of a view that has used up its budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnLimit {
    /// State goes to the disk, as far as it can.
    #[default]
    Spill,
    /// The view stops, and stays readable as it is.
    Pause,
}

/// What one operator holds on one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorMemory {
    pub view: RelationId,
    pub operator: &'static str,
    /// Its number among those of the view that have state.
    pub node: u32,
    pub worker: usize,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// The books of an engine.
#[derive(Debug, Default)]
pub struct EngineMemory {
    budget: StateBudget,
    used: AtomicU64,
    /// Operators that could spill.
    spillable: AtomicUsize,
    queued: AtomicU64,
    accounts: Mutex<Vec<Weak<Account>>>,
}

#[derive(Debug)]
struct Account {
    view: RelationId,
    operator: &'static str,
    node: u32,
    worker: usize,
    memory: AtomicU64,
    disk: AtomicU64,
}

impl EngineMemory {
    pub fn new(budget: StateBudget) -> Arc<Self> {
        Arc::new(Self { budget, ..Self::default() })
    }

    /// Bytes that the state of all views holds in memory.
    pub fn state_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of deltas on their way to the operators. One that several views read counts for each.
    pub fn queued_bytes(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Every operator with state, in no order.
    pub fn operators(&self) -> Vec<OperatorMemory> {
        let accounts = self.accounts.lock();
        let told = accounts.iter().filter_map(Weak::upgrade).map(|account| OperatorMemory {
            view: account.view,
            operator: account.operator,
            node: account.node,
            worker: account.worker,
            memory_bytes: account.memory.load(Ordering::Relaxed),
            disk_bytes: account.disk.load(Ordering::Relaxed),
        });
        told.collect()
    }

    fn queue(&self, bytes: usize) {
        self.queued.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn unqueue(&self, bytes: usize) {
        self.queued.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// A delta is sent to a worker.
    pub(crate) fn sent(&self, delta: &Delta) {
        self.queue(delta.slice_bytes());
    }

    /// A delta that was sent has come.
    pub(crate) fn received(&self, delta: &Delta) {
        self.unqueue(delta.slice_bytes());
    }
}

/// The bytes that wait in one queue, as part of those of an engine. Nothing is left of them when it is dropped.
#[derive(Debug, Default)]
pub struct Queue {
    engine: Option<Arc<EngineMemory>>,
    bytes: usize,
}

impl Queue {
    pub fn of(engine: Arc<EngineMemory>) -> Self {
        Self { engine: Some(engine), bytes: 0 }
    }

    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(engine) = &self.engine {
            engine.queue(bytes);
        }
    }

    pub fn take(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(engine) = &self.engine {
            engine.unqueue(bytes);
        }
    }

    pub fn clear(&mut self) {
        self.take(self.bytes);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The books of one view, on all workers.
#[derive(Debug)]
pub struct ViewMemory {
    view: RelationId,
    budget: ViewBudget,
    used: AtomicU64,
    spillable: AtomicUsize,
    engine: Arc<EngineMemory>,
}

impl ViewMemory {
    pub fn new(view: RelationId, budget: ViewBudget, engine: Arc<EngineMemory>) -> Arc<Self> {
        Arc::new(Self { view, budget, used: AtomicU64::new(0), spillable: AtomicUsize::new(0), engine })
    }

    /// The limit at which state of the view goes to the disk, whatever room the engine has.
    fn own_limit(&self) -> Option<u64> {
        self.budget.bytes_max.filter(|_| self.budget.on_limit == OnLimit::Spill)
    }

    /// What one operator may hold while its saved rows come back.
    pub fn room(&self) -> Option<Room> {
        let StateBudget { bytes_max, folder } = &self.engine.budget;
        let bytes_max = bytes_max.min(&self.budget.bytes_max.unwrap_or(u64::MAX)) / SPILL_SHARE;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        folder.clone().map(|folder| Room { bytes_max, folder })
    }

    pub fn engine(&self) -> &Arc<EngineMemory> {
        &self.engine
    }

    /// Opens the account of an operator.
    pub fn account(self: &Arc<Self>, operator: &'static str, node: u32, worker: usize) -> OperatorAccount {
        let (memory, disk) = (AtomicU64::new(0), AtomicU64::new(0));
        let account = Arc::new(Account { view: self.view, operator, node, worker, memory, disk });
        let mut accounts = self.engine.accounts.lock();
        accounts.retain(|account| account.strong_count() > 0);
        accounts.push(Arc::downgrade(&account));
        OperatorAccount { account, view: self.clone(), last: StateMemory::default() }
    }
}

/// The account of one operator on one worker. What is on it is off the books when it is dropped.
#[derive(Debug)]
pub struct OperatorAccount {
    account: Arc<Account>,
    view: Arc<ViewMemory>,
    last: StateMemory,
}

/// A share of a budget below which state is not worth moving, for each operator that could move some: a quarter of
/// it may be used up by such.
const SPILL_SHARE: u64 = 4;

impl OperatorAccount {
    pub fn set(&mut self, now: StateMemory) {
        let (before, after) = (self.last.memory_bytes as u64, now.memory_bytes as u64);
        for used in [&self.view.used, &self.view.engine.used] {
            if after >= before {
                used.fetch_add(after - before, Ordering::Relaxed);
            } else {
                used.fetch_sub(before - after, Ordering::Relaxed);
            }
        }
        let could_spill = |memory: &StateMemory| usize::from(memory.spillable_bytes > 0);
        for spillable in [&self.view.spillable, &self.view.engine.spillable] {
            spillable.fetch_add(could_spill(&now), Ordering::Relaxed);
            spillable.fetch_sub(could_spill(&self.last), Ordering::Relaxed);
        }
        self.account.memory.store(after, Ordering::Relaxed);
        self.account.disk.store(now.disk_bytes as u64, Ordering::Relaxed);
        self.last = now;
    }

    /// Where the operator is to move state, if it is to.
    pub fn must_spill(&self) -> Option<&Arc<SpillFolder>> {
        let ViewMemory { engine, used, spillable, .. } = &*self.view;
        let folder = engine.budget.folder.as_ref()?;
        let own_limit = self.view.own_limit();
        let budgets = [(own_limit, used, spillable), (Some(engine.budget.bytes_max), &engine.used, &engine.spillable)];
        let is_due = budgets.into_iter().any(|(bytes_max, used, spillable)| {
            let Some(bytes_max) = bytes_max.filter(|bytes_max| used.load(Ordering::Relaxed) > *bytes_max) else {
                return false;
            };
            let operators = spillable.load(Ordering::Relaxed).max(1) as u64;
            self.last.spillable_bytes as u64 > bytes_max / (SPILL_SHARE * operators)
        });
        is_due.then_some(folder)
    }

    /// What the view uses and may use, if it is to pause for it.
    pub fn must_pause(&self) -> Option<(u64, u64)> {
        let ViewBudget { bytes_max, on_limit } = self.view.budget;
        let used = self.view.used.load(Ordering::Relaxed);
        let bytes_max = bytes_max.filter(|bytes_max| on_limit == OnLimit::Pause && used > *bytes_max);
        bytes_max.map(|bytes_max| (used, bytes_max))
    }
}

impl Drop for OperatorAccount {
    fn drop(&mut self) {
        self.set(StateMemory::default());
    }
}
