//! RETURNING: a SELECT list over the row that was written.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::execution::SessionState;
use datafusion::logical_expr::ExprSchemable;
use datafusion::sql::sqlparser::ast::{self, SelectItem, SelectItemQualifiedWildcardKind};
use freshet_types::SqlError;

use super::{Returning, column_reference};
use crate::declaration::TableDefinition;
use crate::error::sql_error;
use crate::incremental::physical;
use crate::parse::names::fold_ident;
use crate::rewrite::name_of;
use crate::rules::Scope;

/// The list over the columns of `table`, which goes by `name`.
pub(super) fn returning(
    state: &SessionState,
    items: &[SelectItem],
    table: &TableDefinition,
    name: &str,
    parameters: &[Option<DataType>],
) -> Result<Returning, SqlError> {
    let scope = Scope::new(state, Some(name), &table.schema())?.with_parameters(parameters);
    let mut fields = Vec::new();
    let mut expressions = Vec::new();
    for (expr, name) in listed(items, table, name)? {
        let expr = scope.expression(&expr, "RETURNING")?;
        let data_type = expr.get_type(&scope.schema).map_err(sql_error)?;
        let nullable = expr.nullable(&scope.schema).map_err(sql_error)?;
        fields.push(Field::new(name, data_type, nullable));
        expressions.push(physical(&expr, &scope.schema)?);
    }
    Ok(Returning { schema: Arc::new(Schema::new(fields)), expressions })
}

/// The expressions with their names; `*` written out.
fn listed(items: &[SelectItem], table: &TableDefinition, name: &str) -> Result<Vec<(ast::Expr, String)>, SqlError> {
    let all_columns = || table.columns.iter().map(|column| (column_reference(name, &column.name), column.name.clone()));
    let mut listed = Vec::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => listed.push((expr.clone(), name_of(expr))),
            SelectItem::ExprWithAlias { expr, alias } => listed.push((expr.clone(), fold_ident(alias))),
            SelectItem::Wildcard(_) => listed.extend(all_columns()),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(qualifier), _) => {
                let qualifier = crate::parse::names::column_name_of(qualifier)?;
                if qualifier != name {
                    let message = format!("missing FROM-clause entry for table \"{qualifier}\"");
                    return Err(SqlError::new(freshet_types::SqlState::UndefinedTable, message));
                }
                listed.extend(all_columns());
            }
            other => return Err(SqlError::unsupported(format!("RETURNING {other} is not supported"))),
        }
    }
    Ok(listed)
}
