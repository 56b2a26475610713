//! How a source is doing, for `freshet_catalog.source_status`: written by readers, read by anyone.
//!
//! The counters are atomics that a reader bumps once a batch; the rest changes rarely and sits behind a lock
//! that is never held across anything slow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use freshet_types::Clock;
use parking_lot::Mutex;

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
    /// Reading has stopped for good.
    Failed,
}

impl SourceState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
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
    pub records: u64,
    pub bytes: u64,
    pub dead_letters: u64,
    pub partitions: BTreeMap<i32, PartitionStatus>,
}

/// The status that the readers of a source share.
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

    pub(crate) fn state(&self) -> SourceState {
        self.slow.lock().state
    }

    /// The last error was this one.
    pub(crate) fn has_error(&self, message: &str) -> bool {
        self.slow.lock().last_error.as_ref().is_some_and(|(last, _)| last == message)
    }

    pub(crate) fn set_state(&self, state: SourceState) {
        self.slow.lock().state = state;
    }

    /// Notes an error. The state becomes `state`.
    pub(crate) fn set_error(&self, state: SourceState, message: String) {
        let at_ms = self.clock.now_ms();
        let mut slow = self.slow.lock();
        slow.state = state;
        slow.last_error = Some((message, at_ms));
    }

    pub(crate) fn count(&self, records: usize, bytes: usize, dead_letters: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.dead_letters.fetch_add(dead_letters as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_next_offset(&self, partition: i32, next_offset: i64) {
        let mut slow = self.slow.lock();
        let status = slow.partitions.entry(partition).or_insert(PartitionStatus { next_offset, high_watermark: None });
        status.next_offset = next_offset;
    }

    pub(crate) fn set_high_watermark(&self, partition: i32, high_watermark: i64) {
        if let Some(status) = self.slow.lock().partitions.get_mut(&partition) {
            status.high_watermark = Some(high_watermark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_what_was_noted() {
        let clock = Clock::manual(7);
        let status = SourceStatus::new(clock.clone());
        status.set_next_offset(3, 10);
        status.set_high_watermark(3, 25);
        status.set_high_watermark(4, 25);
        status.count(2, 100, 1);
        status.set_error(SourceState::Retrying, "gone".into());
        clock.set(9);
        let report = status.report();
        assert_eq!(report.state, SourceState::Retrying);
        assert_eq!((report.last_error.as_deref(), report.last_error_ms), (Some("gone"), Some(7)));
        assert_eq!((report.records, report.bytes, report.dead_letters), (2, 100, 1));
        assert_eq!(report.partitions.len(), 1, "a watermark alone makes no partition");
        assert_eq!(report.partitions[&3].lag(), Some(15));
    }
}
