//! Queries: SELECT, VALUES, TABLE and WITH.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::tokens::Tokens;
use crate::statement::Query;

/// Whether a query begins at the next token.
pub(super) fn comes_next(tokens: &Tokens) -> bool {
    *tokens.peek() == Token::LParen || ["SELECT", "VALUES", "WITH", "TABLE"].iter().any(|word| tokens.at(word))
}

/// A query, up to the first token that is no part of it.
pub(super) fn query(tokens: &mut Tokens) -> Result<Query, SqlError> {
    if !comes_next(tokens) {
        return Err(tokens.unexpected());
    }
    let emits_on_close = tokens.ahead("EMIT ON WINDOW CLOSE");
    let mark = tokens.mark();
    if tokens.at("SELECT") && tokens.second_is_end() {
        return nothing(tokens, mark);
    }
    let parsed = tokens.with_parser(Parser::parse_query);
    if emits_on_close {
        return Err(SqlError::unsupported("EMIT ON WINDOW CLOSE is not supported yet")
            .with_hint("without it, a row of an open window is updated until the window closes"));
    }
    let ast = parsed?;
    tokens.check_relations(&ast)?;
    reject_changes(&ast.body)?;
    if let Some(alias) = wildcard_alias(&ast.body) {
        return Err(tokens.unexpected_at(alias.span.start));
    }
    let sql = tokens.text_since(mark);
    Ok(Query::new(ast, sql))
}

/// `SELECT` alone: one row without columns.
fn nothing(tokens: &mut Tokens, mark: usize) -> Result<Query, SqlError> {
    tokens.advance();
    let mut ast = Parser::new(&PostgreSqlDialect {})
        .try_with_sql("SELECT 1")
        .and_then(|mut parser| parser.parse_query())
        .map_err(|error| SqlError::internal(error.to_string()))?;
    if let ast::SetExpr::Select(select) = &mut *ast.body {
        select.projection.clear();
    }
    Ok(Query::new(ast, tokens.text_since(mark)))
}

/// The parser takes `* FORM` for `*` under another name, which Postgres does not have.
fn wildcard_alias(body: &ast::SetExpr) -> Option<&ast::Ident> {
    match body {
        ast::SetExpr::Select(select) => select.projection.iter().find_map(|item| match item {
            ast::SelectItem::Wildcard(options) | ast::SelectItem::QualifiedWildcard(_, options) => {
                options.opt_alias.as_ref()
            }
            _ => None,
        }),
        ast::SetExpr::SetOperation { left, right, .. } => wildcard_alias(left).or_else(|| wildcard_alias(right)),
        ast::SetExpr::Query(query) => wildcard_alias(&query.body),
        _ => None,
    }
}

/// `WITH … INSERT`, and locks, which have no meaning here.
fn reject_changes(body: &ast::SetExpr) -> Result<(), SqlError> {
    match body {
        ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) | ast::SetExpr::Merge(_) => {
            Err(SqlError::unsupported("WITH before INSERT, UPDATE or DELETE is not supported yet"))
        }
        ast::SetExpr::Select(select) if select.into.is_some() => {
            Err(SqlError::unsupported("SELECT INTO is not supported yet")
                .with_hint("use CREATE TABLE, then INSERT ... SELECT"))
        }
        ast::SetExpr::SetOperation { left, right, .. } => {
            reject_changes(left)?;
            reject_changes(right)
        }
        _ => Ok(()),
    }
}
