//! `ALTER MATERIALIZED VIEW name RESTART`: computes a view that has failed, or is paused, once more from what it reads,
//! and with it the views over it, which stopped with it.
//!
//! A view keeps its name and all that depends on it. Its rows and the state of its operators begin anew, as if it had just been
//! created; what it held last is what its sinks compare it with once it is complete.

use std::sync::Arc;

use freshet_planner::{ObjectName, Statement};
use freshet_storage::collection::Collection;
use freshet_types::{RelationId, SqlError, SqlState};
use parking_lot::Mutex;

use crate::catalog::{CatalogState, Entry, MaterializedViewObject, Object, ObjectKind};
use crate::execute::create_materialized_view::{Created, complete, hydrate};
use crate::execute::write::refuse_in_transaction;
use crate::pipeline::view_failure::{failure, refuse_failed_inputs};
use crate::pipeline::view_status::ViewStatus;
use crate::server::Server;
use crate::server::objects::collection_error;
use crate::session::{Response, Session};

/// Returns when the view is complete. Those over it may still be on their way.
pub async fn execute(session: &Session, name: &ObjectName) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "ALTER")?;
    let server = session.server.clone();
    let ddl = server.ddl.clone().lock_owned().await;
    let catalog = server.catalog.state();
    let stopped = stopped_with(&catalog, catalog.expect_kind(name, ObjectKind::MaterializedView)?)?;
    let view = session
        .finish("restart a materialized view", async move {
            let _ddl = ddl;
            restart(&server, &stopped).await
        })
        .await?;
    complete(&name.name, &view, "restarted").await?;
    Ok(Response::complete(&Statement::RestartView(name.clone())))
}

/// The view of `entry`, and those over it that stopped and have nothing else to wait for, in the order of their creation.
fn stopped_with(catalog: &CatalogState, entry: &Arc<Entry>) -> Result<Vec<Arc<Entry>>, SqlError> {
    let Object::MaterializedView(view) = &entry.object else { return Ok(Vec::new()) };
    if failure(entry).is_none() {
        let message = format!("materialized view \"{}\" has neither failed nor paused", entry.name());
        let state = view.status.lock().state.name();
        return Err(
            SqlError::new(SqlState::ObjectNotInPrerequisiteState, message).with_detail(format!("it is {state}"))
        );
    }
    refuse_failed_inputs(catalog, &view.plan.node.relations())?;
    let mut stopped = vec![entry.clone()];
    for reader in catalog.entries().filter(|reader| failure(reader).is_some()) {
        let Object::MaterializedView(object) = &reader.object else { continue };
        let reads = object.plan.node.relations();
        let goes_on = |id: &RelationId| catalog.get(*id).is_some_and(|input| failure(input).is_none());
        let restarts = |id: &RelationId| stopped.iter().any(|other| other.id() == *id);
        if reads.iter().any(&restarts) && reads.iter().all(|id| goes_on(id) || restarts(id)) {
            stopped.push(reader.clone());
        }
    }
    Ok(stopped)
}

/// Puts new views in the place of those that have stopped, and has them hydrate. Gives the first.
async fn restart(server: &Arc<Server>, stopped: &[Arc<Entry>]) -> Result<Arc<MaterializedViewObject>, SqlError> {
    // No checkpoint waits for what the views were, nor takes what they are for a part of it.
    let mut void = server.void_state.lock().await;
    let mut catalog = CatalogState::clone(&server.catalog.state());
    let mut created = Vec::new();
    for entry in stopped {
        let Object::MaterializedView(old) = &entry.object else { continue };
        let view = Arc::new(anew(server, old)?);
        for (_, sink) in catalog.sinks().filter(|(_, sink)| sink.relation == entry.id()) {
            sink.computed_again(&old.collection);
        }
        void.insert(entry.id());
        let (record, object) = (entry.record.clone(), Object::MaterializedView(view.clone()));
        catalog = catalog.with(Arc::new(Entry { record, object }));
        created.push(Created { id: entry.id(), name: entry.name().to_owned(), view, resume: None });
    }
    server.catalog.replace(catalog);
    let first = created.first().map(|created| created.view.clone());
    hydrate(server, created).await?;
    first.ok_or_else(|| SqlError::internal("there is no view to restart"))
}

/// The same view without rows and state.
fn anew(server: &Server, old: &MaterializedViewObject) -> Result<MaterializedViewObject, SqlError> {
    let description = old.collection.description().clone();
    Ok(MaterializedViewObject {
        query: old.query.clone(),
        plan: old.plan.clone(),
        reads: old.reads.clone(),
        collection: Collection::new(description, server.config.workers).map_err(collection_error)?,
        tiers: old.tiers.clone(),
        status: Mutex::new(ViewStatus::default()),
        budget: old.budget,
        running: server.cancel.child_token(),
    })
}
