//! What each statement does: one file a statement.

pub mod backup;
pub mod checkpoint;
pub mod comment;
pub mod copy;
pub mod create_materialized_view;
pub mod create_sink;
pub mod create_source;
pub mod create_table;
pub mod create_view;
pub mod cursor;
pub mod ddl;
pub mod delete;
pub mod drop;
pub mod explain;
pub mod insert;
pub mod move_tiers;
pub mod prepare;
pub mod restart_view;
pub mod rows;
pub mod select;
pub mod set;
pub mod show;
pub mod subscribe;
pub mod transaction;
pub mod update;
pub mod view_options;
pub mod write;

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use freshet_planner::Statement;
use freshet_types::{SqlError, SqlState};

use crate::session::{Description, Response, Session, TransactionStatus};

/// Executes one statement.
pub async fn execute(
    session: &Session,
    statement: &Statement,
    parameters: Vec<ScalarValue>,
) -> Result<Response, SqlError> {
    refuse_in_failed_transaction(session, statement)?;
    match statement {
        Statement::Query(query) => select::execute(session, query, parameters).await,
        Statement::Insert(insert) => insert::execute(session, insert, parameters).await,
        Statement::Update(update) => update::execute(session, update, parameters).await,
        Statement::Delete(delete) => delete::execute(session, delete, parameters).await,
        Statement::CreateSource(create) => create_source::execute(session, create).await,
        Statement::CreateTable(create) => create_table::execute(session, create).await,
        Statement::CreateView(create) => create_view::execute(session, create).await,
        Statement::CreateMaterializedView(create) => create_materialized_view::execute(session, create).await,
        Statement::CreateSink(create) => create_sink::execute(session, create).await,
        Statement::Drop(drop) => drop::execute(session, drop).await,
        Statement::Comment(comment) => comment::execute(session, comment).await,
        Statement::Explain(explain) => explain::execute(session, explain, parameters).await,
        Statement::Subscribe(subscribe) => subscribe::execute(session, subscribe).await,
        Statement::Copy(copy) => copy::execute(session, copy).await,
        Statement::Declare(declare) => cursor::declare(session, declare).await,
        Statement::Fetch(fetch) => cursor::fetch(session, fetch).await,
        Statement::Close(close) => cursor::close(session, close),
        Statement::Show(show) => show::execute(session, show).await,
        Statement::Set(set) => set::execute(session, set),
        Statement::Reset(name) => set::reset(session, name.as_deref()),
        Statement::DiscardAll => set::discard_all(session),
        Statement::Begin | Statement::Commit | Statement::Rollback => transaction::execute(session, statement),
        Statement::Prepare(prepare) => prepare::prepare(session, prepare),
        Statement::Execute(execute) => prepare::execute(session, execute).await,
        Statement::Deallocate(name) => prepare::deallocate(session, name.as_deref()),
        Statement::Checkpoint => checkpoint::execute(session).await,
        Statement::Backup { to } => backup::execute(session, to).await,
        Statement::MoveTiers(statement) => move_tiers::execute(session, statement).await,
        Statement::RestartView(name) => restart_view::execute(session, name).await,
    }
}

/// Whether a statement is looked into before it is executed: as in Postgres, those that read or write relations are, and
/// those about other things, which may not exist until an earlier statement has run, are not.
pub fn analyzes(session: &Session, statement: &Statement) -> Result<bool, SqlError> {
    refuse_in_failed_transaction(session, statement)?;
    Ok(matches!(
        statement,
        Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Explain(_)
            | Statement::Subscribe(_)
    ))
}

/// Tells what a statement takes and gives, without executing it.
pub fn describe(
    session: &Session,
    statement: &Statement,
    parameters: &[Option<DataType>],
) -> Result<Description, SqlError> {
    let rows = |columns| Ok(Description { parameters: vec![], columns: Some(columns) });
    match statement {
        Statement::Query(query) => select::describe(session, query, parameters),
        Statement::Insert(insert) => insert::describe(session, insert, parameters),
        Statement::Update(update) => update::describe(session, update, parameters),
        Statement::Delete(delete) => delete::describe(session, delete, parameters),
        Statement::Explain(explain) => explain::describe(session, explain, parameters),
        Statement::Subscribe(subscribe) => rows(subscribe::describe(session, subscribe)?),
        Statement::Show(show) => rows(show::describe(session, show)?),
        Statement::Fetch(fetch) => rows(cursor::describe(session, fetch)?),
        Statement::Execute(execute) => prepare::describe(session, execute),
        Statement::Backup { .. } => rows(backup::schema()),
        _ => Ok(Description::default()),
    }
}

fn refuse_in_failed_transaction(session: &Session, statement: &Statement) -> Result<(), SqlError> {
    let ends = matches!(statement, Statement::Commit | Statement::Rollback);
    if ends || session.transaction_status() != TransactionStatus::Failed {
        return Ok(());
    }
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Err(SqlError::new(SqlState::InFailedSqlTransaction, message).with_hint("use ROLLBACK"))
}
