//! BEGIN, COMMIT, ROLLBACK and their other spellings.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::tokens::Tokens;
use crate::statement::Statement;

pub(super) fn transaction(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    if tokens.accept("START TRANSACTION") {
        modes(tokens)?;
        return Ok(Statement::Begin);
    }
    if tokens.accept("BEGIN") {
        work(tokens);
        modes(tokens)?;
        return Ok(Statement::Begin);
    }
    if tokens.accept("COMMIT") || tokens.accept("END") {
        work(tokens);
        chain(tokens)?;
        return Ok(Statement::Commit);
    }
    if tokens.accept("ROLLBACK") || tokens.accept("ABORT") {
        work(tokens);
        if tokens.at("TO") {
            return Err(SqlError::unsupported("ROLLBACK TO SAVEPOINT is not supported yet"));
        }
        chain(tokens)?;
        return Ok(Statement::Rollback);
    }
    Err(tokens.unexpected())
}

/// `[WORK | TRANSACTION]`, which says nothing.
fn work(tokens: &mut Tokens) {
    let _ = tokens.accept_one_of(&["WORK", "TRANSACTION"]);
}

fn chain(tokens: &mut Tokens) -> Result<(), SqlError> {
    if tokens.accept("AND CHAIN") {
        return Err(SqlError::unsupported("AND CHAIN is not supported yet"));
    }
    let _ = tokens.accept("AND NO CHAIN");
    Ok(())
}

/// Isolation levels and access modes. They are read and not kept: each transaction gets at least what it asks for.
pub(super) fn modes(tokens: &mut Tokens) -> Result<(), SqlError> {
    const MODES: [&str; 8] = [
        "ISOLATION LEVEL SERIALIZABLE",
        "ISOLATION LEVEL REPEATABLE READ",
        "ISOLATION LEVEL READ COMMITTED",
        "ISOLATION LEVEL READ UNCOMMITTED",
        "READ WRITE",
        "READ ONLY",
        "NOT DEFERRABLE",
        "DEFERRABLE",
    ];
    while !tokens.at_end() {
        if tokens.accept_one_of(&MODES).is_none() {
            return Err(tokens.unexpected());
        }
        let _ = tokens.accept_token(&Token::Comma);
    }
    Ok(())
}
