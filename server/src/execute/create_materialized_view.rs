//! `CREATE MATERIALIZED VIEW`: from a query to a result that stays up to date.
//!
//! 1. Plan the query, and refuse what cannot be maintained.
//! 2. Make the view durable in the catalog.
//! 3. Start its dataflow at the last sealed epoch `e`, on every worker, between two epochs.
//! 4. Hydrate: feed it what its inputs held at `e`. What comes after `e` reaches it by itself.
//! 5. Answer once the view is complete — at once with `WITH (background = true)`.
//!
//! From step 2 on the view exists, whatever happens: after a crash it is hydrated anew, and if hydration fails it is
//! there as failed, with its reason.

use std::sync::Arc;

use freshet_dataflow::SavedState;
use freshet_planner::statement::CreateMaterializedView;
use freshet_types::{RelationId, SqlError, SqlState};
use tracing::info;

use crate::catalog::{CatalogState, MaterializedViewObject, Object, ObjectKind};
use crate::coordinator::{Command, InstallView, Installed, SourceInput};
use crate::execute::ddl::{self, Name};
use crate::execute::select::with_names;
use crate::execute::view_options::ViewOptions;
use crate::execute::write::refuse_in_transaction;
use crate::pipeline::backfill::{Backfill, columns_read, hold_inputs};
use crate::pipeline::view_failure::{self, refuse_failed_inputs};
use crate::pipeline::view_status::ViewState;
use crate::server::{Server, objects};
use crate::session::{Response, Session};
use crate::task;

pub async fn execute(session: &Session, create: &CreateMaterializedView) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "CREATE MATERIALIZED VIEW")?;
    let done = || Response::Complete { tag: "CREATE MATERIALIZED VIEW".to_owned() };
    let server = &session.server;
    let background = ViewOptions::parse(&create.options)?.background;
    let ddl = server.ddl.clone().lock_owned().await;
    let replaced = match ddl::claim(session, &create.name, ObjectKind::MaterializedView, create.if_exists)? {
        Name::Skip => return Ok(done()),
        Name::Free => None,
        Name::Replace(entry) => Some(entry),
    };
    let (view, _) = with_names(session, |names| objects::materialized_view(server, create, names))?;
    refuse_failed_inputs(&server.catalog.state(), &view.plan.node.relations())?;
    let view = Arc::new(view);
    let id = server.next_id().await?;
    let record = ddl::record(id, &create.name, &create.sql, None);
    let created = Created { id, name: create.name.name.clone(), view: view.clone(), resume: None };
    let server = server.clone();
    let object = Object::MaterializedView(view.clone());
    session
        .finish("create a materialized view", async move {
            // Let go before the view is complete: others may go on with DDL while it hydrates.
            let _ddl = ddl;
            ddl::publish(&server, record, object, replaced.as_deref()).await?;
            hydrate(&server, vec![created]).await
        })
        .await?;
    if !background {
        complete(&create.name.name, &view, "created").await?;
    }
    Ok(done())
}

/// A view that is in the catalog and has no dataflow yet.
pub struct Created {
    pub id: RelationId,
    pub name: String,
    pub view: Arc<MaterializedViewObject>,
    /// The state from which it goes on, if it comes back from a checkpoint.
    pub resume: Option<Arc<SavedState>>,
}

/// Starts the dataflows of `created`, all at one epoch, and the hydration of those that do not go on from a state, each
/// in a task of its own.
pub async fn hydrate(server: &Arc<Server>, created: Vec<Created>) -> Result<(), SqlError> {
    let catalog = server.catalog.state();
    let views = created.iter().map(|created| install(&catalog, created)).collect();
    let Installed { as_of, offsets } = server.coordinator.ask(|reply| Command::Install { views, reply }).await?;
    // Views fail while others are created over them.
    for Created { id, view, .. } in &created {
        view_failure::fail_with_inputs(server, *id, &view.plan.node.relations());
    }
    for Created { id, name, view, .. } in created.into_iter().filter(|created| created.resume.is_none()) {
        // At once: what a restart brings back is as old as the checkpoint, and moves on as soon as epochs are sealed.
        let holds = match hold_inputs(&catalog, &view.plan.node, as_of) {
            Ok(holds) => holds,
            Err(cause) => {
                view_failure::fail(server, id, &cause.to_string());
                continue;
            }
        };
        let backfill = Backfill {
            holds,
            view: id,
            plan: Arc::new(view.plan.node.clone()),
            catalog: catalog.clone(),
            server: server.clone(),
            as_of,
            offsets: offsets.clone(),
        };
        let server = server.clone();
        task::spawn(format!("hydrate {name}"), view.running.clone(), async move {
            let started = std::time::Instant::now();
            if let Err(cause) = backfill.run().await {
                return view_failure::fail(&server, id, &cause.to_string());
            }
            let mut upper = view.collection.watch_upper();
            // The sender lives as long as the view, which this task holds.
            let _ = upper.wait_for(|upper| *upper >= as_of).await;
            if view.status.lock().hydrated() {
                info!(view = name, rows = view.collection.row_count(), "hydrated in {:?}", started.elapsed());
            }
            // The coordinator is gone only at shutdown.
            let _ = server.coordinator.send(Command::Hydrated { view: id }).await;
        });
    }
    Ok(())
}

fn install(catalog: &CatalogState, created: &Created) -> InstallView {
    let plan = &created.view.plan;
    let sources = plan.node.relations().into_iter().filter_map(|id| {
        let entry = catalog.get(id)?;
        let Object::Source(object) = &entry.object else { return None };
        let columns = columns_read(&plan.node, id);
        Some(SourceInput { id, name: entry.name().to_owned(), object: object.clone(), columns })
    });
    InstallView {
        view: created.id,
        name: created.name.clone(),
        sources: sources.collect(),
        plan: Arc::new(plan.node.clone()),
        output: created.view.collection.clone(),
        resume: created.resume.clone(),
        budget: created.view.budget,
    }
}

/// Waits until the view, which was `begun` in some way, is complete, or has failed to become so.
pub async fn complete(name: &str, view: &MaterializedViewObject, begun: &str) -> Result<(), SqlError> {
    let mut upper = view.collection.watch_upper();
    loop {
        if upper.borrow_and_update().millis() > 0 {
            return Ok(());
        }
        if let ViewState::Failed(failure) = &view.status.lock().state {
            let message = format!("materialized view \"{name}\" was {begun}, but could not be computed");
            return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
                .with_detail(failure.error())
                .with_hint(failure.hint()));
        }
        // A view fails without moving its upper, so look again now and then.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), upper.changed()).await;
    }
}
