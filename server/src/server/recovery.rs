//! Brings the database back after a restart: tables from their log, views by hydrating them again.
//!
//! Every object comes back from the statement that made it, in the order of creation, so that each finds what it
//! reads. Tables hold their rows before the server is ready; views hydrate while it serves.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use freshet_planner::Statement;
use freshet_storage::Store;
use freshet_types::{Clock, Delta, Epoch, RelationId};
use futures::TryStreamExt;
use tracing::{info, warn};

use crate::catalog::{Entry, Object, Record};
use crate::coordinator::Command;
use crate::execute::create_materialized_view::{Created, hydrate};
use crate::limits::WAL_RECORDS_BEFORE_COMPACTION;
use crate::query::names::Names;
use crate::server::{Server, objects};
use crate::status::Status;

/// What the store holds.
pub struct Loaded {
    records: Vec<Record>,
    logs: HashMap<RelationId, Vec<(Epoch, Delta)>>,
    /// No epoch so far was later than this.
    pub epoch: Epoch,
}

/// Reads the catalog and the tables' logs.
pub async fn load(store: &Store, clock: &Clock) -> anyhow::Result<Loaded> {
    let mut records = Vec::new();
    for (id, bytes) in store.load_catalog().await.context("cannot read the catalog")? {
        let record: Record =
            serde_json::from_slice(&bytes).with_context(|| format!("the catalog's record of {id} is damaged"))?;
        records.push(record);
    }
    records.sort_by_key(|record| record.id);
    let mut logs = HashMap::new();
    let mut epoch = Epoch(clock.now_ms());
    for record in &records {
        let log = store.replay(record.id).await?.map_ok(|(_, epoch, delta)| (epoch, delta));
        let log: Vec<(Epoch, Delta)> = log.try_collect().await?;
        epoch = log.iter().fold(epoch, |latest, (epoch, _)| latest.max(*epoch));
        logs.insert(record.id, log);
    }
    Ok(Loaded { records, logs, epoch })
}

/// Makes all objects again. Returns when tables are complete and views have begun to hydrate.
pub async fn restore(server: &Arc<Server>, mut loaded: Loaded) -> anyhow::Result<()> {
    let mut created = Vec::new();
    let count = loaded.records.len();
    for record in std::mem::take(&mut loaded.records) {
        let name = record.name.clone();
        let log = loaded.logs.remove(&record.id).unwrap_or_default();
        let object = restore_one(server, &record, log, loaded.epoch)
            .await
            .with_context(|| format!("cannot bring back \"{name}\""))?;
        let entry = Arc::new(Entry { record, object });
        server.catalog.replace(server.catalog.state().with(entry.clone()));
        if let Object::MaterializedView(view) = &entry.object {
            created.push(Created { id: entry.id(), name, view: view.clone() });
        }
    }
    if count > 0 {
        info!(objects = count, views = created.len(), "brought back; views are hydrating");
    }
    hydrate(server, created).await?;
    Ok(())
}

async fn restore_one(
    server: &Arc<Server>,
    record: &Record,
    log: Vec<(Epoch, Delta)>,
    epoch: Epoch,
) -> anyhow::Result<Object> {
    let mut statements = freshet_planner::parse(&record.create_sql)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        bail!("its statement is not one statement: {}", record.create_sql);
    };
    let status = Status { server };
    let names = Names { catalog: server.catalog.state(), reads: Arc::default(), status: &status };
    let object = match statement {
        Statement::CreateTable(create) => {
            let table = objects::table(server, &create)?;
            let mut writer = table.collection.writer(0);
            let records = log.len();
            for (_, delta) in log {
                // All at one epoch: nobody can read an earlier one.
                writer.apply(epoch, &delta.with_schema(&table.schema)?)?;
            }
            writer.advance_upper(epoch);
            if records > WAL_RECORDS_BEFORE_COMPACTION {
                let rows = table.collection.snapshot(epoch)?.batches(None)?;
                server.store.compact_table(record.id, rows, epoch).await?;
            }
            server.coordinator.send(Command::AddTable { table: record.id, writer }).await?;
            Object::Table(Arc::new(table))
        }
        Statement::CreateSource(create) => {
            let opened = objects::source(server, &record.name, &create.declaration)?;
            let start = record.start.clone().context("the catalog does not tell where the source starts")?;
            let source = opened.starting_at(&record.name, start)?;
            let dead_letters = source.dead_letters.writer(0);
            server.coordinator.send(Command::AddSource { source: record.id, dead_letters }).await?;
            Object::Source(Arc::new(source))
        }
        Statement::CreateView(create) => Object::View(Arc::new(objects::view(server, &create, &names)?)),
        Statement::CreateMaterializedView(create) => {
            Object::MaterializedView(Arc::new(objects::materialized_view(server, &create, &names)?))
        }
        other => {
            warn!(name = record.name, "the catalog holds a statement of an unknown kind");
            bail!("{} makes no object", other.tag())
        }
    };
    Ok(object)
}
