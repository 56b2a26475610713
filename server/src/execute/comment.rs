//! `COMMENT ON`.

use std::sync::Arc;

use freshet_planner::statement::{Comment, CommentSubject};
use freshet_storage::CatalogChange;
use freshet_types::{SqlError, SqlState};

use crate::catalog::{Entry, ObjectKind};
use crate::execute::ddl;
use crate::server::objects::store_error;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, comment: &Comment) -> Result<Response, SqlError> {
    let server = &session.server;
    let ddl_lock = server.ddl.clone().lock_owned().await;
    let catalog = server.catalog.state();
    let (entry, record) = match &comment.subject {
        CommentSubject::Object { kind, name } => {
            let entry = catalog.expect_kind(name, ObjectKind::from(*kind))?;
            let mut record = entry.record.clone();
            record.comment = comment.text.clone();
            (entry, record)
        }
        CommentSubject::Column { relation, column } => {
            let entry = catalog.expect(relation)?;
            if entry.object.schema().column_with_name(column).is_none() {
                let message = format!("column \"{column}\" of relation \"{relation}\" does not exist");
                return Err(SqlError::new(SqlState::UndefinedColumn, message));
            }
            let mut record = entry.record.clone();
            match &comment.text {
                Some(text) => record.column_comments.insert(column.clone(), text.clone()),
                None => record.column_comments.remove(column),
            };
            (entry, record)
        }
    };
    let changes = vec![CatalogChange::Put(record.id, ddl::encode(&record)?)];
    let commented = Arc::new(Entry { record, object: entry.object.clone() });
    let (server, catalog) = (server.clone(), catalog.clone());
    session
        .finish("comment", async move {
            let _ddl = ddl_lock;
            server.store.commit_catalog(changes).await.map_err(store_error)?;
            server.catalog.replace(catalog.with(commented));
            Ok(())
        })
        .await?;
    Ok(Response::Complete { tag: "COMMENT".to_owned() })
}
