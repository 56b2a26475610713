//! `BEGIN`, `COMMIT`, `ROLLBACK`.
//!
//! Drivers open transaction blocks around reads, and that works: each statement reads the newest epoch. Statements
//! that write are refused inside a block (see `write.rs`), so there is never anything to undo.

use freshet_planner::Statement;
use freshet_types::{SqlError, SqlState};

use crate::session::{Response, Session, TransactionStatus};

pub fn execute(session: &Session, statement: &Statement) -> Result<Response, SqlError> {
    let status = session.transaction_status();
    let (next, tag) = match (statement, status) {
        (Statement::Begin, TransactionStatus::Idle) => (TransactionStatus::InTransaction, "BEGIN"),
        (Statement::Begin, _) => {
            warn(session, SqlState::ActiveSqlTransaction, "there is already a transaction in progress");
            (status, "BEGIN")
        }
        (_, TransactionStatus::Idle) => {
            warn(session, SqlState::NoActiveSqlTransaction, "there is no transaction in progress");
            (TransactionStatus::Idle, statement.tag())
        }
        // As in Postgres, a failed transaction can only be rolled back.
        (_, TransactionStatus::Failed) => (TransactionStatus::Idle, "ROLLBACK"),
        (_, TransactionStatus::InTransaction) => (TransactionStatus::Idle, statement.tag()),
    };
    let mut state = session.state();
    if next == TransactionStatus::Idle {
        state.cursors.retain(|_, cursor| cursor.hold);
    }
    state.transaction = next;
    Ok(Response::Complete { tag: tag.to_owned() })
}

fn warn(session: &Session, state: SqlState, message: &str) {
    session.notice(SqlError::new(state, message));
}
