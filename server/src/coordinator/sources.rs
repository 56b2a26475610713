//! The sources that views read at the moment: their readers, their positions, and their dead letters.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use freshet_connectors::Offsets;
use freshet_storage::collection::ShardWriter;
use freshet_types::{Delta, Epoch, RelationId};
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
    queue: mpsc::Sender<Ingest>,
    cancel: CancellationToken,
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

impl SourceStates {
    pub fn new(queue: mpsc::Sender<Ingest>, cancel: CancellationToken) -> Self {
        Self { states: HashMap::new(), letters: HashMap::new(), queue, cancel }
    }

    /// Takes over the dead letters of a source, which outlive its readers.
    pub fn add(&mut self, source: RelationId, writer: ShardWriter) {
        self.letters.insert(source, LetterBox::new(writer));
    }

    pub fn forget(&mut self, source: RelationId) {
        self.stop(source);
        self.letters.remove(&source);
    }

    /// Sees to it that the columns of `input` are read, and tells how far the source has been read at `last`, the last
    /// sealed epoch. Readers start with [`SourceStates::start_readers`].
    pub fn require(&mut self, input: &SourceInput, last: Epoch) -> Offsets {
        let state = self.states.entry(input.id).or_insert_with(|| {
            input.object.progress.seal(last, input.object.start.clone());
            input.object.connector.status().start_over();
            SourceState {
                input: input.clone(),
                columns: BTreeSet::new(),
                offsets: input.object.start.clone(),
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
        if let Some(reader) = state.reader {
            reader.cancel();
        }
        state.input.object.progress.clear();
    }
}
