//! From SQL text to a plan that keeps a view up to date.
//!
//! ```text
//! text ──parse──▶ Statement ──plan_query──▶ LogicalPlan ──────────────▶ run ad hoc by the server
//!                     │                          │
//!                     │                          └──incremental──▶ plan::Node ──▶ kept up to date by the dataflow
//!                     └──table_rules, source_rules, plan_insert …──▶ rows and rules for tables and sources
//! ```
//!
//! [`parse`] knows syntax and nothing else. A [`Planner`] resolves names through a [`PlannerCatalog`], and types and
//! functions through DataFusion. [`Planner::plan_view`] goes on to the incremental plan ([`plan::Node`]) and refuses,
//! naming the construct, what cannot be maintained. [`explain`] prints such a plan.
//!
//! This crate does no IO and reads no clock; it does not know sessions, epochs, storage or the wire. The SQL parser's
//! own types stay inside.

pub mod catalog;
pub mod catalog_queries;
mod coerce;
pub mod declaration;
pub mod dml;
mod error;
mod explain;
mod floats;
mod functions;
mod incremental;
mod instant;
mod logical;
mod operators;
mod parse;
pub mod plan;
mod rewrite;
mod rules;
mod sql_type;
pub mod statement;
#[cfg(test)]
mod testing;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use freshet_types::{Epoch, RelationId, SqlError};

pub use catalog::{PlannerCatalog, Relation, RelationContent, RelationKind};
pub use declaration::{SourceDeclaration, TableDefinition};
pub use dml::{DeletePlan, InsertPlan, OnConflict, Returning, UpdatePlan};
pub use error::sql_error;
pub use explain::explain;
pub use parse::parse;
pub use rules::{CompiledCheck, CompiledWatermark, SourceRules, TableRules};
pub use sql_type::sql_name as sql_type_name;
pub use statement::{Expression, ObjectKind, ObjectName, Options, Query, Statement};

/// The settings that planning relies on. A session state handed to [`Planner::new`] starts from these.
pub fn session_config() -> SessionConfig {
    logical::session_config()
}

/// Plans statements, with the functions and settings of one DataFusion session state.
pub struct Planner {
    state: SessionState,
}

/// How to keep a view up to date.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    pub node: plan::Node,
    /// The view's columns, as its users see them.
    pub schema: SchemaRef,
    /// What it reads, plain views seen through.
    pub relations: Vec<RelationId>,
    /// The query as an ad-hoc plan, for the oracle and for EXPLAIN.
    pub logical: LogicalPlan,
}

impl Planner {
    /// `state` brings functions and settings ([`session_config`]); its catalogs are not looked at.
    pub fn new(state: SessionState) -> Self {
        Self { state }
    }

    /// The plan of an ad-hoc query: names resolved, types coerced, not optimized.
    ///
    /// `parameters[i]` is the declared type of `$i+1`, if any; [`parameter_types`] tells the inferred ones.
    pub fn plan_query(
        &self,
        query: &Query,
        catalog: &dyn PlannerCatalog,
        parameters: &[Option<DataType>],
    ) -> Result<LogicalPlan, SqlError> {
        logical::Names::new(&self.state, catalog).plan(query, parameters)
    }

    /// The plan of a materialized view. `columns` are names for the first columns of the query.
    pub fn plan_view(
        &self,
        query: &Query,
        columns: &[String],
        catalog: &dyn PlannerCatalog,
    ) -> Result<ViewPlan, SqlError> {
        incremental::plan_view(&self.state, query, columns, catalog)
    }

    /// The columns of a plain view, and the relations that it names, plain views among them: what CREATE VIEW needs.
    pub fn describe_view(
        &self,
        query: &Query,
        columns: &[String],
        catalog: &dyn PlannerCatalog,
    ) -> Result<(SchemaRef, Vec<RelationId>), SqlError> {
        let names = logical::Names::new(&self.state, catalog);
        let plan = logical::with_column_names(names.plan(query, &[])?, columns)?;
        Ok((output_schema(&plan), names.named()))
    }

    /// The rows to insert into `table`, what to do on conflict, and what to return.
    pub fn plan_insert(
        &self,
        insert: &statement::Insert,
        table: &TableDefinition,
        catalog: &dyn PlannerCatalog,
        parameters: &[Option<DataType>],
    ) -> Result<InsertPlan, SqlError> {
        dml::plan_insert(&self.state, insert, table, catalog, parameters)
    }

    /// The rows to update in `table`, as they are and as they will be.
    pub fn plan_update(
        &self,
        update: &statement::Update,
        table: &TableDefinition,
        catalog: &dyn PlannerCatalog,
        parameters: &[Option<DataType>],
    ) -> Result<UpdatePlan, SqlError> {
        dml::plan_update(&self.state, update, table, catalog, parameters)
    }

    /// The rows to delete from `table`.
    pub fn plan_delete(
        &self,
        delete: &statement::Delete,
        table: &TableDefinition,
        catalog: &dyn PlannerCatalog,
        parameters: &[Option<DataType>],
    ) -> Result<DeletePlan, SqlError> {
        dml::plan_delete(&self.state, delete, table, catalog, parameters)
    }

    /// The checks of a table, executable; an error if one of them, or a DEFAULT, is not valid.
    pub fn table_rules(&self, table: &TableDefinition) -> Result<TableRules, SqlError> {
        rules::table_rules(&self.state, table)
    }

    /// The computed columns, checks and watermark of a source whose rows have the columns `schema`: the declared
    /// columns, then those of INCLUDE.
    pub fn source_rules(&self, source: &SourceDeclaration, schema: &SchemaRef) -> Result<SourceRules, SqlError> {
        rules::source_rules(&self.state, source, schema)
    }

    /// The instant that an expression without columns names: an epoch, or a time. `now_us` is what `now()` gives.
    pub fn instant(&self, expression: &Expression, now_us: i64) -> Result<Epoch, SqlError> {
        instant::instant(&self.state, &expression.ast, Some(now_us))
    }

    /// The value of an expression without columns, as in `EXECUTE name (1 + 1)`.
    pub fn constant(&self, expression: &Expression) -> Result<ScalarValue, SqlError> {
        rules::constant(&self.state, expression)
    }
}

/// The types of `$1`, `$2` …: as declared, or as inferred from where they stand, or text.
pub fn parameter_types(plan: &LogicalPlan) -> Result<Vec<DataType>, SqlError> {
    logical::parameter_types(plan)
}

/// Puts values in the place of `$1`, `$2` ….
pub fn bind(plan: LogicalPlan, values: Vec<ScalarValue>) -> Result<LogicalPlan, SqlError> {
    logical::bind(plan, values)
}

/// The columns of a query's result as Postgres names them. Two may have the same name.
pub fn output_schema(plan: &LogicalPlan) -> SchemaRef {
    logical::output_schema(plan)
}
