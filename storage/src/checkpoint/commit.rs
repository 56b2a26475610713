//! Making a checkpoint (I-9, I-10): gather, write one file, commit, and only then forget.
//!
//! What is durable (the manifest) and what has been told (collections, state logs) are kept apart. A checkpoint writes the
//! difference. If it fails at any point, or its future is dropped, the manifest in memory is still the one
//! that is durable, or that differs from it in the records of the batch whose outcome nobody knows: the next batch writes
//! these again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use freshet_types::{Delta, Epoch, RelationId};

use super::change::TableChange;
use super::file::{CheckpointFiles, FileWriter};
use super::manifest::{Head, Manifest, Part, Piece, PieceId, StoredSegment};
use super::recover::{Recovered, Returned};
use super::state_log::StateLog;
use super::{garbage, segments, staging, tiered, versions};
use crate::backup::BackupSource;
use crate::collection::restore::ShardAt;
use crate::collection::segment::Segment;
use crate::collection::{Collection, CollectionError};
use crate::group_commit::{GroupCommit, Write};
use crate::iceberg::ColdRows;
use crate::{StorageError, Store, WalKey, outbox};

/// Makes checkpoints, one after the other. One a store.
pub struct Checkpoints {
    commits: Arc<GroupCommit>,
    pub(super) files: CheckpointFiles,
    pub(super) next_number: Arc<AtomicU64>,
    /// What is durable, except for the records `uncertain`.
    pub(super) manifest: Manifest,
    /// Keys of batches that failed. Such a batch may be there after all.
    pub(super) uncertain: BTreeSet<Bytes>,
    /// All state tables that have been told of.
    pub(super) logs: BTreeMap<PieceId, StateLog>,
    /// Segments of state tables that are in files of their own since the last checkpoint, so that memory need not hold them.
    pub(super) staged: BTreeMap<PieceId, Piece>,
    returned: Returned,
    /// Pieces of the manifest that are not to be in the next.
    forgotten: BTreeSet<PieceId>,
    /// Records of logs that a failed checkpoint would have deleted.
    contained: BTreeSet<WalKey>,
    /// The files that may be there, and the sizes of those that are.
    pub(super) sizes: BTreeMap<u64, u64>,
    /// Held by all who read the files of a checkpoint that was made.
    pin: Arc<()>,
}

/// A checkpoint that is being made.
pub struct Checkpoint<'a> {
    checkpoints: &'a mut Checkpoints,
    epoch: Epoch,
    collections: BTreeMap<RelationId, Vec<ShardAt>>,
    outbox: Vec<Write>,
}

/// What a checkpoint was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointStats {
    pub epoch: Epoch,
    /// Bytes of the file written.
    pub bytes: u64,
    /// Rows written, those that were taken along from other files not counted.
    pub rows: usize,
    /// Files that are there afterwards.
    pub files: usize,
}

/// A checkpoint whose file is written.
pub(super) struct Prepared {
    pub manifest: Manifest,
    stats: CheckpointStats,
}

impl Checkpoints {
    /// Reads what the last checkpoint left, and deletes files of which it does not know.
    pub async fn open(store: &Store) -> Result<(Self, Option<Recovered>), StorageError> {
        let manifest = Manifest::load(&store.db.get().await?).await?;
        let files = store.files.clone();
        let mut checkpoints = Self {
            commits: store.commits.clone(),
            next_number: store.next_sequence.clone(),
            uncertain: BTreeSet::new(),
            logs: BTreeMap::new(),
            staged: BTreeMap::new(),
            returned: Returned::default(),
            forgotten: BTreeSet::new(),
            contained: BTreeSet::new(),
            sizes: files.list().await?,
            pin: Arc::default(),
            files,
            manifest,
        };
        checkpoints.files.delete_half_written().await?;
        checkpoints.files.tiers().delete_unknown(&tiered::files(&checkpoints.manifest)).await?;
        checkpoints.delete_garbage().await;
        let Checkpoints { files, returned, manifest, pin, .. } = &checkpoints;
        let head = manifest.head.clone();
        let recovered = head.map(|head| Recovered::new(head, manifest, files.clone(), returned.clone(), pin.clone()));
        Ok((checkpoints, recovered))
    }

    /// Begins a checkpoint of `epoch`, which is not before that of the last.
    pub fn begin(&mut self, epoch: Epoch) -> Checkpoint<'_> {
        debug_assert!(self.manifest.head.as_ref().is_none_or(|head| head.epoch <= epoch));
        Checkpoint { checkpoints: self, epoch, collections: BTreeMap::new(), outbox: Vec::new() }
    }

    /// All that the store has now, for a backup.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn backup_source(&self) -> Result<BackupSource, StorageError> {
        let pin = self.pin.clone();
        Ok(BackupSource::new(self.commits.snapshot().await?, self.files.clone(), pin))
    }

    /// The epoch of the last checkpoint.
    pub fn epoch(&self) -> Option<Epoch> {
        self.manifest.head.as_ref().map(|head| head.epoch)
    }

    /// Bytes held for state tables.
    pub fn memory_bytes(&self) -> usize {
        self.logs.values().map(StateLog::memory_bytes).sum()
    }

    /// Takes over the state tables that were brought back since.
    fn adopt_returned(&mut self) {
        let returned = std::mem::take(&mut *self.returned.lock());
        for (id, log) in returned {
            if !self.forgotten.contains(&id) {
                self.logs.entry(id).or_insert(log);
            }
        }
    }

    fn forget(&mut self, is_forgotten: impl Fn(&PieceId) -> bool) {
        self.adopt_returned();
        self.logs.retain(|id, _| !is_forgotten(id));
        self.staged.retain(|id, _| !is_forgotten(id));
        self.forgotten.extend(self.manifest.pieces.keys().filter(|id| is_forgotten(id)));
    }

    /// Rewrites full segments of state tables that are mostly dead. One that cannot be read stays as it is: it is
    /// needed only after a restart, and may be forgotten before.
    async fn rewrite_sparse(&mut self) -> Result<(), StorageError> {
        for (id, log) in &mut self.logs {
            for uid in log.sparse() {
                let mut stored = None;
                if !log.has_rows(uid) {
                    // The manifest may know it as it was before it was full.
                    let of = |pieces: &'_ BTreeMap<PieceId, Piece>| {
                        pieces.get(id).and_then(|piece| piece.get(&uid)).cloned()
                    };
                    let Some(segment) = of(&self.staged).or_else(|| of(&self.manifest.pieces)) else { continue };
                    match segments::load_segment(&self.files, *id, uid, &segment).await {
                        Ok(segment) => stored = Some(segment),
                        Err(error) => {
                            tracing::warn!(%error, "cannot rewrite a segment of a state table");
                            continue;
                        }
                    }
                }
                log.rewrite(uid, stored.as_ref())?;
            }
        }
        Ok(())
    }

    /// Has the parts in files that are better gone written to this file too.
    async fn copy_parts(&self, next: &mut Manifest, writer: &mut FileWriter) -> Result<(), StorageError> {
        let live = garbage::live_bytes(next.parts());
        let chosen = garbage::files_to_copy(&self.sizes, &live, writer.number());
        if chosen.is_empty() {
            return Ok(());
        }
        for (id, piece) in &mut next.pieces {
            let parts = piece.values_mut().flat_map(|segment| segment.parts_mut());
            for part in parts.filter(|part| chosen.contains(&part.file)) {
                match segments::copy(&self.files, writer, *id, part).await {
                    Ok(copied) => *part = copied,
                    // As with segments of state tables.
                    Err(error @ StorageError::Damaged { .. }) => tracing::warn!(%error, "cannot copy a part"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The writes that make a checkpoint the last one in storage. From here on nobody knows whether they were made,
    /// until they were.
    pub(super) fn writes(&mut self, next: &Manifest, contained: Vec<WalKey>) -> Result<Vec<Write>, StorageError> {
        let mut writes = self.manifest.writes_to(next, &self.uncertain)?;
        self.uncertain.extend(writes.iter().map(|write| write.key().clone()));
        self.contained.extend(contained);
        writes.extend(self.contained.iter().map(|key| Write::Delete(key.to_bytes())));
        Ok(writes)
    }

    /// Goes on from a checkpoint that is in storage.
    async fn stored(&mut self, prepared: Prepared) -> CheckpointStats {
        let Prepared { manifest, mut stats } = prepared;
        self.manifest = manifest;
        self.uncertain.clear();
        self.contained.clear();
        self.forgotten.clear();
        self.staged.clear();
        let none = Piece::new();
        for (id, log) in &mut self.logs {
            log.saved(self.manifest.pieces.get(id).unwrap_or(&none));
        }
        if Arc::strong_count(&self.pin) == 1 {
            self.delete_garbage().await;
        }
        stats.files = self.sizes.values().filter(|size| **size > 0).count();
        stats
    }

    /// Deletes files that the manifest, which is durable, does not refer to. What cannot be deleted now is tried again.
    async fn delete_garbage(&mut self) {
        let staged = self.staged.values().flat_map(BTreeMap::values).flat_map(StoredSegment::parts);
        let live = garbage::live_bytes(self.manifest.parts().chain(staged));
        let garbage: Vec<u64> = self.sizes.keys().copied().filter(|file| !live.contains_key(file)).collect();
        for file in garbage {
            match self.files.delete(file).await {
                Ok(()) => {
                    self.sizes.remove(&file);
                }
                Err(error) => tracing::warn!(file, %error, "cannot delete a file of a checkpoint"),
            }
        }
        self.files.tiers().delete_garbage(&tiered::files(&self.manifest)).await;
    }
}

impl Checkpoint<'_> {
    /// Takes the rows of a relation at the checkpoint's epoch, and its versions up to then. Those that are not handed in stay as the last checkpoint
    /// has them, so all that may have changed must be; one that has not costs little.
    ///
    /// # Errors
    /// If the collection is not readable at the epoch.
    pub fn collection(&mut self, relation: RelationId, collection: &Collection) -> Result<(), CollectionError> {
        let pieces = &self.checkpoints.manifest.pieces;
        let versions_after = |shard, segments: &[Segment]| {
            let id = PieceId { relation, part: rows_part(shard) };
            pieces.get(&id).map_or(Epoch::ZERO, |piece| versions_known(piece, segments))
        };
        self.collections.insert(relation, collection.shards_at(self.epoch, versions_after)?);
        Ok(())
    }

    /// What the cold tier has of a relation that was handed in. It counts once the checkpoint is durable.
    pub fn cold_rows(&self, relation: RelationId, schema: SchemaRef) -> Option<ColdRows> {
        Some(ColdRows::new(schema, self.collections.get(&relation)?))
    }

    /// Takes what has changed in a state table. It is not lost if the checkpoint fails: a later one has it. Of what is much,
    /// only a bounded part is in memory at a time.
    ///
    /// # Errors
    /// If the rows have other types than before, or cannot be read; or the table is in storage and was not brought back, so
    /// that nobody knows what the change is a change of.
    pub async fn state(
        &mut self,
        relation: RelationId,
        node: u32,
        worker: u32,
        table: u32,
        change: TableChange,
    ) -> Result<(), StorageError> {
        let id = PieceId { relation, part: Part::State { node, worker, table } };
        let Checkpoints { manifest, logs, forgotten, .. } = {
            self.checkpoints.adopt_returned();
            &mut *self.checkpoints
        };
        let is_unknown = || manifest.pieces.get(&id).is_some_and(|piece| !piece.is_empty());
        if !logs.contains_key(&id) && !change.reset && !forgotten.contains(&id) && is_unknown() {
            return Err(StorageError::NotBroughtBack { name: id.to_string() });
        }
        let log = logs.entry(id).or_insert_with(|| StateLog::new(&change.changed.rows.schema()));
        log.apply(&change)?;
        self.checkpoints.stage_if_much(id).await;
        let Some(spilled) = change.spilled else { return Ok(()) };
        for number in 0..spilled.pieces() {
            let spilled = spilled.clone();
            let piece = tokio::task::spawn_blocking(move || spilled.piece(number)).await;
            let failed = |reason: String| StorageError::Io { reason };
            let piece = piece.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
            let log = self.checkpoints.logs.get_mut(&id).expect("it was put there above");
            log.put(&piece)?;
            self.checkpoints.stage_if_much(id).await;
        }
        Ok(())
    }

    /// Puts a change into the outbox of a sink, under the checkpoint's epoch. Gives the bytes that it takes.
    ///
    /// # Errors
    /// If the rows cannot be encoded.
    pub fn outbox(&mut self, sink: RelationId, change: &Delta) -> Result<usize, StorageError> {
        let write = outbox::write(sink, self.epoch, change)?;
        let bytes = write.1.len();
        self.outbox.push(Write::Put(write.0, write.1));
        Ok(bytes)
    }

    /// Drops all of a relation. What is handed in afterwards counts.
    pub fn forget(&mut self, relation: RelationId) {
        self.collections.remove(&relation);
        self.checkpoints.forget(|id| id.relation == relation);
    }

    /// Drops the state of a relation's operators.
    pub fn forget_state(&mut self, relation: RelationId) {
        self.checkpoints.forget(|id| id.relation == relation && matches!(id.part, Part::State { .. }));
    }

    /// Makes the checkpoint the last one, with `meta` beside it, adds to the outboxes of sinks, and deletes the records
    /// `contained` of tables' logs, which are in it. All at once; durable once this returns.
    ///
    /// # Errors
    /// If it cannot be written. Then the last checkpoint is what it was, or (as with any commit whose answer is lost) this
    /// one; the next has all that this one has.
    pub async fn commit(mut self, meta: String, contained: Vec<WalKey>) -> Result<CheckpointStats, StorageError> {
        let outbox = std::mem::take(&mut self.outbox);
        let (checkpoints, prepared) = self.prepare(meta).await?;
        let mut writes = checkpoints.writes(&prepared.manifest, contained)?;
        // Should this fail, the next checkpoint deletes them: its own changes begin where these did.
        checkpoints.uncertain.extend(outbox.iter().map(|write| write.key().clone()));
        writes.extend(outbox);
        checkpoints.commits.commit(writes).await?;
        let stats = checkpoints.stored(prepared).await;
        // Now that the records of tables' logs are gone, little of them gets into the tree.
        checkpoints.commits.shorten_log().await;
        Ok(stats)
    }
}

impl<'a> Checkpoint<'a> {
    /// Writes the file.
    pub(super) async fn prepare(self, meta: String) -> Result<(&'a mut Checkpoints, Prepared), StorageError> {
        let Self { checkpoints, epoch, collections, .. } = self;
        checkpoints.adopt_returned();
        checkpoints.rewrite_sparse().await?;
        let number = checkpoints.next_number.fetch_add(1, Ordering::SeqCst);
        // From here on there may be such a file.
        checkpoints.sizes.insert(number, 0);
        let mut writer = checkpoints.files.writer(number);
        let known = &checkpoints.manifest.pieces;
        let mut pieces = known.clone();
        pieces.retain(|id, _| {
            let is_renewed = matches!(id.part, Part::Rows { .. }) && collections.contains_key(&id.relation);
            !is_renewed && !checkpoints.forgotten.contains(id)
        });
        let mut sinces = checkpoints.manifest.sinces.clone();
        let mut rows = 0;
        for (relation, shards) in &collections {
            for (shard, ShardAt { segments, past }) in shards.iter().enumerate() {
                let id = PieceId { relation: *relation, part: rows_part(shard) };
                let segments = segments.iter().map(|(segment, end)| (segment, *end));
                let mut piece = save_piece(&mut writer, known.get(&id), segments, &mut rows).await?;
                let new_versions = past.by_segment();
                for (uid, stored) in &mut piece {
                    let known = known.get(&id).and_then(|piece| piece.get(uid));
                    let new = new_versions.get(&stored.id).map_or(&[][..], Vec::as_slice);
                    stored.versions =
                        versions::save(&checkpoints.files, &mut writer, id, known, new, past.since).await?;
                }
                // What has not changed is as complete as it was.
                let since = sinces.get(&id).copied().filter(|_| known.get(&id) == Some(&piece));
                sinces.insert(id, since.unwrap_or(past.since));
                pieces.insert(id, piece);
            }
        }
        for (id, log) in &checkpoints.logs {
            let segments = log.segments().iter().map(|segment| (segment, segment.rows()));
            let known = staging::known(known.get(id), checkpoints.staged.get(id));
            let piece = save_piece(&mut writer, known.as_deref(), segments, &mut rows).await?;
            pieces.insert(*id, piece);
        }
        sinces.retain(|id, _| pieces.contains_key(id));
        let mut manifest = Manifest { head: Some(Head { epoch, number, meta }), pieces, sinces };
        checkpoints.copy_parts(&mut manifest, &mut writer).await?;
        let bytes = writer.finish().await?;
        checkpoints.sizes.insert(number, bytes);
        Ok((checkpoints, Prepared { manifest, stats: CheckpointStats { epoch, bytes, rows, files: 0 } }))
    }
}

fn rows_part(shard: usize) -> Part {
    Part::Rows { shard: u32::try_from(shard).expect("there are fewer shards than that") }
}

/// The epoch up to which the versions of all `segments` are in `piece`; zero if they are not for any of them.
fn versions_known(piece: &Piece, segments: &[Segment]) -> Epoch {
    // A segment may have fewer rows than it had when it was written, if that was at a later epoch.
    let is_known = |segment: &Segment| piece.get(&segment.uid).is_some_and(|known| known.rows() <= segment.rows());
    if !segments.iter().all(is_known) {
        return Epoch::ZERO;
    }
    piece.values().flat_map(|segment| segment.versions.last()).map(|last| last.through).max().unwrap_or(Epoch::ZERO)
}

/// Writes what is new of a piece; adds the rows written to `rows`.
async fn save_piece(
    writer: &mut FileWriter,
    known: Option<&Piece>,
    segments: impl Iterator<Item = (&crate::collection::segment::Segment, usize)>,
    rows: &mut usize,
) -> Result<Piece, StorageError> {
    let mut piece = Piece::new();
    for (segment, end) in segments {
        let known = known.and_then(|known| known.get(&segment.uid));
        let stored = segments::save(writer, known, segment, end).await?;
        let written = stored.parts.iter().filter(|rows| rows.part.file == writer.number());
        *rows += written.map(|rows| rows.rows).sum::<usize>();
        piece.insert(segment.uid, stored);
    }
    Ok(piece)
}
