//! `DROP SOURCE | TABLE | VIEW | MATERIALIZED VIEW | SINK [IF EXISTS] name, … [CASCADE | RESTRICT]`.

use freshet_types::SqlError;

use super::tokens::Tokens;
use super::unsupported;
use crate::statement::{DropObjects, ObjectKind, Statement};

pub(super) fn drop(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("DROP")?;
    let Some(kind) = object_kind(tokens) else {
        return Err(unsupported::object(tokens, "DROP"));
    };
    let if_exists = tokens.accept("IF EXISTS");
    let names = tokens.comma_separated(Tokens::object_name)?;
    let cascade = tokens.accept_one_of(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
    Ok(Statement::Drop(DropObjects { kind, names, if_exists, cascade }))
}

/// `SOURCE`, `TABLE`, `VIEW`, `MATERIALIZED VIEW` or `SINK`, if it comes next.
pub(super) fn object_kind(tokens: &mut Tokens) -> Option<ObjectKind> {
    const KINDS: [ObjectKind; 5] =
        [ObjectKind::Source, ObjectKind::Table, ObjectKind::View, ObjectKind::MaterializedView, ObjectKind::Sink];
    KINDS.into_iter().find(|kind| tokens.accept(kind.keywords()))
}
