//! INSERT: a query that gives whole rows of the table.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast;
use freshet_types::{SqlError, SqlState};

use super::conflict::on_conflict;
use super::returning::returning;
use super::{InsertPlan, default_of, is_default, target_column};
use crate::catalog::PlannerCatalog;
use crate::declaration::TableDefinition;
use crate::error::sql_error;
use crate::logical::Names;
use crate::parse::names::{column_name_of, fold_ident};
use crate::rewrite::rewrite;
use crate::rules::{Scope, check_assignable};
use crate::statement::Insert;

pub(crate) fn plan_insert(
    state: &SessionState,
    insert: &Insert,
    table: &TableDefinition,
    catalog: &dyn PlannerCatalog,
    parameters: &[Option<DataType>],
) -> Result<InsertPlan, SqlError> {
    let ast = &insert.ast;
    let name = ast.table_alias.as_ref().map_or_else(|| insert.table.name.clone(), |alias| fold_ident(&alias.alias));
    let targets = targets(ast, table, &insert.table.name)?;
    let rows = match &ast.source {
        None => default_row(state, table, catalog)?,
        Some(source) => given_rows(state, source, table, &targets, catalog, parameters)?,
    };
    let conflict = ast.on.as_ref().map(|on| on_conflict(state, on, table, &name, parameters)).transpose()?;
    let returning =
        ast.returning.as_ref().map(|items| returning(state, items, table, &name, parameters)).transpose()?;
    Ok(InsertPlan { rows, conflict, returning })
}

/// The columns that are given, and whether the user listed them.
struct Targets {
    columns: Vec<usize>,
    are_listed: bool,
}

fn targets(ast: &ast::Insert, table: &TableDefinition, relation: &str) -> Result<Targets, SqlError> {
    if ast.columns.is_empty() {
        return Ok(Targets { columns: (0..table.columns.len()).collect(), are_listed: false });
    }
    let mut columns = Vec::with_capacity(ast.columns.len());
    for written in &ast.columns {
        let name = column_name_of(written)?;
        let column = target_column(&name, table, relation)?;
        if columns.contains(&column) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(SqlState::DuplicateColumn, message));
        }
        columns.push(column);
    }
    Ok(Targets { columns, are_listed: true })
}

/// The columns that `given` values go to. Without a list the last columns may be left out.
fn receiving(targets: &Targets, given: usize) -> Result<&[usize], SqlError> {
    if given > targets.columns.len() {
        return Err(SqlError::syntax("INSERT has more expressions than target columns"));
    }
    if given < targets.columns.len() && targets.are_listed {
        return Err(SqlError::syntax("INSERT has more target columns than expressions"));
    }
    Ok(&targets.columns[..given])
}

/// `DEFAULT VALUES`
fn default_row(
    state: &SessionState,
    table: &TableDefinition,
    catalog: &dyn PlannerCatalog,
) -> Result<LogicalPlan, SqlError> {
    let one = LogicalPlanBuilder::empty(true).build().map_err(sql_error)?;
    whole_rows(state, one, table, &[], catalog)
}

fn given_rows(
    state: &SessionState,
    source: &ast::Query,
    table: &TableDefinition,
    targets: &Targets,
    catalog: &dyn PlannerCatalog,
    parameters: &[Option<DataType>],
) -> Result<LogicalPlan, SqlError> {
    let names = Names::new(state, catalog);
    let mut source = rewrite(source)?;
    let mut parameters = parameters.to_vec();
    let columns = match &mut *source.body {
        ast::SetExpr::Values(values) => {
            let given = values.rows.first().map_or(0, |row| row.content.len());
            let columns = receiving(targets, given)?;
            for row in &mut values.rows {
                if row.content.len() != given {
                    return Err(SqlError::syntax("VALUES lists must all be the same length"));
                }
                for (cell, column) in row.content.iter_mut().zip(columns) {
                    prepare_cell(cell, table, *column, &mut parameters);
                }
            }
            Some(columns)
        }
        _ => None,
    };
    let plan = match columns {
        Some(columns) => {
            let fields = columns.iter().map(|column| table.columns[*column].field().with_nullable(true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
            names.plan_values(source, schema, &parameters)?
        }
        None => names.plan_ast_with_known_parameters(source, &parameters)?,
    };
    let columns = receiving(targets, plan.schema().fields().len())?;
    whole_rows(state, plan, table, columns, catalog)
}

/// Puts what DEFAULT means in its place, gives a parameter the type of its column, and lets a float column read
/// the digits of numbers itself: by way of a decimal they would be rounded twice.
fn prepare_cell(cell: &mut ast::Expr, table: &TableDefinition, column: usize, parameters: &mut Vec<Option<DataType>>) {
    if is_default(cell) {
        *cell = default_of(table, column);
    }
    let data_type = &table.columns[column].data_type;
    super::infer_parameter(cell, data_type, parameters);
    if matches!(data_type, DataType::Float32 | DataType::Float64) {
        keep_digits(cell);
    }
}

fn keep_digits(cell: &mut ast::Expr) {
    let digits = match &*cell {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => digits.clone(),
            _ => return,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match &**expr {
            ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) => format!("-{digits}"),
            _ => return,
        },
        _ => return,
    };
    *cell = ast::Expr::Value(ast::Value::SingleQuotedString(digits).with_empty_span());
}

/// All columns of the table, from a plan that gives those in `given`, in that order.
fn whole_rows(
    state: &SessionState,
    plan: LogicalPlan,
    table: &TableDefinition,
    given: &[usize],
    catalog: &dyn PlannerCatalog,
) -> Result<LogicalPlan, SqlError> {
    let nothing = Scope::new(state, None, &Arc::new(Schema::empty()))?;
    let sources = plan.schema().columns();
    let mut columns = Vec::with_capacity(table.columns.len());
    for (at, definition) in table.columns.iter().enumerate() {
        let value = match given.iter().position(|column| *column == at) {
            Some(position) => {
                let found = plan.schema().field(position).data_type();
                check_assignable(found, &definition.data_type, &definition.name, is_literal(&plan, position))?;
                let column = Expr::Column(sources[position].clone());
                column.cast_to(&definition.data_type, plan.schema()).map_err(sql_error)?
            }
            None => nothing.assigned(&default_of(table, at), &definition.name, &definition.data_type, "DEFAULT")?,
        };
        columns.push(value.alias(&definition.name));
    }
    let rows =
        LogicalPlanBuilder::from(plan).project(columns).and_then(LogicalPlanBuilder::build).map_err(sql_error)?;
    Names::new(state, catalog).analyze(rows)
}

/// Whether a column of the plan is written as a literal: `SELECT 'x'`.
fn is_literal(plan: &LogicalPlan, position: usize) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => match &projection.expr[position] {
            Expr::Alias(alias) => matches!(*alias.expr, Expr::Literal(..) | Expr::Placeholder(_)),
            expr => matches!(expr, Expr::Literal(..) | Expr::Placeholder(_)),
        },
        _ => false,
    }
}
