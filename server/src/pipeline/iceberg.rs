//! Publishes the cold tier as Iceberg tables, one a relation, for programs that do not speak to this server.
//!
//! What is published is what a durable checkpoint has, so that a table never shows what a restart takes back. New files
//! are published soon; rows that are deleted of old ones within [`ICEBERG_DELETES_S_MAX`], as each time makes
//! a snapshot. A `CHECKPOINT` that somebody asks for publishes all. Files that have left a table stay for
//! [`ICEBERG_FILES_KEPT_S`], for those who are reading them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_storage::StorageError;
use freshet_storage::iceberg::ColdRows;
use freshet_storage::tiers::TierFile;
use freshet_types::RelationId;
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::limits::{ICEBERG_DELETES_S_MAX, ICEBERG_FILES_KEPT_S, ICEBERG_INTERVAL_MS};
use crate::server::Server;

/// The cold rows of a relation in the last checkpoint.
pub struct ColdTable {
    /// Its folder in the cold tier.
    pub folder: String,
    pub time_column: Option<usize>,
    pub rows: ColdRows,
}

/// When to publish rows that are deleted of files that have been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    Now,
    WhenDue,
}

/// What is published, and what should be.
#[derive(Default)]
pub struct IcebergTables {
    /// What the last checkpoint has.
    wanted: Mutex<BTreeMap<RelationId, Arc<ColdTable>>>,
    /// Whoever holds it publishes.
    published: tokio::sync::Mutex<AllPublished>,
}

#[derive(Default)]
struct AllPublished {
    /// Whether tables of relations that are gone since the last start have been looked for.
    has_cleaned: bool,
    tables: BTreeMap<RelationId, Published>,
    /// Files that were in a table up to a time.
    left: VecDeque<(Instant, Vec<Arc<TierFile>>)>,
}

struct Published {
    folder: String,
    summary: (BTreeSet<u64>, usize),
    at: Instant,
    files: Vec<Arc<TierFile>>,
    /// Why it could not be published as it is; told once.
    failure: Option<String>,
}

impl IcebergTables {
    /// A checkpoint is durable: `changed` are the tables of which it has something new, and only those in `kept` are left.
    pub fn checkpointed(&self, changed: Vec<(RelationId, ColdTable)>, kept: &BTreeSet<RelationId>) {
        let mut wanted = self.wanted.lock();
        wanted.extend(changed.into_iter().map(|(relation, table)| (relation, Arc::new(table))));
        wanted.retain(|relation, table| kept.contains(relation) && !table.rows.is_empty());
    }

    /// Publishes what is due. Failures are logged, and tried again the next time.
    pub async fn publish(&self, server: &Server, deletes: Deletes) {
        let mut all = self.published.lock().await;
        let wanted = self.wanted.lock().clone();
        all.clean(server, &wanted).await;
        for (relation, table) in &wanted {
            all.publish(server, *relation, table, deletes).await;
        }
        let oldest = Instant::now().checked_sub(Duration::from_secs(ICEBERG_FILES_KEPT_S));
        while all.left.front().is_some_and(|(since, _)| oldest.is_some_and(|oldest| *since < oldest)) {
            all.left.pop_front();
        }
    }
}

impl AllPublished {
    /// Removes the tables of relations that have none any more.
    async fn clean(&mut self, server: &Server, wanted: &BTreeMap<RelationId, Arc<ColdTable>>) {
        let folders: BTreeSet<&str> = wanted.values().map(|table| table.folder.as_str()).collect();
        let gone: Vec<RelationId> =
            self.tables.keys().filter(|relation| !wanted.contains_key(relation)).copied().collect();
        for relation in gone {
            let Some(Published { folder, files, .. }) = self.tables.remove(&relation) else { continue };
            self.left.push_back((Instant::now(), files));
            if !folders.contains(folder.as_str()) {
                remove(server, &folder).await;
            }
        }
        // Before the first checkpoint nobody knows what there is.
        if self.has_cleaned || server.checkpoint_reports.all().is_empty() {
            return;
        }
        match server.store.cold_folders().await {
            Ok(found) => {
                self.has_cleaned = true;
                for folder in found.iter().filter(|folder| !folders.contains(folder.as_str())) {
                    remove(server, folder).await;
                }
            }
            Err(error) => warn!("cannot list the cold tier: {error}"),
        }
    }

    async fn publish(&mut self, server: &Server, relation: RelationId, table: &ColdTable, deletes: Deletes) {
        let summary = table.rows.summary();
        let last = self.tables.get(&relation);
        let is_due = last.is_none_or(|last| {
            let are_due = deletes == Deletes::Now || last.at.elapsed() > Duration::from_secs(ICEBERG_DELETES_S_MAX);
            last.summary.0 != summary.0 || last.failure.is_some() || (are_due && last.summary != summary)
        });
        if !is_due {
            return;
        }
        let at = Instant::now();
        let folder = table.folder.clone();
        let last = self.tables.remove(&relation);
        let published = match publish(server, table).await {
            Ok(()) => {
                self.left.extend(last.map(|last| (at, last.files)));
                Published { folder, summary, at, files: table.rows.files(), failure: None }
            }
            Err(error) => {
                let failure = Some(error.to_string());
                if last.as_ref().and_then(|last| last.failure.as_ref()) != failure.as_ref() {
                    metrics::counter!("freshet_iceberg_failures_total").increment(1);
                    warn!(table = folder, "cannot publish the Iceberg table: {error}");
                }
                // The table is what it was.
                let (summary, files) = last.map(|last| (last.summary, last.files)).unwrap_or_default();
                Published { folder, summary, at, files, failure }
            }
        };
        self.tables.insert(relation, published);
    }
}

async fn publish(server: &Server, table: &ColdTable) -> Result<(), StorageError> {
    let content = table.rows.content(&table.folder, table.time_column).await?;
    let now_ms = i64::try_from(server.clock.now_ms()).unwrap_or(i64::MAX);
    let published = server.store.iceberg_table(&table.folder)?.publish(&content, now_ms).await?;
    debug!(table = table.folder, version = published.version, files = content.files.len(), "published");
    Ok(())
}

async fn remove(server: &Server, folder: &str) {
    let removed = async { server.store.iceberg_table(folder)?.remove().await };
    if let Err(error) = removed.await {
        warn!(table = folder, "cannot remove an Iceberg table: {error}");
    }
}

/// Publishes for as long as the server runs.
pub async fn run(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(ICEBERG_INTERVAL_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        server.iceberg.publish(&server, Deletes::WhenDue).await;
    }
}
