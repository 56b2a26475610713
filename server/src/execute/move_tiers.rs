//! `ALTER TABLE | MATERIALIZED VIEW name MOVE TIERS`: moves now what its policy says, down to the last row.
//!
//! Only rows that no reader may ask for at an earlier epoch can move, so this lets go of the past first.

use freshet_planner::Statement;
use freshet_planner::statement::MoveTiers;
use freshet_types::{SqlError, SqlState};

use crate::catalog::ObjectKind;
use crate::coordinator::Command;
use crate::execute::write::refuse_in_transaction;
use crate::pipeline::tiers;
use crate::server::objects::collection_error;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, statement: &MoveTiers) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "ALTER")?;
    let server = &session.server;
    let catalog = server.catalog.state();
    let entry = catalog.expect_kind(&statement.name, ObjectKind::from(statement.kind))?;
    let Some((collection, settings)) = tiers::of(&entry.object) else {
        let message = format!("{} \"{}\" has no tiers", entry.object.kind().name(), statement.name);
        return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
            .with_hint("create it WITH (hot = '...', warm = '...')"));
    };
    tiers::expire(server, entry.id(), &entry.object, settings).await?;
    collection.advance_since(collection.upper().max(server.coordinator.last_commit()));
    // Writers let go of the past as they go on: this has them do so.
    let sealed = server.coordinator.ask(|reply| Command::Commit { writes: Vec::new(), reply }).await?;
    let sealed = sealed.map_err(collection_error)?;
    let mut upper = collection.watch_upper();
    while *upper.borrow_and_update() < sealed {
        // A view that has failed goes on no more, and has let go of what it will.
        if tokio::time::timeout(tiers::PATIENCE, upper.changed()).await.is_err() {
            break;
        }
    }
    let moving = server.tiers_lock.lock().await;
    while tiers::move_once(server, entry.name(), collection, settings).await? > 0 {}
    drop(moving);
    Ok(Response::complete(&Statement::MoveTiers(statement.clone())))
}
