//! What the Kafka client tells on the side: errors, statistics, logs.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::Statistics;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::status::{LiveStatus, SourceState};

/// Hears one client. Called on the thread that polls the client.
pub struct Listener {
    topic: String,
    /// Where to note what is heard; `None` for clients of readings with an end and short errands.
    status: Option<Arc<LiveStatus>>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    last_error: Option<String>,
    all_brokers_down: bool,
    partitions: BTreeSet<i32>,
}

impl Heard {
    fn forget_errors(&mut self) {
        self.all_brokers_down = false;
        self.last_error = None;
    }
}

impl Listener {
    pub fn new(topic: &str, status: Option<Arc<LiveStatus>>) -> Self {
        Self { topic: topic.to_owned(), status, heard: Mutex::default() }
    }

    /// The last error, if there was one.
    pub fn last_error(&self) -> Option<String> {
        self.heard.lock().last_error.clone()
    }

    /// Records come in, so whatever was wrong is over.
    pub fn forget_errors(&self) {
        self.heard.lock().forget_errors();
    }

    pub fn all_brokers_down(&self) -> bool {
        self.heard.lock().all_brokers_down
    }

    /// The partitions of the topic that are known so far.
    pub fn partitions(&self) -> BTreeSet<i32> {
        self.heard.lock().partitions.clone()
    }

    pub fn partition_count(&self) -> usize {
        self.heard.lock().partitions.len()
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Errors come through `error` too, and are shown in the source's status.
        tracing::debug!(topic = %self.topic, ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut heard = self.heard.lock();
        let code = error.rdkafka_error_code();
        heard.all_brokers_down |= code == Some(RDKafkaErrorCode::AllBrokersDown);
        // The client follows the error that matters with one that says that no broker is left.
        let secondary = code == Some(RDKafkaErrorCode::AllBrokersDown) && heard.last_error.is_some();
        if !secondary && !matches!(error, KafkaError::PartitionEOF(_)) && code != Some(RDKafkaErrorCode::PartitionEOF) {
            heard.last_error = Some(plain(reason).to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        let mut heard = self.heard.lock();
        if let Some(topic) = statistics.topics.get(&self.topic) {
            heard.partitions.extend(topic.partitions.keys().filter(|partition| **partition >= 0));
            if let Some(status) = &self.status {
                for (partition, known) in topic.partitions.iter().filter(|(_, known)| known.hi_offset >= 0) {
                    status.set_high_watermark(*partition, known.hi_offset);
                }
            }
        }
        if up {
            heard.forget_errors();
            if let Some(status) = &self.status
                && status.state() == SourceState::Retrying
            {
                status.set_state(SourceState::Running);
            }
        }
    }
}

impl ConsumerContext for Listener {}

/// A reason of the client without its notes to itself: `host:port/id: what (after 3ms in state CONNECT, …)`.
fn plain(reason: &str) -> &str {
    if reason.contains("Receive failed: Invalid response size") {
        return "what answers there does not speak Kafka's protocol, or speaks it over TLS";
    }
    let reason = reason.split_once(" (after ").map_or(reason, |(what, _)| what);
    reason.find("Connect to ").map_or(reason, |connect| &reason[connect..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_to_what_matters() {
        let reason =
            "h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(plain(reason), "Connect to ipv4#127.0.0.1:1 failed: Connection refused");
        assert_eq!(plain("GroupCoordinator: h:1: Connect to h failed: no"), "Connect to h failed: no");
        let reason = "h:80/bootstrap: Receive failed: Invalid response size 1213486160 (0..1000000000): increase …";
        assert_eq!(plain(reason), "what answers there does not speak Kafka's protocol, or speaks it over TLS");
        assert_eq!(plain("1/1 brokers are down"), "1/1 brokers are down");
    }

    #[test]
    fn the_error_that_matters_is_kept() {
        let listener = Listener::new("t", None);
        listener.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "refused");
        listener.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(listener.all_brokers_down());
        assert_eq!(listener.last_error().as_deref(), Some("refused"));
    }
}
