//! `SELECT`, `VALUES`, `TABLE`, `WITH`: reads everything at one epoch.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use freshet_planner::{Query, bind, output_schema, parameter_types};
use freshet_types::SqlError;

use crate::query::names::{Names, now_us};
use crate::query::pin::Reads;
use crate::query::{run, session_functions};
use crate::session::{Description, Response, Session};
use crate::status::Status;

pub async fn execute(session: &Session, query: &Query, parameters: Vec<ScalarValue>) -> Result<Response, SqlError> {
    let (plan, reads) = plan(session, query, &types_of(&parameters))?;
    let schema = output_schema(&plan);
    let plan = session_functions::resolve(bind(plan, parameters)?, session)?;
    let query = run::Query { plan, reads };
    let not_before = session.server.coordinator.last_commit();
    let server = &session.server;
    let (stream, pinned) = query.start(server, not_before, server.coordinator.sealed()).await?;
    pinned.notices.into_iter().for_each(|notice| session.notice(notice));
    Ok(Response::Rows { schema, stream, tag: "SELECT".to_owned() })
}

pub fn describe(session: &Session, query: &Query, parameters: &[Option<DataType>]) -> Result<Description, SqlError> {
    let (plan, _) = plan(session, query, parameters)?;
    Ok(Description { parameters: parameter_types(&plan)?, columns: Some(output_schema(&plan)) })
}

/// Plans a query over what the session can see; what it reads is noted in the [`Reads`], to be pinned.
pub fn plan(
    session: &Session,
    query: &Query,
    parameters: &[Option<DataType>],
) -> Result<(LogicalPlan, Arc<Reads>), SqlError> {
    with_names(session, |names| session.server.planner.plan_query(query, names, parameters))
}

/// Lets `plan` look up names; gives what it made, and what it looked up.
pub fn with_names<T>(
    session: &Session,
    plan: impl FnOnce(&Names<'_>) -> Result<T, SqlError>,
) -> Result<(T, Arc<Reads>), SqlError> {
    let reads = Arc::new(Reads::default());
    let status = Status { server: &session.server };
    let now_us = now_us(&session.server.clock);
    let names = Names { catalog: session.server.catalog.state(), reads: reads.clone(), status: &status, now_us };
    Ok((plan(&names)?, reads))
}

/// The declared types of parameters whose values are here. An untyped NULL leaves its type to be inferred.
pub fn types_of(parameters: &[ScalarValue]) -> Vec<Option<DataType>> {
    parameters.iter().map(|value| Some(value.data_type()).filter(|data_type| *data_type != DataType::Null)).collect()
}
