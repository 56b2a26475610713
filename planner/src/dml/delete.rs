//! DELETE: a query that gives the rows to delete.

use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use freshet_types::SqlError;

use super::returning::returning;
use super::update::name_of_target;
use super::{DeletePlan, aliased, column_reference, select};
use crate::catalog::PlannerCatalog;
use crate::declaration::TableDefinition;
use crate::logical::Names;
use crate::rewrite::rewrite;
use crate::statement::Delete;

pub(crate) fn plan_delete(
    state: &SessionState,
    delete: &Delete,
    table: &TableDefinition,
    catalog: &dyn PlannerCatalog,
    parameters: &[Option<DataType>],
) -> Result<DeletePlan, SqlError> {
    let ast = &delete.ast;
    if ast.using.is_some() {
        return Err(SqlError::unsupported("DELETE ... USING is not supported yet").with_hint("use a subquery in WHERE"));
    }
    if ast.limit.is_some() || !ast.order_by.is_empty() {
        return Err(SqlError::syntax("DELETE takes no ORDER BY or LIMIT"));
    }
    let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &ast.from;
    let name = from
        .first()
        .map_or_else(|| delete.table.name.clone(), |from| name_of_target(&from.relation, &delete.table.name));
    let columns = table.columns.iter().map(|column| aliased(column_reference(&name, &column.name), &column.name));
    let query = select(columns.collect(), from.clone(), ast.selection.clone())?;
    let names = Names::new(state, catalog);
    let rows = names.analyze(names.plan_ast_with_known_parameters(rewrite(&query)?, parameters)?)?;
    let returning =
        ast.returning.as_ref().map(|items| returning(state, items, table, &name, parameters)).transpose()?;
    Ok(DeletePlan { rows, returning })
}
