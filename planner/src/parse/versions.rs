//! `relation FOR SYSTEM_TIME AS OF instant`, which the SQL parser does not have in Postgres' dialect.
//!
//! The clause becomes part of the relation's name before the text is parsed: `t FOR SYSTEM_TIME AS OF now()` is read as
//! a relation named `t`, a [`MARK`], and `now()`. No user can write such a name. [`split`] takes it apart again when the
//! relation is looked up; [`named_by_itself`] says what it goes by in the query.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::names::fold_ident;

/// Between the name and the instant.
const MARK: &str = "\0as of ";

/// Words of the clause.
const CLAUSE: [&str; 4] = ["FOR", "SYSTEM_TIME", "AS", "OF"];

/// Puts each clause into the name before it. Gives where the clauses were.
pub(super) fn fold_clauses(tokens: &mut Vec<TokenWithSpan>, dialect: &'static dyn Dialect) -> Vec<Location> {
    let mut places = Vec::new();
    if !tokens.iter().any(|token| is_word(&token.token, CLAUSE[1])) {
        return places;
    }
    let mut from = 0;
    while let Some((name, clause, instant)) = next_clause(tokens, from) {
        from = instant;
        let rest = tokens[instant..].to_vec();
        let mut parser = Parser::new(dialect).with_tokens_with_locations(rest);
        // What is no expression is left as it is, and is a syntax error later.
        let Ok(expr) = parser.parse_expr() else { continue };
        // The parser stands after the expression, perhaps after blanks too.
        let end = instant + parser.index();
        let last = (instant..end.min(tokens.len())).rev().find(|index| !is_blank(&tokens[*index].token));
        let (Some(last), Token::Word(word)) = (last, &mut tokens[name].token) else { continue };
        let own_name = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() };
        word.value = format!("{own_name}{MARK}{expr}");
        word.quote_style = Some('"');
        places.push(tokens[clause].span.start);
        // What the statement's text is cut by.
        tokens[name].span.end = tokens[last].span.end;
        tokens.drain(name + 1..=last);
        from = name + 1;
    }
    places
}

/// The next name that the clause follows: its place, and those of FOR and of the first token of the instant.
fn next_clause(tokens: &[TokenWithSpan], from: usize) -> Option<(usize, usize, usize)> {
    let words: Vec<usize> = (from..tokens.len()).filter(|index| !is_blank(&tokens[*index].token)).collect();
    let at = words.windows(CLAUSE.len() + 2).find(|window| {
        matches!(tokens[window[0]].token, Token::Word(_))
            && CLAUSE.iter().zip(&window[1..]).all(|(word, index)| is_word(&tokens[*index].token, word))
    })?;
    Some((at[0], at[1], at[CLAUSE.len() + 1]))
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// The name alone, and the instant as text.
pub(crate) fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(MARK) {
        Some((name, instant)) => (name, Some(instant)),
        None => (name, None),
    }
}

/// Whether all clauses in a syntax tree stand behind relations that are read.
pub(super) fn are_in_place(tree: &(impl Visit + ToString)) -> bool {
    let mut relations = Relations(0);
    let _ = tree.visit(&mut relations);
    tree.to_string().matches(MARK).count() == relations.0
}

/// How many relations have a clause.
struct Relations(usize);

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<()> {
        self.0 += usize::from(version_of(relation).is_some());
        ControlFlow::Continue(())
    }
}

/// The name alone of a relation that the clause follows.
pub(crate) fn version_of(relation: &ast::ObjectName) -> Option<String> {
    let name = fold_ident(relation.0.last()?.as_ident()?);
    match split(&name) {
        (name, Some(_)) => Some(name.to_owned()),
        (_, None) => None,
    }
}

/// Lets a relation that the clause follows go by its own name if it has no other.
pub(crate) fn named_by_itself(factor: &mut ast::TableFactor) {
    if let ast::TableFactor::Table { name, alias: alias @ None, .. } = factor
        && let Some(own_name) = version_of(name)
    {
        let name = ast::Ident::with_quote('"', own_name);
        *alias = Some(ast::TableAlias { explicit: true, name, columns: vec![], at: None });
    }
}
