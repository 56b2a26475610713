//! ON CONFLICT: what an INSERT does where the primary key is taken.

use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use freshet_types::{SqlError, SqlState};

use super::{OnConflict, default_of, is_default, target_column};
use crate::declaration::TableDefinition;
use crate::incremental::physical;
use crate::parse::names::{column_name_of, fold_ident};
use crate::rules::Scope;

/// How the row proposed for insertion is called.
const EXCLUDED: &str = "excluded";

/// `name` is what the table goes by in the statement.
pub(super) fn on_conflict(
    state: &SessionState,
    on: &ast::OnInsert,
    table: &TableDefinition,
    name: &str,
    parameters: &[Option<DataType>],
) -> Result<OnConflict, SqlError> {
    let ast::OnInsert::OnConflict(conflict) = on else {
        return Err(SqlError::syntax("ON DUPLICATE KEY is not Postgres' syntax").with_hint("use ON CONFLICT"));
    };
    check_target(conflict.conflict_target.as_ref(), table, &conflict.action, name)?;
    let update = match &conflict.action {
        ast::OnConflictAction::DoNothing => return Ok(OnConflict::Nothing),
        ast::OnConflictAction::DoUpdate(update) => update,
    };
    let proposed = Scope::new(state, Some(EXCLUDED), &table.schema())?;
    let scope = Scope::new(state, Some(name), &table.schema())?.join(&proposed)?.with_parameters(parameters);
    let mut assignments = vec![None; table.columns.len()];
    for (column, value) in assigned_columns(&update.assignments, table, name)? {
        let definition = &table.columns[column];
        let expr = scope.assigned(&value, &definition.name, &definition.data_type, "ON CONFLICT DO UPDATE")?;
        assignments[column] = Some(physical(&expr, &scope.schema)?);
    }
    let filter = update.selection.as_ref().map(|filter| {
        let filter = scope.condition(filter, "WHERE")?;
        physical(&filter, &scope.schema)
    });
    Ok(OnConflict::Update { assignments, filter: filter.transpose()? })
}

/// The conflict must be one on the primary key, which is the only unique index.
fn check_target(
    target: Option<&ast::ConflictTarget>,
    table: &TableDefinition,
    action: &ast::OnConflictAction,
    name: &str,
) -> Result<(), SqlError> {
    let key_names = |key: &Vec<usize>| {
        let mut names: Vec<String> = key.iter().map(|column| table.columns[*column].name.clone()).collect();
        names.sort_unstable();
        names
    };
    let matches = match target {
        None if matches!(action, ast::OnConflictAction::DoNothing) => true,
        None => {
            return Err(SqlError::syntax("ON CONFLICT DO UPDATE requires inference specification or constraint name")
                .with_hint("for example, ON CONFLICT (column_name)"));
        }
        Some(ast::ConflictTarget::Columns(columns)) => {
            let mut columns: Vec<String> = columns.iter().map(fold_ident).collect();
            columns.sort_unstable();
            table.primary_key.as_ref().map(key_names) == Some(columns)
        }
        Some(ast::ConflictTarget::OnConstraint(constraint)) => {
            table.primary_key.is_some() && column_name_of(constraint)? == format!("{name}_pkey")
        }
    };
    if matches {
        return Ok(());
    }
    let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
    let error = SqlError::new(SqlState::InvalidTableDefinition, message);
    Err(match &table.primary_key {
        Some(key) => error.with_hint(format!("the primary key is ({})", key_names(key).join(", "))),
        None => error.with_hint(format!("table \"{name}\" has no primary key")),
    })
}

/// `SET column = value, (column, column) = (value, value)`, with DEFAULT resolved; each column at most once.
pub(super) fn assigned_columns(
    assignments: &[ast::Assignment],
    table: &TableDefinition,
    name: &str,
) -> Result<Vec<(usize, ast::Expr)>, SqlError> {
    let mut assigned: Vec<(usize, ast::Expr)> = Vec::new();
    for assignment in assignments {
        for (target, value) in single_assignments(assignment)? {
            let column_name = column_name_of(target)?;
            let column = target_column(&column_name, table, name)?;
            if assigned.iter().any(|(other, _)| *other == column) {
                return Err(SqlError::syntax(format!("multiple assignments to same column \"{column_name}\"")));
            }
            let value = if is_default(value) { default_of(table, column) } else { value.clone() };
            assigned.push((column, value));
        }
    }
    Ok(assigned)
}

fn single_assignments(assignment: &ast::Assignment) -> Result<Vec<(&ast::ObjectName, &ast::Expr)>, SqlError> {
    match (&assignment.target, &assignment.value) {
        (ast::AssignmentTarget::ColumnName(column), value) => Ok(vec![(column, value)]),
        (ast::AssignmentTarget::Tuple(columns), ast::Expr::Tuple(values)) if columns.len() == values.len() => {
            Ok(columns.iter().zip(values).collect())
        }
        (ast::AssignmentTarget::Tuple(_), ast::Expr::Tuple(_)) => {
            Err(SqlError::syntax("number of columns does not match number of values"))
        }
        (ast::AssignmentTarget::Tuple(_), _) => {
            Err(SqlError::unsupported("assigning a subquery to several columns is not supported yet"))
        }
    }
}
