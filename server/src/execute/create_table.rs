//! `CREATE TABLE`.

use std::sync::Arc;

use freshet_planner::statement::CreateTable;
use freshet_types::SqlError;

use crate::catalog::{Object, ObjectKind};
use crate::coordinator::Command;
use crate::execute::ddl::{self, Name};
use crate::execute::write::refuse_in_transaction;
use crate::server::objects;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, create: &CreateTable) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "CREATE TABLE")?;
    let done = || Response::Complete { tag: "CREATE TABLE".to_owned() };
    let server = &session.server;
    let ddl = server.ddl.clone().lock_owned().await;
    let replaced = match ddl::claim(session, &create.name, ObjectKind::Table, create.if_exists)? {
        Name::Skip => return Ok(done()),
        Name::Free => None,
        Name::Replace(entry) => Some(entry),
    };
    let table = objects::table(server, create, None)?;
    let id = server.next_id().await?;
    let writer = table.collection.writer(0);
    let record = ddl::record(id, &create.name, &create.sql, None);
    let server = server.clone();
    session
        .finish("create a table", async move {
            let _ddl = ddl;
            // The writer first: whoever finds the table in the catalog may write to it.
            server.coordinator.send(Command::AddTable { table: id, writer }).await?;
            ddl::publish(&server, record, Object::Table(Arc::new(table)), replaced.as_deref()).await
        })
        .await?;
    Ok(done())
}
