//! One worker thread: carries out commands, lets its dataflows run, and sleeps when there is neither.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use freshet_types::{Delta, RelationId};
use timely::worker::Worker as Timely;

use crate::build;
use crate::commands::{Command, Installation};
use crate::cuts::ViewCuts;
use crate::hub::{Hub, ImportHandle};
use crate::limits;
use crate::memory::EngineMemory;

/// Whether the worker goes on.
#[derive(PartialEq)]
enum Flow {
    Continue,
    Stop,
}

/// Runs until it is told to shut down.
pub fn run(timely: &mut Timely, commands: &Receiver<Command>, memory: Arc<EngineMemory>) {
    let mut worker = Worker { timely, hub: Rc::default(), views: HashMap::new(), memory };
    loop {
        let mut carried_out = 0;
        while carried_out < limits::COMMANDS_PER_TURN
            && let Ok(command) = commands.try_recv()
        {
            if worker.carry_out(command) == Flow::Stop {
                return worker.take_all_down();
            }
            carried_out += 1;
        }
        // Sends wake the thread after the command is in the channel, so none is overlooked by sleeping here.
        let sleep = if carried_out < limits::COMMANDS_PER_TURN { None } else { Some(Duration::ZERO) };
        worker.timely.step_or_park(sleep);
    }
}

struct Worker<'a> {
    timely: &'a mut Timely,
    hub: Rc<RefCell<Hub>>,
    views: HashMap<RelationId, RunningView>,
    memory: Arc<EngineMemory>,
}

/// One view's dataflow on this worker.
pub struct RunningView {
    /// Timely's number for it; `None` if it could not be built.
    pub dataflow: Option<usize>,
    /// The inputs of each relation it reads: a self-join has several.
    pub imports: HashMap<RelationId, Vec<ImportHandle>>,
    pub cuts: ViewCuts,
}

impl Worker<'_> {
    fn carry_out(&mut self, command: Command) -> Flow {
        match command {
            Command::Install(installation) => self.install(&installation),
            Command::Snapshot { view, relation, delta } => {
                self.snapshot(view, relation, &delta);
                self.memory.received(&delta);
            }
            Command::FinishSnapshot { view, relation } => {
                self.imports(view, relation).iter().for_each(ImportHandle::finish_snapshot);
            }
            Command::Remove { view } => self.remove(view),
            Command::Feed { relation, epoch, delta } => {
                self.hub.borrow().publish(relation, epoch.0, &delta);
                self.memory.received(&delta);
            }
            Command::Cut { epoch, views } => {
                views.iter().filter_map(|view| self.views.get(view)).for_each(|view| view.cuts.announce(epoch.0));
            }
            Command::Seal { epoch } => self.hub.borrow_mut().seal(epoch.0),
            Command::Shutdown => return Flow::Stop,
        }
        Flow::Continue
    }

    fn install(&mut self, installation: &Installation) {
        let view = installation.description.view;
        // A view that is installed again starts anew.
        self.remove(view);
        let running = build::install(self.timely, &self.hub, installation);
        self.views.insert(view, running);
    }

    fn imports(&self, view: RelationId, relation: RelationId) -> &[ImportHandle] {
        self.views.get(&view).and_then(|running| running.imports.get(&relation)).map_or(&[], Vec::as_slice)
    }

    fn snapshot(&self, view: RelationId, relation: RelationId, delta: &Delta) {
        for import in self.imports(view, relation) {
            import.push_snapshot(delta);
        }
    }

    fn remove(&mut self, view: RelationId) {
        self.hub.borrow_mut().remove(view);
        if let Some(RunningView { dataflow: Some(dataflow), .. }) = self.views.remove(&view) {
            self.timely.drop_dataflow(dataflow);
        }
    }

    fn take_all_down(mut self) {
        let views: Vec<RelationId> = self.views.keys().copied().collect();
        for view in views {
            self.remove(view);
        }
    }
}
