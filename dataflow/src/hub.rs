//! The exchange of deltas between the dataflows of one worker: who reads what, and how far each relation is.
//!
//! Tables and sources are fed by the engine and are complete up to the last sealed epoch. A view that runs on this worker
//! is fed by its own output, and is complete up to where that output is. When a view is removed, its readers stay
//! where they are; they never advance again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use freshet_types::{Delta, RelationId};
use timely::scheduling::Activator;

use crate::operators::input::Import;

/// The relations of one worker and their readers.
#[derive(Default)]
pub struct Hub {
    /// The first epoch that is not sealed.
    sealed_frontier: u64,
    /// The first epoch that is not complete, for each view that runs here.
    views: HashMap<RelationId, u64>,
    readers: HashMap<RelationId, Vec<Reader>>,
    /// Imports that change never but follow the sealed epochs: constants.
    clocks: Vec<Reader>,
}

struct Reader {
    /// The view whose dataflow reads.
    view: RelationId,
    import: ImportHandle,
}

/// An import and the way to wake its operator.
#[derive(Clone)]
pub struct ImportHandle {
    import: Rc<RefCell<Import>>,
    activator: Activator,
}

impl ImportHandle {
    pub fn new(import: Rc<RefCell<Import>>, activator: Activator) -> Self {
        Self { import, activator }
    }

    pub fn push_snapshot(&self, delta: &Delta) {
        self.import.borrow_mut().push_snapshot(delta);
        self.activator.activate();
    }

    pub fn finish_snapshot(&self) {
        self.import.borrow_mut().finish_snapshot();
        self.activator.activate();
    }

    fn push_live(&self, epoch: u64, delta: &Delta) {
        self.import.borrow_mut().push_live(epoch, delta);
        self.activator.activate();
    }

    fn advance(&self, frontier: u64) {
        self.import.borrow_mut().advance(frontier);
        self.activator.activate();
    }
}

impl Hub {
    /// Whether `relation` is a view that runs on this worker.
    pub fn is_view(&self, relation: RelationId) -> bool {
        self.views.contains_key(&relation)
    }

    /// Whether anything reads `relation`. Who does not yet, and begins with a snapshot of it, has no need of what is published before.
    pub fn is_read(&self, relation: RelationId) -> bool {
        self.readers.contains_key(&relation)
    }

    /// A view starts to run.
    pub fn add_view(&mut self, view: RelationId) {
        self.views.insert(view, 0);
    }

    /// `import`, which is part of `view`, reads `relation` from now on.
    pub fn add_reader(&mut self, view: RelationId, relation: RelationId, import: ImportHandle) {
        import.advance(self.views.get(&relation).copied().unwrap_or(self.sealed_frontier));
        self.readers.entry(relation).or_default().push(Reader { view, import });
    }

    /// `import`, which is part of `view`, follows the sealed epochs from now on.
    pub fn add_clock(&mut self, view: RelationId, import: ImportHandle) {
        import.advance(self.sealed_frontier);
        self.clocks.push(Reader { view, import });
    }

    /// A view is taken down: it reads no more, and is read no more.
    pub fn remove(&mut self, view: RelationId) {
        if self.views.remove(&view).is_some() {
            self.readers.remove(&view);
        }
        for readers in self.readers.values_mut() {
            readers.retain(|reader| reader.view != view);
        }
        self.readers.retain(|_, readers| !readers.is_empty());
        self.clocks.retain(|reader| reader.view != view);
    }

    /// Hands changes of `relation` to all that read it.
    pub fn publish(&self, relation: RelationId, epoch: u64, delta: &Delta) {
        for reader in self.readers.get(&relation).into_iter().flatten() {
            reader.import.push_live(epoch, delta);
        }
    }

    /// All changes of tables and sources up to `epoch` have been published.
    pub fn seal(&mut self, epoch: u64) {
        self.sealed_frontier = self.sealed_frontier.max(epoch + 1);
        let views = &self.views;
        let fed = self.readers.iter().filter(|(relation, _)| !views.contains_key(relation));
        for reader in fed.flat_map(|(_, readers)| readers).chain(&self.clocks) {
            reader.import.advance(self.sealed_frontier);
        }
    }

    /// A view's output will not change any more at epochs before `frontier`.
    pub fn advance_view(&mut self, view: RelationId, frontier: u64) {
        if let Some(at) = self.views.get_mut(&view) {
            *at = frontier;
            for reader in self.readers.get(&view).into_iter().flatten() {
                reader.import.advance(frontier);
            }
        }
    }
}
