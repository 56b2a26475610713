//! `EXPLAIN`: of a query the physical plan, of a materialized view the incremental plan.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use freshet_planner::statement::{Explain, ExplainSubject};
use freshet_planner::{bind, explain};
use freshet_types::SqlError;

use crate::execute::select::{self, types_of, with_names};
use crate::query::run;
use crate::session::{Description, Response, Session};

pub async fn execute(
    session: &Session,
    statement: &Explain,
    parameters: Vec<ScalarValue>,
) -> Result<Response, SqlError> {
    let server = &session.server;
    let text = match &statement.subject {
        ExplainSubject::Query(query) => {
            let (plan, reads) = select::plan(session, query, &types_of(&parameters))?;
            let query = run::Query { plan: bind(plan, parameters)?, reads };
            let not_before = session.server.coordinator.last_commit();
            let sealed = server.coordinator.sealed();
            match statement.analyze {
                false => query.explain(server, not_before, sealed).await?,
                true => query.explain_analyze(server, not_before, sealed).await?,
            }
        }
        ExplainSubject::CreateMaterializedView(create) => {
            if statement.analyze {
                return Err(SqlError::unsupported("EXPLAIN ANALYZE of a materialized view is not supported yet")
                    .with_hint("freshet_catalog.view_status tells how a view is doing"));
            }
            let (plan, _) =
                with_names(session, |names| server.planner.plan_view(&create.query, &create.columns, names))?;
            explain(&plan.node).join("\n")
        }
        ExplainSubject::Change(change) => {
            return Err(SqlError::unsupported(format!("EXPLAIN {} is not supported yet", change.tag())));
        }
    };
    let lines = StringArray::from(text.lines().collect::<Vec<_>>());
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(lines)]).expect("the column is built to the schema");
    Ok(Response::rows(schema(), vec![batch], "EXPLAIN"))
}

/// What is explained is analysed, so that its parameters are known.
pub fn describe(
    session: &Session,
    statement: &Explain,
    parameters: &[Option<DataType>],
) -> Result<Description, SqlError> {
    let parameters = match &statement.subject {
        ExplainSubject::Query(query) => select::describe(session, query, parameters)?.parameters,
        ExplainSubject::CreateMaterializedView(_) | ExplainSubject::Change(_) => vec![],
    };
    Ok(Description { parameters, columns: Some(schema()) })
}

/// As Postgres names it.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}
