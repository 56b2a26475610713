//! `freshet_catalog.tiers`: what lies where; and `freshet_catalog.retention`: until when it does.

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use freshet_storage::collection::{TierStats, horizon_us};
use freshet_storage::tiers::Tier;
use std::sync::Arc;

use super::{Column, number, text};
use crate::catalog::{CatalogState, Object};
use crate::pipeline::tiers::{self, TierSettings};
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

/// What is kept for how long, and what is not kept now: rows with an earlier time than `expired_before`.
pub(super) fn retention(server: &Server) -> Vec<Column> {
    let catalog = server.catalog.state();
    let mut rows = Vec::new();
    for entry in catalog.entries() {
        let Some((collection, settings)) = tiers::of(&entry.object) else { continue };
        let Some(keep_ms) = settings.keep_ms() else { continue };
        let column = settings.time_column.map(|column| collection.description().schema.field(column).name().clone());
        // By the time of writing it is a task that deletes, by that of a column the epoch says.
        let now_ms = if column.is_some() { collection.upper().millis() } else { server.clock.now_ms() };
        rows.push((entry.name().to_owned(), column, keep_ms, horizon_us(keep_ms, now_ms)));
    }
    let before = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.3));
    vec![
        text("relation", rows.iter().map(|row| Some(&row.0))),
        text("time_column", rows.iter().map(|row| row.1.as_ref())),
        number("retain_ms", rows.iter().map(|row| Some(row.2))),
        ("expired_before", Arc::new(before.with_timezone("UTC"))),
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
