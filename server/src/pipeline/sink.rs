//! Sinks, exactly once: what each has to send, and the proof that it is neither lost nor sent twice.
//!
//! After a crash the epochs after the last checkpoint are worked out anew, with other numbers and other boundaries. What
//! was sent of them could not be taken back. So a sink sends nothing but what is in a checkpoint:
//!
//! 1. The checkpoint of epoch `c` adds to the sink's *outbox* the change of its relation between the checkpoint before and
//!    `c`, in the atomic batch that makes the checkpoint the last one ([`Handover`]).
//! 2. Once that is durable, the [sender](super::sink_sender) sends the change, with `c`, in one transaction.
//! 3. Once that has been committed, it deletes the change from the outbox.
//!
//! **Invariant (I-13).** Let `p` be the sink's place: the last checkpoint that added to its outbox, or could have. The
//! changes ever added come to the relation's rows at `p` (less those at the beginning, with `snapshot = false`),
//! and those rows are in the last checkpoint.
//!
//! *Kept by* 1, as both become durable at once: a crash leaves both or neither. Where the relation goes on from
//! the checkpoint, the next change is that of the epochs after `p`, which a hold keeps readable. Where it
//! does not (a view that failed, or whose plan is another one now, is computed again), its rows at `p` stay in
//! the checkpoints until it is complete again, and the next change is the difference between the two.
//!
//! **Exactly once.** A change is in the outbox, unchanged, from its checkpoint until it is known to have been
//! committed, so it is not lost. It is sent a second time only by a new writer, after a failure or a restart. A new
//! writer learns from the system outside which epoch was the last to be committed, `e`, at a moment from which on no earlier
//! writer can commit. Changes are sent in the order of their epochs, one transaction each. So those up to `e` have been
//! committed and are deleted, and those after `e` have not. Nothing of an epoch later than `p` was ever
//! sent, so `e <= p`, and where that does not hold somebody has put back an older copy of the data: the sink fails.
//!
//! The price is that a change waits for the next checkpoint. A system outside that is down holds back
//! nobody else: what it has yet to get waits on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freshet_connectors::{Sent, Sink};
use freshet_storage::OutboxBatch;
use freshet_storage::StorageError;
use freshet_storage::checkpoint::Checkpoint;
use freshet_storage::collection::{Collection, CollectionError, Hold};
use freshet_types::{Delta, Epoch, RelationId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::catalog::CatalogState;

/// A sink of the catalog.
pub struct SinkObject {
    /// What it sends the changes of.
    pub relation: RelationId,
    pub connector: Arc<dyn Sink>,
    /// Ends its sender.
    pub cancel: CancellationToken,
    /// Whether it begins with the rows that there are.
    snapshot: bool,
    place: Mutex<Place>,
    progress: Mutex<SinkProgress>,
    /// Told when something is added to the outbox.
    added: Notify,
}

/// What the outbox has had so far.
enum Place {
    /// Nothing: no checkpoint has had the relation since the sink was made.
    Start,
    /// All changes up to an epoch, after which the relation is readable.
    Through { epoch: Epoch, hold: Hold },
    /// The same, but the relation is computed again. These were its rows, at their upper or at the hold.
    Before { epoch: Epoch, rows: Arc<Collection>, hold: Option<Hold> },
    /// It will not send any more.
    Failed { epoch: Option<Epoch> },
}

/// What a checkpoint keeps of a sink.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SavedSink {
    /// Its place.
    pub through: Option<Epoch>,
    /// Why it has failed.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SinkState {
    /// It has not been in touch with the system outside yet.
    #[default]
    Connecting,
    Running,
    /// The system outside was lost; sending goes on by itself once it is back.
    Retrying,
    Failed,
}

/// How a sink is doing.
#[derive(Debug, Clone, Default)]
pub struct SinkProgress {
    pub state: SinkState,
    /// What is in the outbox.
    pub backlog: BTreeMap<Epoch, OutboxBatch>,
    /// The last epoch that is known to have arrived.
    pub sent_epoch: Option<Epoch>,
    /// Since the start of the server.
    pub sent: Sent,
    /// The last error, and when it was, in milliseconds since 1970.
    pub last_error: Option<(String, u64)>,
}

impl SinkState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }
}

impl SinkObject {
    pub fn new(relation: RelationId, snapshot: bool, connector: Arc<dyn Sink>, cancel: CancellationToken) -> Self {
        Self {
            relation,
            connector,
            cancel,
            snapshot,
            place: Mutex::new(Place::Start),
            progress: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Takes up again where the last checkpoint left it.
    pub fn restore(&self, saved: Option<SavedSink>, backlog: BTreeMap<Epoch, OutboxBatch>, rows: Rows) {
        let Some(SavedSink { through, error }) = saved else { return };
        let mut progress = self.progress.lock();
        progress.backlog = backlog;
        let lost = "what it has sent cannot be compared with what its relation is now".to_owned();
        let (place, error) = match (error, through, rows) {
            (Some(error), epoch, _) => (Place::Failed { epoch }, Some(error)),
            (None, None, _) => (Place::Start, None),
            (None, Some(epoch), Rows::Anew(Some(rows))) => (Place::Before { epoch, rows, hold: None }, None),
            (None, Some(epoch), Rows::GoOn(collection)) => match collection.hold(epoch) {
                Ok(hold) if collection.upper() == epoch => (Place::Through { epoch, hold }, None),
                _ => (Place::Failed { epoch: through }, Some(lost)),
            },
            (None, Some(_), Rows::Anew(None)) => (Place::Failed { epoch: through }, Some(lost)),
        };
        if let Some(error) = error {
            progress.state = SinkState::Failed;
            progress.last_error = Some((error, 0));
        }
        *self.place.lock() = place;
    }

    /// The relation is computed again; these were its rows.
    pub fn computed_again(&self, rows: &Arc<Collection>) {
        let mut place = self.place.lock();
        *place = match std::mem::replace(&mut *place, Place::Start) {
            Place::Through { epoch, hold } => Place::Before { epoch, rows: rows.clone(), hold: Some(hold) },
            other => other,
        };
    }

    pub fn progress(&self) -> SinkProgress {
        self.progress.lock().clone()
    }

    /// Changes what is known of its progress.
    pub fn note(&self, change: impl FnOnce(&mut SinkProgress)) {
        change(&mut self.progress.lock());
    }

    /// Gives it up for good: what it would have to send cannot be sent.
    pub fn fail(&self, error: String, now_ms: u64) {
        {
            let mut place = self.place.lock();
            *place = Place::Failed { epoch: place.epoch() };
        }
        self.note(|progress| {
            progress.state = SinkState::Failed;
            progress.last_error = Some((error, now_ms));
        });
    }

    /// All changes up to this epoch have been put into the outbox; `None` before the first.
    pub fn place(&self) -> Option<Epoch> {
        self.place.lock().epoch()
    }

    /// Waits until something has been added to the outbox since the last time.
    pub async fn added(&self) {
        self.added.notified().await;
    }

    /// What the relation has become by epoch `at`, since the sink's place.
    fn change(&self, relation: &Collection, at: Epoch) -> Result<Option<Delta>, CollectionError> {
        let schema = &relation.description().schema;
        let all = |collection: &Collection, at| {
            let batches = collection.snapshot(at)?.batches(None)?;
            Ok::<Vec<Delta>, CollectionError>(batches.into_iter().map(Delta::inserts).collect())
        };
        let parts = match &*self.place.lock() {
            Place::Failed { .. } => return Ok(None),
            Place::Start if !self.snapshot => Vec::new(),
            Place::Start => all(relation, at)?,
            Place::Through { epoch, .. } => {
                relation.changes(*epoch, at)?.into_iter().map(|(_, change)| change).collect()
            }
            Place::Before { rows, hold, .. } => {
                let was_at = hold.as_ref().map_or_else(|| rows.upper(), Hold::epoch);
                let before = all(rows, was_at)?.into_iter().map(|rows| rows.negate());
                all(relation, at)?.into_iter().chain(before).collect()
            }
        };
        Ok(Some(Delta::concat(schema, &parts)?.consolidate()?))
    }

    fn saved(&self) -> SavedSink {
        let error = match &*self.place.lock() {
            Place::Failed { .. } => self.progress.lock().last_error.clone().map(|(error, _)| error),
            _ => None,
        };
        SavedSink { through: self.place(), error }
    }
}

impl Place {
    fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Start => None,
            Self::Through { epoch, .. } | Self::Before { epoch, .. } => Some(*epoch),
            Self::Failed { epoch } => *epoch,
        }
    }
}

/// The rows of a sink's relation after a restart.
pub enum Rows {
    /// Those of the checkpoint, and what follows.
    GoOn(Arc<Collection>),
    /// It is computed again. These were the rows of the checkpoint.
    Anew(Option<Arc<Collection>>),
}

/// What one checkpoint hands over to sinks, once it is durable.
#[derive(Default)]
pub struct Handover {
    added: Vec<Added>,
    /// Relations whose rows a sink still needs as the last checkpoint has them.
    pub needed: BTreeSet<RelationId>,
    pub saved: BTreeMap<RelationId, SavedSink>,
}

struct Added {
    sink: Arc<SinkObject>,
    epoch: Epoch,
    hold: Hold,
    batch: Option<OutboxBatch>,
}

impl Handover {
    /// Adds to the outboxes of all sinks whose relation is in the checkpoint of `epoch`: one of `stored`.
    ///
    /// # Errors
    /// If a change cannot be written down.
    pub fn new(
        catalog: &CatalogState,
        checkpoint: &mut Checkpoint<'_>,
        epoch: Epoch,
        stored: &BTreeSet<RelationId>,
    ) -> Result<Self, StorageError> {
        let mut handover = Self::default();
        for (entry, sink) in catalog.sinks() {
            let mut saved = sink.saved();
            match catalog.collection(sink.relation).filter(|_| stored.contains(&sink.relation)) {
                None if saved.through.is_some() && saved.error.is_none() => {
                    handover.needed.insert(sink.relation);
                }
                None => {}
                Some(collection) => {
                    match sink.change(collection, epoch).and_then(|change| Ok((change, collection.hold(epoch)?))) {
                        Ok((None, _)) => {}
                        Ok((Some(change), hold)) => {
                            let batch = match change.is_empty() {
                                true => None,
                                false => Some(OutboxBatch { bytes: checkpoint.outbox(entry.id(), &change)? }),
                            };
                            saved.through = Some(epoch);
                            handover.added.push(Added { sink: sink.clone(), epoch, hold, batch });
                        }
                        Err(cause) => {
                            error!(sink = entry.name(), "cannot tell what has changed: {cause}");
                            sink.fail(cause.to_string(), epoch.millis());
                            saved = sink.saved();
                        }
                    }
                }
            }
            handover.saved.insert(entry.id(), saved);
        }
        Ok(handover)
    }

    /// The checkpoint is durable.
    pub fn done(self) {
        for Added { sink, epoch, hold, batch } in self.added {
            {
                let mut place = sink.place.lock();
                if matches!(*place, Place::Failed { .. }) {
                    continue;
                }
                *place = Place::Through { epoch, hold };
            }
            if let Some(batch) = batch {
                sink.note(|progress| _ = progress.backlog.insert(epoch, batch));
                sink.added.notify_one();
            }
        }
    }
}
