//! `freshet_catalog.tiers`: what lies where.

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use freshet_storage::collection::TierStats;
use freshet_storage::tiers::Tier;
use std::sync::Arc;

use super::{Column, number, text};
use crate::catalog::{CatalogState, Object};
use crate::pipeline::tiers::TierSettings;
use crate::server::Server;

pub(super) fn relation(server: &Server) -> Vec<Column> {
    let catalog = server.catalog.state();
    let rows = rows(&catalog);
    let times = |pick: fn((i64, i64)) -> i64| {
        let times = rows.iter().map(|row| row.2.times.map(pick));
        Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC")) as ArrayRef
    };
    vec![
        text("relation", rows.iter().map(|row| Some(&row.0))),
        text("tier", rows.iter().map(|row| Some(row.1.name()))),
        number("rows", rows.iter().map(|row| u64::try_from(row.2.rows).ok())),
        number("bytes", rows.iter().map(|row| Some(row.2.bytes))),
        number("files", rows.iter().map(|row| u64::try_from(row.2.files).ok())),
        ("oldest", times(|times| times.0)),
        ("newest", times(|times| times.1)),
    ]
}

/// A tier in which rows of a relation lie.
fn rows(catalog: &CatalogState) -> Vec<(String, Tier, TierStats)> {
    let mut rows = Vec::new();
    for entry in catalog.entries() {
        let (collection, settings) = match &entry.object {
            Object::Table(table) => (&table.collection, &table.tiers),
            Object::MaterializedView(view) => (&view.collection, &view.tiers),
            Object::Source(_) | Object::View(_) | Object::Sink(_) => continue,
        };
        let time_column = settings.as_ref().and_then(|settings: &TierSettings| settings.time_column);
        // A column without times was refused when the relation was created.
        let Ok(stats) = collection.tier_stats(time_column) else { continue };
        rows.extend(stats.into_iter().map(|(tier, stats)| (entry.name().to_owned(), tier, stats)));
    }
    rows
}
