//! `ALTER TABLE name MOVE TIERS`, `ALTER MATERIALIZED VIEW name MOVE TIERS`, `ALTER MATERIALIZED VIEW name RESTART`.

use freshet_types::SqlError;

use super::tokens::Tokens;
use super::unsupported;
use crate::statement::{MoveTiers, ObjectKind, Statement};

pub(super) fn alter(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    if tokens.at("ALTER MATERIALIZED VIEW") && tokens.ahead("RESTART") {
        tokens.expect("ALTER MATERIALIZED VIEW")?;
        let name = tokens.object_name()?;
        tokens.expect("RESTART")?;
        unsupported::nothing_more(tokens)?;
        return Ok(Statement::RestartView(name));
    }
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
