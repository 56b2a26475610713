//! Which relation a name means for a session: user objects first, then dead letters, then the system catalogs.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use freshet_planner::plan::Properties;
use freshet_planner::{PlannerCatalog, Relation, RelationContent, RelationKind};
use freshet_types::RelationId;

use crate::catalog::{CatalogState, Entry, Object, dead_letters_id};
use crate::query::pin::{Readable, Reads};
use crate::system;

/// The names that one statement sees. What it looks up is noted in `reads`.
pub struct Names<'a> {
    pub catalog: Arc<CatalogState>,
    pub reads: Arc<Reads>,
    pub status: &'a dyn StatusRelations,
}

/// The relations of `freshet_catalog`, filled from the running server.
pub trait StatusRelations: Sync {
    fn status_relation(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>>;
}

/// System relations are not stored, and nothing depends on them, so they share an id.
const SYSTEM_ID: RelationId = RelationId(0);

impl PlannerCatalog for Names<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation> {
        if let Some(entry) = self.catalog.find(schema, name) {
            return self.entry(entry);
        }
        if let Some(source) = self.catalog.source_of_dead_letters(schema, name) {
            return self.dead_letters(source, name);
        }
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

    fn relation_names(&self) -> Vec<String> {
        let relations = self.catalog.entries().filter(|entry| !matches!(entry.object, Object::Sink(_)));
        relations.map(|entry| entry.name().to_owned()).collect()
    }
}

impl Names<'_> {
    /// An object as a relation, if it is one.
    fn entry(&self, entry: &Entry) -> Option<Relation> {
        let schema = entry.object.schema();
        let id = entry.id();
        let stored = |readable| RelationContent::Stored(self.reads.table(id, schema.clone(), readable));
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
                (RelationKind::MaterializedView, view.plan.node.properties.clone(), stored(readable))
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
        let provider = self.reads.table(id, schema.clone(), Readable::Table(collection.clone()));
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
