//! `(name = value, …)`, as WITH and other clauses have it.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::{SqlError, SqlState};

use super::tokens::Tokens;
use crate::statement::Options;

/// `[WITH (name = value, …)]`
pub(super) fn with_options(tokens: &mut Tokens) -> Result<Options, SqlError> {
    if tokens.accept("WITH") { options(tokens) } else { Ok(Options::default()) }
}

/// `(name = value, …)`, possibly without entries.
pub(super) fn options(tokens: &mut Tokens) -> Result<Options, SqlError> {
    let mut options = Options::default();
    tokens.expect_token(&Token::LParen)?;
    if tokens.accept_token(&Token::RParen) {
        return Ok(options);
    }
    loop {
        let position = tokens.position();
        let name = option_name(tokens)?;
        tokens.expect_token(&Token::Eq)?;
        let value = option_value(tokens)?;
        if options.0.insert(name.clone(), value).is_some() {
            return Err(SqlError::new(SqlState::SyntaxError, format!("option \"{name}\" specified more than once"))
                .with_position(position));
        }
        if !tokens.accept_token(&Token::Comma) {
            tokens.expect_token(&Token::RParen)?;
            return Ok(options);
        }
    }
}

/// `name`, `"name"` or `'name'`; dots may join several, as in `properties.security.protocol`.
fn option_name(tokens: &mut Tokens) -> Result<String, SqlError> {
    if let Token::SingleQuotedString(name) = tokens.peek() {
        let name = name.to_lowercase();
        tokens.advance();
        return Ok(name);
    }
    let mut name = tokens.word()?;
    while tokens.accept_token(&Token::Period) {
        name = format!("{name}.{}", tokens.word()?);
    }
    Ok(name)
}

/// A string, number or word, as text.
pub(super) fn option_value(tokens: &mut Tokens) -> Result<String, SqlError> {
    let sign = if tokens.accept_token(&Token::Minus) { "-" } else { "" };
    if let Token::Number(digits, _) = tokens.peek() {
        let value = format!("{sign}{digits}");
        tokens.advance();
        return Ok(value);
    }
    match tokens.peek() {
        _ if !sign.is_empty() => Err(tokens.unexpected()),
        Token::Word(word) if word.quote_style.is_none() => tokens.word(),
        Token::Word(_) => tokens.identifier(),
        _ => tokens.string(),
    }
}

/// A value of `true | on | 1 | false | off | 0`, for the option `name`.
pub(super) fn boolean(name: &str, value: &str) -> Result<bool, SqlError> {
    match value.to_lowercase().as_str() {
        "true" | "on" | "1" | "yes" => Ok(true),
        "false" | "off" | "0" | "no" => Ok(false),
        _ => Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("invalid value for option \"{name}\": \"{value}\""),
        )
        .with_hint("use true or false")),
    }
}

/// The error for an option that does not exist, with the nearest one that does.
pub(super) fn unknown_option(name: &str, known: &[&str]) -> SqlError {
    let error = SqlError::new(SqlState::InvalidParameterValue, format!("unknown option \"{name}\""));
    match crate::error::nearest(name, known.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error.with_hint(format!("known options: {}", known.join(", "))),
    }
}
