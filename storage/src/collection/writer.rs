//! Writing a shard.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use freshet_types::delta::take_rows;
use freshet_types::{Delta, Epoch, Keys, Weights};
use parking_lot::MutexGuard;

use super::compaction::Plan;
use super::limits::ROWS_PER_LOCK;
use super::shard::{Deletion, FoundInFiles, Shard};
use super::tiering::Moving;
use super::{CollectionError, Inner, stored_rows};

/// The one writer of one shard.
pub struct ShardWriter {
    pub(super) collection: Arc<Inner>,
    pub(super) shard: usize,
    /// The epoch of the last change applied.
    pub(super) epoch: Epoch,
    /// The last step up to which rows that expire have been deleted.
    pub(super) expired_to: Epoch,
    /// What the shard's history takes, as far as it has been told.
    history_bytes: usize,
    /// Segments that compaction should look at.
    wasteful: BTreeSet<u64>,
    /// A change could not be applied, so later epochs of this shard would be wrong.
    pub(super) failed: bool,
}

impl ShardWriter {
    pub(super) fn new(collection: Arc<Inner>, shard: usize) -> Self {
        let wasteful = collection.shards[shard].lock().rows.wasteful().collect();
        let (epoch, expired_to) = (Epoch::ZERO, Epoch::ZERO);
        Self { collection, shard, epoch, expired_to, history_bytes: 0, wasteful, failed: false }
    }

    /// Says that there is nothing before `epoch`, unless the shard has been there before; and moves its upper there.
    pub fn begin_at(&mut self, epoch: Epoch) {
        {
            let mut progress = self.collection.progress.lock();
            if progress.shard_upper(self.shard) == Epoch::ZERO {
                progress.begin_at(epoch);
            }
        }
        self.advance_upper(epoch);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
        self.collection.shards[self.shard].lock()
    }

    /// Applies the change of `epoch`, which is later than the shard's upper and not before any epoch applied so far.
    /// Not readable until [`ShardWriter::advance_upper`].
    ///
    /// # Errors
    /// If the change does not fit the collection: it deletes a row that is not there, or inserts a key that is.
    /// The shard stays readable at its upper, and never moves again.
    pub fn apply(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), CollectionError> {
        let upper = self.collection.progress.lock().shard_upper(self.shard);
        if self.failed || epoch <= upper || epoch < self.epoch {
            let collection = self.collection.description.name.clone();
            return Err(CollectionError::OutOfOrder { collection, epoch, upper: upper.max(self.epoch) });
        }
        if delta.is_empty() {
            return Ok(());
        }
        self.epoch = epoch;
        let delta = delta.with_schema(&self.collection.description.schema)?;
        let applied = self.apply_in_order(epoch, &delta);
        self.failed = applied.is_err();
        applied
    }

    fn apply_in_order(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), CollectionError> {
        let Some((deletes, inserts)) = split(delta)? else {
            return self.insert(epoch, delta.rows());
        };
        if self.delete(epoch, &deletes)?.is_none() {
            return self.insert(epoch, &inserts);
        }
        // If each deletion finds a row of its own, the order of rows in the delta does not matter.
        // Otherwise some may undo insertions of the same delta: these go first.
        let Some((deletes, inserts)) = split(&delta.consolidate()?)? else {
            return self.apply_in_order(epoch, &delta.consolidate()?);
        };
        match self.delete(epoch, &deletes)? {
            None => self.insert(epoch, &inserts),
            Some(row) => {
                let collection = self.collection.description.name.clone();
                Err(CollectionError::NoSuchRow { collection, row: row_text(&deletes, row)? })
            }
        }
    }

    /// Deletes a live row equal to each of `rows`. If there is none for some row, deletes nothing and gives its number.
    fn delete(&mut self, epoch: Epoch, rows: &RecordBatch) -> Result<Option<usize>, CollectionError> {
        let Inner { identity, description, .. } = &*self.collection;
        if rows.num_rows() > 0 && description.append_only {
            return Ok(Some(0));
        }
        let keys = identity.keys(rows)?;
        let hashes = keys.hashes();
        let whole_rows = if identity.key().is_some() { identity.whole_rows(rows)? } else { keys };
        for start in (0..hashes.len()).step_by(ROWS_PER_LOCK) {
            let range = start..hashes.len().min(start + ROWS_PER_LOCK);
            let missing = self.delete_range(epoch, rows, &whole_rows, range, &hashes)?;
            if missing.is_some() {
                self.lock().undo_deletes(epoch, &hashes[..start]);
                return Ok(missing);
            }
        }
        Ok(None)
    }

    /// Deletes a live row equal to each of some rows, or nothing, and then gives the number of one that is not there.
    /// Rows that are not in memory are looked for in files, without the lock, until all are found where they are.
    fn delete_range(
        &self,
        epoch: Epoch,
        rows: &RecordBatch,
        whole_rows: &Keys,
        range: Range<usize>,
        hashes: &[u64],
    ) -> Result<Option<usize>, CollectionError> {
        let identity = &self.collection.identity;
        let mut files = FoundInFiles::new();
        let mut generation = None;
        let mut looked_for = BTreeSet::new();
        loop {
            let mut shard = self.lock();
            if generation.replace(shard.generation) != Some(shard.generation) {
                files.clear();
                looked_for.clear();
            }
            let own_hashes = &hashes[range.clone()];
            let missing = match shard.delete(epoch, identity, whole_rows, range.clone(), own_hashes, &files)? {
                Deletion::Done => return Ok(None),
                Deletion::NotFound(missing) => missing,
            };
            let lost = missing.iter().find(|row| looked_for.contains(*row)).copied();
            if lost.is_some() || !shard.rows.has_stored() {
                return Ok(lost.or(missing.first().copied()));
            }
            let stored = shard.rows.clone();
            drop(shard);
            files.extend(stored_rows::find_equal(&stored, identity, rows, whole_rows, hashes, &missing)?);
            looked_for.extend(missing);
        }
    }

    fn insert(&mut self, epoch: Epoch, rows: &RecordBatch) -> Result<(), CollectionError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let Inner { identity, description, .. } = &*self.collection;
        if description.append_only {
            self.lock().append(epoch, rows)?;
            return Ok(());
        }
        let hashes = identity.keys(rows)?.hashes();
        let runs = self.lock().append(epoch, rows)?;
        let mut done = 0;
        for (start, length) in runs {
            for offset in (0..length).step_by(ROWS_PER_LOCK) {
                let count = ROWS_PER_LOCK.min(length - offset);
                let filed = self.lock().file(identity, start.plus(offset), &hashes[done..done + count])?;
                if let Some(position) = filed {
                    let row = self.lock().rows.gather(&[position], None)?;
                    let collection = description.name.clone();
                    return Err(CollectionError::DuplicateKey { collection, row: row_text(&row, 0)? });
                }
                done += count;
            }
        }
        Ok(())
    }

    /// Says that every change up to and including `upper` has been applied. A shard that failed stays where it is.
    pub fn advance_upper(&mut self, upper: Epoch) {
        if self.failed {
            return;
        }
        let since = self.collection.advance_upper(self.shard, upper);
        let mut shard = self.collection.shards[self.shard].lock();
        let since = self.collection.trim(&shard, since);
        shard.fold(since, &mut self.wasteful);
        let bytes = shard.history_bytes();
        self.collection.history.note(std::mem::replace(&mut self.history_bytes, bytes), bytes);
        if self.wasteful.is_empty() {
            return;
        }
        // Rows that are on their way to another tier stay where they are meanwhile.
        let Some(_moving) = Moving::begin(&self.collection, self.shard) else { return };
        let plan = Plan::new(&shard, &mut self.wasteful);
        drop(shard);
        if let Some(plan) = plan {
            match plan.rewrite(&self.collection.identity) {
                Ok(rewritten) => rewritten.install(&mut self.lock()),
                // The old segments are as good as before, only larger.
                Err(error) => {
                    tracing::warn!(collection = self.collection.description.name, %error, "compaction failed")
                }
            }
        }
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        self.collection.has_writer[self.shard].store(false, Ordering::SeqCst);
    }
}

/// The rows that `delta` deletes and those that it inserts, each as often as its weight says; `None` if it
/// inserts each row once.
fn split(delta: &Delta) -> Result<Option<(RecordBatch, RecordBatch)>, ArrowError> {
    let Weights::Each(weights) = delta.weights() else {
        return Ok(None);
    };
    let mut deletes: Vec<u32> = Vec::new();
    let mut inserts: Vec<u32> = Vec::new();
    for (row, weight) in (0_u32..).zip(weights.iter()) {
        let target = if *weight < 0 { &mut deletes } else { &mut inserts };
        let copies = usize::try_from(weight.unsigned_abs()).expect("usize has 64 bits");
        target.extend(std::iter::repeat_n(row, copies));
    }
    let take = |rows: Vec<u32>| take_rows(delta.rows(), &UInt32Array::from(rows));
    Ok(Some((take(deletes)?, take(inserts)?)))
}

/// A row for an error message: `column=value`, separated by commas.
fn row_text(rows: &RecordBatch, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let separator = if text.is_empty() { "" } else { ", " };
        let value = ArrayFormatter::try_new(column, &options)?.value(row).to_string();
        text.push_str(&format!("{separator}{}={value}", field.name()));
    }
    Ok(text)
}
