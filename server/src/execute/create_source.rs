//! `CREATE SOURCE`: checks the declaration, reaches out once, and remembers where the source starts.

use std::sync::Arc;
use std::time::Duration;

use freshet_planner::statement::CreateSource;
use freshet_storage::collection::Collection;
use freshet_types::{SqlError, SqlState};

use crate::catalog::{Object, ObjectKind};
use crate::coordinator::Command;
use crate::execute::ddl::{self, Name};
use crate::execute::write::refuse_in_transaction;
use crate::limits::CONNECT_TIMEOUT_S;
use crate::pipeline::dead_letters;
use crate::server::objects::{self, collection_error};
use crate::session::{Response, Session};

pub async fn execute(session: &Session, create: &CreateSource) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "CREATE SOURCE")?;
    let done = || Response::Complete { tag: "CREATE SOURCE".to_owned() };
    let server = &session.server;
    let ddl = server.ddl.clone().lock_owned().await;
    let name = &create.name.name;
    let replaced = match ddl::claim(session, &create.name, ObjectKind::Source, create.if_exists)? {
        Name::Skip => return Ok(done()),
        Name::Free => None,
        Name::Replace(entry) => Some(entry),
    };
    let dead_letters = format!("{name}_dead_letters");
    if server.catalog.state().find(None, &dead_letters).is_some() {
        let message = format!("relation \"{dead_letters}\" already exists");
        return Err(SqlError::new(SqlState::DuplicateTable, message)
            .with_detail("the source would keep there the records that cannot become rows"));
    }
    let opened = objects::source(server, name, &create.declaration)?;
    let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
    let start = match tokio::time::timeout(limit, opened.connector.resolve_start()).await {
        Ok(start) => start?,
        Err(_) => {
            let message = format!("source \"{name}\" did not answer within {CONNECT_TIMEOUT_S} seconds");
            return Err(SqlError::new(SqlState::ConnectionFailure, message)
                .with_detail("nothing was created")
                .with_hint("check the address, and that it can be reached from this machine"));
        }
    };
    let dead_letters = Collection::new(dead_letters::description(name), 1).map_err(collection_error)?;
    let source = opened.starting_at(start.clone(), dead_letters.clone());
    let id = server.next_id().await?;
    let record = ddl::record(id, &create.name, &create.sql, Some(start));
    let server = server.clone();
    session
        .finish("create a source", async move {
            let _ddl = ddl;
            server.coordinator.send(Command::AddSource { source: id, dead_letters, read: None }).await?;
            ddl::publish(&server, record, Object::Source(Arc::new(source)), replaced.as_deref()).await
        })
        .await?;
    Ok(done())
}
