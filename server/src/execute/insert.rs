//! `INSERT INTO … VALUES | SELECT … [ON CONFLICT …] [RETURNING …]`.

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Schema};
use datafusion::scalar::ScalarValue;
use freshet_planner::{InsertPlan, ObjectName, OnConflict, bind, parameter_types, statement::Insert};
use freshet_types::{Delta, SqlError, SqlState};

use crate::catalog::{Entry, Object, TableObject};
use crate::execute::rows::{self, KeyIndex, arrow_error, evaluate};
use crate::execute::select::{types_of, with_names};
use crate::execute::write::{commit, refuse_in_transaction, respond};
use crate::query::pin::read_error;
use crate::query::{run, session_functions};
use crate::session::{Description, Response, Session};

pub async fn execute(session: &Session, insert: &Insert, parameters: Vec<ScalarValue>) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "INSERT")?;
    session.server.memory.refuse_if_short()?;
    let (entry, table) = table(session, &insert.table)?;
    let types = types_of(&parameters);
    let server = &session.server;
    let (plan, reads) =
        with_names(session, |names| server.planner.plan_insert(insert, &table.definition, names, &types))?;
    let InsertPlan { rows: plan, conflict, returning } = plan;
    // Without a key nothing can conflict, so inserts need not wait for each other, and share flushes of the log.
    let lock = match table.definition.primary_key {
        Some(_) => Some(table.write_lock.clone().lock_owned().await),
        None => None,
    };
    let plan = session_functions::resolve(bind(plan, parameters)?, session)?;
    let query = run::Query { plan, reads };
    let sealed = server.coordinator.sealed();
    let batches = query.collect(server, sealed, sealed).await?;
    let proposed = rows::gather(&table.schema, &batches, 0..table.schema.fields().len())?;
    let proposed = rows::check(entry.name(), &table, proposed)?;
    let change = match &table.definition.primary_key {
        None => Change { deleted: None, inserted: proposed },
        Some(key) => resolve(entry.name(), &table, key, proposed, conflict.as_ref())?,
    };
    commit(session, entry.id(), change.delta()?, lock).await?;
    respond("INSERT 0", change.inserted.num_rows(), returning.as_ref(), &change.inserted)
}

pub fn describe(session: &Session, insert: &Insert, types: &[Option<DataType>]) -> Result<Description, SqlError> {
    let (_, table) = table(session, &insert.table)?;
    let planner = &session.server.planner;
    let (plan, _) = with_names(session, |names| planner.plan_insert(insert, &table.definition, names, types))?;
    let columns = plan.returning.map(|returning| returning.schema);
    Ok(Description { parameters: parameter_types(&plan.rows)?, columns })
}

/// The table to be written, which must be one.
pub fn table(
    session: &Session,
    name: &ObjectName,
) -> Result<(std::sync::Arc<Entry>, std::sync::Arc<TableObject>), SqlError> {
    let catalog = session.server.catalog.state();
    let entry = catalog.expect(name)?.clone();
    match &entry.object {
        Object::Table(table) => Ok((entry.clone(), table.clone())),
        other => {
            let message = format!("cannot write to {} \"{name}\"", other.kind().name());
            Err(SqlError::new(SqlState::WrongObjectType, message).with_hint("only tables take writes"))
        }
    }
}

/// What an INSERT comes to once conflicts are resolved.
struct Change {
    /// Existing rows that are replaced.
    deleted: Option<RecordBatch>,
    /// New rows, and new versions of replaced ones.
    inserted: RecordBatch,
}

impl Change {
    fn delta(&self) -> Result<Delta, SqlError> {
        let inserted = Delta::inserts(self.inserted.clone());
        let Some(deleted) = &self.deleted else { return Ok(inserted) };
        let deleted = Delta::deletes(deleted.clone());
        Delta::concat(&inserted.schema(), &[deleted, inserted.clone()]).map_err(arrow_error)
    }
}

fn resolve(
    name: &str,
    table: &TableObject,
    key: &[usize],
    proposed: RecordBatch,
    conflict: Option<&OnConflict>,
) -> Result<Change, SqlError> {
    let encoder = rows::key_encoder(table, key)?;
    let snapshot = table.collection.snapshot(table.collection.upper()).map_err(read_error)?;
    let existing = snapshot.lookup(&rows::key_columns(&proposed, key)).map_err(read_error)?;
    let (existing_index, _) = KeyIndex::new(&encoder, &existing, key)?;
    let (proposed_index, repeated) = KeyIndex::new(&encoder, &proposed, key)?;
    let matches = existing_index.matches(&proposed_index);
    let clash = matches.iter().position(Option::is_some);
    match conflict {
        None => match clash.or_else(|| repeated.first().map(|(_, second)| *second)) {
            Some(row) => Err(rows::duplicate_key(name, &proposed, key, row)),
            None => Ok(Change { deleted: None, inserted: proposed }),
        },
        Some(OnConflict::Nothing) => {
            let again: Vec<usize> = repeated.iter().map(|(_, second)| *second).collect();
            let fresh = matches.iter().enumerate().filter(|(row, found)| found.is_none() && !again.contains(row));
            let fresh = indices(fresh.map(|(row, _)| row));
            let inserted = take_record_batch(&proposed, &fresh).map_err(arrow_error)?;
            Ok(Change { deleted: None, inserted })
        }
        Some(OnConflict::Update { assignments, filter }) => {
            if !repeated.is_empty() {
                let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
                let error = SqlError::new(SqlState::CardinalityViolation, message);
                return Err(error.with_hint("the rows proposed for insertion have duplicate keys"));
            }
            let update = Upsert { name, table, key, existing: &existing, proposed: &proposed, matches: &matches };
            update.run(assignments, filter.as_ref())
        }
    }
}

struct Upsert<'a> {
    name: &'a str,
    table: &'a TableObject,
    key: &'a [usize],
    existing: &'a RecordBatch,
    proposed: &'a RecordBatch,
    /// For each proposed row the existing one with its key.
    matches: &'a [Option<usize>],
}

type Expression = std::sync::Arc<dyn datafusion::physical_expr::PhysicalExpr>;

impl Upsert<'_> {
    fn run(&self, assignments: &[Option<Expression>], filter: Option<&Expression>) -> Result<Change, SqlError> {
        if self.key.iter().any(|column| assignments[*column].is_some()) {
            return Err(SqlError::unsupported("ON CONFLICT DO UPDATE cannot change the primary key yet")
                .with_hint("delete the row, and insert it again"));
        }
        let pairs: Vec<(usize, usize)> =
            self.matches.iter().enumerate().filter_map(|(new, old)| old.map(|old| (old, new))).collect();
        let old = take_record_batch(self.existing, &indices(pairs.iter().map(|pair| pair.0))).map_err(arrow_error)?;
        let new = take_record_batch(self.proposed, &indices(pairs.iter().map(|pair| pair.1))).map_err(arrow_error)?;
        let mut both = side_by_side(&old, &new)?;
        let mut deleted = old;
        if let Some(filter) = filter {
            let keep = evaluate(filter, &both)?;
            both = filter_record_batch(&both, keep.as_boolean()).map_err(arrow_error)?;
            deleted = filter_record_batch(&deleted, keep.as_boolean()).map_err(arrow_error)?;
        }
        let columns = assignments.iter().enumerate().map(|(column, assignment)| match assignment {
            Some(expression) => evaluate(expression, &both),
            None => Ok(deleted.column(column).clone()),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let nullable: Vec<_> =
            self.table.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let updated = RecordBatch::try_new(Schema::new(nullable).into(), columns).map_err(arrow_error)?;
        let updated = rows::check(self.name, self.table, updated)?;
        let fresh = self.matches.iter().enumerate().filter(|(_, old)| old.is_none()).map(|(new, _)| new);
        let fresh = take_record_batch(self.proposed, &indices(fresh)).map_err(arrow_error)?;
        let inserted = concat_batches(&self.table.schema, [&fresh, &updated]).map_err(arrow_error)?;
        Ok(Change { deleted: Some(deleted), inserted })
    }
}

fn side_by_side(left: &RecordBatch, right: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let fields: Vec<_> = left.schema().fields().iter().chain(right.schema().fields()).cloned().collect();
    let columns = left.columns().iter().chain(right.columns()).cloned().collect();
    RecordBatch::try_new(Schema::new(fields).into(), columns).map_err(arrow_error)
}

fn indices(rows: impl Iterator<Item = usize>) -> UInt32Array {
    rows.map(|row| u32::try_from(row).expect("a batch has fewer than 2^32 rows")).collect()
}
