//! DECLARE, FETCH and CLOSE.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::options::{options, unknown_option};
use super::tokens::Tokens;
use super::{query, subscribe};
use crate::statement::{Close, CursorSubject, Declare, Fetch, Statement};

/// `DECLARE name [BINARY] [ASENSITIVE | INSENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR …`
pub(super) fn declare(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("DECLARE")?;
    let cursor = tokens.identifier()?;
    while let Some(word) = tokens.accept_one_of(&["BINARY", "ASENSITIVE", "INSENSITIVE", "NO SCROLL", "SCROLL"]) {
        if matches!(word, "BINARY" | "SCROLL") {
            return Err(SqlError::unsupported(format!("{word} cursors are not supported yet")));
        }
    }
    tokens.expect("CURSOR")?;
    let hold = tokens.accept_one_of(&["WITH HOLD", "WITHOUT HOLD"]) == Some("WITH HOLD");
    tokens.expect("FOR")?;
    let subject = if tokens.at("SUBSCRIBE") {
        CursorSubject::Subscribe(subscribe::subscribe(tokens)?)
    } else {
        CursorSubject::Query(query::query(tokens)?)
    };
    Ok(Statement::Declare(Declare { cursor, hold, subject }))
}

/// `FETCH [NEXT | n | ALL | FORWARD [n | ALL]] [FROM | IN] cursor [WITH (timeout = '1s')]`
pub(super) fn fetch(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("FETCH")?;
    let rows_max = rows_max(tokens)?;
    let _from = tokens.accept_one_of(&["FROM", "IN"]);
    let cursor = tokens.identifier()?;
    let timeout = if tokens.accept("WITH") { timeout(tokens)? } else { None };
    Ok(Statement::Fetch(Fetch { cursor, rows_max, timeout }))
}

fn rows_max(tokens: &mut Tokens) -> Result<Option<u64>, SqlError> {
    const BACKWARD: [&str; 6] = ["BACKWARD", "PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE"];
    if let Some(word) = BACKWARD.iter().find(|word| tokens.at(word)) {
        return Err(SqlError::unsupported(format!("FETCH {word} is not supported: cursors only move forward")));
    }
    if tokens.accept("NEXT") {
        return Ok(Some(1));
    }
    let _forward = tokens.accept("FORWARD");
    if tokens.accept("ALL") {
        return Ok(None);
    }
    match tokens.peek() {
        Token::Number(..) => tokens.unsigned().map(Some),
        Token::Minus => {
            Err(SqlError::unsupported("FETCH with a negative count is not supported: cursors only move forward"))
        }
        // `FETCH c` and `FETCH FORWARD c` read one row, as in Postgres.
        _ => Ok(Some(1)),
    }
}

fn timeout(tokens: &mut Tokens) -> Result<Option<Duration>, SqlError> {
    let options = options(tokens)?;
    if let Some((name, _)) = options.iter().find(|(name, _)| *name != "timeout") {
        return Err(unknown_option(name, &["timeout"]));
    }
    options.duration("timeout")
}

/// `CLOSE name | ALL`
pub(super) fn close(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("CLOSE")?;
    if tokens.accept("ALL") {
        return Ok(Statement::Close(Close::All));
    }
    tokens.identifier().map(|cursor| Statement::Close(Close::Cursor(cursor)))
}
