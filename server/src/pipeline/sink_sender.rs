//! Sends what is in one sink's outbox, in order, and tries again for as long as it takes. Why nothing is lost or sent
//! twice stands in [`super::sink`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use freshet_connectors::{SinkError, SinkWriter};
use freshet_types::{Delta, Epoch, RelationId};
use tracing::{error, info, warn};

use crate::coordinator::Command;
use crate::limits::{RETRY_INTERVAL_S_MAX, SINK_REMINDER_S};
use crate::pipeline::sink::{SinkObject, SinkState};
use crate::server::Server;
use crate::task;

/// The epoch that a sink commits when it is made. From then on the system outside remembers one.
pub const FIRST_EPOCH: Epoch = Epoch(0);

struct Sender {
    id: RelationId,
    name: String,
    sink: Arc<SinkObject>,
    server: Arc<Server>,
}

/// Why sending stopped.
enum Stop {
    /// It may go better next time.
    Retry(String),
    /// It never will.
    Fail(String),
}

/// Begins to send.
pub fn start(server: &Arc<Server>, id: RelationId, name: &str, sink: &Arc<SinkObject>) {
    let sender = Sender { id, name: name.to_owned(), sink: sink.clone(), server: server.clone() };
    task::spawn(format!("send {name}"), sink.cancel.clone(), sender.run());
}

impl Sender {
    async fn run(self) {
        if self.sink.progress().state == SinkState::Failed {
            return;
        }
        let mut wait = Duration::from_secs(1);
        loop {
            let sent_before = self.sink.progress().sent_epoch;
            let Err(stop) = self.send_until_failure().await;
            let now_ms = self.server.clock.now_ms();
            metrics::counter!("freshet_sink_errors_total", "sink" => self.name.clone()).increment(1);
            match stop {
                Stop::Retry(cause) => {
                    warn!(sink = self.name, "cannot send: {cause}; trying again in {wait:?}");
                    self.sink.note(|progress| {
                        progress.state = SinkState::Retrying;
                        progress.last_error = Some((cause, now_ms));
                    });
                }
                Stop::Fail(cause) => {
                    error!(sink = self.name, "a sink has failed: {cause}");
                    self.sink.fail(cause, now_ms);
                    // The coordinator is gone only at shutdown.
                    let _ = self.server.coordinator.send(Command::SinksChanged).await;
                    return;
                }
            }
            if self.sink.progress().sent_epoch != sent_before {
                wait = Duration::from_secs(1);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(RETRY_INTERVAL_S_MAX));
        }
    }

    async fn send_until_failure(&self) -> Result<std::convert::Infallible, Stop> {
        let mut writer = self.sink.connector.writer().await?;
        self.settle(writer.committed()).await?;
        if writer.committed().is_none() {
            // From now on an epoch is remembered, so that what is not is known not to have arrived.
            self.remind(&mut *writer).await?;
        }
        self.sink.note(|progress| progress.state = SinkState::Running);
        loop {
            while let Some(epoch) = self.sink.progress().backlog.keys().next().copied() {
                let change = self.server.store.outbox_change(self.id, epoch).await?;
                self.send(&mut *writer, epoch, change).await?;
                self.sink.note(|progress| progress.sent_epoch = Some(epoch));
                self.delete(&[epoch]).await?;
            }
            let reminder = tokio::time::sleep(Duration::from_secs(SINK_REMINDER_S));
            tokio::select! {
                () = self.sink.added() => {}
                // What nobody mentions is forgotten some day.
                () = reminder => self.remind(&mut *writer).await?,
            }
        }
    }

    /// Commits again the last epoch that has arrived. Before the first that may be an earlier one: nothing between the
    /// two is left to send.
    async fn remind(&self, writer: &mut dyn SinkWriter) -> Result<(), Stop> {
        let epoch = self.sink.progress().sent_epoch.unwrap_or(FIRST_EPOCH);
        self.send(writer, epoch, Delta::empty(Arc::new(Schema::empty()))).await
    }

    async fn send(&self, writer: &mut dyn SinkWriter, epoch: Epoch, change: Delta) -> Result<(), Stop> {
        let sent = writer.send(epoch, change).await?;
        let name = || self.name.clone();
        metrics::counter!("freshet_sink_transactions_total", "sink" => name()).increment(1);
        metrics::counter!("freshet_sink_records_total", "sink" => name()).increment(sent.records);
        metrics::counter!("freshet_sink_bytes_total", "sink" => name()).increment(sent.bytes);
        self.sink.note(|progress| {
            progress.sent.records += sent.records;
            progress.sent.bytes += sent.bytes;
        });
        Ok(())
    }

    /// Deletes from the outbox what has arrived: all up to epoch `committed`.
    async fn settle(&self, committed: Option<Epoch>) -> Result<(), Stop> {
        let backlog: BTreeMap<_, _> = self.sink.progress().backlog;
        let Some(committed) = committed else {
            if backlog.is_empty() {
                return Ok(());
            }
            return Err(Stop::Fail(
                "the system outside does not remember how far the sink had come, so that what is left to send may have \
                 been sent or not; drop the sink and create it again"
                    .to_owned(),
            ));
        };
        if committed > self.sink.place().unwrap_or(FIRST_EPOCH) {
            return Err(Stop::Fail(format!(
                "epoch {committed} has been sent, of which this database does not know: its data is an older copy"
            )));
        }
        let arrived: Vec<Epoch> = backlog.range(..=committed).map(|(epoch, _)| *epoch).collect();
        if committed > FIRST_EPOCH {
            self.sink.note(|progress| progress.sent_epoch = Some(committed));
        }
        if !arrived.is_empty() {
            info!(sink = self.name, changes = arrived.len(), "had been sent before the last failure");
            self.delete(&arrived).await?;
        }
        Ok(())
    }

    async fn delete(&self, epochs: &[Epoch]) -> Result<(), Stop> {
        self.server.store.delete_from_outbox(self.id, epochs).await?;
        self.sink.note(|progress| progress.backlog.retain(|epoch, _| !epochs.contains(epoch)));
        Ok(())
    }
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Unfit(cause) => Self::Fail(cause),
            other => Self::Retry(other.to_string()),
        }
    }
}

impl From<freshet_storage::StorageError> for Stop {
    fn from(error: freshet_storage::StorageError) -> Self {
        Self::Retry(error.to_string())
    }
}
