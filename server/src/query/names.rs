//! Which relation a name means for a session: user objects first, then dead letters, then the system catalogs.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use freshet_planner::plan::Properties;
use freshet_planner::{PlannerCatalog, Relation, RelationContent, RelationKind};
use freshet_types::{Clock, Epoch, RelationId};

use crate::catalog::{CatalogState, Entry, Object, dead_letters_id};
use crate::query::pin::{Readable, Reads};
use crate::system;

/// The names that one statement sees. What it looks up is noted in `reads`.
pub struct Names<'a> {
    pub catalog: Arc<CatalogState>,
    pub reads: Arc<Reads>,
    pub status: &'a dyn StatusRelations,
    /// What `now()` gives where an instant is named.
    pub now_us: i64,
}

/// The relations of `freshet_catalog`, filled from the running server.
pub trait StatusRelations: Sync {
    fn status_relation(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>>;
}

/// The time on the clock, in microseconds since 1970.
pub fn now_us(clock: &Clock) -> i64 {
    i64::try_from(clock.now_ms().saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// System relations are not stored, and nothing depends on them, so they share an id.
const SYSTEM_ID: RelationId = RelationId(0);

impl PlannerCatalog for Names<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation> {
        if let Some(entry) = self.catalog.find(schema, name) {
            return self.entry(entry, None);
        }
        if let Some(source) = self.catalog.source_of_dead_letters(schema, name) {
            return self.dead_letters(source, name);
        }
        self.system(schema, name)
    }

    fn relation_at(&self, schema: Option<&str>, name: &str, at: Epoch) -> Option<Relation> {
        match self.catalog.find(schema, name) {
            Some(entry) => self.entry(entry, Some(at)),
            // Of these no past is kept, as the planner tells.
            None => self.relation(schema, name),
        }
    }

    fn now_us(&self) -> Option<i64> {
        Some(self.now_us)
    }

    fn relation_names(&self) -> Vec<String> {
        let relations = self.catalog.entries().filter(|entry| !matches!(entry.object, Object::Sink(_)));
        relations.map(|entry| entry.name().to_owned()).collect()
    }
}

impl Names<'_> {
    fn system(&self, schema: Option<&str>, name: &str) -> Option<Relation> {
        let provider = self
            .status
            .status_relation(schema, name)
            .or_else(|| system::system_relation(self.catalog.clone(), schema, name))?;
        Some(Relation {
            id: SYSTEM_ID,
            name: name.to_owned(),
            kind: RelationKind::System,
            schema: provider.schema(),
            properties: Properties::default(),
            content: RelationContent::Stored(provider),
        })
    }

    /// An object as a relation, if it is one, as it is or as it was.
    fn entry(&self, entry: &Entry, at: Option<Epoch>) -> Option<Relation> {
        let schema = entry.object.schema();
        let id = entry.id();
        let stored = |readable| RelationContent::Stored(self.reads.table((id, at), schema.clone(), readable));
        let name = entry.name().to_owned();
        let (kind, properties, content) = match &entry.object {
            Object::Source(source) => {
                let readable = Readable::Source { name: name.clone(), object: source.clone() };
                (RelationKind::Source, source.properties.clone(), stored(readable))
            }
            Object::Table(table) => {
                let key = table.definition.primary_key.clone();
                let properties = Properties { key, ..Properties::default() };
                (RelationKind::Table, properties, stored(Readable::Table(table.collection.clone())))
            }
            Object::MaterializedView(view) => {
                let readable = Readable::View { name: name.clone(), object: view.clone() };
                (RelationKind::MaterializedView, view.properties(), stored(readable))
            }
            Object::View(view) => {
                let content = RelationContent::View { query: view.query.clone(), columns: view.columns.clone() };
                (RelationKind::View, Properties::default(), content)
            }
            Object::Sink(_) => return None,
        };
        Some(Relation { id, name, kind, schema, properties, content })
    }

    fn dead_letters(&self, source: &Entry, name: &str) -> Option<Relation> {
        let Object::Source(object) = &source.object else { return None };
        let collection = &object.dead_letters;
        let schema = collection.description().schema.clone();
        let id = dead_letters_id(source.id());
        let provider = self.reads.table((id, None), schema.clone(), Readable::Table(collection.clone()));
        Some(Relation {
            id,
            name: name.to_owned(),
            kind: RelationKind::System,
            schema,
            properties: Properties::default(),
            content: RelationContent::Stored(provider),
        })
    }
}
