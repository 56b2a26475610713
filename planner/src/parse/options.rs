//! `(name = value, …)`, as WITH and other clauses have it.

use std::time::Duration;

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

impl Options {
    /// A time such as `1s`, `500ms`, `2 minutes`; a number alone is seconds.
    ///
    /// # Errors
    /// If the value is none.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, SqlError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let parsed = duration(value).ok_or_else(|| {
            let message = format!("invalid value for option \"{name}\": \"{value}\"");
            SqlError::new(SqlState::InvalidParameterValue, message)
                .with_hint("write a time such as '500ms', '1s', '2 minutes' or '7 days'")
        });
        parsed.map(Some)
    }
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let seconds_per_unit = match text[digits..].trim() {
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 7.0 * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds_per_unit).ok()
}

/// The error for an option that does not exist, with the nearest one that does.
pub(super) fn unknown_option(name: &str, known: &[&str]) -> SqlError {
    let error = SqlError::new(SqlState::InvalidParameterValue, format!("unknown option \"{name}\""));
    match crate::error::nearest(name, known.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error.with_hint(format!("known options: {}", known.join(", "))),
    }
}
