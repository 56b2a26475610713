//! Words that Postgres reserves: no relation is called so unless the name is quoted.
//!
//! The SQL parser takes most words for names where a name is due, and so reads `SELECT 1 FROM WHERE` as a query of a
//! relation "where". Postgres' users expect a syntax error, and so do those who forgot the name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, ObjectNamePart, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::Location;

/// The reserved words of Postgres 15 (`src/include/parser/kwlist.h`: `RESERVED_KEYWORD` and `TYPE_FUNC_NAME_KEYWORD`),
/// without those that Postgres takes for a function call in FROM (`current_date` and the like), in order.
#[rustfmt::skip]
const RESERVED: [&str; 89] = [
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary", "both",
    "case", "cast", "check", "collate", "collation", "column", "concurrently", "constraint", "create", "cross",
    "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign",
    "freeze", "from", "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect", "into",
    "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "natural", "not", "notnull", "null",
    "offset", "on", "only", "or", "order", "outer", "overlaps", "placing", "primary", "references", "returning",
    "right", "select", "similar", "some", "symmetric", "table", "tablesample", "then", "to", "trailing", "true",
    "union", "unique", "using", "variadic", "verbose", "when", "where", "window", "with",
];

/// Whether an unquoted `word`, in any case, cannot be the name of a relation.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word.to_ascii_lowercase().as_str()).is_ok()
}

/// Where the first reserved word stands in the place of a relation's name.
pub(super) fn reserved_relation(tree: &impl Visit) -> Option<Location> {
    match tree.visit(&mut Relations) {
        ControlFlow::Break(location) => Some(location),
        ControlFlow::Continue(()) => None,
    }
}

struct Relations;

impl Visitor for Relations {
    type Break = Location;

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<Location> {
        // After a period any word is a name.
        match relation.0.first() {
            Some(ObjectNamePart::Identifier(name)) if name.quote_style.is_none() && is_reserved(&name.value) => {
                ControlFlow::Break(name.span.start)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_in_order() {
        assert!(RESERVED.is_sorted());
        assert!(is_reserved("WHERE") && is_reserved("all") && is_reserved("with"));
        assert!(!is_reserved("values") && !is_reserved("orders"));
    }
}
