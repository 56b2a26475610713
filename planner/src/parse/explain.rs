//! `EXPLAIN [ANALYZE] [VERBOSE] [(options)] statement`.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::options::{boolean, option_value, unknown_option};
use super::tokens::Tokens;
use super::{change, create_view, query};
use crate::statement::{Explain, ExplainSubject, Statement};

pub(super) fn explain(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("EXPLAIN")?;
    let mut flags = Flags::default();
    if *tokens.peek() == Token::LParen && !query_in_parentheses(tokens) {
        tokens.parenthesized(|tokens| flags.option(tokens))?;
    } else {
        flags.analyze = tokens.accept("ANALYZE");
        flags.verbose = tokens.accept("VERBOSE");
    }
    let subject = subject(tokens)?;
    Ok(Statement::Explain(Explain { subject, analyze: flags.analyze, verbose: flags.verbose }))
}

#[derive(Default)]
struct Flags {
    analyze: bool,
    verbose: bool,
}

impl Flags {
    /// `ANALYZE [true]`, `VERBOSE [true]`, `FORMAT TEXT`; Postgres' other switches change nothing here.
    fn option(&mut self, tokens: &mut Tokens) -> Result<(), SqlError> {
        let name = tokens.word()?;
        let value = match tokens.peek() {
            Token::Comma | Token::RParen => "true".to_owned(),
            _ => option_value(tokens)?,
        };
        match name.as_str() {
            "analyze" => self.analyze = boolean(&name, &value)?,
            "verbose" => self.verbose = boolean(&name, &value)?,
            "format" if value == "text" => {}
            "format" => return Err(SqlError::unsupported(format!("EXPLAIN (FORMAT {value}) is not supported yet"))),
            "costs" | "buffers" | "timing" | "summary" | "settings" | "wal" | "memory" => _ = boolean(&name, &value)?,
            _ => return Err(unknown_option(&name, &["analyze", "verbose", "format"])),
        }
        Ok(())
    }
}

fn query_in_parentheses(tokens: &Tokens) -> bool {
    tokens.second_is(&Token::LParen) || tokens.second_is_word(&["SELECT", "VALUES", "WITH", "TABLE"])
}

fn subject(tokens: &mut Tokens) -> Result<ExplainSubject, SqlError> {
    let mark = tokens.mark();
    if query::comes_next(tokens) {
        return query::query(tokens).map(ExplainSubject::Query);
    }
    for (words, or_replace) in [("CREATE MATERIALIZED VIEW", false), ("CREATE OR REPLACE MATERIALIZED VIEW", true)] {
        if tokens.accept(words) {
            let create = create_view::create_materialized_view(tokens, mark, or_replace)?;
            return Ok(ExplainSubject::CreateMaterializedView(create));
        }
    }
    let change = if tokens.at("INSERT") {
        change::insert(tokens)
    } else if tokens.at("UPDATE") {
        change::update(tokens)
    } else if tokens.at("DELETE") {
        change::delete(tokens)
    } else {
        Err(tokens.unexpected())
    };
    change.map(|change| ExplainSubject::Change(Box::new(change)))
}
