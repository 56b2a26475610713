//! `DROP SOURCE | TABLE | VIEW | MATERIALIZED VIEW | SINK … [CASCADE]`.

use std::sync::Arc;

use freshet_planner::statement::DropObjects;
use freshet_storage::CatalogChange;
use freshet_types::{RelationId, SqlError, SqlState};

use crate::catalog::{CatalogState, Entry, Object, ObjectKind};
use crate::coordinator::Command;
use crate::execute::write::refuse_in_transaction;
use crate::server::Server;
use crate::server::objects::store_error;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, drop: &DropObjects) -> Result<Response, SqlError> {
    let tag = format!("DROP {}", drop.kind.keywords());
    refuse_in_transaction(session, &tag)?;
    let server = &session.server;
    let ddl = server.ddl.clone().lock_owned().await;
    let catalog = server.catalog.state();
    let mut doomed: Vec<Arc<Entry>> = Vec::new();
    for name in &drop.names {
        let kind = ObjectKind::from(drop.kind);
        if drop.if_exists && catalog.find(name.schema.as_deref(), &name.name).is_none() {
            let message = format!("{} \"{name}\" does not exist, skipping", kind.name());
            session.notice(SqlError::new(SqlState::UndefinedTable, message));
            continue;
        }
        let missing = |_| {
            let message = format!("{} \"{name}\" does not exist", kind.name());
            SqlError::new(SqlState::UndefinedTable, message)
        };
        catalog.expect(name).map_err(missing)?;
        collect(&catalog, catalog.expect_kind(name, kind)?, &mut doomed);
    }
    if !drop.cascade {
        refuse_dependents(&catalog, drop, &doomed)?;
    }
    // What depends on something goes before it.
    doomed.sort_by_key(|entry| std::cmp::Reverse(entry.id()));
    if drop.cascade {
        tell_of_cascade(session, drop, &doomed);
    }
    let server = server.clone();
    session
        .finish("drop", async move {
            let _ddl = ddl;
            let ids: Vec<RelationId> = doomed.iter().map(|entry| entry.id()).collect();
            let changes = ids.iter().map(|id| CatalogChange::Delete(*id)).collect();
            server.store.commit_catalog(changes).await.map_err(store_error)?;
            server.catalog.replace(catalog.without(&ids));
            for entry in &doomed {
                take_down(&server, entry).await?;
            }
            Ok(())
        })
        .await?;
    Ok(Response::Complete { tag })
}

/// Ends what runs for an object that has left the catalog, or is about to.
pub async fn take_down(server: &Server, entry: &Entry) -> Result<(), SqlError> {
    match &entry.object {
        Object::MaterializedView(view) => {
            view.running.cancel();
            server.coordinator.ask(|reply| Command::RemoveView { view: entry.id(), reply }).await?;
        }
        Object::Table(_) | Object::Source(_) => {
            server.coordinator.send(Command::Forget { relation: entry.id() }).await?;
        }
        Object::Sink(sink) => {
            sink.cancel.cancel();
            server.coordinator.send(Command::SinksChanged).await?;
        }
        Object::View(_) => {}
    }
    Ok(())
}

/// `entry` and all that depends on it, each once.
fn collect(catalog: &CatalogState, entry: &Arc<Entry>, found: &mut Vec<Arc<Entry>>) {
    if found.iter().any(|known| known.id() == entry.id()) {
        return;
    }
    found.push(entry.clone());
    for dependent in catalog.dependents(entry.id()) {
        collect(catalog, dependent, found);
    }
}

fn refuse_dependents(catalog: &CatalogState, drop: &DropObjects, doomed: &[Arc<Entry>]) -> Result<(), SqlError> {
    let named = |entry: &Entry| drop.names.iter().any(|name| name.name == entry.name());
    let Some(unnamed) = doomed.iter().find(|entry| !named(entry)) else { return Ok(()) };
    let subject = doomed
        .iter()
        .find(|entry| catalog.dependents(entry.id()).iter().any(|dependent| dependent.id() == unnamed.id()))
        .unwrap_or(unnamed);
    let describe = |entry: &Entry| format!("{} \"{}\"", entry.object.kind().name(), entry.name());
    let others: Vec<String> = doomed.iter().filter(|entry| !named(entry)).map(|entry| describe(entry)).collect();
    let (verb, it) = if others.len() == 1 { ("depends", "it") } else { ("depend", "it") };
    let message = format!("cannot drop {} because other objects depend on it", describe(subject));
    Err(SqlError::new(SqlState::DependentObjectsStillExist, message)
        .with_detail(format!("{} {verb} on {it}", others.join(", ")))
        .with_hint(format!("use DROP {} ... CASCADE to drop the dependent objects too", drop.kind.keywords())))
}

fn tell_of_cascade(session: &Session, drop: &DropObjects, doomed: &[Arc<Entry>]) {
    for entry in doomed.iter().filter(|entry| !drop.names.iter().any(|name| name.name == entry.name())) {
        let message = format!("drop cascades to {} {}", entry.object.kind().name(), entry.name());
        session.notice(SqlError::new(SqlState::DependentObjectsStillExist, message));
    }
}
