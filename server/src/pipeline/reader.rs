//! Reads one source for as long as views need it, and hands its batches to the coordinator.
//!
//! A reading has a generation. The coordinator starts a new one when a view needs columns that the running one does
//! not decode, and drops what still arrives from an older one: it is read again, from the last sealed offsets.

use std::time::Duration;

use freshet_connectors::{Offsets, Range, Source, SourceBatch, SourceError};
use freshet_types::RelationId;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::limits::RETRY_INTERVAL_S_MAX;

/// A batch on its way to the coordinator.
pub struct Ingest {
    pub source: RelationId,
    pub generation: u64,
    pub batch: SourceBatch,
}

/// What to read, and where to hand it.
pub struct Reader {
    pub source: RelationId,
    pub name: String,
    pub generation: u64,
    pub connector: std::sync::Arc<dyn Source>,
    pub from: Offsets,
    pub columns: Vec<usize>,
    pub queue: mpsc::Sender<Ingest>,
}

impl Reader {
    /// Reads until the source ends or the coordinator is gone; tries again after a failure, for ever, waiting longer
    /// each time.
    pub async fn run(mut self) {
        let mut wait = Duration::from_secs(1);
        loop {
            let read_before = self.from.clone();
            match self.read_until_failure().await {
                Ok(()) => return,
                Err(error) => warn!(source = %self.name, "cannot read: {error}; trying again in {wait:?}"),
            }
            if self.from != read_before {
                wait = Duration::from_secs(1);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(RETRY_INTERVAL_S_MAX));
        }
    }

    async fn read_until_failure(&mut self) -> Result<(), SourceError> {
        let range = Range { from: self.from.clone(), until: None };
        let mut reading = self.connector.read(range, &self.columns).await?;
        info!(source = %self.name, columns = self.columns.len(), "reading");
        while let Some(batch) = reading.next().await? {
            for (partition, offset) in &batch.offsets.0 {
                self.from.0.insert(*partition, *offset);
            }
            let ingest = Ingest { source: self.source, generation: self.generation, batch };
            if self.queue.send(ingest).await.is_err() {
                return Ok(());
            }
        }
        info!(source = %self.name, "has been read to its end");
        Ok(())
    }
}
