//! What all CREATE, DROP and COMMENT statements share: names, durability, the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use freshet_connectors::Offsets;
use freshet_planner::ObjectName;
use freshet_planner::statement::IfExists;
use freshet_storage::CatalogChange;
use freshet_types::{RelationId, SqlError, SqlState};

use crate::catalog::{Entry, Object, ObjectKind, PUBLIC, Record};
use crate::execute::drop::take_down;
use crate::server::Server;
use crate::server::objects::store_error;
use crate::session::Session;

/// Whether the object is to be made, now that its name has been looked up.
pub enum Name {
    Free,
    /// It is there, and the statement says to leave it.
    Skip,
    /// It is there, and is to be replaced.
    Replace(Arc<Entry>),
}

/// Looks up the name of an object that is to be created.
pub fn claim(session: &Session, name: &ObjectName, kind: ObjectKind, if_exists: IfExists) -> Result<Name, SqlError> {
    if let Some(schema) = &name.schema
        && schema != PUBLIC
    {
        return Err(SqlError::new(SqlState::InvalidSchemaName, format!("schema \"{schema}\" does not exist"))
            .with_hint("objects are created in schema \"public\""));
    }
    let catalog = session.server.catalog.state();
    let taken =
        |what: &str| Err(SqlError::new(SqlState::DuplicateTable, format!("{what} \"{}\" already exists", name.name)));
    let Some(existing) = catalog.find(None, &name.name) else {
        return match catalog.source_of_dead_letters(None, &name.name) {
            Some(_) => taken("relation"),
            None => Ok(Name::Free),
        };
    };
    match if_exists {
        IfExists::Fail => taken("relation"),
        IfExists::Skip => {
            let message = format!("relation \"{}\" already exists, skipping", name.name);
            session.notice(SqlError::new(SqlState::DuplicateTable, message));
            Ok(Name::Skip)
        }
        IfExists::Replace if existing.object.kind() != kind => {
            let message = format!("\"{}\" is not a {}", name.name, kind.name());
            Err(SqlError::new(SqlState::WrongObjectType, message)
                .with_hint(format!("it is a {}; drop it first", existing.object.kind().name())))
        }
        IfExists::Replace => {
            let dependents = catalog.dependents(existing.id());
            match dependents.first() {
                None => Ok(Name::Replace(existing.clone())),
                Some(first) => {
                    let message = format!("cannot replace {} \"{}\"", kind.name(), name.name);
                    Err(SqlError::new(SqlState::DependentObjectsStillExist, message)
                        .with_detail(format!("{} \"{}\" depends on it", first.object.kind().name(), first.name()))
                        .with_hint("drop the objects that depend on it first"))
                }
            }
        }
    }
}

/// Makes a new object durable and visible, in the place of `replaced` if there is one, and only then ends what runs for
/// that: a checkpoint leaves out what does not run, so it must not be in the catalog any more by then.
pub async fn publish(
    server: &Server,
    record: Record,
    object: Object,
    replaced: Option<&Entry>,
) -> Result<Arc<Entry>, SqlError> {
    let mut changes: Vec<CatalogChange> = replaced.iter().map(|entry| CatalogChange::Delete(entry.id())).collect();
    changes.push(CatalogChange::Put(record.id, encode(&record)?));
    server.store.commit_catalog(changes).await.map_err(store_error)?;
    let entry = Arc::new(Entry { record, object });
    let state = server.catalog.state();
    let state = match replaced {
        Some(replaced) => state.without(&[replaced.id()]),
        None => (*state).clone(),
    };
    server.catalog.replace(state.with(entry.clone()));
    if let Some(replaced) = replaced {
        take_down(server, replaced).await?;
    }
    Ok(entry)
}

pub fn encode(record: &Record) -> Result<bytes::Bytes, SqlError> {
    let encoded = serde_json::to_vec(record);
    encoded.map(Into::into).map_err(|error| SqlError::internal(format!("cannot write a catalog record: {error}")))
}

pub fn record(id: RelationId, name: &ObjectName, create_sql: &str, start: Option<Offsets>) -> Record {
    Record {
        id,
        name: name.name.clone(),
        create_sql: create_sql.to_owned(),
        comment: None,
        column_comments: BTreeMap::new(),
        start,
        identity: None,
    }
}
