//! The options of a Kafka source or sink, and the client configurations that they make.

use std::collections::BTreeMap;

use chrono::DateTime;
use freshet_types::{SqlError, SqlState};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::decode::OnError;
use crate::options::{Options, invalid};

const OPTIONS: &[&str] = &["topic", "bootstrap_servers", "start", "on_error"];
/// Options that go to the client as they are, without this prefix.
const PASSED_ON: [&str; 2] = ["kafka.", "properties."];

fn passed_on(name: &str) -> Option<&str> {
    PASSED_ON.iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// What a Kafka source was declared with.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    pub connection: Connection,
    pub start: Start,
    pub on_error: OnError,
}

/// A topic, and how to get to it.
#[derive(Debug, Clone)]
pub struct Connection {
    pub topic: String,
    pub bootstrap_servers: String,
    properties: Vec<(String, String)>,
}

/// Where to start reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// At the first record written at this time or later, in milliseconds since 1970.
    Time(i64),
    /// At these offsets; other partitions at their beginning.
    Offsets(BTreeMap<i32, i64>),
}

impl KafkaOptions {
    pub fn new(given: &BTreeMap<String, String>) -> Result<Self, SqlError> {
        let (connection, options) = Connection::new(given, OPTIONS)?;
        let start = options.text("start").map_or(Ok(Start::Earliest), Start::parse)?;
        let options = Self { connection, start, on_error: OnError::from_options(&options)? };
        options.client_config().create_native_config().map_err(|error| bad_property(&error))?;
        Ok(options)
    }

    /// The configuration of every client of this source.
    pub fn client_config(&self) -> ClientConfig {
        self.connection.consumer_config()
    }
}

impl Connection {
    /// Takes the options of `known` that say where to connect; gives the others too.
    pub fn new<'a>(given: &'a BTreeMap<String, String>, known: &[&str]) -> Result<(Self, Options<'a>), SqlError> {
        let options = Options::new("kafka", given, known, |name| passed_on(name).is_some())?;
        let properties = given.iter().filter_map(|(name, value)| Some((passed_on(name)?.to_owned(), value.clone())));
        let connection = Self {
            topic: options.required("topic", "orders")?.trim().to_owned(),
            bootstrap_servers: options.required("bootstrap_servers", "localhost:9092")?.trim().to_owned(),
            properties: properties.collect(),
        };
        Ok((connection, options))
    }

    /// The configuration of a client that reads.
    pub fn consumer_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // The client asks for a group before it lets us assign partitions; it never joins it.
        config.set("group.id", "freshet").set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // An offset that is gone must not silently become another one.
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        // Records are handed out as soon as the broker has any. What waits in the client is bounded, and asked for again
        // soon after it has been taken (the default is a second later).
        config.set("fetch.min.bytes", "1").set("fetch.queue.backoff.ms", "5");
        config.set("queued.min.messages", "100000").set("queued.max.messages.kbytes", "32768");
        // A single record may exceed what is asked for at once. It has to fit into one response, or it blocks its partition.
        config.set("fetch.message.max.bytes", "4194304").set("receive.message.max.bytes", "1000000000");
        // Statistics tell of lag, of new partitions, and that a lost broker is back.
        config.set("statistics.interval.ms", "1000").set("topic.metadata.refresh.interval.ms", "5000");
        // A broker that is there and does not answer is noticed after this, not only after a minute.
        config.set("socket.timeout.ms", "10000");
        self.complete(config)
    }

    /// The configuration of a client that writes in transactions, of which one at a time has this id.
    pub fn producer_config(&self, transactional_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("transactional.id", transactional_id).set("transaction.timeout.ms", "300000");
        // As Java's clients do, so that what they write and what we write of one key meets in one partition.
        config.set("partitioner", "murmur2_random");
        self.complete(config)
    }

    fn complete(&self, mut config: ClientConfig) -> ClientConfig {
        config.set("bootstrap.servers", &self.bootstrap_servers).set("client.id", "freshet");
        config.set("reconnect.backoff.max.ms", "2000").set("socket.keepalive.enable", "true");
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

impl Start {
    fn parse(text: &str) -> Result<Self, SqlError> {
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("earliest") {
            return Ok(Self::Earliest);
        }
        if trimmed.eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(trimmed) {
            return Ok(Self::Time(time.timestamp_millis()));
        }
        let what = "'earliest', 'latest', a time like 2026-01-31T00:00:00Z, or offsets like {\"0\": 17}";
        let offsets: BTreeMap<i32, i64> = serde_json::from_str(trimmed).map_err(|_| invalid("start", text, what))?;
        let sound = offsets.iter().all(|(partition, offset)| *partition >= 0 && *offset >= 0);
        if sound { Ok(Self::Offsets(offsets)) } else { Err(invalid("start", text, what)) }
    }
}

/// A property that the client does not take.
pub fn bad_property(error: &KafkaError) -> SqlError {
    let message = match error {
        KafkaError::ClientConfig(_, reason, name, _) => format!("invalid Kafka property \"{name}\": {reason}"),
        KafkaError::ClientCreation(reason) => format!("invalid Kafka properties: {reason}"),
        other => format!("invalid Kafka properties: {other}"),
    };
    SqlError::new(SqlState::InvalidParameterValue, message)
        .with_hint("options \"kafka.<name>\" and \"properties.<name>\" are properties of librdkafka")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(more: &[(&str, &str)]) -> Result<KafkaOptions, SqlError> {
        let base = [("connector", "kafka"), ("topic", "t"), ("bootstrap_servers", "localhost:1")];
        let all = base.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        KafkaOptions::new(&all.collect())
    }

    #[test]
    fn start_takes_four_forms() {
        let start = |text| options(&[("start", text)]).unwrap().start;
        assert_eq!(options(&[]).unwrap().start, Start::Earliest);
        assert_eq!(start("Earliest"), Start::Earliest);
        assert_eq!(start(" latest"), Start::Latest);
        assert_eq!(start("1970-01-01T00:00:01+00:00"), Start::Time(1000));
        assert_eq!(start("{\"0\": 17, \"3\": 0}"), Start::Offsets([(0, 17), (3, 0)].into()));
        for wrong in ["begin", "{\"0\": -1}", "{\"x\": 1}", "2026-01-31"] {
            let error = options(&[("start", wrong)]).unwrap_err();
            assert_eq!(error.message, format!("invalid value for option \"start\": \"{wrong}\""));
        }
    }

    #[test]
    fn properties_are_passed_on_and_checked() {
        let config =
            options(&[("properties.fetch.min.bytes", "7"), ("kafka.client.rack", "r")]).unwrap().client_config();
        assert_eq!((config.get("fetch.min.bytes"), config.get("client.rack")), (Some("7"), Some("r")));
        let error = options(&[("properties.fetch.min.bites", "7")]).unwrap_err();
        assert!(error.message.starts_with("invalid Kafka property \"fetch.min.bites\""), "{error}");
    }

    #[test]
    fn a_topic_is_needed() {
        let error = KafkaOptions::new(&[("connector".to_owned(), "kafka".to_owned())].into()).unwrap_err();
        assert_eq!(error.message, "connector \"kafka\" needs the option \"topic\"");
    }
}
