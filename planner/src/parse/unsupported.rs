//! Statements that Freshet does not have: refused by name, with what to do instead where there is something.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::tokens::Tokens;

/// Statements of Postgres, and those of Freshet that are yet to come, by their first words, with a hint.
const STATEMENTS: [(&str, &str); 36] = [
    ("ALTER SOURCE", "drop the source and create it again"),
    ("ALTER TABLE", "drop the table and create it again"),
    ("ALTER MATERIALIZED VIEW", "drop the materialized view and create it again"),
    ("ALTER VIEW", "use CREATE OR REPLACE VIEW"),
    ("ALTER", ""),
    ("TRUNCATE", "use DELETE without WHERE"),
    ("MERGE", "use INSERT ... ON CONFLICT"),
    ("REFRESH", "materialized views are always up to date"),
    ("SAVEPOINT", ""),
    ("RELEASE", ""),
    ("LISTEN", "use SUBSCRIBE"),
    ("UNLISTEN", ""),
    ("NOTIFY", ""),
    ("GRANT", ""),
    ("REVOKE", ""),
    ("REASSIGN", ""),
    ("ANALYZE", ""),
    ("ANALYSE", ""),
    ("VACUUM", "space is reclaimed without it"),
    ("REINDEX", ""),
    ("CLUSTER", ""),
    ("LOCK", ""),
    ("MOVE", "use FETCH"),
    ("CALL", ""),
    ("DO", ""),
    ("LOAD", ""),
    ("IMPORT", ""),
    ("SECURITY", ""),
    ("USE", "name schemas as schema.table"),
    ("KILL", ""),
    ("MSCK", ""),
    ("CACHE", ""),
    ("UNCACHE", ""),
    ("ATTACH", ""),
    ("DETACH", ""),
    ("PRAGMA", "use SET"),
];

/// What `CREATE` may be followed by elsewhere.
const OBJECTS: [&str; 31] = [
    "INDEX",
    "UNIQUE INDEX",
    "CONNECTION",
    "SECRET",
    "SUBSCRIPTION",
    "SCHEMA",
    "DATABASE",
    "ROLE",
    "USER",
    "GROUP",
    "POLICY",
    "FUNCTION",
    "AGGREGATE",
    "PROCEDURE",
    "TYPE",
    "DOMAIN",
    "EXTENSION",
    "SEQUENCE",
    "TRIGGER",
    "RULE",
    "CAST",
    "COLLATION",
    "OPERATOR",
    "PUBLICATION",
    "SERVER",
    "STATISTICS",
    "TABLESPACE",
    "TEMP",
    "TEMPORARY",
    "UNLOGGED",
    "RECURSIVE VIEW",
];

/// The error for a statement that begins with the next tokens.
pub(super) fn statement(tokens: &Tokens) -> SqlError {
    match STATEMENTS.iter().find(|(words, _)| tokens.at(words)) {
        Some((words, "")) => not_supported(words),
        Some((words, hint)) => not_supported(words).with_hint(*hint),
        None => tokens.unexpected(),
    }
}

/// The error for what comes after CREATE.
pub(super) fn create(tokens: &Tokens) -> SqlError {
    object(tokens, "CREATE")
}

/// The error for what comes after a verb such as DROP.
pub(super) fn object(tokens: &Tokens, verb: &str) -> SqlError {
    if verb == "CREATE" && tokens.at("TABLE") {
        return not_supported("CREATE OR REPLACE TABLE").with_hint("use DROP TABLE IF EXISTS, then CREATE TABLE");
    }
    if verb == "CREATE" && tokens.at("SINK") {
        return not_supported("CREATE OR REPLACE SINK").with_hint("use DROP SINK, then CREATE SINK");
    }
    match OBJECTS.iter().find(|words| tokens.at(words)) {
        Some(words @ (&"TEMP" | &"TEMPORARY" | &"UNLOGGED")) => not_supported(&format!("{verb} {words} TABLE or VIEW")),
        Some(words) => not_supported(&format!("{verb} {words}")),
        None => tokens.unexpected(),
    }
}

fn not_supported(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} is not supported yet"))
}

/// An error if anything follows that is not the end of the statement.
pub(super) fn nothing_more(tokens: &Tokens) -> Result<(), SqlError> {
    match tokens.peek() {
        Token::EOF | Token::SemiColon => Ok(()),
        _ => Err(tokens.unexpected()),
    }
}
