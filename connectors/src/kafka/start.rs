//! Finds where a topic starts and where it ends at the moment: connects, within a time that a person will wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use freshet_types::{SqlError, SqlState};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::listener::Listener;
use super::options::{Connection, KafkaOptions, Start, bad_property};
use crate::options::suggest;
use crate::source::{Offsets, SourceError};

/// All of it takes no longer than this.
const CONNECT_MAX: Duration = Duration::from_secs(9);
/// No use in waiting longer than this once every broker has refused.
const REFUSED_MAX: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_millis(500);
/// The pause before a broker is asked again that could not answer yet.
const AGAIN: Duration = Duration::from_millis(100);

/// The offset of each partition at the declared start.
pub fn resolve(options: &KafkaOptions) -> Result<Offsets, SourceError> {
    let errand = Errand::new(&options.connection)?;
    let partitions = errand.partitions()?;
    let offsets = match &options.start {
        Start::Earliest => errand.each(&partitions, |low, _| low)?,
        Start::Latest => errand.each(&partitions, |_, high| high)?,
        Start::Time(since_ms) => errand.since(&partitions, *since_ms)?,
        Start::Offsets(given) => {
            if let Some(partition) = given.keys().find(|partition| !partitions.contains(partition)) {
                let message = format!("topic \"{}\" has no partition {partition}", options.connection.topic);
                return Err(SqlError::new(SqlState::InvalidParameterValue, message)
                    .with_hint(format!("its partitions are 0 to {}", partitions.len().max(1) - 1))
                    .into());
            }
            let ends = errand.each(&partitions, |_, high| high)?;
            if let Some((partition, offset)) = given.iter().find(|(partition, offset)| ends[partition] < **offset) {
                let message = format!(
                    "partition {partition} of topic \"{}\" has no offset {offset} yet",
                    options.connection.topic
                );
                return Err(SqlError::new(SqlState::InvalidParameterValue, message)
                    .with_hint(format!("the next record will have offset {}", ends[partition]))
                    .into());
            }
            let mut offsets = errand.each(&partitions, |low, _| low)?;
            offsets.extend(given);
            offsets
        }
    };
    Ok(Offsets(offsets))
}

/// The offset after the last record of each partition, as of now.
pub fn end(options: &KafkaOptions) -> Result<Offsets, SourceError> {
    let errand = Errand::new(&options.connection)?;
    let partitions = errand.partitions()?;
    errand.each(&partitions, |_, high| high).map(Offsets)
}

/// Finds out whether the topic is there.
pub fn reach(connection: &Connection) -> Result<(), SourceError> {
    Errand::new(connection)?.partitions().map(drop)
}

/// A client with a deadline.
struct Errand<'a> {
    connection: &'a Connection,
    consumer: BaseConsumer<Listener>,
    started: Instant,
}

impl<'a> Errand<'a> {
    fn new(connection: &'a Connection) -> Result<Self, SourceError> {
        let listener = Listener::new(&connection.topic, None);
        let config = connection.consumer_config();
        let consumer = config.create_with_context(listener).map_err(|error| bad_property(&error))?;
        Ok(Self { connection, consumer, started: Instant::now() })
    }

    fn left(&self) -> Duration {
        CONNECT_MAX.saturating_sub(self.started.elapsed())
    }

    fn partitions(&self) -> Result<Vec<i32>, SourceError> {
        let topic = &self.connection.topic;
        loop {
            let metadata = self.metadata(Some(topic))?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
                return Err(SourceError::Internal(format!("the broker did not answer for topic \"{topic}\"")));
            };
            match found.error().map(RDKafkaErrorCode::from) {
                None => return Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    return Err(self.no_topic());
                }
                Some(RDKafkaErrorCode::InvalidTopic) => {
                    let message = format!("\"{topic}\" cannot be the name of a topic");
                    return Err(SqlError::new(SqlState::InvalidParameterValue, message).into());
                }
                Some(code) if self.may_pass(code) => self.wait(),
                Some(code) => return Err(self.unreachable(&format!("topic \"{topic}\": {code}"))),
            }
        }
    }

    /// Asks again while the broker says that the topic's leaders are still being chosen, as it does for a moment after
    /// the topic was created or a broker was lost.
    fn patiently<T>(&self, ask: impl Fn() -> KafkaResult<T>) -> Result<T, SourceError> {
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) if error.rdkafka_error_code().is_some_and(|code| self.may_pass(code)) => {
                    self.wait();
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// The client goes on with its own work meanwhile.
    fn wait(&self) {
        drop(self.consumer.poll(AGAIN));
    }

    fn may_pass(&self, code: RDKafkaErrorCode) -> bool {
        use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition};
        matches!(code, LeaderNotAvailable | NotLeaderForPartition | UnknownTopicOrPartition) && self.left() > AGAIN
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, SourceError> {
        loop {
            let error = match self.consumer.fetch_metadata(topic, self.left().min(ATTEMPT)) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            // Errors of connections wait in the client's queue.
            while self.consumer.poll(Duration::ZERO).is_some() {}
            let refused = self.consumer.context().all_brokers_down() && self.started.elapsed() > REFUSED_MAX;
            if refused || self.left().is_zero() {
                return Err(self.failed(&error));
            }
        }
    }

    fn no_topic(&self) -> SourceError {
        let topic = &self.connection.topic;
        let all = self.metadata(None);
        let names: Vec<&str> = all.iter().flat_map(|all| all.topics()).map(|topic| topic.name()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !name.starts_with("__")).collect();
        let hint = match suggest(topic, &names, "topics") {
            meant if meant.starts_with("did you mean") => meant,
            _ => "create the topic first, or check its name".to_owned(),
        };
        let servers = &self.connection.bootstrap_servers;
        let message = format!("topic \"{topic}\" does not exist at \"{servers}\"");
        SqlError::new(SqlState::UndefinedObject, message).with_hint(hint).into()
    }

    /// An offset for each partition, chosen from its first and the one after its last.
    fn each(&self, partitions: &[i32], choose: fn(i64, i64) -> i64) -> Result<BTreeMap<i32, i64>, SourceError> {
        let of = |partition: &i32| {
            let topic = &self.connection.topic;
            let (low, high) = self.patiently(|| self.consumer.fetch_watermarks(topic, *partition, self.left()))?;
            Ok((*partition, choose(low, high)))
        };
        partitions.iter().map(of).collect()
    }

    /// The offsets of the first records written at `since_ms` or later.
    fn since(&self, partitions: &[i32], since_ms: i64) -> Result<BTreeMap<i32, i64>, SourceError> {
        let mut times = TopicPartitionList::new();
        for partition in partitions {
            times
                .add_partition_offset(&self.connection.topic, *partition, Offset::Offset(since_ms.max(0)))
                .map_err(|error| self.failed(&error))?;
        }
        let found = self.patiently(|| {
            let found = self.consumer.offsets_for_times(times.clone(), self.left())?;
            found.elements().iter().try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)?;
            Ok(found)
        })?;
        let mut offsets = self.each(partitions, |_, high| high)?;
        for element in found.elements() {
            // Where no record is that late, the start is the end.
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    fn failed(&self, error: &KafkaError) -> SourceError {
        match self.consumer.context().last_error() {
            Some(reason) => self.unreachable(&reason),
            None => match error.rdkafka_error_code() {
                Some(code) => self.unreachable(&code.to_string()),
                None => self.unreachable(&error.to_string()),
            },
        }
    }

    fn unreachable(&self, reason: &str) -> SourceError {
        let servers = &self.connection.bootstrap_servers;
        SourceError::Unreachable {
            message: format!("cannot reach Kafka at \"{servers}\": {reason}"),
            hint: Some(
                "check bootstrap_servers, and that the broker runs and its advertised listeners can be reached".into(),
            ),
        }
    }
}
