//! The sources that views read at the moment: their readers, their positions, and their dead letters.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use freshet_connectors::{Counted, Offsets};
use freshet_storage::collection::Collection;
use freshet_types::{Delta, Epoch, RelationId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::SourceObject;
use crate::pipeline::dead_letters::LetterBox;
use crate::pipeline::reader::{Ingest, Reader};
use crate::task;

/// A source as a new view needs it.
#[derive(Clone)]
pub struct SourceInput {
    pub id: RelationId,
    pub name: String,
    pub object: Arc<SourceObject>,
    /// Indices of the columns that the view reads.
    pub columns: Vec<usize>,
}

/// All sources that are being read.
pub struct SourceStates {
    states: HashMap<RelationId, SourceState>,
    letters: HashMap<RelationId, LetterBox>,
    /// How far sources have been read that nobody reads now. They go on from there: what a record was found to be, a row
    /// or a dead letter, it was found to be once.
    paused: HashMap<RelationId, SourcePosition>,
    queue: mpsc::Sender<Ingest>,
    cancel: CancellationToken,
}

/// How far a source has been read, and what was counted on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    pub offsets: Offsets,
    pub counted: Counted,
}

struct SourceState {
    input: SourceInput,
    columns: BTreeSet<usize>,
    /// Exactly what is sealed.
    offsets: Offsets,
    moved: bool,
    generation: u64,
    /// Ends the running reader; `None` while it is to be (re)started.
    reader: Option<CancellationToken>,
}

impl SourceState {
    fn position(&self) -> SourcePosition {
        SourcePosition { offsets: self.offsets.clone(), counted: self.input.object.connector.status().counted() }
    }
}

impl SourceStates {
    pub fn new(queue: mpsc::Sender<Ingest>, cancel: CancellationToken) -> Self {
        Self { states: HashMap::new(), letters: HashMap::new(), paused: HashMap::new(), queue, cancel }
    }

    /// Takes over the dead letters of a source, which outlive its readers. `read` is how far it has been read before.
    pub fn add(
        &mut self,
        source: RelationId,
        dead_letters: &Arc<Collection>,
        last: Epoch,
        read: Option<SourcePosition>,
    ) {
        let mut letters = LetterBox::new(dead_letters);
        letters.advance_upper(last);
        self.letters.insert(source, letters);
        self.paused.extend(read.map(|position| (source, position)));
    }

    pub fn forget(&mut self, source: RelationId) {
        self.stop(source);
        self.letters.remove(&source);
        self.paused.remove(&source);
    }

    /// All sources that there are.
    pub fn ids(&self) -> Vec<RelationId> {
        self.letters.keys().copied().collect()
    }

    /// How far each source has been read that ever was.
    pub fn positions(&self) -> HashMap<RelationId, SourcePosition> {
        let mut positions = self.paused.clone();
        positions.extend(self.states.iter().map(|(id, state)| (*id, state.position())));
        positions
    }

    /// Sees to it that the columns of `input` are read, and tells how far the source has been read at `last`, the last
    /// sealed epoch. Readers start with [`SourceStates::start_readers`].
    pub fn require(&mut self, input: &SourceInput, last: Epoch) -> Offsets {
        let paused = &mut self.paused;
        let state = self.states.entry(input.id).or_insert_with(|| {
            let paused = paused.remove(&input.id).map(|position| position.offsets);
            let offsets = paused.unwrap_or_else(|| input.object.start.clone());
            input.object.progress.seal(last, offsets.clone());
            SourceState {
                input: input.clone(),
                columns: BTreeSet::new(),
                offsets,
                moved: false,
                generation: 0,
                reader: None,
            }
        });
        let columns_before = state.columns.len();
        state.columns.extend(&input.columns);
        if state.columns.len() > columns_before
            && let Some(reader) = state.reader.take()
        {
            reader.cancel();
        }
        state.offsets.clone()
    }

    /// Starts the readers that are not running. What an earlier reader of the same source still has on its way is of
    /// an older generation, and will not be accepted: the new one reads it again.
    pub fn start_readers(&mut self) {
        for state in self.states.values_mut().filter(|state| state.reader.is_none()) {
            let cancel = self.cancel.child_token();
            state.generation += 1;
            let reader = Reader {
                source: state.input.id,
                name: state.input.name.clone(),
                generation: state.generation,
                connector: state.input.object.connector.clone(),
                from: state.offsets.clone(),
                columns: state.columns.iter().copied().collect(),
                queue: self.queue.clone(),
            };
            task::spawn(format!("read {}", state.input.name), cancel.clone(), reader.run());
            state.reader = Some(cancel);
        }
    }

    /// Takes a batch into `epoch`; `None` if it is from a reader that has been replaced.
    pub fn accept(&mut self, epoch: Epoch, ingest: Ingest) -> Option<(RelationId, Delta)> {
        let state = self.states.get_mut(&ingest.source)?;
        if state.generation != ingest.generation {
            return None;
        }
        let batch = ingest.batch;
        state.input.object.connector.status().count(&batch);
        state.offsets.0.extend(batch.offsets.0);
        state.moved = true;
        let name = state.input.name.clone();
        metrics::counter!("freshet_source_rows_total", "source" => name.clone())
            .increment(batch.rows.num_rows() as u64);
        metrics::counter!("freshet_source_bytes_total", "source" => name.clone()).increment(batch.bytes as u64);
        if !batch.dead_letters.is_empty() {
            metrics::counter!("freshet_source_dead_letters_total", "source" => name.clone())
                .increment(batch.dead_letters.len() as u64);
            if let Some(letters) = self.letters.get_mut(&ingest.source) {
                letters.keep(epoch, &name, batch.dead_letters);
            }
        }
        Some((ingest.source, Delta::inserts(batch.rows)))
    }

    /// Records the positions of `epoch`, and makes its dead letters readable.
    pub fn seal(&mut self, epoch: Epoch) {
        for state in self.states.values_mut().filter(|state| state.moved) {
            state.input.object.progress.seal(epoch, state.offsets.clone());
            state.moved = false;
        }
        for letters in self.letters.values_mut() {
            letters.advance_upper(epoch);
        }
    }

    /// Ends the reading of a source that no view needs any more.
    pub fn stop(&mut self, source: RelationId) {
        let Some(state) = self.states.remove(&source) else { return };
        if let Some(reader) = &state.reader {
            reader.cancel();
        }
        state.input.object.progress.clear();
        self.paused.insert(source, state.position());
    }
}
