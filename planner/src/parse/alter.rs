//! `ALTER TABLE name MOVE TIERS`, `ALTER MATERIALIZED VIEW name MOVE TIERS`.

use freshet_types::SqlError;

use super::tokens::Tokens;
use super::unsupported;
use crate::statement::{MoveTiers, ObjectKind, Statement};

pub(super) fn alter(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    if !tokens.ahead("MOVE TIERS") {
        return Err(unsupported::statement(tokens));
    }
    tokens.expect("ALTER")?;
    let kind = if tokens.accept("TABLE") {
        ObjectKind::Table
    } else {
        tokens.expect("MATERIALIZED VIEW")?;
        ObjectKind::MaterializedView
    };
    let name = tokens.object_name()?;
    tokens.expect("MOVE TIERS")?;
    unsupported::nothing_more(tokens)?;
    Ok(Statement::MoveTiers(MoveTiers { kind, name }))
}
