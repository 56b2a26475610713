//! `SUBSCRIBE`: the changes of a table or materialized view, as they happen.
//!
//! A subscription keeps no queue of its own: it reads the changes between the last epoch that it has sent and the
//! collection's upper from the collection itself. What bounds a slow subscriber is therefore how long collections
//! keep versions; past that it is told that it fell behind.
//!
//! Rows that leave because they have expired are told of only WITH (EXPIRED).
//!
//! Rows: `_epoch`, `_diff` (how many copies appear or, if negative, disappear), then the relation's columns. With
//! PROGRESS, `_progress` stands after `_epoch`, and a row in which it is true says that all of `_epoch` has been sent.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use freshet_planner::statement::{Expression, Subscribe, SubscribeTarget};
use freshet_storage::collection::{Collection, CollectionError, Deletions};
use freshet_types::{Delta, Epoch, SqlError, SqlState};
use futures::stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Entry, Object, ObjectKind, undefined};
use crate::execute::rows::{KeyIndex, arrow_error};
use crate::limits::SUBSCRIPTION_STEP_MS_MAX as STEP_MS_MAX;
use crate::query::names::now_us;
use crate::query::past::{self, Passed};
use crate::query::pin::read_error;
use crate::session::{Response, RowStream, Session};

pub async fn execute(session: &Session, subscribe: &Subscribe) -> Result<Response, SqlError> {
    let (schema, stream) = start(session, subscribe).await?;
    Ok(Response::Rows { schema, stream, tag: "SUBSCRIBE".to_owned() })
}

pub fn describe(session: &Session, subscribe: &Subscribe) -> Result<SchemaRef, SqlError> {
    let (_, collection) = target(session, subscribe)?;
    Ok(output_schema(&collection.description().schema, subscribe))
}

/// The subscription's columns and its rows, which never end by themselves.
pub async fn start(session: &Session, subscribe: &Subscribe) -> Result<(SchemaRef, RowStream), SqlError> {
    let (entry, collection) = target(session, subscribe)?;
    let description = collection.description();
    if subscribe.upsert && description.key.is_none() {
        let message = format!("{} \"{}\" has no key", entry.object.kind().name(), entry.name());
        return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
            .with_detail("UPSERT tells changes by key")
            .with_hint("subscribe without UPSERT, or to a view with GROUP BY, whose key are the groups"));
    }
    let upper = collection.watch_upper();
    let position = match &subscribe.as_of {
        Some(instant) => past_position(session, &entry, &collection, instant).await?,
        None => {
            let not_before = session.server.coordinator.last_commit().max(Epoch(1));
            let begin = upper.clone().wait_for(|upper| *upper >= not_before).await.map(|upper| *upper);
            begin.map_err(|_| dropped(entry.name()))?
        }
    };
    let schema = output_schema(&description.schema, subscribe);
    let mut subscription = Subscription {
        name: entry.name().to_owned(),
        relation: Arc::downgrade(&entry),
        key: if subscribe.upsert { description.key.clone() } else { None },
        schema: schema.clone(),
        progress: subscribe.progress,
        deletions: if subscribe.expired { Deletions::All } else { Deletions::Unexpired },
        position,
        upper,
        collection,
        snapshot: None,
        ready: VecDeque::new(),
        shutdown: session.server.cancel.clone(),
    };
    if subscribe.snapshot {
        subscription.begin_snapshot()?;
    }
    let rows = stream::try_unfold(subscription, |mut subscription| async move {
        let batch = subscription.next().await?;
        Ok(Some((batch, subscription)))
    });
    Ok((schema, Box::pin(rows)))
}

/// The epoch of an instant in the past of a relation, from which on it is readable.
async fn past_position(
    session: &Session,
    entry: &Entry,
    collection: &Collection,
    instant: &Expression,
) -> Result<Epoch, SqlError> {
    let server = &session.server;
    let at = server.planner.instant(instant, now_us(&server.clock))?;
    Passed { sealed: server.coordinator.sealed(), now_ms: server.clock.now_ms() }.check(entry.name(), at)?;
    let view = match &entry.object {
        Object::MaterializedView(view) => Some(&**view),
        _ => None,
    };
    past::wait_for(entry.name(), collection, view, at).await?;
    // An epoch that cannot be read any more is refused now, and not with the first change.
    collection.hold(at).map(|hold| hold.epoch()).map_err(|error| past::not_kept(collection, error))
}

fn target(session: &Session, subscribe: &Subscribe) -> Result<(Arc<Entry>, Arc<Collection>), SqlError> {
    let name = match &subscribe.target {
        SubscribeTarget::Relation(name) => name,
        SubscribeTarget::Query(_) => {
            return Err(SqlError::unsupported("SUBSCRIBE to a query is not supported yet")
                .with_hint("CREATE MATERIALIZED VIEW ... AS query, and subscribe to the view"));
        }
    };
    let catalog = session.server.catalog.state();
    let entry = catalog.expect(name)?.clone();
    match &entry.object {
        Object::Table(table) => Ok((entry.clone(), table.collection.clone())),
        Object::MaterializedView(view) => Ok((entry.clone(), view.collection.clone())),
        Object::Sink(_) => Err(undefined(name)),
        Object::Source(_) | Object::View(_) => {
            let kind: ObjectKind = entry.object.kind();
            let message = format!("cannot subscribe to {} \"{name}\"", kind.name());
            Err(SqlError::new(SqlState::WrongObjectType, message)
                .with_hint(format!("CREATE MATERIALIZED VIEW ... AS SELECT * FROM {name}, and subscribe to that")))
        }
    }
}

fn output_schema(columns: &SchemaRef, subscribe: &Subscribe) -> SchemaRef {
    let mut fields = vec![Field::new("_epoch", DataType::Int64, false)];
    if subscribe.progress {
        fields.push(Field::new("_progress", DataType::Boolean, false));
    }
    fields.push(Field::new("_diff", DataType::Int64, true));
    // Progress rows have no values.
    fields.extend(columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields))
}

fn dropped(name: &str) -> SqlError {
    SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" was dropped"))
}

/// One subscriber's place in the changes of a collection.
struct Subscription {
    name: String,
    /// Ends with the relation.
    relation: std::sync::Weak<Entry>,
    /// Set for UPSERT.
    key: Option<Vec<usize>>,
    schema: SchemaRef,
    progress: bool,
    /// Which are told.
    deletions: Deletions,
    /// All up to this epoch is in `ready` or has been sent.
    position: Epoch,
    upper: watch::Receiver<Epoch>,
    collection: Arc<Collection>,
    /// What is left to send of the snapshot. It shares the rows of the collection.
    snapshot: Option<SnapshotRows>,
    ready: VecDeque<RecordBatch>,
    shutdown: CancellationToken,
}

type SnapshotRows = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

impl Subscription {
    fn begin_snapshot(&mut self) -> Result<(), SqlError> {
        let snapshot = self.collection.snapshot(self.position).map_err(|error| self.fell_behind(error))?;
        self.snapshot = Some(Box::new(snapshot.scan(None)));
        Ok(())
    }

    async fn next(&mut self) -> Result<RecordBatch, SqlError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            if let Some(snapshot) = &mut self.snapshot {
                match snapshot.next() {
                    Some(batch) => return self.rows(self.position, &Delta::inserts(batch.map_err(arrow_error)?)),
                    None => {
                        self.snapshot = None;
                        self.send_progress()?;
                        continue;
                    }
                }
            }
            let upper = *self.upper.borrow_and_update();
            if upper > self.position {
                // Who begins far in the past gets there in steps.
                self.advance(upper.min(Epoch(self.position.millis().saturating_add(STEP_MS_MAX))))?;
                continue;
            }
            if self.relation.strong_count() == 0 {
                return Err(dropped(&self.name));
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {
                    return Err(SqlError::new(SqlState::AdminShutdown, "the server is shutting down"));
                }
                changed = self.upper.changed() => changed.map_err(|_| dropped(&self.name))?,
                // A dropped relation's upper stands still: look again whether it is there.
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            }
        }
    }

    /// Makes ready what has changed up to `upper`, which is readable.
    fn advance(&mut self, upper: Epoch) -> Result<(), SqlError> {
        let changes = self.collection.changes_with(self.deletions, self.position, upper);
        let changes = changes.map_err(|error| self.fell_behind(error))?;
        for (epoch, delta) in changes {
            let delta = match &self.key {
                Some(key) => upserts(&delta, key)?,
                None => delta,
            };
            if !delta.is_empty() {
                let rows = self.rows(epoch, &delta)?;
                self.ready.push_back(rows);
            }
        }
        self.position = upper;
        self.send_progress()
    }

    fn rows(&self, epoch: Epoch, delta: &Delta) -> Result<RecordBatch, SqlError> {
        let mut columns: Vec<ArrayRef> = vec![epochs(epoch, delta.len())];
        if self.progress {
            columns.push(Arc::new(BooleanArray::from(vec![false; delta.len()])));
        }
        columns.push(Arc::new(Int64Array::new(delta.weight_column(), None)));
        columns.extend(delta.columns().iter().cloned());
        RecordBatch::try_new(self.schema.clone(), columns).map_err(arrow_error)
    }

    fn send_progress(&mut self) -> Result<(), SqlError> {
        if self.progress {
            let mut columns: Vec<ArrayRef> = vec![epochs(self.position, 1), Arc::new(BooleanArray::from(vec![true]))];
            columns.extend(self.schema.fields()[2..].iter().map(|field| new_null_array(field.data_type(), 1)));
            self.ready.push_back(RecordBatch::try_new(self.schema.clone(), columns).map_err(arrow_error)?);
        }
        Ok(())
    }

    fn fell_behind(&self, error: CollectionError) -> SqlError {
        let CollectionError::NotReadable { wanted, since, upper } = error else { return read_error(error) };
        let message = match wanted > upper {
            true => format!("epoch {wanted} of \"{}\" has not happened yet", self.name),
            false => format!("the subscriber to \"{}\" fell behind", self.name),
        };
        SqlError::new(SqlState::ProgramLimitExceeded, message)
            .with_detail(format!("epoch {wanted} is wanted, and changes are kept from {since} to {upper}"))
            .with_hint("subscribe again with a snapshot, and read faster")
    }
}

fn epochs(epoch: Epoch, count: usize) -> ArrayRef {
    let epoch = i64::try_from(epoch.millis()).expect("an epoch is a time in milliseconds, which fits an i64");
    Arc::new(Int64Array::from(vec![epoch; count]))
}

/// The change by key: new rows, and those deleted rows whose key has no new row.
fn upserts(delta: &Delta, key: &[usize]) -> Result<Delta, SqlError> {
    let weights = delta.weight_column();
    let pick = |wanted: fn(i64) -> bool| -> Vec<u32> {
        (0_u32..).zip(weights.iter()).filter(|(_, weight)| wanted(**weight)).map(|(row, _)| row).collect()
    };
    let take = |rows: Vec<u32>| delta.take(&UInt32Array::from(rows)).map_err(arrow_error);
    let inserted = take(pick(|weight| weight > 0))?;
    let deleted = take(pick(|weight| weight < 0))?;
    let types: Vec<DataType> = key.iter().map(|column| delta.schema().field(*column).data_type().clone()).collect();
    let encoder = freshet_types::KeyEncoder::new(&types).map_err(arrow_error)?;
    let (new, _) = KeyIndex::new(&encoder, inserted.rows(), key)?;
    let (old, _) = KeyIndex::new(&encoder, deleted.rows(), key)?;
    let gone = (0_u32..).zip(new.matches(&old)).filter(|(_, found)| found.is_none()).map(|(row, _)| row);
    let gone = deleted.take(&gone.collect::<UInt32Array>()).map_err(arrow_error)?;
    Delta::concat(&delta.schema(), &[inserted, gone]).map_err(arrow_error)
}
