//! `SHOW …`, `DESCRIBE`: what there is, and how it was made.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use freshet_planner::statement::Show;
use freshet_planner::{ObjectName, sql_type_name};
use freshet_types::SqlError;

use crate::catalog::{ObjectKind, undefined};
use crate::execute::select::with_names;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, show: &Show) -> Result<Response, SqlError> {
    let schema = describe(session, show)?;
    let columns: Vec<ArrayRef> = match show {
        Show::Objects(kind) => objects(session, ObjectKind::from(*kind)),
        Show::Columns(name) => columns(session, name)?,
        Show::Create { kind, name } => {
            let catalog = session.server.catalog.state();
            let entry = catalog.expect_kind(name, ObjectKind::from(*kind))?;
            vec![texts([entry.name()]), texts([entry.record.create_sql.as_str()])]
        }
        Show::Setting(name) => vec![texts([session.state().settings.get(name)?.1])],
        Show::AllSettings => {
            let state = session.state();
            let all = state.settings.all();
            vec![texts(all.iter().map(|s| s.0)), texts(all.iter().map(|s| s.1)), texts(all.iter().map(|s| s.2))]
        }
    };
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("the columns are built to the schema");
    Ok(Response::rows(schema, vec![batch], "SHOW"))
}

pub fn describe(session: &Session, show: &Show) -> Result<SchemaRef, SqlError> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let fields = match show {
        Show::Objects(_) => vec![text("name"), text("comment")],
        Show::Columns(_) => {
            vec![text("name"), text("type"), Field::new("nullable", DataType::Boolean, false), text("comment")]
        }
        Show::Create { .. } => vec![text("name"), text("create_sql")],
        Show::Setting(name) => vec![text(session.state().settings.get(name)?.0)],
        Show::AllSettings => vec![text("name"), text("setting"), text("description")],
    };
    Ok(Arc::new(Schema::new(fields)))
}

fn objects(session: &Session, kind: ObjectKind) -> Vec<ArrayRef> {
    let catalog = session.server.catalog.state();
    let mut found: Vec<_> = catalog.entries().filter(|entry| entry.object.kind() == kind).collect();
    found.sort_by_key(|entry| entry.name());
    vec![
        texts(found.iter().map(|entry| entry.name())),
        Arc::new(StringArray::from_iter(found.iter().map(|entry| entry.record.comment.as_deref()))),
    ]
}

fn columns(session: &Session, name: &ObjectName) -> Result<Vec<ArrayRef>, SqlError> {
    let (relation, _) = with_names(session, |names| {
        use freshet_planner::PlannerCatalog;
        names.relation(name.schema.as_deref(), &name.name).ok_or_else(|| undefined(name))
    })?;
    let catalog = session.server.catalog.state();
    let comments = catalog.find(name.schema.as_deref(), &name.name).map(|entry| &entry.record.column_comments);
    let fields = relation.schema.fields();
    let types: Vec<String> = fields.iter().map(|field| sql_type_name(field.data_type())).collect();
    let comment = |field: &Arc<Field>| comments.and_then(|comments| comments.get(field.name())).map(String::as_str);
    Ok(vec![
        texts(fields.iter().map(|field| field.name().as_str())),
        texts(types.iter().map(String::as_str)),
        Arc::new(BooleanArray::from_iter(fields.iter().map(|field| Some(field.is_nullable())))),
        Arc::new(StringArray::from_iter(fields.iter().map(comment))),
    ])
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from(values.into_iter().collect::<Vec<&str>>()))
}
