//! `CREATE TABLE [IF NOT EXISTS] name (columns, constraints) [WITH (options)]`.

use freshet_types::{SqlError, SqlState};

use super::columns::{ColumnList, column_list};
use super::options::{unknown_option, with_options};
use super::tokens::Tokens;
use super::{if_not_exists, unsupported};
use crate::declaration::TableDefinition;
use crate::statement::{CreateTable, Options, Statement};

/// What WITH may say of a table.
const OPTIONS: &[&str] = &["history", "hot", "warm", "cold", "retain", "time_column"];

/// Reads on after `CREATE TABLE`, which began at `mark`.
pub(super) fn create_table(tokens: &mut Tokens, mark: usize) -> Result<Statement, SqlError> {
    let if_exists = if_not_exists(tokens, false)?;
    let name = tokens.object_name()?;
    if tokens.at("AS") {
        return Err(SqlError::unsupported("CREATE TABLE AS is not supported yet")
            .with_hint("use CREATE TABLE, then INSERT ... SELECT; or CREATE MATERIALIZED VIEW"));
    }
    let list = column_list(tokens, &name.name)?;
    let options = with_options(tokens)?;
    if options.get("connector").is_some() {
        return Err(SqlError::unsupported("CREATE TABLE with a connector is not supported yet")
            .with_hint("use CREATE SOURCE, and CREATE MATERIALIZED VIEW to keep its rows"));
    }
    unsupported::nothing_more(tokens)?;
    let definition = definition(&name.name, list, options)?;
    Ok(Statement::CreateTable(CreateTable { name, if_exists, definition, sql: tokens.text_since(mark) }))
}

fn definition(table: &str, list: ColumnList, options: Options) -> Result<TableDefinition, SqlError> {
    let ColumnList { mut columns, checks, primary_key, unique, watermark } = list;
    if watermark.is_some() {
        return Err(
            SqlError::unsupported("WATERMARK FOR is not supported in CREATE TABLE").with_hint("use CREATE SOURCE")
        );
    }
    if columns.iter().any(|column| column.computed.is_some()) {
        return Err(SqlError::unsupported("generated columns of tables are not supported yet")
            .with_hint("compute the column in a view"));
    }
    if let Some((name, _)) = options.iter().find(|(name, _)| !OPTIONS.contains(name)) {
        return Err(unknown_option(name, OPTIONS));
    }
    let _valid = options.duration("history")?;
    let index_of = |name: &String| {
        columns.iter().position(|column| column.name == *name).ok_or_else(|| {
            let message = format!("column \"{name}\" named in key does not exist");
            SqlError::new(SqlState::UndefinedColumn, message)
        })
    };
    let key_columns = |names: &[String]| names.iter().map(index_of).collect::<Result<Vec<_>, _>>();
    let primary_key = primary_key.as_deref().map(key_columns).transpose()?;
    for names in &unique {
        if Some(sorted(key_columns(names)?)) != primary_key.clone().map(sorted) {
            return Err(SqlError::unsupported(format!("UNIQUE is not supported yet in table \"{table}\""))
                .with_hint("use PRIMARY KEY"));
        }
    }
    for (at, column) in primary_key.iter().flatten().enumerate() {
        if primary_key.iter().flatten().take(at).any(|earlier| earlier == column) {
            let message = format!("column \"{}\" appears twice in primary key constraint", columns[*column].name);
            return Err(SqlError::new(SqlState::DuplicateColumn, message));
        }
    }
    for column in primary_key.iter().flatten() {
        columns[*column].nullable = false;
    }
    Ok(TableDefinition { columns, primary_key, checks, options })
}

fn sorted(mut columns: Vec<usize>) -> Vec<usize> {
    columns.sort_unstable();
    columns
}
