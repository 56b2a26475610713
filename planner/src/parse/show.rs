//! `SHOW …` and `DESCRIBE`.

use freshet_types::SqlError;

use super::drop::object_kind;
use super::settings::setting_name;
use super::tokens::Tokens;
use super::unsupported;
use crate::statement::{ObjectKind, Show, Statement};

const LISTS: [(&str, ObjectKind); 5] = [
    ("SOURCES", ObjectKind::Source),
    ("TABLES", ObjectKind::Table),
    ("VIEWS", ObjectKind::View),
    ("MATERIALIZED VIEWS", ObjectKind::MaterializedView),
    ("SINKS", ObjectKind::Sink),
];

/// Lists of objects that are yet to come.
const LISTS_TO_COME: [&str; 9] =
    ["SUBSCRIPTIONS", "JOBS", "CONNECTIONS", "SECRETS", "INDEXES", "SCHEMAS", "DATABASES", "FUNCTIONS", "ROLES"];

pub(super) fn show(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("SHOW")?;
    if let Some((_, kind)) = LISTS.into_iter().find(|(words, _)| tokens.accept(words)) {
        return Ok(Statement::Show(Show::Objects(kind)));
    }
    if let Some(words) = LISTS_TO_COME.iter().find(|words| tokens.at(words)) {
        return Err(SqlError::unsupported(format!("SHOW {words} is not supported yet")));
    }
    if tokens.accept("COLUMNS") {
        if tokens.accept_one_of(&["FROM", "IN"]).is_none() {
            return Err(tokens.unexpected());
        }
        return tokens.object_name().map(|name| Statement::Show(Show::Columns(name)));
    }
    if tokens.accept("CREATE") {
        let Some(kind) = object_kind(tokens) else {
            return Err(unsupported::object(tokens, "SHOW CREATE"));
        };
        return tokens.object_name().map(|name| Statement::Show(Show::Create { kind, name }));
    }
    if tokens.accept("ALL") {
        return Ok(Statement::Show(Show::AllSettings));
    }
    setting_name(tokens).map(|name| Statement::Show(Show::Setting(name)))
}

/// `DESCRIBE [TABLE] name`
pub(super) fn describe(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.advance();
    let _kind = object_kind(tokens);
    tokens.object_name().map(|name| Statement::Show(Show::Columns(name)))
}
