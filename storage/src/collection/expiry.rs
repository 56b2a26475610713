//! Expiry: rows that a collection does not keep any more leave it, at the very epoch at which its
//! [retention](Retention) says so.
//!
//! They are deleted by where they are, not by what they are: of a chunk all of whose rows have expired, the bitmap is
//! all that is looked at, and its file is not read. Of one of which some have, the time column is. Only if somebody follows the
//! changes of the collection are the rows themselves read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use arrow::array::{Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;
use freshet_types::{Delta, Epoch};

use super::past::hashes;
use super::retention::{Retention, expired, times_of};
use super::rows::RowLog;
use super::segment::{Body, Chunk, Position, Segment};
use super::writer::ShardWriter;
use super::{CollectionError, Inner};

/// Whether somebody is to be told of the rows that expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiredRows {
    Told,
    /// Their number is enough.
    Counted,
}

/// What has expired.
#[derive(Debug, Default)]
pub struct Expired {
    pub rows: usize,
    /// The deletions by epoch, if they are [told](ExpiredRows::Told).
    pub deltas: Vec<(Epoch, Delta)>,
}

/// Where rows are that expire, by the epoch at which they do.
type Expiring = BTreeMap<Epoch, Vec<Position>>;

impl ShardWriter {
    /// What of a change of `epoch` is about rows that are kept.
    ///
    /// # Errors
    /// If the column of the retention has no times.
    pub fn kept<'a>(&self, epoch: Epoch, delta: &'a Delta) -> Result<Cow<'a, Delta>, CollectionError> {
        match &self.collection.description.retention {
            Some(retention) => Ok(retention.kept(epoch, Cow::Borrowed(delta))?),
            None => Ok(Cow::Borrowed(delta)),
        }
    }

    /// Whether rows may expire at `epoch`, and [`ShardWriter::expire`] has something to look at.
    pub fn is_due(&self, epoch: Epoch) -> bool {
        let retention = self.collection.description.retention;
        retention.is_some_and(|retention| retention.step(epoch) > self.expired_to)
    }

    /// Deletes the rows that expire up to the last of `epochs`, each at the first of them at which it is not kept. Comes
    /// before any change of the last epoch is applied, and after all changes of earlier ones.
    ///
    /// # Errors
    /// If a file cannot be read. Nothing is deleted then, and it is tried again at the next step.
    pub fn expire(&mut self, epochs: RangeInclusive<Epoch>, wanted: ExpiredRows) -> Result<Expired, CollectionError> {
        let collection = self.collection.clone();
        let Some(retention) = &collection.description.retention else { return Ok(Expired::default()) };
        let step = retention.step(*epochs.end());
        if step <= self.expired_to || self.failed {
            return Ok(Expired::default());
        }
        self.expired_to = step;
        let upper = collection.progress.lock().shard_upper(self.shard);
        let first = self.epoch.max(*epochs.start()).max(Epoch(upper.millis() + 1));
        loop {
            let (rows, generation) = {
                let shard = self.lock();
                (shard.rows.clone(), shard.generation)
            };
            let found = find(&rows, retention, first, step)?;
            let filed = found.values().map(|positions| hashes(&rows, positions, &collection.identity));
            let filed = filed.collect::<Result<Vec<_>, _>>()?;
            let told = match wanted {
                ExpiredRows::Told => found.iter().map(|(epoch, places)| told(&rows, *epoch, places)).collect(),
                ExpiredRows::Counted => Ok(Vec::new()),
            };
            let deltas = told?;
            let mut shard = self.lock();
            if shard.generation != generation {
                // Rows have moved to another tier meanwhile.
                continue;
            }
            for ((epoch, positions), hashes) in found.iter().zip(&filed) {
                shard.expire(*epoch, &collection, positions, hashes);
            }
            drop(shard);
            self.epoch = found.last_key_value().map_or(self.epoch, |(epoch, _)| *epoch);
            return Ok(Expired { rows: found.values().map(Vec::len).sum(), deltas });
        }
    }

    /// Applies a deletion of rows that have expired by another measure than the collection's own.
    ///
    /// # Errors
    /// As [`ShardWriter::apply`].
    pub fn apply_expired(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), CollectionError> {
        let before = self.lock().deletions_at(epoch);
        self.apply(epoch, delta)?;
        let mut shard = self.lock();
        let count = shard.deletions_at(epoch) - before;
        shard.history.mark_expired(epoch, count);
        Ok(())
    }
}

/// The live rows that are not there at `step`, by the epoch at which they leave, which is not before `first`.
fn find(rows: &RowLog, retention: &Retention, first: Epoch, step: Epoch) -> Result<Expiring, ArrowError> {
    let mut found = Expiring::new();
    let horizon = retention.horizon_us(step);
    let end = |time_us: i64| retention.end(time_us).max(first);
    for segment in rows.segments().iter().filter(|segment| segment.dead() < segment.rows()) {
        for chunk in segment.chunks() {
            let times = match &chunk.body {
                Body::Memory { rows, .. } => Some(times_of(rows, retention.time_column)?),
                Body::Stored(_) => None,
            };
            let span = match (&chunk.body, &times) {
                (Body::Stored(stored), _) => stored.times,
                (_, Some(times)) => arrow::compute::min(times).zip(arrow::compute::max(times)),
                _ => None,
            };
            let Some((oldest, newest)) = span.filter(|(oldest, _)| *oldest < horizon) else { continue };
            let live = live(segment, chunk);
            let has_timeless = match (&chunk.body, &times) {
                (Body::Stored(stored), _) => stored.has_timeless,
                (_, times) => times.as_ref().is_some_and(|times| arrow::array::Array::null_count(times) > 0),
            };
            let place = |row: usize| Position::new(segment.id, chunk.start() + row);
            if newest < horizon && end(oldest) == end(newest) && !has_timeless {
                found.entry(end(newest)).or_default().extend(live.set_indices().map(place));
                continue;
            }
            let times = match times {
                Some(times) => times,
                None => stored_times(chunk, retention.time_column)?,
            };
            let gone = &live & expired(&times, horizon)?.values();
            for row in gone.set_indices() {
                found.entry(end(times.value(row))).or_default().push(place(row));
            }
        }
    }
    Ok(found)
}

/// Which rows of a chunk live.
fn live(segment: &Segment, chunk: &Chunk) -> BooleanBuffer {
    let count = chunk.end() - chunk.start();
    match segment.live() {
        Some(live) => live.mask(chunk.start(), count).values().clone(),
        None => BooleanBuffer::new_set(count),
    }
}

/// The times of all rows of a chunk in a file.
fn stored_times(chunk: &Chunk, column: usize) -> Result<Int64Array, ArrowError> {
    let Some(stored) = chunk.stored() else { return Ok(Int64Array::new_null(0)) };
    times_of(&stored.read_blocking(Some(vec![column]), None)?, 0)
}

fn told(rows: &RowLog, epoch: Epoch, positions: &[Position]) -> Result<(Epoch, Delta), ArrowError> {
    let rows: RecordBatch = rows.gather(positions, None)?;
    Ok((epoch, Delta::deletes(rows)))
}

impl super::shard::Shard {
    /// Deletes live rows, which are filed under `hashes`, because they have expired.
    fn expire(&mut self, epoch: Epoch, collection: &Inner, positions: &[Position], hashes: &[u64]) {
        self.delete_at(epoch, positions, collection.identity.key().map(|_| hashes));
        self.history.mark_expired(epoch, positions.len());
        for (position, hash) in positions.iter().zip(hashes) {
            if !self.rows.is_stored(*position) {
                self.forget(*hash, *position, collection.description.append_only);
            }
        }
    }
}
