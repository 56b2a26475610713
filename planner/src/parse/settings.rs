//! `SET`, `RESET` and `DISCARD`.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::options::option_value;
use super::tokens::Tokens;
use crate::statement::{Set, SetValue, Statement};

/// `SET [SESSION | LOCAL] name TO | = value, … | DEFAULT`, and Postgres' special forms.
pub(super) fn set(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("SET")?;
    if tokens.accept("TRANSACTION") || tokens.accept("SESSION CHARACTERISTICS AS TRANSACTION") {
        return transaction_modes(tokens);
    }
    let local = tokens.accept_one_of(&["SESSION", "LOCAL"]) == Some("LOCAL");
    if tokens.accept("NAMES") {
        return Ok(setting("client_encoding", values(tokens)?, local));
    }
    if tokens.accept("TIME ZONE") {
        return Ok(setting("timezone", time_zone(tokens)?, local));
    }
    let name = setting_name(tokens)?;
    if !tokens.accept("TO") {
        tokens.expect_token(&Token::Eq)?;
    }
    Ok(setting(&name, values(tokens)?, local))
}

fn setting(name: &str, value: SetValue, local: bool) -> Statement {
    Statement::Set(Set { name: name.to_owned(), value, local })
}

fn values(tokens: &mut Tokens) -> Result<SetValue, SqlError> {
    if tokens.accept("DEFAULT") {
        return Ok(SetValue::Default);
    }
    tokens.comma_separated(option_value).map(SetValue::Values)
}

/// `'name'`, an offset in hours, `INTERVAL '…'`, `LOCAL` or `DEFAULT`.
fn time_zone(tokens: &mut Tokens) -> Result<SetValue, SqlError> {
    if tokens.accept("LOCAL") {
        return Ok(SetValue::Default);
    }
    let _interval = tokens.accept("INTERVAL");
    values(tokens)
}

/// `SET TRANSACTION READ ONLY` and the like: every transaction is serializable already, so that they all hold.
fn transaction_modes(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    let mark = tokens.mark();
    super::transaction::modes(tokens)?;
    let modes = tokens.text_since(mark).to_lowercase();
    Ok(setting("transaction_characteristics", SetValue::Values(vec![modes]), false))
}

/// A name of one or more words joined by dots, in lower case.
pub(super) fn setting_name(tokens: &mut Tokens) -> Result<String, SqlError> {
    if tokens.accept("TIME ZONE") {
        return Ok("timezone".into());
    }
    if tokens.accept("TRANSACTION ISOLATION LEVEL") {
        return Ok("transaction_isolation".into());
    }
    let mut name = tokens.word()?;
    while tokens.accept_token(&Token::Period) {
        name = format!("{name}.{}", tokens.word()?);
    }
    Ok(name)
}

pub(super) fn reset(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("RESET")?;
    if tokens.accept("ALL") {
        return Ok(Statement::Reset(None));
    }
    setting_name(tokens).map(|name| Statement::Reset(Some(name)))
}

pub(super) fn discard(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("DISCARD")?;
    match tokens.accept_one_of(&["ALL", "PLANS", "SEQUENCES", "TEMPORARY", "TEMP"]) {
        Some("ALL") => Ok(Statement::DiscardAll),
        Some(what) => {
            Err(SqlError::unsupported(format!("DISCARD {what} is not supported yet")).with_hint("use DISCARD ALL"))
        }
        None => Err(tokens.unexpected()),
    }
}
