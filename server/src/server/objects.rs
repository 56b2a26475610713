//! Makes catalog objects from what was declared: at CREATE, and again at every start.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use freshet_connectors as connectors;
use freshet_planner::declaration::{ColumnDefinition, Encode, IncludeField};
use freshet_planner::plan::Properties;
use freshet_planner::statement::{CreateMaterializedView, CreateSink, CreateTable, CreateView};
use freshet_planner::{Options, PlannerCatalog, SourceDeclaration, ViewPlan};
use freshet_storage::StorageError;
use freshet_storage::collection::{
    Collection, CollectionDescription, CollectionError, HistoryPolicy, RECENT_HISTORY_MS, Retention,
};
use freshet_types::{SqlError, SqlState};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::catalog::{CatalogState, MaterializedViewObject, Object, SourceObject, TableObject, ViewObject};
use crate::execute::view_options::ViewOptions;
use crate::limits::{DEFAULT_HISTORY_BYTES_MAX, DEFAULT_HISTORY_MS};
use crate::pipeline::sink::SinkObject;
use crate::pipeline::source_progress::SourceProgress;
use crate::pipeline::tiers::{self, TierSettings};
use crate::pipeline::view_status::ViewStatus;
use crate::server::Server;

/// What a user is told if the store fails.
pub fn store_error(error: StorageError) -> SqlError {
    storage_error("cannot write to the store", &error)
}

/// That something cannot be done to the store, in the words of `message`.
pub fn storage_error(message: &str, error: &StorageError) -> SqlError {
    let state = match error {
        StorageError::DiskFull => SqlState::DiskFull,
        StorageError::Fenced | StorageError::Closed => SqlState::AdminShutdown,
        _ => SqlState::IoError,
    };
    SqlError::new(state, message).with_detail(error.to_string())
}

pub fn collection_error(error: CollectionError) -> SqlError {
    SqlError::internal(error.to_string())
}

/// A table whose rows are in `collection`; empty without one.
pub fn table(
    server: &Server,
    create: &CreateTable,
    collection: Option<Arc<Collection>>,
) -> Result<TableObject, SqlError> {
    let collection = match collection {
        Some(collection) => collection,
        None => Collection::new(table_description(server, create)?, 1).map_err(collection_error)?,
    };
    let tiers = table_tiers(create)?;
    Ok(TableObject {
        tiers,
        definition: create.definition.clone(),
        rules: server.planner.table_rules(&create.definition)?,
        schema: create.definition.schema(),
        collection,
        write_lock: Arc::new(AsyncMutex::new(())),
    })
}

fn table_tiers(create: &CreateTable) -> Result<Option<TierSettings>, SqlError> {
    TierSettings::new(&create.definition.options, &create.definition.schema(), None)
}

pub fn table_description(server: &Server, create: &CreateTable) -> Result<CollectionDescription, SqlError> {
    Ok(CollectionDescription {
        name: create.name.name.clone(),
        schema: create.definition.schema(),
        key: create.definition.primary_key.clone(),
        append_only: false,
        history: history(server, &create.definition.options)?,
        retention: table_tiers(create)?.and_then(|tiers| tiers.retention()),
    })
}

/// How much of its past a relation with these options keeps. What nobody asked for has a bound of its own, and holds back no row
/// that is to move to another tier.
fn history(server: &Server, options: &Options) -> Result<HistoryPolicy, SqlError> {
    let budget = server.history_budget.clone();
    Ok(match options.duration("history")? {
        Some(asked) => {
            let asked = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
            HistoryPolicy { ms: asked.max(RECENT_HISTORY_MS), bytes_max: usize::MAX, budget }
        }
        // Rows go to another tier once nobody can ask for the time before them.
        None if tiers::OPTIONS.iter().any(|name| options.get(name).is_some()) => HistoryPolicy::recent(),
        None => HistoryPolicy { ms: DEFAULT_HISTORY_MS, bytes_max: DEFAULT_HISTORY_BYTES_MAX, budget },
    })
}

pub fn view(server: &Server, create: &CreateView, names: &dyn PlannerCatalog) -> Result<ViewObject, SqlError> {
    let (schema, reads) = server.planner.describe_view(&create.query, &create.columns, names)?;
    Ok(ViewObject { query: create.query.clone(), columns: create.columns.clone(), schema, reads })
}

pub fn materialized_view(
    server: &Server,
    create: &CreateMaterializedView,
    names: &dyn PlannerCatalog,
) -> Result<MaterializedViewObject, SqlError> {
    let plan = server.planner.plan_view(&create.query, &create.columns, names)?;
    let (_, reads) = server.planner.describe_view(&create.query, &create.columns, names)?;
    let budget = ViewOptions::parse(&create.options)?.budget;
    let watermark = plan.node.properties.watermarks.first().copied();
    let tiers = TierSettings::new(&create.options, &plan.schema, watermark)?;
    let retention = tiers.as_ref().and_then(TierSettings::retention);
    if create.options.get("retain").is_some() && retention.is_none() {
        let message = "option \"retain\" of a materialized view needs a time column";
        return Err(SqlError::new(SqlState::InvalidParameterValue, message)
            .with_detail("a row of a view may be computed again, so its age cannot be that of its writing")
            .with_hint("say by which column rows age: WITH (retain = '7 days', time_column = '...')"));
    }
    let description = view_description(&create.name.name, &plan, history(server, &create.options)?, retention);
    Ok(MaterializedViewObject {
        budget,
        tiers,
        query: create.query.clone(),
        reads,
        collection: Collection::new(description, server.config.workers).map_err(collection_error)?,
        plan: Arc::new(plan),
        status: Mutex::new(ViewStatus::default()),
        running: server.cancel.child_token(),
    })
}

pub fn view_description(
    name: &str,
    plan: &ViewPlan,
    history: HistoryPolicy,
    retention: Option<Retention>,
) -> CollectionDescription {
    CollectionDescription {
        name: name.to_owned(),
        schema: plan.schema.clone(),
        key: plan.node.properties.key.clone(),
        append_only: plan.node.properties.append_only && retention.is_none(),
        history,
        retention,
    }
}

/// A sink that has been checked, but not connected to.
pub fn sink(
    server: &Server,
    catalog: &CatalogState,
    create: &CreateSink,
    identity: &str,
) -> Result<SinkObject, SqlError> {
    let name = &create.relation;
    let entry = catalog.expect(name)?;
    let Some(collection) = catalog.collection(entry.id()) else {
        let kind = entry.object.kind();
        let error =
            SqlError::new(SqlState::WrongObjectType, format!("cannot send the changes of {} \"{name}\"", kind.name()));
        return Err(match entry.object {
            Object::Sink(_) => error.with_hint("a sink sends the changes of a table or a materialized view"),
            _ => error.with_hint(format!("CREATE MATERIALIZED VIEW ... AS SELECT * FROM {name}, and send that")),
        });
    };
    let snapshot = match create.options.get("snapshot").map(str::to_lowercase).as_deref() {
        None | Some("true" | "on") => true,
        Some("false" | "off") => false,
        Some(other) => {
            let message = format!("invalid value for option \"snapshot\": \"{other}\"");
            return Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint("use true or false"));
        }
    };
    let description = collection.description();
    let definition = connectors::SinkDefinition {
        name: create.name.name.clone(),
        identity: identity.to_owned(),
        relation: name.name.clone(),
        schema: description.schema.clone(),
        // A relation of at most one row has a key of no columns.
        key: description.key.clone(),
        append_only: description.append_only,
        options: create.options.0.clone(),
        format: format(create.format.as_ref(), create.encode.as_ref()),
    };
    let connector = connectors::open_sink(definition)?;
    Ok(SinkObject::new(entry.id(), snapshot, connector, server.cancel.child_token()))
}

fn format(format: Option<&String>, encode: Option<&Encode>) -> Option<connectors::Format> {
    encode.map(|encode| connectors::Format {
        format: format.cloned().unwrap_or_else(|| "plain".to_owned()),
        encode: encode.name.clone(),
        options: encode.options.0.clone(),
    })
}

/// A source that has been checked, but not connected to.
pub struct OpenedSource {
    pub declaration: SourceDeclaration,
    pub connector: Arc<dyn connectors::Source>,
    pub schema: SchemaRef,
    pub properties: Properties,
}

pub fn source(server: &Server, name: &str, declaration: &SourceDeclaration) -> Result<OpenedSource, SqlError> {
    let declaration = with_columns(name, declaration)?;
    let includes: Vec<_> = declaration.include.iter().map(include).collect();
    let included = includes.iter().map(|include| connectors::include_field(include.kind, &include.name));
    let fields: Vec<Field> = declaration.columns.iter().map(ColumnDefinition::field).chain(included).collect();
    refuse_duplicates(&fields)?;
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let rules = server.planner.source_rules(&declaration, &schema)?;
    let computed: BTreeMap<usize, _> = rules.computed.iter().cloned().collect();
    let columns = declaration.columns.iter().enumerate().map(|(index, column)| connectors::Column {
        name: column.name.clone(),
        data_type: column.data_type.clone(),
        nullable: column.nullable,
        computed: computed.get(&index).cloned(),
    });
    let checks = rules
        .checks
        .iter()
        .map(|check| connectors::Check { name: check.name.clone(), expression: check.expression.clone() });
    let definition = connectors::SourceDefinition {
        name: name.to_owned(),
        columns: columns.collect(),
        checks: checks.collect(),
        includes,
        options: declaration.options.0.clone(),
        format: format(declaration.format.as_ref(), declaration.encode.as_ref()),
    };
    let watermarks = rules.watermark.iter().map(|watermark| watermark.column).collect();
    let properties = Properties { key: None, append_only: true, watermarks };
    let connector = connectors::open_with_clock(definition, server.clock.clone())?;
    Ok(OpenedSource { declaration, connector, schema, properties })
}

impl OpenedSource {
    /// The source as an object, reading from `start`.
    pub fn starting_at(self, start: connectors::Offsets, dead_letters: Arc<Collection>) -> SourceObject {
        SourceObject {
            declaration: self.declaration,
            connector: self.connector,
            schema: self.schema,
            properties: self.properties,
            start,
            progress: SourceProgress::default(),
            dead_letters,
        }
    }
}

/// The declaration with the columns that the connector knows, where the statement lists none.
fn with_columns(name: &str, declaration: &SourceDeclaration) -> Result<SourceDeclaration, SqlError> {
    let mut declaration = declaration.clone();
    if !declaration.columns.is_empty() {
        return Ok(declaration);
    }
    let schema = connectors::columns_without_list(&declaration.options.0)?.ok_or_else(|| {
        let message = format!("source \"{name}\" needs a column list");
        SqlError::new(SqlState::InvalidTableDefinition, message)
            .with_hint("CREATE SOURCE name (column type, ...) WITH (...)")
    })?;
    declaration.columns = schema
        .fields()
        .iter()
        .map(|field| ColumnDefinition {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            default: None,
            computed: None,
        })
        .collect();
    Ok(declaration)
}

fn include(include: &freshet_planner::declaration::Include) -> connectors::Include {
    let kind = match include.field {
        IncludeField::Key => connectors::IncludeKind::Key,
        IncludeField::Partition => connectors::IncludeKind::Partition,
        IncludeField::Offset => connectors::IncludeKind::Offset,
        IncludeField::Timestamp => connectors::IncludeKind::Timestamp,
        IncludeField::Headers => connectors::IncludeKind::Headers,
        IncludeField::Payload => connectors::IncludeKind::Payload,
    };
    connectors::Include { kind, name: include.name.clone() }
}

fn refuse_duplicates(fields: &[Field]) -> Result<(), SqlError> {
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].iter().any(|earlier| earlier.name() == field.name()) {
            let message = format!("column \"{}\" specified more than once", field.name());
            return Err(SqlError::new(SqlState::DuplicateColumn, message));
        }
    }
    Ok(())
}
