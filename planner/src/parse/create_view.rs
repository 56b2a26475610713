//! `CREATE VIEW` and `CREATE MATERIALIZED VIEW`.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::{SqlError, SqlState};

use super::options::with_options;
use super::tokens::Tokens;
use super::{if_not_exists, query, unsupported};
use crate::statement::{CreateMaterializedView, CreateView, Statement};

/// `CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name [(columns)] AS query`, after VIEW.
pub(super) fn create_view(tokens: &mut Tokens, mark: usize, or_replace: bool) -> Result<Statement, SqlError> {
    let if_exists = if_not_exists(tokens, or_replace)?;
    let name = tokens.object_name()?;
    let columns = column_names(tokens)?;
    tokens.expect("AS")?;
    let query = query::query(tokens)?;
    unsupported::nothing_more(tokens)?;
    Ok(Statement::CreateView(CreateView { name, if_exists, columns, query, sql: tokens.text_since(mark) }))
}

/// `CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [(columns)] [WITH (options)] AS query`, after VIEW.
pub(super) fn create_materialized_view(
    tokens: &mut Tokens,
    mark: usize,
    or_replace: bool,
) -> Result<CreateMaterializedView, SqlError> {
    let if_exists = if_not_exists(tokens, or_replace)?;
    let name = tokens.object_name()?;
    let columns = column_names(tokens)?;
    let options = with_options(tokens)?;
    tokens.expect("AS")?;
    let query = query::query(tokens)?;
    if tokens.at("WITH NO DATA") {
        return Err(SqlError::unsupported("WITH NO DATA is not supported: materialized views are always up to date"));
    }
    let _with_data = tokens.accept("WITH DATA");
    unsupported::nothing_more(tokens)?;
    Ok(CreateMaterializedView { name, if_exists, columns, options, query, sql: tokens.text_since(mark) })
}

fn column_names(tokens: &mut Tokens) -> Result<Vec<String>, SqlError> {
    if *tokens.peek() != Token::LParen {
        return Ok(Vec::new());
    }
    let position = tokens.position();
    let names = tokens.parenthesized(Tokens::identifier)?;
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(SqlError::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            )
            .with_position(position));
        }
    }
    Ok(names)
}
