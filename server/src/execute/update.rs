//! `UPDATE … SET … [WHERE …] [RETURNING …]`.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use freshet_planner::{UpdatePlan, bind, parameter_types, statement::Update};
use freshet_types::{Delta, SqlError};

use crate::catalog::TableObject;
use crate::execute::insert::table;
use crate::execute::rows::{self, KeyIndex, arrow_error};
use crate::execute::select::{types_of, with_names};
use crate::execute::write::{commit, refuse_in_transaction, respond};
use crate::query::pin::read_error;
use crate::query::run;
use crate::session::{Description, Response, Session};

pub async fn execute(session: &Session, update: &Update, parameters: Vec<ScalarValue>) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "UPDATE")?;
    let (entry, table) = table(session, &update.table)?;
    let types = types_of(&parameters);
    let server = &session.server;
    let (plan, reads) =
        with_names(session, |names| server.planner.plan_update(update, &table.definition, names, &types))?;
    let UpdatePlan { rows: plan, returning } = plan;
    let lock = table.write_lock.clone().lock_owned().await;
    let query = run::Query { plan: bind(plan, parameters)?, reads };
    // Under the lock the table stands still, so what is read at the last sealed epoch is what is there.
    let sealed = server.coordinator.sealed();
    let batches = query.collect(server, sealed, sealed).await?;
    let width = table.schema.fields().len();
    let old = rows::gather(&table.schema, &batches, 0..width)?;
    let old = rows::under(&table.schema, old)?;
    let new = rows::check(entry.name(), &table, rows::gather(&table.schema, &batches, width..2 * width)?)?;
    if let Some(key) = &table.definition.primary_key {
        refuse_taken_keys(entry.name(), &table, key, &old, &new)?;
    }
    let changes = [Delta::deletes(old), Delta::inserts(new.clone())];
    let delta = Delta::concat(&table.schema, &changes).and_then(|delta| delta.consolidate()).map_err(arrow_error)?;
    commit(session, entry.id(), delta, Some(lock)).await?;
    respond("UPDATE", new.num_rows(), returning.as_ref(), &new)
}

pub fn describe(session: &Session, update: &Update, types: &[Option<DataType>]) -> Result<Description, SqlError> {
    let (_, table) = table(session, &update.table)?;
    let planner = &session.server.planner;
    let (plan, _) = with_names(session, |names| planner.plan_update(update, &table.definition, names, types))?;
    let columns = plan.returning.map(|returning| returning.schema);
    Ok(Description { parameters: parameter_types(&plan.rows)?, columns })
}

/// A new key may be that of a row which this statement moves away, but of no other.
fn refuse_taken_keys(
    name: &str,
    table: &TableObject,
    key: &[usize],
    old: &RecordBatch,
    new: &RecordBatch,
) -> Result<(), SqlError> {
    let encoder = rows::key_encoder(table, key)?;
    let (new_index, repeated) = KeyIndex::new(&encoder, new, key)?;
    if let Some((_, second)) = repeated.first() {
        return Err(rows::duplicate_key(name, new, key, *second));
    }
    let snapshot = table.collection.snapshot(table.collection.upper()).map_err(read_error)?;
    let taken = snapshot.lookup(&rows::key_columns(new, key)).map_err(read_error)?;
    let (taken_index, _) = KeyIndex::new(&encoder, &taken, key)?;
    let (old_index, _) = KeyIndex::new(&encoder, old, key)?;
    let moved_away = old_index.matches(&new_index);
    let clashes = taken_index.matches(&new_index);
    let row = clashes.iter().zip(&moved_away).position(|(taken, moved)| taken.is_some() && moved.is_none());
    row.map_or(Ok(()), |row| Err(rows::duplicate_key(name, new, key, row)))
}
