//! How a source is doing, for `freshet_catalog.source_status`.
//!
//! Readers tell how they get on with the system outside; whoever takes their batches counts what was taken. The two
//! are apart because a batch may be read and never taken: its reader was replaced by one that reads it again.
//! Invariant: `records` is `dead_letters` plus the rows of all batches that were ever taken.
//!
//! The counters are atomics, bumped once a batch; the rest changes rarely and sits behind a lock that is never held
//! across anything slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use freshet_types::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::source::SourceBatch;

/// Whether records are coming in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceState {
    /// Nothing reads it.
    #[default]
    Idle,
    /// A reader has started and has not heard from the system outside yet.
    Connecting,
    Running,
    /// The system outside was lost; reading goes on by itself once it is back.
    Retrying,
    /// Reading has stopped, and nothing will go on by itself.
    Failed,
    /// The source has an end, and has been read up to it.
    Ended,
}

impl SourceState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Ended => "ended",
        }
    }
}

/// How far one partition has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The offset of the next record to read.
    pub next_offset: i64,
    /// The offset after the last record that the system outside holds, where it is known.
    pub high_watermark: Option<i64>,
}

impl PartitionStatus {
    /// How many records are waiting.
    pub fn lag(&self) -> Option<i64> {
        self.high_watermark.map(|high| (high - self.next_offset).max(0))
    }
}

/// A source's status as of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusReport {
    pub state: SourceState,
    pub last_error: Option<String>,
    /// When `last_error` happened, in milliseconds since 1970.
    pub last_error_ms: Option<u64>,
    /// Of the whole source, as are `bytes` and `dead_letters`.
    pub records: u64,
    pub bytes: u64,
    pub dead_letters: u64,
    pub partitions: BTreeMap<i32, PartitionStatus>,
}

/// What was taken from a source since it was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub records: u64,
    pub bytes: u64,
    pub dead_letters: u64,
}

/// The status that the readings of a source share.
#[derive(Debug, Default)]
pub struct SourceStatus {
    clock: Clock,
    records: AtomicU64,
    bytes: AtomicU64,
    dead_letters: AtomicU64,
    slow: Mutex<Slow>,
}

#[derive(Debug, Default)]
struct Slow {
    /// How many readings have begun; the last one speaks.
    readings: u64,
    state: SourceState,
    last_error: Option<(String, u64)>,
    partitions: BTreeMap<i32, PartitionStatus>,
}

impl SourceStatus {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    pub fn report(&self) -> StatusReport {
        let slow = self.slow.lock();
        StatusReport {
            state: slow.state,
            last_error: slow.last_error.as_ref().map(|(message, _)| message.clone()),
            last_error_ms: slow.last_error.as_ref().map(|(_, at_ms)| *at_ms),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            partitions: slow.partitions.clone(),
        }
    }

    /// Counts a batch that was taken from a live reading.
    pub fn count(&self, batch: &SourceBatch) {
        let dead_letters = batch.dead_letters.len();
        self.records.fetch_add((batch.rows.num_rows() + dead_letters) as u64, Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes as u64, Ordering::Relaxed);
        self.dead_letters.fetch_add(dead_letters as u64, Ordering::Relaxed);
        let mut slow = self.slow.lock();
        for (partition, next_offset) in batch.offsets.0.iter().filter(|(partition, _)| **partition >= 0) {
            slow.partition(*partition, *next_offset).next_offset = *next_offset;
        }
    }

    /// What has been counted so far.
    pub fn counted(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted { records: read(&self.records), bytes: read(&self.bytes), dead_letters: read(&self.dead_letters) }
    }

    /// Goes on counting from what was counted in an earlier life.
    pub fn resume(&self, counted: Counted) {
        self.records.store(counted.records, Ordering::Relaxed);
        self.bytes.store(counted.bytes, Ordering::Relaxed);
        self.dead_letters.store(counted.dead_letters, Ordering::Relaxed);
    }

    /// A reading without end begins, and speaks for the source from now on.
    pub(crate) fn begin(self: &Arc<Self>) -> LiveStatus {
        let mut slow = self.slow.lock();
        slow.readings += 1;
        slow.state = SourceState::Connecting;
        LiveStatus { number: slow.readings, status: Arc::clone(self) }
    }
}

impl Slow {
    fn partition(&mut self, partition: i32, next_offset: i64) -> &mut PartitionStatus {
        self.partitions.entry(partition).or_insert(PartitionStatus { next_offset, high_watermark: None })
    }
}

/// One reading's say in the status of its source. What it says once a later reading has begun is not heard.
#[derive(Debug)]
pub(crate) struct LiveStatus {
    number: u64,
    status: Arc<SourceStatus>,
}

impl LiveStatus {
    pub fn state(&self) -> SourceState {
        self.status.slow.lock().state
    }

    /// The last error was this one.
    pub fn has_error(&self, message: &str) -> bool {
        self.status.slow.lock().last_error.as_ref().is_some_and(|(last, _)| last == message)
    }

    pub fn set_state(&self, state: SourceState) {
        self.tell(|slow| slow.state = state);
    }

    /// Notes an error. The state becomes `state`.
    pub fn set_error(&self, state: SourceState, message: String) {
        let at_ms = self.status.clock.now_ms();
        self.tell(|slow| {
            slow.state = state;
            slow.last_error = Some((message, at_ms));
        });
    }

    /// Makes a partition known, with the offset where its reading starts.
    pub fn add_partition(&self, partition: i32, next_offset: i64) {
        self.tell(|slow| {
            slow.partition(partition, next_offset);
        });
    }

    /// Records before `next_offset` will never be read.
    pub fn skip_to(&self, partition: i32, next_offset: i64) {
        self.tell(|slow| slow.partition(partition, next_offset).next_offset = next_offset);
    }

    pub fn set_high_watermark(&self, partition: i32, high_watermark: i64) {
        self.tell(|slow| {
            if let Some(status) = slow.partitions.get_mut(&partition) {
                status.high_watermark = Some(high_watermark);
            }
        });
    }

    fn tell(&self, change: impl FnOnce(&mut Slow)) {
        let mut slow = self.status.slow.lock();
        if slow.readings == self.number {
            change(&mut slow);
        }
    }
}

impl Drop for LiveStatus {
    fn drop(&mut self) {
        self.tell(|slow| {
            if !matches!(slow.state, SourceState::Failed | SourceState::Ended) {
                slow.state = SourceState::Idle;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, RecordBatch};

    use super::*;
    use crate::source::{DeadLetter, Offsets};

    fn batch(rows: i32, dead_letters: usize, next_offset: i64) -> SourceBatch {
        let values = Arc::new(Int32Array::from_iter_values(0..rows));
        let letter =
            DeadLetter { payload: None, error: "no".into(), column: None, partition: 3, offset: 0, timestamp_ms: None };
        SourceBatch {
            rows: RecordBatch::try_from_iter([("n", values as _)]).unwrap(),
            dead_letters: vec![letter; dead_letters],
            offsets: Offsets([(-1, 5), (3, next_offset)].into()),
            bytes: 100,
        }
    }

    #[test]
    fn reports_what_was_noted() {
        let clock = Clock::manual(7);
        let status = Arc::new(SourceStatus::new(clock.clone()));
        let live = status.begin();
        live.add_partition(3, 10);
        live.set_high_watermark(3, 25);
        live.set_high_watermark(4, 25);
        status.count(&batch(2, 1, 13));
        live.set_error(SourceState::Retrying, "gone".into());
        clock.set(9);
        let report = status.report();
        assert_eq!(report.state, SourceState::Retrying);
        assert_eq!((report.last_error.as_deref(), report.last_error_ms), (Some("gone"), Some(7)));
        assert_eq!((report.records, report.bytes, report.dead_letters), (3, 100, 1));
        assert_eq!(report.partitions.len(), 1, "a watermark alone makes no partition");
        assert_eq!(report.partitions[&3].lag(), Some(12));
        let resumed = SourceStatus::new(clock);
        resumed.resume(status.counted());
        assert_eq!((resumed.report().records, resumed.report().bytes, resumed.report().dead_letters), (3, 100, 1));
    }

    #[test]
    fn only_the_latest_reading_is_heard() {
        let status = Arc::new(SourceStatus::new(Clock::manual(7)));
        let first = status.begin();
        first.set_state(SourceState::Running);
        let second = status.begin();
        assert_eq!(status.report().state, SourceState::Connecting);
        second.set_state(SourceState::Running);
        first.set_error(SourceState::Retrying, "the first was too slow".into());
        drop(first);
        assert_eq!((status.report().state, status.report().last_error), (SourceState::Running, None));
        drop(second);
        assert_eq!(status.report().state, SourceState::Idle);
    }

    #[test]
    fn how_a_reading_ended_stays_known() {
        let status = Arc::new(SourceStatus::new(Clock::manual(7)));
        for state in [SourceState::Failed, SourceState::Ended] {
            status.begin().set_state(state);
            assert_eq!(status.report().state, state);
        }
    }
}
