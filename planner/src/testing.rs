//! A catalog for tests: the relations of Nexmark, the clicks of the README, some tables and views.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::session_state::SessionStateBuilder;
use freshet_types::{RelationId, SqlError};

use crate::catalog::{PlannerCatalog, Relation, RelationContent, RelationKind};
use crate::plan::Properties;
use crate::statement::{Query, Statement};
use crate::{Planner, ViewPlan, parse, session_config};

pub(crate) struct TestCatalog;

pub(crate) fn planner() -> Planner {
    Planner::new(SessionStateBuilder::new().with_default_features().with_config(session_config()).build())
}

/// The one statement in a text.
pub(crate) fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap();
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

pub(crate) fn query(sql: &str) -> Query {
    match one(sql) {
        Statement::Query(query) => query,
        other => panic!("not a query: {other:?}"),
    }
}

pub(crate) fn view(sql: &str) -> Result<ViewPlan, SqlError> {
    planner().plan_view(&query(sql), &[], &TestCatalog)
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields = fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn stored(id: u64, kind: RelationKind, name: &str, properties: Properties, fields: &[(&str, DataType)]) -> Relation {
    let schema = schema(fields);
    let content = RelationContent::Stored(Arc::new(EmptyTable::new(schema.clone())));
    Relation { id: RelationId(id), name: name.into(), kind, schema, properties, content }
}

fn plain_view(id: u64, name: &str, sql: &str) -> Relation {
    let (schema, _) = planner().describe_view(&query(sql), &[], &TestCatalog).unwrap();
    let content = RelationContent::View { query: query(sql), columns: vec![] };
    let kind = RelationKind::View;
    Relation { id: RelationId(id), name: name.into(), kind, schema, properties: Properties::default(), content }
}

impl PlannerCatalog for TestCatalog {
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation> {
        use DataType::{Boolean, Float64, Int32, Int64, Utf8};
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let source = |watermarks: Vec<usize>| Properties { key: None, append_only: true, watermarks };
        let keyed = |key: Vec<usize>| Properties { key: Some(key), append_only: false, watermarks: vec![] };
        if schema.is_some_and(|schema| schema != "public") {
            return None;
        }
        Some(match name {
            "clicks" => stored(
                1,
                RelationKind::Source,
                name,
                source(vec![3]),
                &[("user_id", Int64), ("page", Utf8), ("ms", Int32), ("ts", time)],
            ),
            "bid" => stored(
                2,
                RelationKind::Source,
                name,
                source(vec![4]),
                &[("auction", Int64), ("bidder", Int64), ("price", Int64), ("channel", Utf8), ("date_time", time)],
            ),
            "auction" => stored(
                3,
                RelationKind::Source,
                name,
                source(vec![]),
                &[("id", Int64), ("seller", Int64), ("category", Int64), ("date_time", time)],
            ),
            "person" => stored(
                4,
                RelationKind::Source,
                name,
                source(vec![]),
                &[("id", Int64), ("name", Utf8), ("city", Utf8), ("state", Utf8)],
            ),
            "accounts" => stored(
                5,
                RelationKind::Table,
                name,
                keyed(vec![0]),
                &[("id", Int64), ("owner", Utf8), ("balance", DataType::Decimal128(18, 2))],
            ),
            "things" => stored(
                6,
                RelationKind::Table,
                name,
                Properties::default(),
                &[("a", Int32), ("b", Int64), ("f", Float64), ("t", Utf8), ("ok", Boolean)],
            ),
            "rich" => plain_view(7, name, "SELECT id, owner FROM accounts WHERE balance > 1000"),
            "per_owner" => stored(
                8,
                RelationKind::MaterializedView,
                name,
                keyed(vec![0]),
                &[("owner", Utf8), ("total", DataType::Decimal128(28, 2))],
            ),
            "pg_class" => stored(9, RelationKind::System, name, Properties::default(), &[("oid", Int32)]),
            _ => return None,
        })
    }

    fn relation_names(&self) -> Vec<String> {
        ["clicks", "bid", "auction", "person", "accounts", "things", "rich", "per_owner"].map(String::from).to_vec()
    }
}
