//! What happens when a view fails (I-8), or is paused because its state holds too much: it stops, and so do the views that
//! read it, which would wait for it for ever.
//!
//! From then on nobody waits for any of them: not the next epoch, not a checkpoint, not a session.

use freshet_types::{Epoch, RelationId, SqlError, SqlState};
use tracing::error;

use crate::catalog::{CatalogState, Entry, Object};
use crate::pipeline::view_status::ViewState;
use crate::server::Server;

/// Why a view has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFailure {
    /// The view where it happened.
    culprit: String,
    /// What happened there.
    reason: String,
    cause: Cause,
    fault: Fault,
    pub since: Epoch,
}

/// What has ended a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It cannot go on.
    Failed,
    /// It could, with more memory.
    Paused,
}

/// Whose fault it is that a view has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Own,
    /// Of a view that it reads, directly or not.
    OfInput,
}

impl ViewFailure {
    pub fn error(&self) -> String {
        match self.fault {
            Fault::Own => self.reason.clone(),
            Fault::OfInput => {
                format!("reads materialized view \"{}\", which {}: {}", self.culprit, self.verdict(), self.reason)
            }
        }
    }

    pub fn hint(&self) -> String {
        let restart = format!("use ALTER MATERIALIZED VIEW {} RESTART once", self.culprit);
        match self.cause {
            Cause::Failed => format!("{restart} the cause is gone"),
            Cause::Paused => {
                let views = if self.fault == Fault::Own { "the view" } else { "the views" };
                let how = "with more memory, or with on_limit = 'spill'";
                format!("{restart} it holds less, or drop {views} and create {views} again {how}")
            }
        }
    }

    /// The name of the state that the view is in.
    pub fn state(&self) -> &'static str {
        match self.cause {
            Cause::Failed => "failed",
            Cause::Paused => "paused",
        }
    }

    /// What is to be said of the view.
    pub fn verdict(&self) -> &'static str {
        match self.cause {
            Cause::Failed => "has failed",
            Cause::Paused => "is paused",
        }
    }

    /// How it came to that.
    pub fn event(&self) -> &'static str {
        match self.cause {
            Cause::Failed => "it failed",
            Cause::Paused => "it was paused",
        }
    }

    fn of_reader(&self) -> Self {
        Self { fault: Fault::OfInput, ..self.clone() }
    }
}

/// Marks `view` and all that read it failed, and has their dataflows taken down; what had failed before stays as it is.
/// May be called on any thread.
pub fn fail(server: &Server, view: RelationId, reason: &str) {
    stop(server, view, Cause::Failed, reason);
}

/// Marks `view` and all that read it paused, and has their dataflows taken down, like [`fail`].
pub fn pause(server: &Server, view: RelationId, reason: &str) {
    stop(server, view, Cause::Paused, reason);
}

fn stop(server: &Server, view: RelationId, cause: Cause, reason: &str) {
    let catalog = server.catalog.state();
    let Some(entry) = catalog.get(view) else { return };
    let since = Epoch(server.clock.now_ms());
    let (culprit, reason) = (entry.name().to_owned(), reason.to_owned());
    let failure = ViewFailure { culprit, reason, cause, fault: Fault::Own, since };
    mark(server, &catalog, view, failure.clone());
    // Looked up only now: a view that is created meanwhile is in the catalog, or finds that what it reads has failed.
    let catalog = server.catalog.state();
    for reader in readers(&catalog, view) {
        mark(server, &catalog, reader, failure.of_reader());
    }
}

/// Fails `view`, which is in the catalog, if anything that it reads has failed.
pub fn fail_with_inputs(server: &Server, view: RelationId, relations: &[RelationId]) {
    let catalog = server.catalog.state();
    if let Some((_, failure)) = failed_input(&catalog, relations) {
        mark(server, &catalog, view, failure.of_reader());
    }
}

/// Refuses a view over `relations` if one of them has failed.
pub fn refuse_failed_inputs(catalog: &CatalogState, relations: &[RelationId]) -> Result<(), SqlError> {
    let Some((name, failure)) = failed_input(catalog, relations) else { return Ok(()) };
    let message = format!("cannot read materialized view \"{name}\": it {}", failure.verdict());
    let refused = SqlError::new(SqlState::ObjectNotInPrerequisiteState, message);
    Err(refused.with_detail(failure.error()).with_hint(failure.hint()))
}

fn mark(server: &Server, catalog: &CatalogState, view: RelationId, failure: ViewFailure) {
    let Some(entry) = catalog.get(view) else { return };
    let Object::MaterializedView(object) = &entry.object else { return };
    let (reason, verdict) = (failure.error(), failure.verdict());
    {
        let mut status = object.status.lock();
        if matches!(status.state, ViewState::Failed(_)) {
            return;
        }
        status.state = ViewState::Failed(failure);
        // Under the lock: whoever sees that the view has failed can be sure that the coordinator hears of it before it hears
        // of anything that follows. It is gone only at shutdown.
        let _ = server.view_failures.send(view);
    }
    error!(view = entry.name(), "a materialized view {verdict}: {reason}");
    object.running.cancel();
}

/// Why a view has failed, or is paused; `None` if it goes on, or is none.
pub fn failure(entry: &Entry) -> Option<ViewFailure> {
    let Object::MaterializedView(object) = &entry.object else { return None };
    match &object.status.lock().state {
        ViewState::Failed(failure) => Some(failure.clone()),
        ViewState::Hydrating | ViewState::Live => None,
    }
}

/// All views that read `view`, directly or not.
fn readers(catalog: &CatalogState, view: RelationId) -> Vec<RelationId> {
    let mut read = vec![view];
    // What reads something was made later than that, and so comes later.
    for entry in catalog.entries() {
        if let Object::MaterializedView(object) = &entry.object
            && object.plan.node.relations().iter().any(|relation| read.contains(relation))
        {
            read.push(entry.id());
        }
    }
    read.split_off(1)
}

/// The first of `relations` that has failed.
fn failed_input(catalog: &CatalogState, relations: &[RelationId]) -> Option<(String, ViewFailure)> {
    relations.iter().find_map(|relation| {
        let entry = catalog.get(*relation)?;
        Some((entry.name().to_owned(), failure(entry)?))
    })
}

#[cfg(test)]
mod tests;
