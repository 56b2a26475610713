//! Plans of INSERT, UPDATE and DELETE: queries that give the rows to write, and expressions over rows.

mod conflict;
mod delete;
mod insert;
mod returning;
#[cfg(test)]
mod tests;
mod update;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;
use freshet_types::{SqlError, SqlState};

pub(crate) use delete::plan_delete;
pub(crate) use insert::plan_insert;
pub(crate) use update::plan_update;

use crate::declaration::TableDefinition;
use crate::error::nearest;

#[derive(Debug, Clone)]
pub struct InsertPlan {
    /// Gives exactly the table's columns: cast, defaults filled in. NOT NULL and CHECK are the caller's ([`crate::TableRules`]).
    pub rows: LogicalPlan,
    pub conflict: Option<OnConflict>,
    pub returning: Option<Returning>,
}

/// What to do with a row whose primary key is there already.
#[derive(Debug, Clone)]
pub enum OnConflict {
    Nothing,
    /// Update the existing row, if `filter` is true. All expressions are over the existing row's columns, then the
    /// columns of the row proposed for insertion (`EXCLUDED`). `None`: the column stays as it is.
    Update {
        assignments: Vec<Option<Arc<dyn PhysicalExpr>>>,
        filter: Option<Arc<dyn PhysicalExpr>>,
    },
}

/// `RETURNING`: expressions over the table's columns (INSERT and UPDATE: the new row, DELETE: the old row).
#[derive(Debug, Clone)]
pub struct Returning {
    pub schema: SchemaRef,
    pub expressions: Vec<Arc<dyn PhysicalExpr>>,
}

#[derive(Debug, Clone)]
pub struct UpdatePlan {
    /// One row an affected row: all old columns, then all new columns.
    pub rows: LogicalPlan,
    pub returning: Option<Returning>,
}

#[derive(Debug, Clone)]
pub struct DeletePlan {
    /// The rows to delete, with all columns.
    pub rows: LogicalPlan,
    pub returning: Option<Returning>,
}

/// The index of the column that a statement assigns to.
fn target_column(name: &str, table: &TableDefinition, relation: &str) -> Result<usize, SqlError> {
    table.column_index(name).ok_or_else(|| {
        let message = format!("column \"{name}\" of relation \"{relation}\" does not exist");
        let error = SqlError::new(SqlState::UndefinedColumn, message);
        match nearest(name, table.columns.iter().map(|column| column.name.as_str())) {
            Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    })
}

/// `DEFAULT` in the place of a value.
fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// What DEFAULT means for a column.
fn default_of(table: &TableDefinition, column: usize) -> ast::Expr {
    match &table.columns[column].default {
        Some(default) => (*default.ast).clone(),
        None => ast::Expr::Value(ast::Value::Null.with_empty_span()),
    }
}

/// Gives a parameter that stands alone in the place of a column's value the type of the column.
fn infer_parameter(value: &ast::Expr, data_type: &DataType, parameters: &mut Vec<Option<DataType>>) {
    let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), .. }) = value else {
        return;
    };
    let Some(number) =
        name.strip_prefix('$').and_then(|digits| digits.parse::<u16>().ok()).filter(|number| *number > 0)
    else {
        return;
    };
    let index = usize::from(number) - 1;
    if parameters.len() <= index {
        parameters.resize(index + 1, None);
    }
    parameters[index].get_or_insert_with(|| data_type.clone());
}

fn identifier(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

/// `qualifier.column`
fn column_reference(qualifier: &str, column: &str) -> ast::Expr {
    ast::Expr::CompoundIdentifier(vec![identifier(qualifier), identifier(column)])
}

fn aliased(expr: ast::Expr, name: &str) -> ast::SelectItem {
    ast::SelectItem::ExprWithAlias { expr, alias: identifier(name) }
}

/// `SELECT items FROM from WHERE selection`
fn select(
    items: Vec<ast::SelectItem>,
    from: Vec<ast::TableWithJoins>,
    selection: Option<ast::Expr>,
) -> Result<ast::Query, SqlError> {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};
    let parsed =
        Parser::new(&PostgreSqlDialect {}).try_with_sql("SELECT 1").and_then(|mut parser| parser.parse_query());
    let mut query = *parsed.map_err(|error| SqlError::internal(error.to_string()))?;
    let ast::SetExpr::Select(body) = &mut *query.body else {
        return Err(SqlError::internal("a SELECT was read as something else"));
    };
    body.projection = items;
    body.from = from;
    body.selection = selection;
    Ok(query)
}
