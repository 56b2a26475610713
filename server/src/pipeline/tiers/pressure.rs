//! Memory: when the rows of all relations take more than their share, the coldest leave it, whatever their relation's
//! options say of ages.

use std::sync::Arc;

use freshet_storage::collection::{Collection, TierPolicy};
use freshet_storage::tiers::can_be_stored;
use freshet_types::SqlError;
use tracing::info;

use super::{TierSettings, move_by};
use crate::catalog::{CatalogState, Object};
use crate::limits::COLLECTIONS_MEMORY_SHARE;
use crate::server::Server;
use crate::server::objects::collection_error;

/// The rows of a relation that may lie in files, and what its options say of tiers.
struct Movable<'a> {
    name: &'a str,
    collection: &'a Arc<Collection>,
    settings: Option<&'a TierSettings>,
}

fn movable(catalog: &CatalogState) -> Vec<Movable<'_>> {
    let mut found = Vec::new();
    for entry in catalog.entries() {
        let (collection, settings) = match &entry.object {
            Object::Table(table) => (&table.collection, table.tiers.as_ref()),
            Object::MaterializedView(view) => (&view.collection, view.tiers.as_ref()),
            Object::Source(_) | Object::View(_) | Object::Sink(_) => continue,
        };
        let schema = &collection.description().schema;
        if !schema.fields().is_empty() && can_be_stored(schema).is_ok() {
            found.push(Movable { name: entry.name(), collection, settings });
        }
    }
    found
}

/// Moves rows out of memory if those of all relations take more than their share.
pub(super) async fn relieve(server: &Server) -> Result<(), SqlError> {
    let catalog = server.catalog.state();
    let used: usize = movable(&catalog).iter().map(|relation| relation.collection.memory_bytes()).sum();
    let share = usize::try_from(server.config.memory_bytes / COLLECTIONS_MEMORY_SHARE).unwrap_or(usize::MAX);
    metrics::gauge!("freshet_collections_memory_bytes").set(used as f64);
    if used > share {
        let bytes = free_memory(server, used - share).await?;
        if bytes > 0 {
            info!(used, share, bytes, "rows have left memory, the coldest first");
        }
    }
    Ok(())
}

/// Moves the coldest rows of all relations to files, until `bytes` of memory are free or nothing is left that may move;
/// gives how many bytes the rows took. Rows that somebody may read at an earlier epoch stay.
///
/// # Errors
/// If files cannot be written.
async fn free_memory(server: &Server, bytes: usize) -> Result<usize, SqlError> {
    let catalog = server.catalog.state();
    let relations = movable(&catalog);
    // The past goes first: no row leaves memory while an epoch before it is readable. Writers let go of it as they go on.
    relations.iter().for_each(|relation| relation.collection.give_up_history());
    let mut segments = Vec::new();
    for (index, relation) in relations.iter().enumerate() {
        let column = relation.settings.and_then(|settings| settings.time_column);
        let found = relation.collection.movable_segments(column);
        let found = found.map_err(|error| collection_error(error.into()))?;
        segments.extend(found.into_iter().map(|(last, bytes)| (last, bytes, index)));
    }
    segments.sort_unstable();
    let mut chosen = vec![None; relations.len()];
    let mut freed = 0;
    for (last, bytes_here, index) in segments {
        if freed >= bytes {
            break;
        }
        freed += bytes_here;
        // The bound is exclusive.
        chosen[index] = Some(last.saturating_add(1));
    }
    let _moving = server.tiers_lock.lock().await;
    let now_ms = server.clock.now_ms();
    for (relation, before) in relations.iter().zip(chosen) {
        if before.is_none() {
            continue;
        }
        let by_age = match relation.settings {
            Some(settings) => settings.policy(relation.name, now_ms),
            None => TierPolicy::nothing(super::folder(relation.name)),
        };
        let policy = TierPolicy { warm_before: by_age.warm_before.max(before), ..by_age };
        while move_by(server, relation.name, relation.collection, &policy).await? > 0 {}
    }
    Ok(freed)
}
