//! Apache Kafka and what speaks its protocol (Redpanda, Azure Event Hubs).
//!
//! | option                        | meaning                                                                  | default      |
//! |-------------------------------|--------------------------------------------------------------------------|--------------|
//! | `topic`                       | the topic, all of its partitions                                         | needed       |
//! | `bootstrap_servers`           | `host:port`, several separated by commas                                 | needed       |
//! | `start`                       | `earliest`, `latest`, an RFC 3339 time (the first record written then or later), or `{"0": 17}`: an offset for each partition, the others from their beginning | `earliest` |
//! | `on_error`                    | `quarantine`, `fail` or `null`                                           | `quarantine` |
//! | `kafka.<name>`, `properties.<name>` | any librdkafka property, as in `properties.security.protocol`      |              |
//!
//! Partitions are assigned by hand and nothing is ever committed: where a reading starts is for the caller to know.
//! Partitions that appear later are found within seconds and read from their beginning. Order holds within a partition.
//! A lost broker is retried for ever, and shows in the source's status. Records that retention has removed before they
//! were read are skipped, which shows in the status too.

mod listener;
mod options;
mod reader;
pub(crate) mod sink;
mod start;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use freshet_types::{Clock, SqlError};

use self::options::KafkaOptions;
use crate::decode::records::RecordDecoder;
use crate::definition::{IncludeKind, SourceDefinition};
use crate::registry::Connector;
use crate::source::{Offsets, Range, Source, SourceError, SourceReader};
use crate::status::SourceStatus;

pub(crate) const CONNECTOR: Connector =
    Connector { name: "kafka", includes: &IncludeKind::ALL, open, columns: |_| Ok(None) };

fn open(definition: SourceDefinition, clock: Clock) -> Result<Arc<dyn Source>, SqlError> {
    let options = KafkaOptions::new(&definition.options)?;
    // So that a declaration that no reading could use is refused now.
    RecordDecoder::new(&definition, &(0..definition.columns.len()).collect::<Vec<_>>(), options.on_error)?;
    let schema = definition.schema();
    Ok(Arc::new(KafkaSource { definition, options, schema, status: Arc::new(SourceStatus::new(clock)) }))
}

struct KafkaSource {
    definition: SourceDefinition,
    options: KafkaOptions,
    schema: SchemaRef,
    status: Arc<SourceStatus>,
}

#[async_trait]
impl Source for KafkaSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn resolve_start(&self) -> Result<Offsets, SourceError> {
        let options = self.options.clone();
        let resolved = tokio::task::spawn_blocking(move || start::resolve(&options)).await;
        resolved.unwrap_or_else(|_| Err(SourceError::Internal("finding the start of a topic failed".into())))
    }

    async fn read(&self, range: Range, columns: &[usize]) -> Result<Box<dyn SourceReader>, SourceError> {
        let decoder = RecordDecoder::new(&self.definition, columns, self.options.on_error)?;
        let name = &self.definition.name;
        Ok(Box::new(reader::start(name, self.options.clone(), range, decoder, &self.status)?))
    }

    async fn end(&self) -> Result<Option<Offsets>, SourceError> {
        let options = self.options.clone();
        let found = tokio::task::spawn_blocking(move || start::end(&options)).await;
        let found = found.unwrap_or_else(|_| Err(SourceError::Internal("finding the end of a topic failed".into())));
        found.map(Some)
    }

    fn status(&self) -> Arc<SourceStatus> {
        Arc::clone(&self.status)
    }
}
