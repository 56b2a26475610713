//! `CREATE [OR REPLACE] VIEW`: a name for a query.

use std::sync::Arc;

use freshet_planner::statement::CreateView;
use freshet_types::SqlError;

use crate::catalog::{Object, ObjectKind};
use crate::execute::ddl::{self, Name};
use crate::execute::select::with_names;
use crate::execute::write::refuse_in_transaction;
use crate::server::objects;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, create: &CreateView) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "CREATE VIEW")?;
    let done = || Response::Complete { tag: "CREATE VIEW".to_owned() };
    let server = &session.server;
    let ddl = server.ddl.clone().lock_owned().await;
    let replaced = match ddl::claim(session, &create.name, ObjectKind::View, create.if_exists)? {
        Name::Skip => return Ok(done()),
        Name::Free => None,
        Name::Replace(entry) => Some(entry),
    };
    let (view, _) = with_names(session, |names| objects::view(server, create, names))?;
    let id = server.next_id().await?;
    let record = ddl::record(id, &create.name, &create.sql, None);
    let server = server.clone();
    session
        .finish("create a view", async move {
            let _ddl = ddl;
            ddl::publish(&server, record, Object::View(Arc::new(view)), replaced.as_deref()).await
        })
        .await?;
    Ok(done())
}
