//! UPDATE: a query that gives each affected row twice, as it was and as it will be.

use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast;
use freshet_types::SqlError;

use super::conflict::assigned_columns;
use super::returning::returning;
use super::{UpdatePlan, aliased, column_reference, infer_parameter, select};
use crate::catalog::PlannerCatalog;
use crate::declaration::TableDefinition;
use crate::error::sql_error;
use crate::logical::Names;
use crate::parse::names::fold_ident;
use crate::rewrite::{NAME_MARK, rewrite};
use crate::rules::check_assignable;
use crate::statement::Update;

pub(crate) fn plan_update(
    state: &SessionState,
    update: &Update,
    table: &TableDefinition,
    catalog: &dyn PlannerCatalog,
    parameters: &[Option<DataType>],
) -> Result<UpdatePlan, SqlError> {
    let ast = &update.ast;
    if ast.from.is_some() {
        return Err(
            SqlError::unsupported("UPDATE ... FROM is not supported yet").with_hint("use a subquery in WHERE or SET")
        );
    }
    if ast.limit.is_some() || !ast.order_by.is_empty() {
        return Err(SqlError::syntax("UPDATE takes no ORDER BY or LIMIT"));
    }
    let name = name_of_target(&ast.table.relation, &update.table.name);
    let mut assigned = assigned_columns(&ast.assignments, table, &update.table.name)?;
    let mut parameters = parameters.to_vec();
    for (column, value) in &mut assigned {
        infer_parameter(value, &table.columns[*column].data_type, &mut parameters);
    }
    let old = table.columns.iter().map(|column| aliased(column_reference(&name, &column.name), &column.name));
    let new = assigned.iter().map(|(column, value)| aliased(value.clone(), &new_name(&table.columns[*column].name)));
    let query = select(old.chain(new).collect(), vec![ast.table.clone()], ast.selection.clone())?;
    let names = Names::new(state, catalog);
    let plan = names.plan_ast_with_known_parameters(rewrite(&query)?, &parameters)?;
    let rows = names.analyze(old_and_new(plan, table, &assigned)?)?;
    let returning =
        ast.returning.as_ref().map(|items| returning(state, items, table, &name, &parameters)).transpose()?;
    Ok(UpdatePlan { rows, returning })
}

/// What a table goes by in the statement: its alias, or its name.
pub(super) fn name_of_target(factor: &ast::TableFactor, table: &str) -> String {
    match factor {
        ast::TableFactor::Table { alias: Some(alias), .. } => fold_ident(&alias.name),
        _ => table.to_owned(),
    }
}

/// The name of a new column beside the old one.
fn new_name(column: &str) -> String {
    format!("{column}{NAME_MARK}new")
}

/// All old columns, then all new ones: assigned and cast, or as they were.
fn old_and_new(
    plan: LogicalPlan,
    table: &TableDefinition,
    assigned: &[(usize, ast::Expr)],
) -> Result<LogicalPlan, SqlError> {
    let width = table.columns.len();
    let sources = plan.schema().columns();
    let mut columns: Vec<Expr> = sources[..width].iter().cloned().map(Expr::Column).collect();
    for (at, definition) in table.columns.iter().enumerate() {
        let new = match assigned.iter().position(|(column, _)| *column == at) {
            None => Expr::Column(sources[at].clone()),
            Some(position) => {
                let found = plan.schema().field(width + position).data_type();
                let is_literal = matches!(assigned[position].1, ast::Expr::Value(_));
                check_assignable(found, &definition.data_type, &definition.name, is_literal)?;
                let value = Expr::Column(sources[width + position].clone());
                value.cast_to(&definition.data_type, plan.schema()).map_err(sql_error)?
            }
        };
        columns.push(new.alias(new_name(&definition.name)));
    }
    LogicalPlanBuilder::from(plan).project(columns).and_then(LogicalPlanBuilder::build).map_err(sql_error)
}
