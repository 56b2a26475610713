//! The engine as its owner sees it: calls become commands to the worker threads.
//!
//! A worker thread sleeps until a command or another worker wakes it; an idle engine costs nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Thread;

use freshet_types::{Delta, Epoch, RelationId};
use parking_lot::Mutex;
use timely::communication::WorkerGuards;

use crate::commands::{Command, Installation};
use crate::health::{EventSink, ViewHealth};
use crate::memory::{EngineMemory, ViewMemory};
use crate::{DataflowDescription, EngineConfig, Event, limits, worker};

/// Worker threads, and the views they maintain. Dropping it stops them.
pub struct Engine {
    mailboxes: Mutex<Mailboxes>,
    on_event: EventSink,
    track_state: bool,
    memory: Arc<EngineMemory>,
    /// Taken when the engine stops.
    workers: Mutex<Option<WorkerGuards<()>>>,
}

/// The way to each worker, under one lock: commands to all workers reach them in one order.
struct Mailboxes {
    workers: Vec<Mailbox>,
    /// The worker that gets the next small batch.
    turn: usize,
    memory: Arc<EngineMemory>,
}

struct Mailbox {
    commands: Sender<Command>,
    thread: Thread,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// If there are no workers to start, or a thread cannot be started.
    pub fn start(config: EngineConfig, on_event: Arc<dyn Fn(Event) + Send + Sync>) -> Result<Self, String> {
        if config.workers == 0 {
            return Err("an engine needs at least one worker".to_string());
        }
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..config.workers).map(|_| channel()).unzip();
        let receivers: Vec<Mutex<Option<Receiver<Command>>>> =
            receivers.into_iter().map(|receiver| Mutex::new(Some(receiver))).collect();
        let (ready, started) = channel();
        let memory = EngineMemory::new(config.state);
        let books = memory.clone();
        let guards = timely::execute(timely::Config::process(config.workers), move |timely| {
            let commands = receivers[timely.index()].lock().take().expect("each worker is started once");
            let _ = ready.send((timely.index(), std::thread::current()));
            worker::run(timely, &commands, books.clone());
        })?;
        let mut threads: Vec<(usize, Thread)> = started.iter().take(config.workers).collect();
        threads.sort_by_key(|(index, _)| *index);
        let mailbox = |(commands, (_, thread))| Mailbox { commands, thread };
        let workers = senders.into_iter().zip(threads).map(mailbox).collect();
        Ok(Self {
            mailboxes: Mutex::new(Mailboxes { workers, turn: 0, memory: memory.clone() }),
            on_event,
            track_state: config.track_state,
            memory,
            workers: Mutex::new(Some(guards)),
        })
    }

    /// Builds the dataflow on every worker. Each input of its plan then waits for its snapshot.
    pub fn install(&self, description: DataflowDescription) {
        let health = ViewHealth::new(description.view, &description.name, self.on_event.clone());
        let memory = ViewMemory::new(description.view, description.budget, self.memory.clone());
        let installation = Arc::new(Installation { description, health, track_state: self.track_state, memory });
        self.mailboxes.lock().send_to_all(|| Command::Install(installation.clone()));
    }

    /// Rows of `relation` at the dataflow's `as_of`; may be called many times, from any thread.
    pub fn feed_snapshot(&self, view: RelationId, relation: RelationId, delta: Delta) {
        self.mailboxes.lock().spread(delta, |delta| Command::Snapshot { view, relation, delta });
    }

    /// The snapshot of `relation` is complete.
    pub fn finish_snapshot(&self, view: RelationId, relation: RelationId) {
        self.mailboxes.lock().send_to_all(|| Command::FinishSnapshot { view, relation });
    }

    /// Takes the dataflow down on every worker. Views that read it stay at the last epoch they completed.
    pub fn remove(&self, view: RelationId) {
        self.mailboxes.lock().send_to_all(|| Command::Remove { view });
    }

    /// Changes of a table or source at `epoch`, which is later than the last sealed one; goes to every dataflow that
    /// reads it.
    pub fn feed(&self, relation: RelationId, epoch: Epoch, delta: Delta) {
        self.mailboxes.lock().spread(delta, |delta| Command::Feed { relation, epoch, delta });
    }

    /// Asks `views` for what has changed in their state since they were last asked, as it is at `epoch`, the next one to
    /// be sealed. Each worker of each view answers with an [`Event::Cut`], unless the view fails or is removed.
    pub fn cut(&self, epoch: Epoch, views: Arc<[RelationId]>) {
        self.mailboxes.lock().send_to_all(|| Command::Cut { epoch, views: views.clone() });
    }

    /// Says that all deltas up to and including `epoch` have been fed.
    pub fn seal(&self, epoch: Epoch) {
        self.mailboxes.lock().send_to_all(|| Command::Seal { epoch });
    }

    /// Who holds how much.
    pub fn memory(&self) -> &Arc<EngineMemory> {
        &self.memory
    }

    /// Stops the workers and waits for them.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(workers) = self.workers.lock().take() {
            self.mailboxes.lock().send_to_all(|| Command::Shutdown);
            for result in workers.join() {
                if let Err(error) = result {
                    tracing::error!(error, "a dataflow worker panicked");
                }
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Mailboxes {
    fn send_to_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            worker.send(command());
        }
    }

    /// Sends a small delta to one worker in turn, and cuts a large one into parts for all.
    fn spread(&mut self, delta: Delta, command: impl Fn(Delta) -> Command) {
        let workers = self.workers.len();
        let mut part_rows = limits::BATCH_ROWS_MAX;
        if workers > 1 && delta.len() >= limits::SPREAD_ROWS_MIN {
            part_rows = part_rows.min(delta.len().div_ceil(workers));
        }
        let mut offset = 0;
        while offset < delta.len() {
            let rows = part_rows.min(delta.len() - offset);
            let part = delta.slice(offset, rows);
            self.memory.sent(&part);
            self.workers[self.turn].send(command(part));
            self.turn = (self.turn + 1) % workers;
            offset += rows;
        }
    }
}

impl Mailbox {
    fn send(&self, command: Command) {
        // A worker that is gone panicked outside of any view's guard, which its join reports.
        let _ = self.commands.send(command);
        self.thread.unpark();
    }
}
