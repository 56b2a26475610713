//! `COMMENT ON SOURCE | TABLE | VIEW | MATERIALIZED VIEW | SINK | COLUMN name IS 'text' | NULL`.

use freshet_types::SqlError;

use super::drop::object_kind;
use super::names;
use super::tokens::Tokens;
use super::unsupported;
use crate::statement::{Comment, CommentSubject, Statement};
use datafusion::sql::sqlparser::tokenizer::Token;

pub(super) fn comment(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("COMMENT ON")?;
    let subject = subject(tokens)?;
    tokens.expect("IS")?;
    let text = if tokens.accept("NULL") { None } else { Some(tokens.string()?) };
    Ok(Statement::Comment(Comment { subject, text }))
}

fn subject(tokens: &mut Tokens) -> Result<CommentSubject, SqlError> {
    if tokens.accept("COLUMN") {
        return column(tokens);
    }
    match object_kind(tokens) {
        Some(kind) => Ok(CommentSubject::Object { kind, name: tokens.object_name()? }),
        None => Err(unsupported::object(tokens, "COMMENT ON")),
    }
}

/// `relation.column`, with as many parts before the column as a relation's name may have.
fn column(tokens: &mut Tokens) -> Result<CommentSubject, SqlError> {
    let mut parts = vec![tokens.identifier()?];
    tokens.expect_token(&Token::Period)?;
    let mut column = tokens.identifier()?;
    while tokens.accept_token(&Token::Period) {
        parts.push(std::mem::replace(&mut column, tokens.identifier()?));
    }
    Ok(CommentSubject::Column { relation: names::object_name(parts)?, column })
}
