//! The three relations of Nexmark, as a catalog for the planner.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SessionStateBuilder;
use freshet_connectors::nexmark::EventKind;
use freshet_planner::plan::Properties;
use freshet_planner::{Planner, PlannerCatalog, Relation, RelationContent, RelationKind, Statement, ViewPlan};
use freshet_types::RelationId;

/// The kinds of events, by the names of their relations; the id of a relation is its place here.
pub const RELATIONS: [(&str, EventKind); 3] =
    [("person", EventKind::Person), ("auction", EventKind::Auction), ("bid", EventKind::Bid)];

struct Nexmark;

impl PlannerCatalog for Nexmark {
    fn relation(&self, _schema: Option<&str>, name: &str) -> Option<Relation> {
        let at = RELATIONS.iter().position(|(relation, _)| *relation == name)?;
        let schema = RELATIONS[at].1.schema();
        Some(Relation {
            id: relation_id(at),
            name: name.to_owned(),
            kind: RelationKind::Source,
            properties: Properties { append_only: true, ..Properties::default() },
            content: RelationContent::Stored(Arc::new(EmptyTable::new(schema.clone()))),
            schema,
        })
    }
}

/// The id of the relation at place `at` of [`RELATIONS`].
pub fn relation_id(at: usize) -> RelationId {
    RelationId(at as u64)
}

/// Plans a view over the three relations.
pub fn plan(sql: &str) -> Result<ViewPlan> {
    let state =
        SessionStateBuilder::new().with_config(freshet_planner::session_config()).with_default_features().build();
    let statement = freshet_planner::parse(sql)?.pop().context("a query is a statement")?;
    let Statement::Query(query) = statement else { bail!("not a query: {sql}") };
    Ok(Planner::new(state).plan_view(&query, &[], &Nexmark)?)
}
