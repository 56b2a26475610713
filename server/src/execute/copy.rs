//! `COPY … TO STDOUT`, of a query or of a subscription.

use freshet_planner::statement::{Copy, CopySubject};
use freshet_types::SqlError;

use crate::execute::{select, subscribe};
use crate::session::{Response, Session};

pub async fn execute(session: &Session, copy: &Copy) -> Result<Response, SqlError> {
    if let Some((name, value)) = copy.options.iter().find(|(name, value)| (*name, *value) != ("format", "text")) {
        return Err(SqlError::unsupported(format!("COPY with {} {value} is not supported yet", name.to_uppercase()))
            .with_hint("COPY (...) TO STDOUT gives Postgres' text format"));
    }
    match &copy.subject {
        CopySubject::SubscribeToStdout(statement) => {
            let (schema, stream) = subscribe::start(session, statement).await?;
            Ok(Response::CopyOut { schema, stream })
        }
        CopySubject::QueryToStdout(query) => match select::execute(session, query, vec![]).await? {
            Response::Rows { schema, stream, .. } => Ok(Response::CopyOut { schema, stream }),
            _ => Err(SqlError::internal("a query gave no rows")),
        },
        CopySubject::TableFromStdin { .. } => {
            Err(SqlError::unsupported("COPY FROM STDIN is not supported yet").with_hint("use INSERT with many rows"))
        }
    }
}
