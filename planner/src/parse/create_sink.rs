//! `CREATE SINK [IF NOT EXISTS] name FROM relation WITH (…) FORMAT … ENCODE …`.

use freshet_types::SqlError;

use super::create_source::format;
use super::options::with_options;
use super::tokens::Tokens;
use super::{if_not_exists, unsupported};
use crate::statement::{CreateSink, Statement};

/// Reads on after `CREATE SINK`, which began at `mark`.
pub(super) fn create_sink(tokens: &mut Tokens, mark: usize) -> Result<Statement, SqlError> {
    const NO_REPLACE: bool = false;
    let if_exists = if_not_exists(tokens, NO_REPLACE)?;
    let name = tokens.object_name()?;
    if tokens.at("AS") {
        return Err(SqlError::unsupported("CREATE SINK ... AS query is not supported yet")
            .with_hint("CREATE MATERIALIZED VIEW v AS query, then CREATE SINK ... FROM v"));
    }
    tokens.expect("FROM")?;
    let relation = tokens.object_name()?;
    let options = with_options(tokens)?;
    let (format, encode) = format(tokens)?;
    unsupported::nothing_more(tokens)?;
    let sql = tokens.text_since(mark);
    Ok(Statement::CreateSink(CreateSink { name, if_exists, relation, options, format, encode, sql }))
}
