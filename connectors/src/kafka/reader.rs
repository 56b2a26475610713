//! Reads a range of a topic: a thread polls the client and decodes, a bounded channel hands batches over.
//!
//! Latency     a batch is whatever waits when the thread gets to it: a lone record goes at once, and records pile
//!             up to [`BATCH_RECORDS_MAX`] only while the batch before is being decoded or handed over.
//! Copies      payloads are decoded where the client received them; only those of dead letters are copied.
//! At the bound the channel is full, the thread waits, and the client stops fetching once its own queue is full.
//! End         when the reader is dropped the channel closes, which the thread sees within [`POLL_MAX`].

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::listener::Listener;
use super::options::{KafkaOptions, bad_property};
use crate::decode::records::{Decoded, Record, RecordDecoder};
use crate::source::{Offsets, Range, SourceBatch, SourceError, SourceReader};
use crate::status::{LiveStatus, SourceState, SourceStatus};

/// Records in one batch at most.
const BATCH_RECORDS_MAX: usize = 8192;
/// A batch is closed once it holds this many bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches that wait to be taken.
const CHANNEL_BATCHES: usize = 2;
/// How long the thread waits for a record before it looks around.
const POLL_MAX: Duration = Duration::from_millis(100);
/// How long the broker may take to say which offsets it holds.
const WATERMARKS_MAX: Duration = Duration::from_secs(5);

type Handed = Result<SourceBatch, SourceError>;

/// Starts to read `range`.
pub fn start(
    source: &str,
    options: KafkaOptions,
    range: Range,
    decoder: RecordDecoder,
    status: &Arc<SourceStatus>,
) -> Result<KafkaReader, SourceError> {
    let live = range.until.is_none().then(|| Arc::new(status.begin()));
    let listener = Listener::new(&options.connection.topic, live.clone());
    let consumer = options.client_config().create_with_context(listener).map_err(|error| bad_property(&error))?;
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
    let progress = Progress::new(range);
    let reading = Reading { topic: options.connection.topic, consumer, decoder, progress, live, sender };
    std::thread::Builder::new()
        .name(format!("kafka {source}"))
        .spawn(move || reading.run_guarded())
        .map_err(|error| SourceError::Internal(format!("cannot start a thread: {error}")))?;
    Ok(KafkaReader { receiver, failed: None })
}

/// The receiving end.
pub struct KafkaReader {
    receiver: mpsc::Receiver<Handed>,
    failed: Option<SourceError>,
}

#[async_trait]
impl SourceReader for KafkaReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.receiver.recv().await {
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(error)) => Err(self.failed.insert(error).clone()),
            None => Ok(None),
        }
    }
}

/// Where each partition is, and where it ends.
struct Progress {
    next: BTreeMap<i32, i64>,
    /// Partitions that have not been read to their end yet; `None` for a reading without end.
    open: Option<BTreeMap<i32, i64>>,
}

impl Progress {
    fn new(range: Range) -> Self {
        let mut next = range.from.0;
        next.retain(|partition, _| *partition >= 0);
        let open = range.until.map(|until| {
            let mut open = until.0;
            open.retain(|partition, end| *partition >= 0 && next.get(partition).copied().unwrap_or(0) < *end);
            open
        });
        if let Some(open) = &open {
            next = open.keys().map(|partition| (*partition, next.get(partition).copied().unwrap_or(0))).collect();
        }
        Self { next, open }
    }

    fn is_done(&self) -> bool {
        self.open.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Whether a record is part of the range. One behind the end closes its partition.
    fn accepts(&mut self, partition: i32, offset: i64) -> bool {
        // After an assignment anew the client starts at the offset it was given, but a record must never come twice.
        if self.next.get(&partition).is_none_or(|next| offset < *next) {
            return false;
        }
        let Some(open) = &mut self.open else {
            self.next.insert(partition, offset + 1);
            return true;
        };
        let Some(end) = open.get(&partition).copied() else { return false };
        if offset + 1 >= end {
            open.remove(&partition);
        }
        self.next.insert(partition, (offset + 1).min(end));
        offset < end
    }

    /// The client has seen all of the partition that there is. Offsets that are missing before the end of the range
    /// were transaction markers, or compacted away.
    fn reached_end(&mut self, partition: i32) {
        if let Some(open) = &mut self.open {
            open.remove(&partition);
        }
    }
}

/// What one pass over the client's queue gave.
#[derive(Default)]
struct Polled<'a> {
    messages: Vec<BorrowedMessage<'a>>,
    bytes: usize,
    /// An offset was asked for that the broker does not hold.
    offsets_lost: bool,
    fatal: Option<SourceError>,
    heard: bool,
}

struct Reading {
    topic: String,
    consumer: BaseConsumer<Listener>,
    decoder: RecordDecoder,
    progress: Progress,
    /// There for a reading without end, which speaks for the source in its status.
    live: Option<Arc<LiveStatus>>,
    sender: mpsc::Sender<Handed>,
}

impl Reading {
    fn run_guarded(mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        let outcome =
            outcome.unwrap_or_else(|_| Err(SourceError::Internal("the reader of a Kafka topic panicked".into())));
        let closed = self.sender.is_closed();
        if let Err(error) = outcome
            && !closed
        {
            if let Some(live) = &self.live {
                live.set_error(SourceState::Failed, error.to_string());
            }
            tracing::error!(topic = %self.topic, %error, "reading stopped");
            // The receiver may be gone by now, and then nobody wants to know.
            self.sender.blocking_send(Err(error)).ok();
        }
    }

    /// Until the range has been read, or nobody listens any more.
    fn run(&mut self) -> Result<(), SourceError> {
        self.assign()?;
        while !self.progress.is_done() && !self.sender.is_closed() {
            let mut polled = poll(&self.consumer, &mut self.progress);
            if let Some(fatal) = polled.fatal.take() {
                return Err(fatal);
            }
            self.note_state(polled.heard);
            if !polled.messages.is_empty() {
                let batch = decode(&mut self.decoder, &polled)?;
                if self.sender.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
            let lost = polled.offsets_lost;
            drop(polled);
            if lost {
                self.skip_lost()?;
            }
            self.find_partitions()?;
        }
        Ok(())
    }

    /// Has the client read each partition from where we are.
    fn assign(&self) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in &self.progress.next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*next))
                .map_err(|error| SourceError::Internal(error.to_string()))?;
            if let Some(live) = &self.live {
                live.add_partition(*partition, *next);
            }
        }
        self.consumer.assign(&list).map_err(|error| SourceError::Internal(error.to_string()))
    }

    fn note_state(&self, heard: bool) {
        let Some(live) = &self.live else { return };
        let state = live.state();
        if heard {
            self.consumer.context().forget_errors();
            if matches!(state, SourceState::Connecting | SourceState::Retrying) {
                live.set_state(SourceState::Running);
            }
            return;
        }
        let Some(reason) = self.consumer.context().last_error() else { return };
        if state != SourceState::Retrying {
            tracing::warn!(topic = %self.topic, reason, "lost connection to Kafka, retrying");
        }
        if state != SourceState::Retrying || !live.has_error(&reason) {
            live.set_error(SourceState::Retrying, reason);
        }
    }

    /// Reads on at the first record there is, where those before it have been removed by the topic's retention.
    fn skip_lost(&mut self) -> Result<(), SourceError> {
        for (partition, next) in &mut self.progress.next {
            let Ok((low, high)) = self.consumer.fetch_watermarks(&self.topic, *partition, WATERMARKS_MAX) else {
                continue;
            };
            if *next > high {
                let message = format!(
                    "partition {partition} of topic \"{}\" ends at offset {high}, but was read up to {next} before: the \
                     topic was truncated or created anew",
                    self.topic
                );
                return Err(SourceError::Lost { message });
            }
            if *next < low {
                let message = format!(
                    "records {next} to {} of partition {partition} of topic \"{}\" are gone by its retention, reading on \
                     at {low}",
                    low - 1,
                    self.topic
                );
                tracing::warn!("{message}");
                if let Some(live) = &self.live {
                    live.set_error(SourceState::Running, message);
                    live.skip_to(*partition, low);
                }
                *next = low;
                let at_end = |end: &i64| *end <= low;
                if let Some(open) = &mut self.progress.open
                    && open.get(partition).is_some_and(at_end)
                {
                    open.remove(partition);
                }
            }
        }
        self.assign()
    }

    /// Takes in partitions that the topic has got since.
    fn find_partitions(&mut self) -> Result<(), SourceError> {
        if self.live.is_none() || self.consumer.context().partition_count() <= self.progress.next.len() {
            return Ok(());
        }
        let known = self.consumer.context().partitions();
        let before = self.progress.next.len();
        for partition in known {
            self.progress.next.entry(partition).or_insert(0);
        }
        if self.progress.next.len() > before {
            tracing::info!(topic = %self.topic, partitions = self.progress.next.len(), "found new partitions");
            self.assign()?;
        }
        Ok(())
    }
}

/// Takes what waits in the client's queue, up to a batch; waits for the first record.
fn poll<'a>(consumer: &'a BaseConsumer<Listener>, progress: &mut Progress) -> Polled<'a> {
    let mut polled = Polled::default();
    let mut wait = POLL_MAX;
    while polled.messages.len() < BATCH_RECORDS_MAX && polled.bytes < BATCH_BYTES_MAX {
        let Some(event) = consumer.poll(wait) else { break };
        wait = Duration::ZERO;
        match event {
            Ok(message) => {
                polled.heard = true;
                if progress.accepts(message.partition(), message.offset()) {
                    polled.bytes += message.payload_len() + message.key_len();
                    polled.messages.push(message);
                }
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                polled.heard = true;
                progress.reached_end(partition);
            }
            Err(KafkaError::MessageConsumptionFatal(code)) => {
                let message = format!("the Kafka client gave up: {code}");
                polled.fatal = Some(SourceError::Unreachable { message, hint: None });
            }
            Err(error) => {
                let code = error.rdkafka_error_code();
                polled.offsets_lost |=
                    matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange));
            }
        }
        if progress.is_done() {
            break;
        }
    }
    polled
}

fn decode(decoder: &mut RecordDecoder, polled: &Polled<'_>) -> Result<SourceBatch, SourceError> {
    let wants_headers = decoder.wants_headers();
    let record = |message: &BorrowedMessage<'_>| wants_headers.then(|| headers_json(message)).flatten();
    let records: Vec<Record<'_>> = polled
        .messages
        .iter()
        .map(|message| Record {
            key: message.key(),
            payload: message.payload(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            headers: record(message),
        })
        .collect();
    let Decoded { rows, dead_letters } = decoder.decode(&records)?;
    let mut offsets = BTreeMap::new();
    for record in &records {
        offsets.insert(record.partition, record.offset + 1);
    }
    Ok(SourceBatch { rows, dead_letters, offsets: Offsets(offsets), bytes: polled.bytes })
}

/// Headers in their order, as `[{"key": …, "value": …}]`; bytes that are not UTF-8 are replaced.
fn headers_json(message: &BorrowedMessage<'_>) -> Option<String> {
    let headers = message.headers()?.iter().map(|header| {
        let value = header.value.map(String::from_utf8_lossy);
        serde_json::json!({ "key": header.key, "value": value })
    });
    Some(serde_json::Value::Array(headers.collect()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(from: &[(i32, i64)], until: Option<&[(i32, i64)]>) -> Progress {
        let offsets = |pairs: &[(i32, i64)]| Offsets(pairs.iter().copied().collect());
        Progress::new(Range { from: offsets(from), until: until.map(offsets) })
    }

    #[test]
    fn a_bounded_reading_takes_just_its_range() {
        let mut progress = progress(&[(0, 5), (1, 3), (2, 9)], Some(&[(0, 7), (1, 3), (3, 1)]));
        assert_eq!(progress.next, [(0, 5), (3, 0)].into(), "partition 1 is empty, 2 has no end and is not read");
        assert!(progress.accepts(0, 5));
        assert!(!progress.accepts(0, 5), "never twice");
        assert!(!progress.accepts(1, 3));
        assert!(progress.accepts(0, 6));
        assert!(!progress.is_done());
        progress.reached_end(3);
        assert!(progress.is_done());
    }

    #[test]
    fn a_record_behind_the_end_closes_its_partition() {
        let mut progress = progress(&[(0, 5)], Some(&[(0, 8)]));
        assert!(progress.accepts(0, 5));
        assert!(!progress.accepts(0, 9), "offsets 6 to 8 were compacted away");
        assert!(progress.is_done());
    }

    #[test]
    fn a_reading_without_end_goes_on() {
        let mut progress = progress(&[(0, 5), (-1, 7)], None);
        assert_eq!(progress.next, [(0, 5)].into());
        assert!(!progress.accepts(0, 4));
        assert!(progress.accepts(0, 6));
        progress.reached_end(0);
        assert!(!progress.is_done());
        assert!(progress.accepts(0, 7));
    }
}
