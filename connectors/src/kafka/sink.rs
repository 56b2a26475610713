//! Changes into a topic, in Kafka's transactions.
//!
//! | option                              | meaning                                                    | default              |
//! |-------------------------------------|------------------------------------------------------------|----------------------|
//! | `topic`                             | the topic, which must be there                             | needed               |
//! | `bootstrap_servers`                 | `host:port`, several separated by commas                   | needed               |
//! | `key`                               | the columns of the messages' keys, separated by commas     | the relation's key   |
//! | `snapshot`                          | begin with the rows that are there already                 | `true`               |
//! | `kafka.<name>`, `properties.<name>` | any librdkafka property                                    |                      |
//!
//! **Which epoch was the last.** Each transaction commits, besides its messages, the epoch as the offset of a consumer
//! group that is named like the transactional id. Kafka makes both visible at once or neither. A companion topic could
//! keep the epoch as well, but somebody would have to create it with the right retention and the right to write to it,
//! and reading it back means reading all of it. What speaks against an offset is that brokers forget the offsets of a group
//! that has been idle for a week (`offsets.retention.minutes`). That matters only to whoever has something to
//! send that is older: see `server/src/pipeline/sink.rs`.
//!
//! **One writer.** The transactional id is the sink's identity. Kafka's answer to `init_transactions` comes only after an
//! unfinished transaction of the id has been aborted, or has been completed if it was about to be committed; and it
//! fences every earlier producer of the id. The group's offset is read after that, as `read_committed`, for which the broker waits
//! until no commit of it is pending. So what is read is the last epoch, and nobody can add to it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use freshet_types::{Delta, Epoch, SqlError};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::listener::Listener;
use super::options::{Connection, bad_property};
use super::start;
use crate::encode::{ChangeEncoder, Message};
use crate::sink::{Sent, Sink, SinkDefinition, SinkError, SinkWriter};
use crate::source::SourceError;

const OPTIONS: &[&str] = &["topic", "bootstrap_servers", "key", "snapshot"];
/// How long to wait for an answer that a broker gives at once, once it is there.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long messages may be on their way without one of them arriving.
const PROGRESS_MAX: Duration = Duration::from_secs(15);
/// How often to look.
const LOOK: Duration = Duration::from_millis(200);
/// How long an unfinished transaction may take to be taken back, when the writer goes away.
const ABORT_MAX: Duration = Duration::from_secs(2);

pub(crate) fn open(definition: SinkDefinition) -> Result<Arc<dyn Sink>, SqlError> {
    let (connection, _) = Connection::new(&definition.options, OPTIONS)?;
    let encoder = ChangeEncoder::new(&definition)?;
    let transactional_id = format!("freshet-{}-{}", definition.name, definition.identity);
    let config = connection.producer_config(&transactional_id);
    config.create_native_config().map_err(|error| bad_property(&error))?;
    Ok(Arc::new(KafkaSink { connection, encoder, transactional_id }))
}

#[derive(Clone)]
struct KafkaSink {
    connection: Connection,
    encoder: ChangeEncoder,
    /// Also the name of the group.
    transactional_id: String,
}

#[async_trait]
impl Sink for KafkaSink {
    async fn reach(&self) -> Result<(), SinkError> {
        let connection = self.connection.clone();
        blocking(move || start::reach(&connection).map_err(SinkError::from)).await
    }

    async fn writer(&self) -> Result<Box<dyn SinkWriter>, SinkError> {
        let sink = self.clone();
        let is_unwanted = Arc::new(AtomicBool::new(false));
        let unwanted = SetOnDrop(is_unwanted.clone());
        let (committed, transactions) = blocking(move || Transactions::take_over(sink, is_unwanted)).await?;
        Ok(Box::new(KafkaWriter { committed, transactions: Some(Arc::new(transactions)), _unwanted: unwanted }))
    }
}

/// The client waits on threads of its own, and its calls wait for these.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        // A panic, which is in the log.
        Err(_) => Err(SinkError::Unreachable { message: "the Kafka client broke off".to_owned(), hint: None }),
    }
}

impl From<SourceError> for SinkError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Options(error) => Self::Options(error),
            SourceError::Unreachable { message, hint } => Self::Unreachable { message, hint },
            other => Self::Unreachable { message: other.to_string(), hint: None },
        }
    }
}

struct KafkaWriter {
    committed: Option<Epoch>,
    /// Taken when the writer ends.
    transactions: Option<Arc<Transactions>>,
    /// Breaks off a transaction that is being sent.
    _unwanted: SetOnDrop,
}

/// Tells a thread that waits for a broker that nobody waits for it any more.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for KafkaWriter {
    fn drop(&mut self) {
        // The end of a transaction and of a client takes a while, on a thread that may wait.
        let transactions = self.transactions.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(transactions));
        }
    }
}

#[async_trait]
impl SinkWriter for KafkaWriter {
    fn committed(&self) -> Option<Epoch> {
        self.committed
    }

    async fn send(&mut self, epoch: Epoch, change: Delta) -> Result<Sent, SinkError> {
        let transactions = self.transactions.clone().expect("they are there until the writer ends");
        blocking(move || transactions.send(epoch, &change)).await
    }
}

/// What the producer tells on the side.
struct Heard {
    listener: Listener,
    /// Why a message of the transaction has not arrived.
    undelivered: Mutex<Option<String>>,
}

impl ClientContext for Heard {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.listener.forget_errors(),
            Err((error, _)) => {
                self.undelivered.lock().get_or_insert_with(|| said(error));
            }
        }
    }
}

/// A producer that has taken over the transactional id.
struct Transactions {
    sink: KafkaSink,
    producer: ThreadedProducer<Heard>,
    group: ConsumerGroupMetadata,
    is_open: Mutex<bool>,
    is_unwanted: Arc<AtomicBool>,
}

impl Transactions {
    /// Ends all earlier producers of the sink, and finds out the last epoch that one of them committed.
    fn take_over(sink: KafkaSink, is_unwanted: Arc<AtomicBool>) -> Result<(Option<Epoch>, Self), SinkError> {
        let listener = Listener::new(&sink.connection.topic, None);
        let heard = Heard { listener, undelivered: Mutex::default() };
        let config = sink.connection.producer_config(&sink.transactional_id);
        let producer: ThreadedProducer<Heard> =
            config.create_with_context(heard).map_err(|error| bad_property(&error))?;
        let unreachable = |error: &KafkaError| sink.unreachable(producer.context(), error);
        let started = Instant::now();
        // An answer that takes longer is waited for by calling again.
        while let Err(error) = producer.init_transactions(LOOK) {
            let is_late = started.elapsed() > ANSWER_MAX || is_unwanted.load(Ordering::Relaxed);
            let may_call_again = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if is_late || !may_call_again {
                return Err(unreachable(&error));
            }
        }

        let mut config = sink.connection.consumer_config();
        config.set("group.id", &sink.transactional_id).set("isolation.level", "read_committed");
        let listener = Listener::new(&sink.connection.topic, None);
        let consumer: BaseConsumer<Listener> =
            config.create_with_context(listener).map_err(|error| bad_property(&error))?;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(&sink.connection.topic, 0);
        let found = consumer.committed_offsets(wanted, ANSWER_MAX).map_err(|error| unreachable(&error))?;
        let mut committed = None;
        for element in found.elements() {
            element.error().map_err(|error| unreachable(&error))?;
            if let Offset::Offset(epoch) = element.offset() {
                committed = u64::try_from(epoch).ok().map(Epoch);
            }
        }
        let group = consumer.group_metadata().ok_or_else(|| SinkError::Unreachable {
            message: "the Kafka client knows no group".to_owned(),
            hint: None,
        })?;
        Ok((committed, Self { sink, producer, group, is_open: Mutex::new(false), is_unwanted }))
    }

    /// One transaction: the messages of a change, and its epoch.
    fn send(&self, epoch: Epoch, change: &Delta) -> Result<Sent, SinkError> {
        let failed = |error: &KafkaError| self.failed(error);
        self.producer.begin_transaction().map_err(|error| failed(&error))?;
        *self.is_open.lock() = true;
        let mut sent = Sent::default();
        self.sink.encoder.encode(epoch, change, |message| {
            sent.records += 1;
            sent.bytes += [message.key, message.value].into_iter().flatten().map(|part| part.len() as u64).sum::<u64>();
            self.produce(message)
        })?;
        self.await_deliveries()?;
        let mut position = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(epoch.millis()).expect("an epoch is a time in milliseconds"));
        position.add_partition_offset(&self.sink.connection.topic, 0, offset).map_err(|error| failed(&error))?;
        self.producer
            .send_offsets_to_transaction(&position, &self.group, ANSWER_MAX)
            .map_err(|error| failed(&error))?;
        self.producer.commit_transaction(ANSWER_MAX).map_err(|error| failed(&error))?;
        *self.is_open.lock() = false;
        Ok(sent)
    }

    fn produce(&self, message: Message<'_>) -> Result<(), SinkError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.sink.connection.topic);
        record.key = message.key;
        record.payload = message.value;
        let mut patience = Patience::new(&self.producer);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    record = back;
                    self.check(&mut patience)?;
                    // Returns when there is room for all, or some more.
                    let _ = self.producer.flush(LOOK / 20);
                }
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(SinkError::Unfit(
                        "a message is larger than properties.message.max.bytes allows".to_owned(),
                    ));
                }
                Err((error, _)) => return Err(self.failed(&error)),
            }
        }
    }

    /// Waits until the broker has all messages.
    fn await_deliveries(&self) -> Result<(), SinkError> {
        let mut patience = Patience::new(&self.producer);
        while self.producer.in_flight_count() > 0 {
            // An error here only says that not all have arrived yet.
            let _ = self.producer.flush(LOOK);
            self.check(&mut patience)?;
        }
        self.check(&mut patience)
    }

    fn check(&self, patience: &mut Patience) -> Result<(), SinkError> {
        if self.is_unwanted.load(Ordering::Relaxed) {
            return Err(self.sink.unreachable_because("the sink was stopped"));
        }
        if let Some(reason) = self.producer.context().undelivered.lock().clone() {
            return Err(self.sink.unreachable_because(&reason));
        }
        if patience.is_over(&self.producer) {
            let listener = &self.producer.context().listener;
            let reason = listener.last_error().unwrap_or_else(|| "no message arrives".to_owned());
            return Err(self.sink.unreachable_because(&reason));
        }
        Ok(())
    }

    fn failed(&self, error: &KafkaError) -> SinkError {
        self.sink.unreachable(self.producer.context(), error)
    }
}

/// So that nobody who reads only what is committed has to wait until the broker gives the transaction up.
impl Drop for Transactions {
    fn drop(&mut self) {
        if *self.is_open.lock() {
            // If it fails, the next writer aborts it, or the broker does after a while.
            let _ = self.producer.abort_transaction(ABORT_MAX);
        }
    }
}

/// Waits as long as messages arrive.
struct Patience {
    in_flight: i32,
    since: Instant,
}

impl Patience {
    fn new(producer: &ThreadedProducer<Heard>) -> Self {
        Self { in_flight: producer.in_flight_count(), since: Instant::now() }
    }

    fn is_over(&mut self, producer: &ThreadedProducer<Heard>) -> bool {
        let in_flight = producer.in_flight_count();
        if in_flight < self.in_flight {
            *self = Self { in_flight, since: Instant::now() };
        }
        self.since.elapsed() > PROGRESS_MAX
    }
}

impl KafkaSink {
    fn unreachable(&self, heard: &Heard, error: &KafkaError) -> SinkError {
        match heard.listener.last_error() {
            Some(reason) => self.unreachable_because(&reason),
            None => self.unreachable_because(&said(error)),
        }
    }

    fn unreachable_because(&self, reason: &str) -> SinkError {
        let Connection { topic, bootstrap_servers, .. } = &self.connection;
        SinkError::Unreachable {
            message: format!("cannot write to topic \"{topic}\" at \"{bootstrap_servers}\": {reason}"),
            hint: Some("check bootstrap_servers, and that the broker runs and allows transactions".to_owned()),
        }
    }
}

/// What an error says, without the names that the client has for it.
fn said(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}
