//! `freshet_catalog`: how the server is doing, as relations.
//!
//! | relation           | one row                                                                    |
//! |--------------------|----------------------------------------------------------------------------|
//! | history            | a table or materialized view: how far back it is readable, and what that takes |
//! | materialized_views | a materialized view and its query                                          |
//! | view_status        | a materialized view: state, epoch, lag, rows, memory, row errors            |
//! | view_errors        | a row on which an expression of a view failed, with the message             |
//! | view_memory        | an operator of a view on a worker: bytes in memory and on the disk          |
//! | memory             | a part of the server: bytes in use, and the most that it may use            |
//! | source_status      | a partition of a source; state, records and errors are the whole source's   |
//! | sink_status        | a sink: state, last epoch sent, what waits, records, last error             |
//! | checkpoints        | a recent checkpoint: epoch, duration, bytes, or why there was none          |
//! | tiers              | a tier of a table or materialized view: rows, bytes, files, oldest and newest |
//! | retention          | a table or materialized view that does not keep its rows for ever: by which column, until when |
//! | settings           | a setting of the server                                                     |

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use freshet_connectors::StatusReport;
use freshet_storage::collection::{HistoryPolicy, HistoryStatus};
use freshet_types::{Epoch, RelationId};

use crate::catalog::{Entry, MaterializedViewObject, Object, PUBLIC, SourceObject};
use crate::memory::Usage;
use crate::pipeline::checkpointer::CheckpointReport;
use crate::pipeline::sink::SinkProgress;
use crate::pipeline::view_status::ViewState;
use crate::query::names::StatusRelations;
use crate::server::Server;

/// The schema that these relations live in.
pub const FRESHET_CATALOG: &str = "freshet_catalog";

/// The status relations of one server, filled when they are looked up.
pub struct Status<'a> {
    pub server: &'a Server,
}

impl StatusRelations for Status<'_> {
    fn status_relation(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
        if schema != Some(FRESHET_CATALOG) {
            return None;
        }
        let columns = match name {
            "history" => self.history(),
            "materialized_views" => self.materialized_views(),
            "view_status" => self.view_status(),
            "view_errors" => self.view_errors(),
            "view_memory" => self.view_memory(),
            "memory" => self.memory(),
            "source_status" => self.source_status(),
            "sink_status" => self.sink_status(),
            "checkpoints" => self.checkpoints(),
            "tiers" => tiers::relation(self.server),
            "retention" => tiers::retention(self.server),
            "settings" => self.settings(),
            _ => return None,
        };
        Some(relation(columns))
    }
}

mod tiers;

type Column = (&'static str, ArrayRef);

fn relation(columns: Vec<Column>) -> Arc<dyn TableProvider> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("all columns have one value a row");
    Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("the batch is of the schema"))
}

fn text<T: AsRef<str>>(name: &'static str, values: impl IntoIterator<Item = Option<T>>) -> Column {
    (name, Arc::new(StringArray::from_iter(values)))
}

fn number(name: &'static str, values: impl IntoIterator<Item = Option<u64>>) -> Column {
    let values = values.into_iter().map(|value| value.and_then(|value| i64::try_from(value).ok()));
    (name, Arc::new(Int64Array::from_iter(values)))
}

fn time(name: &'static str, values_ms: impl IntoIterator<Item = Option<u64>>) -> Column {
    let micros = |ms: u64| i64::try_from(ms).ok().and_then(|ms| ms.checked_mul(1_000));
    let values = values_ms.into_iter().map(|value| value.and_then(micros));
    let column = TimestampMicrosecondArray::from_iter(values).with_timezone("UTC");
    (name, Arc::new(column) as ArrayRef)
}

/// A partition of a source; none for a source that has not been read.
type PartitionRow<'a> = (&'a Entry, StatusReport, Option<(i32, u64, Option<u64>)>);

impl Status<'_> {
    fn views(&self) -> Vec<(Arc<Entry>, Arc<MaterializedViewObject>)> {
        let entries = self.server.catalog.state();
        let view = |entry: &Arc<Entry>| match &entry.object {
            Object::MaterializedView(view) => Some((entry.clone(), view.clone())),
            _ => None,
        };
        entries.entries().filter_map(view).collect()
    }

    fn materialized_views(&self) -> Vec<Column> {
        let views = self.views();
        vec![
            text("schema_name", views.iter().map(|_| Some(PUBLIC))),
            text("name", views.iter().map(|(entry, _)| Some(entry.name()))),
            text("definition", views.iter().map(|(_, view)| Some(view.query.sql()))),
        ]
    }

    fn history(&self) -> Vec<Column> {
        let catalog = self.server.catalog.state();
        let relations: Vec<_> = catalog
            .entries()
            .filter_map(|entry| Some((entry, catalog.collection(entry.id())?)))
            .map(|(entry, collection)| (entry, &collection.description().history, collection.history()))
            .collect();
        // A view that is not complete yet is readable at no epoch.
        let told = |status: &HistoryStatus, epoch: Epoch| (status.upper > Epoch::ZERO).then_some(epoch.millis());
        let bound = |policy: &HistoryPolicy| (policy.bytes_max < usize::MAX).then_some(policy.bytes_max as u64);
        let trimmed = relations.iter().map(|(_, _, status)| Some(status.is_trimmed));
        vec![
            text("relation", relations.iter().map(|(entry, ..)| Some(entry.name()))),
            time("since", relations.iter().map(|(_, _, status)| told(status, status.since))),
            number("since_epoch", relations.iter().map(|(_, _, status)| told(status, status.since))),
            number("epoch", relations.iter().map(|(_, _, status)| told(status, status.upper))),
            number("history_ms", relations.iter().map(|(_, policy, _)| Some(policy.ms))),
            number("bytes", relations.iter().map(|(_, _, status)| Some(status.bytes as u64))),
            number("bytes_max", relations.iter().map(|(_, policy, _)| bound(policy))),
            ("trimmed", Arc::new(BooleanArray::from_iter(trimmed))),
        ]
    }

    fn view_status(&self) -> Vec<Column> {
        let views = self.views();
        let sealed = self.server.coordinator.sealed();
        let states: Vec<ViewState> = views.iter().map(|(_, view)| view.status.lock().state.clone()).collect();
        let uppers: Vec<u64> = views.iter().map(|(_, view)| view.collection.upper().millis()).collect();
        // Epochs are milliseconds, so their distance is a time.
        let lag = |upper: &u64| (*upper > 0).then(|| sealed.minus_millis(*upper).millis());
        let (errors, hints): (Vec<_>, Vec<_>) = states.iter().map(failure).unzip();
        vec![
            text("name", views.iter().map(|(entry, _)| Some(entry.name()))),
            text("state", states.iter().map(|state| Some(state.name()))),
            number("epoch", uppers.iter().map(|upper| (*upper > 0).then_some(*upper))),
            number("lag_ms", uppers.iter().map(lag)),
            number("rows", views.iter().map(|(_, view)| Some(view.collection.row_count() as u64))),
            number("memory_bytes", views.iter().map(|(_, view)| Some(view.collection.memory_bytes() as u64))),
            number("row_errors", views.iter().map(|(_, view)| Some(view.status.lock().error_count() as u64))),
            number("row_errors_not_kept", views.iter().map(|(_, view)| Some(view.status.lock().errors_not_kept))),
            text("error", errors),
            text("hint", hints),
        ]
    }

    /// Operators by view, node and worker; then the rows of each view.
    fn view_memory(&self) -> Vec<Column> {
        let views = self.views();
        let name_of: HashMap<RelationId, &str> = views.iter().map(|(entry, _)| (entry.id(), entry.name())).collect();
        let mut operators = self.server.engine.memory().operators();
        operators.retain(|operator| name_of.contains_key(&operator.view));
        operators.sort_by_key(|operator| (operator.view, operator.node, operator.worker));
        let collection = |view: &MaterializedViewObject| Some(view.collection.memory_bytes() as u64);
        let of_rows = || views.iter().map(|_| None);
        let told = operators.iter();
        vec![
            text(
                "view",
                told.clone()
                    .map(|operator| Some(name_of[&operator.view]))
                    .chain(views.iter().map(|(e, _)| Some(e.name()))),
            ),
            text(
                "operator",
                told.clone().map(|operator| Some(operator.operator)).chain(views.iter().map(|_| Some("Rows"))),
            ),
            number("node", told.clone().map(|operator| Some(u64::from(operator.node))).chain(of_rows())),
            number("worker", told.clone().map(|operator| Some(operator.worker as u64)).chain(of_rows())),
            number(
                "memory_bytes",
                told.clone()
                    .map(|operator| Some(operator.memory_bytes))
                    .chain(views.iter().map(|(_, v)| collection(v))),
            ),
            number("disk_bytes", told.map(|operator| Some(operator.disk_bytes)).chain(views.iter().map(|_| Some(0)))),
            number("limit_bytes", {
                let limits: HashMap<RelationId, Option<u64>> =
                    views.iter().map(|(entry, view)| (entry.id(), view.budget.bytes_max)).collect();
                operators.iter().map(move |operator| limits[&operator.view]).chain(of_rows()).collect::<Vec<_>>()
            }),
        ]
    }

    fn memory(&self) -> Vec<Column> {
        let parts = Usage::now(self.server).parts(&self.server.config);
        vec![
            text("part", parts.iter().map(|(name, _, _)| Some(*name))),
            number("bytes", parts.iter().map(|(_, bytes, _)| *bytes)),
            number("bytes_max", parts.iter().map(|(_, _, bytes_max)| *bytes_max)),
        ]
    }

    fn view_errors(&self) -> Vec<Column> {
        let mut rows = Vec::new();
        for (entry, view) in self.views() {
            let status = view.status.lock();
            let name = entry.name().to_owned();
            rows.extend(status.errors().map(|((error, row), failing)| {
                (name.clone(), error.clone(), row.clone(), failing.count, failing.since.millis())
            }));
        }
        vec![
            text("view", rows.iter().map(|row| Some(&row.0))),
            text("error", rows.iter().map(|row| Some(&row.1))),
            text("row", rows.iter().map(|row| Some(&row.2))),
            ("count", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3)))),
            time("since", rows.iter().map(|row| Some(row.4))),
        ]
    }

    fn source_status(&self) -> Vec<Column> {
        let state = self.server.catalog.state();
        let sources: Vec<(Arc<Entry>, Arc<SourceObject>)> = state
            .entries()
            .filter_map(|entry| match &entry.object {
                Object::Source(source) => Some((entry.clone(), source.clone())),
                _ => None,
            })
            .collect();
        let rows: Vec<PartitionRow<'_>> =
            sources.iter().flat_map(|(entry, source)| partitions(entry, source)).collect();
        vec![
            text("source", rows.iter().map(|row| Some(row.0.name()))),
            text("state", rows.iter().map(|row| Some(row.1.state.name()))),
            number("partition", rows.iter().map(|row| row.2.and_then(|part| u64::try_from(part.0).ok()))),
            number("next_offset", rows.iter().map(|row| row.2.map(|part| part.1))),
            number("lag_records", rows.iter().map(|row| row.2.and_then(|part| part.2))),
            number("records", rows.iter().map(|row| Some(row.1.records))),
            number("bytes", rows.iter().map(|row| Some(row.1.bytes))),
            number("dead_letters", rows.iter().map(|row| Some(row.1.dead_letters))),
            text("last_error", rows.iter().map(|row| row.1.last_error.as_deref())),
            time("last_error_at", rows.iter().map(|row| row.1.last_error_ms)),
        ]
    }

    fn sink_status(&self) -> Vec<Column> {
        let catalog = self.server.catalog.state();
        let sinks: Vec<(&str, Option<&str>, SinkProgress)> = catalog
            .sinks()
            .map(|(entry, sink)| {
                let relation = catalog.get(sink.relation).map(|relation| relation.name());
                (entry.name(), relation, sink.progress())
            })
            .collect();
        let backlog_bytes = |progress: &SinkProgress| progress.backlog.values().map(|batch| batch.bytes as u64).sum();
        let last_error = |progress: &SinkProgress| progress.last_error.clone();
        vec![
            text("sink", sinks.iter().map(|sink| Some(sink.0))),
            text("relation", sinks.iter().map(|sink| sink.1)),
            text("state", sinks.iter().map(|sink| Some(sink.2.state.name()))),
            number("sent_epoch", sinks.iter().map(|sink| sink.2.sent_epoch.map(Epoch::millis))),
            number("waiting_changes", sinks.iter().map(|sink| Some(sink.2.backlog.len() as u64))),
            number("waiting_bytes", sinks.iter().map(|sink| Some(backlog_bytes(&sink.2)))),
            number("records", sinks.iter().map(|sink| Some(sink.2.sent.records))),
            number("bytes", sinks.iter().map(|sink| Some(sink.2.sent.bytes))),
            text("last_error", sinks.iter().map(|sink| last_error(&sink.2).map(|error| error.0))),
            time("last_error_at", sinks.iter().map(|sink| last_error(&sink.2).map(|e| e.1).filter(|ms| *ms > 0))),
        ]
    }

    fn checkpoints(&self) -> Vec<Column> {
        let reports = self.server.checkpoint_reports.all();
        let stats = |report: &CheckpointReport| report.outcome.as_ref().ok().copied();
        let count = |number: usize| u64::try_from(number).ok();
        let millis = |report: &CheckpointReport| u64::try_from(report.duration.as_millis()).ok();
        vec![
            number("epoch", reports.iter().map(|report| report.epoch.map(Epoch::millis))),
            time("started_at", reports.iter().map(|report| Some(report.started_ms))),
            number("duration_ms", reports.iter().map(millis)),
            number("bytes", reports.iter().map(|report| stats(report).map(|stats| stats.bytes))),
            number("rows", reports.iter().map(|report| stats(report).and_then(|stats| count(stats.rows)))),
            number("files", reports.iter().map(|report| stats(report).and_then(|stats| count(stats.files)))),
            text("error", reports.iter().map(|report| report.outcome.as_ref().err())),
        ]
    }

    fn settings(&self) -> Vec<Column> {
        let config = &self.server.config;
        let settings = [
            ("data", config.data.to_string()),
            ("cache", config.cache.folder.display().to_string()),
            ("cache_bytes", config.cache.bytes_max.to_string()),
            ("listen", config.listen.clone()),
            ("http", config.http.clone()),
            ("workers", config.workers.to_string()),
            ("memory_bytes", config.memory_bytes.to_string()),
            ("log", config.log.clone()),
            ("trust_network", config.trust_network.to_string()),
            ("checkpoint_interval", humantime::format_duration(config.checkpoint_interval).to_string()),
        ];
        vec![
            text("name", settings.iter().map(|(name, _)| Some(*name))),
            text("value", settings.iter().map(|(_, value)| Some(value))),
        ]
    }
}

/// Why a view has failed, and what to do about it.
fn failure(state: &ViewState) -> (Option<String>, Option<String>) {
    match state {
        ViewState::Failed(failure) => (Some(failure.error()), Some(failure.hint())),
        ViewState::Hydrating | ViewState::Live => (None, None),
    }
}

fn partitions<'a>(entry: &'a Entry, source: &SourceObject) -> Vec<PartitionRow<'a>> {
    let report = source.connector.status().report();
    if report.partitions.is_empty() {
        return vec![(entry, report, None)];
    }
    let rows = report.partitions.iter().map(|(id, partition)| {
        let next = u64::try_from(partition.next_offset).unwrap_or(0);
        let lag = partition.lag().and_then(|lag| u64::try_from(lag).ok());
        (entry, report.clone(), Some((*id, next, lag)))
    });
    rows.collect()
}
