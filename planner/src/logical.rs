//! Queries to logical plans: names, types and functions resolved, types coerced.
//!
//! Plain views are put in the place of their names here, so that nothing after this stage knows them.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues, TableReference};
use datafusion::datasource::{ViewTable, cte_worktable::CteWorkTable, provider_as_source};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, Operator,
    ScalarUDF, TableSource, WindowUDF,
};
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;
use freshet_types::{Epoch, RelationId, SqlError, SqlState};

use crate::catalog::{PlannerCatalog, Relation, RelationContent, RelationKind};
use crate::coerce::{check_shared_columns, check_windows, mean_as_postgres};
use crate::error::{nearest, sql_error};
use crate::floats::prefer_floats;
use crate::functions::undefined_function;
use crate::instant::instant_of_text;
use crate::operators::PostgresOperators;
use crate::parse::versions;
use crate::rewrite::{prepare, rewrite, visible_name};
use crate::sql_type::PostgresTypes;
use crate::statement::Query;

/// How many plain views may stand upon each other.
const VIEW_DEPTH_MAX: usize = 64;

pub(crate) fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    options.execution.time_zone = Some("UTC".into());
    config
}

/// The names that one statement may use.
pub(crate) struct Names<'a> {
    state: &'a SessionState,
    catalog: &'a dyn PlannerCatalog,
    /// Relations named so far, plain views and what they name left out.
    named: RefCell<Vec<RelationId>>,
    view_depth: Cell<usize>,
    /// When what plain views name is read, while one is put in its place.
    at: Cell<Option<Epoch>>,
    /// Whether relations may be read as they were.
    past: Past,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    Readable,
    /// A materialized view is always of now.
    Refused,
}

impl<'a> Names<'a> {
    pub fn new(state: &'a SessionState, catalog: &'a dyn PlannerCatalog) -> Self {
        let own: Arc<dyn ExprPlanner> = Arc::new(PostgresOperators);
        let expr_planners = std::iter::once(own).chain(state.expr_planners().iter().cloned()).collect();
        let (named, view_depth, at) = (RefCell::default(), Cell::new(0), Cell::new(None));
        Self { state, catalog, named, view_depth, at, past: Past::Readable, expr_planners }
    }

    /// The names that a materialized view may use: of now.
    pub fn of_now(state: &'a SessionState, catalog: &'a dyn PlannerCatalog) -> Self {
        Self { past: Past::Refused, ..Self::new(state, catalog) }
    }

    /// The relations that the query itself names, plain views among them.
    pub fn named(self) -> Vec<RelationId> {
        self.named.into_inner()
    }

    /// The analyzed plan of a query. Parameters without a type that nothing tells are text.
    pub fn plan(&self, query: &Query, parameters: &[Option<DataType>]) -> Result<LogicalPlan, SqlError> {
        self.analyze(self.plan_ast_with_known_parameters(rewrite(&query.ast)?, parameters)?)
    }

    /// The plan of a rewritten syntax tree, planned again once the types of its parameters are known.
    pub fn plan_ast_with_known_parameters(
        &self,
        ast: ast::Query,
        parameters: &[Option<DataType>],
    ) -> Result<LogicalPlan, SqlError> {
        let first = self.plan_ast(ast.clone(), parameters, None)?;
        let known = unknown_parameters(&first, parameters)?;
        if known == parameters { Ok(first) } else { self.plan_ast(ast, &known, None) }
    }

    /// The plan of `VALUES`, each value cast to its column in `schema`.
    pub fn plan_values(
        &self,
        ast: ast::Query,
        schema: SchemaRef,
        parameters: &[Option<DataType>],
    ) -> Result<LogicalPlan, SqlError> {
        let schema = Arc::new(DFSchema::try_from(schema).map_err(sql_error)?);
        self.plan_ast(ast, parameters, Some(schema))
    }

    fn plan_ast(
        &self,
        mut ast: ast::Query,
        parameters: &[Option<DataType>],
        values: Option<Arc<DFSchema>>,
    ) -> Result<LogicalPlan, SqlError> {
        prepare(&mut ast);
        let mut context = PlannerContext::new().with_prepare_param_data_types(parameter_fields(parameters));
        context.set_table_schema(values);
        let statement = ast::Statement::Query(Box::new(ast));
        self.sql_to_rel().sql_statement_to_plan_with_context(statement, &mut context).map_err(sql_error)
    }

    /// An expression over the columns of `schema`, types coerced.
    pub fn expression(
        &self,
        mut ast: ast::Expr,
        schema: &DFSchema,
        parameters: &[Option<DataType>],
    ) -> Result<Expr, SqlError> {
        prepare(&mut ast);
        let mut context = PlannerContext::new().with_prepare_param_data_types(parameter_fields(parameters));
        self.sql_to_rel().sql_to_expr(ast, schema, &mut context).map_err(sql_error)
    }

    pub fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        check_windows(&plan)?;
        check_shared_columns(&plan)?;
        let plan = prefer_floats(plan)?;
        let config = self.state.config_options();
        let plan = self.state.analyzer().execute_and_check(plan, config, |_, _| {}).map_err(sql_error)?;
        mean_as_postgres(plan)
    }

    fn sql_to_rel(&self) -> SqlToRel<'_, Self> {
        SqlToRel::new_with_options(self, ParserOptions::from(&self.state.config_options().sql_parser))
    }

    /// The relation of that name, or 42P01.
    pub fn relation(&self, schema: Option<&str>, name: &str) -> Result<Relation, SqlError> {
        self.relation_at(schema, name, None)
    }

    fn relation_at(&self, schema: Option<&str>, name: &str, at: Option<Epoch>) -> Result<Relation, SqlError> {
        let found = match at {
            None => self.catalog.relation(schema, name),
            Some(at) => self.catalog.relation_at(schema, name, at).map(has_past).transpose()?,
        };
        found.ok_or_else(|| {
            let written = schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"));
            let error = SqlError::new(SqlState::UndefinedTable, format!("relation \"{written}\" does not exist"));
            match nearest(name, self.catalog.relation_names().iter().map(String::as_str)) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        })
    }

    /// When a relation is to be read whose name has the text `instant` behind it; `None` for now.
    fn instant(&self, instant: Option<&str>) -> Result<Option<Epoch>, SqlError> {
        let Some(text) = instant else { return Ok(self.at.get()) };
        if self.past == Past::Refused {
            return Err(SqlError::unsupported("FOR SYSTEM_TIME AS OF is not supported in a materialized view")
                .with_detail("a materialized view is always of now")
                .with_hint("use it in a SELECT, or in a plain view"));
        }
        instant_of_text(self.state, text, self.catalog.now_us()).map(Some)
    }

    fn source_of(&self, relation: Relation, at: Option<Epoch>) -> Result<Arc<dyn TableSource>, SqlError> {
        if self.view_depth.get() == 0 && !self.named.borrow().contains(&relation.id) {
            self.named.borrow_mut().push(relation.id);
        }
        match relation.content {
            RelationContent::Stored(provider) => Ok(provider_as_source(provider)),
            RelationContent::View { query, columns } => {
                let around = self.at.replace(at);
                let plan = self.view(&query, &columns);
                self.at.set(around);
                let plan = plan?;
                Ok(provider_as_source(Arc::new(ViewTable::new(plan, None))))
            }
        }
    }

    fn view(&self, query: &Query, columns: &[String]) -> Result<LogicalPlan, SqlError> {
        let depth = self.view_depth.get() + 1;
        if depth > VIEW_DEPTH_MAX {
            return Err(SqlError::new(SqlState::StatementTooComplex, "views stand upon each other too deeply"));
        }
        self.view_depth.set(depth);
        let plan = self.plan(query, &[]).and_then(|plan| with_column_names(plan, columns));
        self.view_depth.set(depth - 1);
        plan
    }
}

/// The relation, if what it held before is known.
fn has_past(relation: Relation) -> Result<Relation, SqlError> {
    let unsupported = |what: &str| {
        let message = format!("FOR SYSTEM_TIME AS OF is not supported for {what} \"{}\"", relation.name);
        SqlError::unsupported(message)
    };
    match relation.kind {
        RelationKind::Table | RelationKind::View | RelationKind::MaterializedView => Ok(relation),
        RelationKind::Source => Err(unsupported("source").with_hint(format!(
            "a source keeps no rows; CREATE MATERIALIZED VIEW ... AS SELECT * FROM {}, and read that",
            relation.name
        ))),
        RelationKind::System => Err(unsupported("system relation")),
    }
}

/// The plan under the names that a view declares for its first columns. All names must differ.
pub(crate) fn with_column_names(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan, SqlError> {
    let schema = plan.schema().clone();
    if names.len() > schema.fields().len() {
        return Err(SqlError::syntax("CREATE VIEW specifies more column names than columns"));
    }
    let own = schema.fields().iter().skip(names.len()).map(|field| visible_name(field.name()).to_owned());
    let all: Vec<String> = names.iter().cloned().chain(own).collect();
    for (at, name) in all.iter().enumerate() {
        if all[..at].contains(name) {
            return Err(SqlError::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            )
            .with_hint("give one of them another name with AS"));
        }
    }
    let same = schema.iter().zip(&all).all(|((qualifier, field), name)| qualifier.is_none() && field.name() == name);
    if same {
        return Ok(plan);
    }
    let columns = schema.columns().into_iter().zip(&all).map(|(column, name)| Expr::Column(column).alias(name));
    let projected = LogicalPlanBuilder::from(plan).project(columns.collect::<Vec<_>>());
    projected.and_then(LogicalPlanBuilder::build).map_err(sql_error)
}

/// The columns of a result, under the names that its user sees and without the engine's notes on them.
pub(crate) fn output_schema(plan: &LogicalPlan) -> SchemaRef {
    let fields = plan.schema().fields().iter();
    let fields =
        fields.map(|field| Field::new(visible_name(field.name()), field.data_type().clone(), field.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The types of all parameters, those that nothing tells being text.
pub(crate) fn parameter_types(plan: &LogicalPlan) -> Result<Vec<DataType>, SqlError> {
    let known = unknown_parameters(plan, &[])?;
    Ok(known.into_iter().map(|data_type| data_type.unwrap_or(DataType::Utf8)).collect())
}

/// The declared types, completed by the inferred ones, and by text where a parameter is used and nothing tells.
fn unknown_parameters(plan: &LogicalPlan, declared: &[Option<DataType>]) -> Result<Vec<Option<DataType>>, SqlError> {
    let mut types = declared.to_vec();
    let inferred = plan.get_parameter_types().map_err(sql_error)?;
    if inferred.is_empty() {
        return Ok(types);
    }
    let told = told_by_context(plan)?;
    for (name, data_type) in inferred {
        let index = parameter_index(&name)?;
        if types.len() <= index {
            types.resize(index + 1, None);
        }
        let found = data_type.or_else(|| told.get(&name).cloned());
        types[index].get_or_insert_with(|| found.unwrap_or(DataType::Utf8));
    }
    Ok(types)
}

/// Parameters whose type the query engine does not infer though their place tells it: `$1::int`, and LIMIT.
fn told_by_context(plan: &LogicalPlan) -> Result<HashMap<String, DataType>, SqlError> {
    let mut told = HashMap::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for bound in [&limit.skip, &limit.fetch].into_iter().flatten() {
                if let Expr::Placeholder(placeholder) = &**bound {
                    told.insert(placeholder.id.clone(), DataType::Int64);
                }
            }
        }
        let schema = merge_schema(&node.inputs());
        if let LogicalPlan::Filter(filter) = node {
            tell(&mut told, &filter.predicate, || DataType::Boolean);
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                tell_by_expression(&mut told, expr, &schema);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map_err(sql_error)?;
    Ok(told)
}

fn tell(told: &mut HashMap<String, DataType>, expr: &Expr, data_type: impl FnOnce() -> DataType) {
    if let Expr::Placeholder(placeholder) = expr {
        told.insert(placeholder.id.clone(), data_type());
    }
}

/// `$1::int`, `x = ANY($1)`, `NOT $1`, `$1 AND …`
fn tell_by_expression(told: &mut HashMap<String, DataType>, expr: &Expr, schema: &DFSchema) {
    let boolean = || DataType::Boolean;
    match expr {
        Expr::Cast(cast) => tell(told, &cast.expr, || cast.field.data_type().clone()),
        Expr::Not(operand) | Expr::IsTrue(operand) | Expr::IsFalse(operand) => tell(told, operand, boolean),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            tell(told, left, boolean);
            tell(told, right, boolean);
        }
        Expr::Case(case) if case.expr.is_none() => {
            case.when_then_expr.iter().for_each(|(when, _)| tell(told, when, boolean));
        }
        Expr::ScalarFunction(call) => {
            if let ("array_has", [array, element]) = (call.name(), call.args.as_slice())
                && let Ok(element) = element.get_type(schema)
            {
                tell(told, array, || DataType::new_list(element, true));
            }
        }
        _ => {}
    }
}

/// `$3` is number 2.
fn parameter_index(name: &str) -> Result<usize, SqlError> {
    const PARAMETERS_MAX: usize = 65_535;
    let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
    number
        .filter(|number| (1..=PARAMETERS_MAX).contains(number))
        .map(|number| number - 1)
        .ok_or_else(|| SqlError::new(SqlState::UndefinedParameter, format!("there is no parameter {name}")))
}

fn parameter_fields(parameters: &[Option<DataType>]) -> Vec<Option<FieldRef>> {
    let field = |data_type: &DataType| Arc::new(Field::new("", data_type.clone(), true));
    parameters.iter().map(|parameter| parameter.as_ref().map(field)).collect()
}

pub(crate) fn bind(plan: LogicalPlan, values: Vec<ScalarValue>) -> Result<LogicalPlan, SqlError> {
    if values.is_empty() {
        return Ok(plan);
    }
    let values = values.into_iter().map(Into::into).collect();
    plan.replace_params_with_values(&ParamValues::List(values)).map_err(sql_error)
}

/// The plan without sorts that nothing depends on: a view has no order.
pub(crate) fn without_sorts(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    // Below a LIMIT the order matters.
    let in_order = TreeNodeRecursion::Jump;
    let strip = |plan: LogicalPlan| match plan {
        LogicalPlan::Sort(mut sort) if sort.fetch.is_none() => {
            while let LogicalPlan::Sort(below) = &*sort.input
                && below.fetch.is_none()
            {
                sort = below.clone();
            }
            let input = Arc::unwrap_or_clone(sort.input);
            let next = if matches!(input, LogicalPlan::Limit(_)) { in_order } else { TreeNodeRecursion::Continue };
            Ok(Transformed::new(input, true, next))
        }
        limit @ LogicalPlan::Limit(_) => Ok(Transformed::new(limit, false, in_order)),
        other => Ok(Transformed::no(other)),
    };
    plan.transform_down(strip).map(|transformed| transformed.data).map_err(sql_error)
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> DataFusionResult<Arc<dyn TableSource>> {
        let (schema, table) = crate::catalog::split_reference(&name).map_err(external)?;
        let (table, instant) = versions::split(table);
        let source = self.instant(instant).and_then(|at| {
            let relation = self.relation_at(schema, table, at)?;
            self.source_of(relation, at)
        });
        source.map_err(external)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DataFusionResult<Arc<dyn TableSource>> {
        let function = self.state.table_functions().get(name).cloned().ok_or_else(|| {
            external(SqlError::new(SqlState::UndefinedFunction, format!("function {name} does not exist")))
        })?;
        let arguments = datafusion::catalog::TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(arguments)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DataFusionResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let name = unqualified(name);
        self.state.scalar_functions().get(name).cloned().or_else(|| {
            let is_other = name == "unnest"
                || self.state.higher_order_functions().contains_key(name)
                || self.state.aggregate_functions().contains_key(name)
                || self.state.window_functions().contains_key(name);
            (!is_other).then(|| undefined_function(name))
        })
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(unqualified(name)).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(unqualified(name)).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// Functions live in `pg_catalog`, which need not be said.
fn unqualified(name: &str) -> &str {
    name.strip_prefix("pg_catalog.").unwrap_or(name)
}
