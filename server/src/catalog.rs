//! The catalog: which sources, tables and views there are.
//!
//! The state is immutable behind an `Arc`; a statement takes one [`CatalogState`] and sees it unchanged to its end.
//! Only statements that hold the DDL lock replace it (see `execute/`). What must survive a restart of an entry is its
//! [`Record`]: the statement that made it, and what cannot be derived from that again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use freshet_connectors::Offsets;
use freshet_dataflow::ViewBudget;
use freshet_planner::plan::Properties;
use freshet_planner::{ObjectName, Query, SourceDeclaration, TableDefinition, TableRules, ViewPlan};
use freshet_storage::collection::Collection;
use freshet_types::{RelationId, SqlError, SqlState};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::pipeline::sink::SinkObject;
use crate::pipeline::source_progress::SourceProgress;
use crate::pipeline::tiers::TierSettings;
use crate::pipeline::view_status::ViewStatus;

/// The schema that all user objects live in.
pub const PUBLIC: &str = "public";

/// Marks the id of a source's dead letters; the other bits are the source's id.
const DEAD_LETTERS_BIT: u64 = 1 << 62;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    Source,
    Table,
    View,
    MaterializedView,
    Sink,
    /// A relation that the server fills itself: dead letters, `freshet_catalog`.
    System,
}

/// A named object.
pub struct Entry {
    pub record: Record,
    pub object: Object,
}

/// What survives a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub id: RelationId,
    pub name: String,
    /// The statement that made it, which parses to the same again.
    pub create_sql: String,
    pub comment: Option<String>,
    pub column_comments: BTreeMap<String, String>,
    /// Sources: where the declared start was, resolved once and for all.
    pub start: Option<Offsets>,
    /// Sinks: by which the system outside knows them.
    #[serde(default)]
    pub identity: Option<String>,
}

#[derive(Clone)]
pub enum Object {
    Source(Arc<SourceObject>),
    Table(Arc<TableObject>),
    View(Arc<ViewObject>),
    MaterializedView(Arc<MaterializedViewObject>),
    /// Has no rows, and so is no relation.
    Sink(Arc<SinkObject>),
}

pub struct SourceObject {
    pub declaration: SourceDeclaration,
    pub connector: Arc<dyn freshet_connectors::Source>,
    /// All columns: declared, then included.
    pub schema: SchemaRef,
    pub properties: Properties,
    pub start: Offsets,
    pub progress: SourceProgress,
    pub dead_letters: Arc<Collection>,
}

pub struct TableObject {
    pub definition: TableDefinition,
    pub rules: TableRules,
    pub schema: SchemaRef,
    pub collection: Arc<Collection>,
    pub tiers: Option<TierSettings>,
    /// Held by a statement that reads rows to decide what to write, until its write is visible.
    pub write_lock: Arc<tokio::sync::Mutex<()>>,
}

pub struct ViewObject {
    pub query: Query,
    pub columns: Vec<String>,
    pub schema: SchemaRef,
    /// The relations named directly in the query.
    pub reads: Vec<RelationId>,
}

pub struct MaterializedViewObject {
    pub query: Query,
    pub plan: Arc<ViewPlan>,
    /// The relations named directly in the query, plain views among them.
    pub reads: Vec<RelationId>,
    pub collection: Arc<Collection>,
    pub tiers: Option<TierSettings>,
    pub status: Mutex<ViewStatus>,
    /// What its state may hold in memory.
    pub budget: ViewBudget,
    /// Triggered when the view fails or is dropped.
    pub running: CancellationToken,
}

impl MaterializedViewObject {
    /// What is known of its rows, and not only of those that its query computes: some may expire.
    pub fn properties(&self) -> Properties {
        let computed = self.plan.node.properties.clone();
        Properties { append_only: self.collection.description().append_only, ..computed }
    }
}

impl Object {
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Source(_) => ObjectKind::Source,
            Self::Table(_) => ObjectKind::Table,
            Self::View(_) => ObjectKind::View,
            Self::MaterializedView(_) => ObjectKind::MaterializedView,
            Self::Sink(_) => ObjectKind::Sink,
        }
    }

    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Source(source) => source.schema.clone(),
            Self::Table(table) => table.schema.clone(),
            Self::View(view) => view.schema.clone(),
            Self::MaterializedView(view) => view.plan.schema.clone(),
            Self::Sink(_) => Arc::new(Schema::empty()),
        }
    }

    /// The relations that it cannot do without.
    pub fn reads(&self) -> &[RelationId] {
        match self {
            Self::Source(_) | Self::Table(_) => &[],
            Self::View(view) => &view.reads,
            Self::MaterializedView(view) => &view.reads,
            Self::Sink(sink) => std::slice::from_ref(&sink.relation),
        }
    }
}

impl ObjectKind {
    /// As it stands in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Sink => "sink",
            Self::System => "system relation",
        }
    }
}

impl From<freshet_planner::ObjectKind> for ObjectKind {
    fn from(kind: freshet_planner::ObjectKind) -> Self {
        match kind {
            freshet_planner::ObjectKind::Source => Self::Source,
            freshet_planner::ObjectKind::Table => Self::Table,
            freshet_planner::ObjectKind::View => Self::View,
            freshet_planner::ObjectKind::MaterializedView => Self::MaterializedView,
            freshet_planner::ObjectKind::Sink => Self::Sink,
        }
    }
}

impl Entry {
    pub fn id(&self) -> RelationId {
        self.record.id
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }
}

/// The id under which a source's dead letters are read.
pub fn dead_letters_id(source: RelationId) -> RelationId {
    RelationId(source.0 | DEAD_LETTERS_BIT)
}

/// The catalog at one moment.
#[derive(Default, Clone)]
pub struct CatalogState {
    entries: BTreeMap<RelationId, Arc<Entry>>,
    names: BTreeMap<String, RelationId>,
}

impl CatalogState {
    /// All entries in the order of their ids, which is the order of creation.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    pub fn get(&self, id: RelationId) -> Option<&Arc<Entry>> {
        self.entries.get(&id)
    }

    /// The entry of that name, if `schema` is one in which user objects live.
    pub fn find(&self, schema: Option<&str>, name: &str) -> Option<&Arc<Entry>> {
        if schema.is_some_and(|schema| schema != PUBLIC) {
            return None;
        }
        self.names.get(name).and_then(|id| self.entries.get(id))
    }

    /// The entry of that name, or the error that Postgres gives.
    pub fn expect(&self, name: &ObjectName) -> Result<&Arc<Entry>, SqlError> {
        self.find(name.schema.as_deref(), &name.name).ok_or_else(|| undefined(name))
    }

    /// The entry of that name, which must be of that kind.
    pub fn expect_kind(&self, name: &ObjectName, kind: ObjectKind) -> Result<&Arc<Entry>, SqlError> {
        let entry = self.expect(name)?;
        let actual = entry.object.kind();
        if actual == kind {
            return Ok(entry);
        }
        let message = format!("\"{}\" is not a {}", name.name, kind.name());
        Err(SqlError::new(SqlState::WrongObjectType, message).with_hint(format!("it is a {}", actual.name())))
    }

    /// The source whose dead letters are called `name`.
    pub fn source_of_dead_letters(&self, schema: Option<&str>, name: &str) -> Option<&Arc<Entry>> {
        let entry = self.find(schema, name.strip_suffix("_dead_letters")?)?;
        matches!(entry.object, Object::Source(_)).then_some(entry)
    }

    /// The rows of a table or materialized view.
    pub fn collection(&self, id: RelationId) -> Option<&Arc<Collection>> {
        match &self.get(id)?.object {
            Object::Table(table) => Some(&table.collection),
            Object::MaterializedView(view) => Some(&view.collection),
            Object::Source(_) | Object::View(_) | Object::Sink(_) => None,
        }
    }

    /// All sinks.
    pub fn sinks(&self) -> impl Iterator<Item = (&Arc<Entry>, &Arc<SinkObject>)> {
        self.entries().filter_map(|entry| match &entry.object {
            Object::Sink(sink) => Some((entry, sink)),
            _ => None,
        })
    }

    /// The objects that read `id` directly, in order of creation.
    pub fn dependents(&self, id: RelationId) -> Vec<&Arc<Entry>> {
        self.entries.values().filter(|entry| entry.object.reads().contains(&id)).collect()
    }

    pub fn with(&self, entry: Arc<Entry>) -> Self {
        let mut next = self.clone();
        next.names.insert(entry.record.name.clone(), entry.id());
        next.entries.insert(entry.id(), entry);
        next
    }

    pub fn without(&self, ids: &[RelationId]) -> Self {
        let mut next = self.clone();
        next.entries.retain(|id, _| !ids.contains(id));
        next.names.retain(|_, id| !ids.contains(id));
        next
    }
}

pub fn undefined(name: &ObjectName) -> SqlError {
    SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"))
}

/// The current [`CatalogState`].
#[derive(Default)]
pub struct Catalog {
    state: RwLock<Arc<CatalogState>>,
}

impl Catalog {
    pub fn state(&self) -> Arc<CatalogState> {
        self.state.read().clone()
    }

    /// Puts a new state in place of the old one. Only under the DDL lock.
    pub fn replace(&self, state: CatalogState) {
        *self.state.write() = Arc::new(state);
    }
}

/// What the system catalogs (pg_class, pg_attribute, SHOW …) tell of one relation.
#[derive(Debug, Clone)]
pub struct RelationDescription {
    pub id: RelationId,
    pub schema_name: String,
    pub name: String,
    pub kind: ObjectKind,
    pub columns: SchemaRef,
    /// Indices of the PRIMARY KEY columns.
    pub primary_key: Vec<usize>,
    /// The statement that would create it again.
    pub create_sql: String,
    /// The query of a view.
    pub query_sql: Option<String>,
    pub comment: Option<String>,
    pub column_comments: Vec<Option<String>>,
    /// The DEFAULT of each column, as text.
    pub column_defaults: Vec<Option<String>>,
}

/// A consistent listing of all relations, in the order of their ids.
pub trait Listing: Send + Sync + std::fmt::Debug {
    fn relations(&self) -> Vec<RelationDescription>;
}

impl std::fmt::Debug for CatalogState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names.keys()).finish()
    }
}

impl Listing for CatalogState {
    fn relations(&self) -> Vec<RelationDescription> {
        self.entries().flat_map(|entry| describe(entry)).collect()
    }
}

fn describe(entry: &Entry) -> Vec<RelationDescription> {
    let record = &entry.record;
    let columns = entry.object.schema();
    let column_comments = columns.fields().iter().map(|f| record.column_comments.get(f.name()).cloned()).collect();
    let column_defaults = match &entry.object {
        Object::Table(table) => {
            let columns = table.definition.columns.iter();
            columns.map(|column| column.default.as_ref().map(ToString::to_string)).collect()
        }
        _ => vec![None; columns.fields().len()],
    };
    let (primary_key, query_sql) = match &entry.object {
        Object::Table(table) => (table.definition.primary_key.clone().unwrap_or_default(), None),
        Object::View(view) => (vec![], Some(view.query.sql().to_owned())),
        Object::MaterializedView(view) => (vec![], Some(view.query.sql().to_owned())),
        Object::Source(_) => (vec![], None),
        Object::Sink(_) => return vec![],
    };
    let described = RelationDescription {
        id: record.id,
        schema_name: PUBLIC.to_owned(),
        name: record.name.clone(),
        kind: entry.object.kind(),
        columns,
        primary_key,
        create_sql: record.create_sql.clone(),
        query_sql,
        comment: record.comment.clone(),
        column_comments,
        column_defaults,
    };
    let Object::Source(source) = &entry.object else {
        return vec![described];
    };
    let schema = source.dead_letters.description().schema.clone();
    let dead_letters = RelationDescription {
        id: dead_letters_id(record.id),
        name: format!("{}_dead_letters", record.name),
        kind: ObjectKind::System,
        column_comments: vec![None; schema.fields().len()],
        column_defaults: vec![None; schema.fields().len()],
        columns: schema,
        comment: Some(format!("records of source \"{}\" that could not become rows", record.name)),
        create_sql: String::new(),
        ..described.clone()
    };
    vec![described, dead_letters]
}
