//! `COPY table | (query) | (SUBSCRIBE …) TO STDOUT` and `COPY table FROM STDIN`.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::{SqlError, SqlState};

use super::options::option_value;
use super::tokens::Tokens;
use super::{query, subscribe};
use crate::statement::{Copy, CopySubject, Options, Query, Statement};

pub(super) fn copy(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("COPY")?;
    let subject = if tokens.accept_token(&Token::LParen) { parenthesized(tokens)? } else { table(tokens)? };
    let options = options(tokens)?;
    Ok(Statement::Copy(Copy { subject, options }))
}

/// `SUBSCRIBE …) TO STDOUT` or `query) TO STDOUT`
fn parenthesized(tokens: &mut Tokens) -> Result<CopySubject, SqlError> {
    let subject = if tokens.at("SUBSCRIBE") {
        CopySubject::SubscribeToStdout(subscribe::subscribe(tokens)?)
    } else {
        CopySubject::QueryToStdout(query::query(tokens)?)
    };
    tokens.expect_token(&Token::RParen)?;
    tokens.expect("TO")?;
    end_point(tokens, "STDOUT")?;
    Ok(subject)
}

/// `table [(columns)] TO STDOUT | FROM STDIN`
fn table(tokens: &mut Tokens) -> Result<CopySubject, SqlError> {
    let mark = tokens.mark();
    let table = tokens.object_name()?;
    let name_sql = tokens.text_since(mark);
    let mark = tokens.mark();
    let (columns, columns_sql) = if *tokens.peek() == Token::LParen {
        let columns = tokens.parenthesized(Tokens::identifier)?;
        let sql = tokens.text_since(mark);
        (columns, sql.trim_start_matches('(').trim_end_matches(')').to_owned())
    } else {
        (Vec::new(), "*".to_owned())
    };
    if tokens.accept("TO") {
        end_point(tokens, "STDOUT")?;
        return meant_query(&format!("SELECT {columns_sql} FROM {name_sql}")).map(CopySubject::QueryToStdout);
    }
    tokens.expect("FROM")?;
    end_point(tokens, "STDIN")?;
    Ok(CopySubject::TableFromStdin { table, columns })
}

fn meant_query(sql: &str) -> Result<Query, SqlError> {
    query::query(&mut Tokens::new(sql)?)
}

fn end_point(tokens: &mut Tokens, expected: &str) -> Result<(), SqlError> {
    if tokens.accept(expected) {
        return Ok(());
    }
    match tokens.peek() {
        Token::SingleQuotedString(_) => {
            Err(SqlError::unsupported("COPY to or from a file is not supported yet")
                .with_hint(format!("use {expected}")))
        }
        Token::Word(_) if tokens.at("PROGRAM") => Err(SqlError::unsupported("COPY with PROGRAM is not supported")),
        _ => Err(tokens.unexpected()),
    }
}

/// `[WITH] (FORMAT csv, HEADER, …)`, or the old form `[WITH] CSV HEADER`.
fn options(tokens: &mut Tokens) -> Result<Options, SqlError> {
    let mut options = Options::default();
    let _with = tokens.accept("WITH");
    if *tokens.peek() != Token::LParen {
        while !tokens.at_end() {
            old_option(tokens, &mut options)?;
        }
        return Ok(options);
    }
    tokens.parenthesized(|tokens| {
        let name = tokens.word()?;
        let value = match tokens.peek() {
            Token::Comma | Token::RParen => "true".to_owned(),
            _ => option_value(tokens)?,
        };
        if options.0.insert(name, value).is_some() {
            return Err(SqlError::new(SqlState::SyntaxError, "conflicting or redundant options"));
        }
        Ok(())
    })?;
    Ok(options)
}

fn old_option(tokens: &mut Tokens, options: &mut Options) -> Result<(), SqlError> {
    let (name, value) = match tokens.accept_one_of(&["CSV", "BINARY", "TEXT", "HEADER", "DELIMITER", "NULL", "QUOTE"]) {
        Some(format @ ("CSV" | "BINARY" | "TEXT")) => ("format".to_owned(), format.to_lowercase()),
        Some("HEADER") => ("header".to_owned(), "true".to_owned()),
        Some(name) => {
            let _as = tokens.accept("AS");
            (name.to_lowercase(), tokens.string()?)
        }
        None => return Err(tokens.unexpected()),
    };
    options.0.insert(name, value);
    Ok(())
}
