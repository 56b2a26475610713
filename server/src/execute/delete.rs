//! `DELETE FROM … [WHERE …] [RETURNING …]`.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use freshet_planner::{DeletePlan, bind, parameter_types, statement::Delete};
use freshet_types::{Delta, SqlError};

use crate::execute::insert::table;
use crate::execute::rows;
use crate::execute::select::{types_of, with_names};
use crate::execute::write::{commit, refuse_in_transaction, respond};
use crate::query::run;
use crate::session::{Description, Response, Session};

pub async fn execute(session: &Session, delete: &Delete, parameters: Vec<ScalarValue>) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "DELETE")?;
    let (entry, table) = table(session, &delete.table)?;
    let types = types_of(&parameters);
    let server = &session.server;
    let (plan, reads) =
        with_names(session, |names| server.planner.plan_delete(delete, &table.definition, names, &types))?;
    let DeletePlan { rows: plan, returning } = plan;
    let lock = table.write_lock.clone().lock_owned().await;
    let query = run::Query { plan: bind(plan, parameters)?, reads };
    let sealed = server.coordinator.sealed();
    let batches = query.collect(server, sealed, sealed).await?;
    let old = rows::gather(&table.schema, &batches, 0..table.schema.fields().len())?;
    let old = rows::under(&table.schema, old)?;
    commit(session, entry.id(), Delta::deletes(old.clone()), Some(lock)).await?;
    respond("DELETE", old.num_rows(), returning.as_ref(), &old)
}

pub fn describe(session: &Session, delete: &Delete, types: &[Option<DataType>]) -> Result<Description, SqlError> {
    let (_, table) = table(session, &delete.table)?;
    let planner = &session.server.planner;
    let (plan, _) = with_names(session, |names| planner.plan_delete(delete, &table.definition, names, types))?;
    let columns = plan.returning.map(|returning| returning.schema);
    Ok(Description { parameters: parameter_types(&plan.rows)?, columns })
}
