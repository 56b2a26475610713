//! SQL's own `PREPARE`, `EXECUTE`, `DEALLOCATE`.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use freshet_planner::Statement;
use freshet_planner::statement::{Execute, Prepare};
use freshet_types::{SqlError, SqlState};

use crate::session::{Description, Response, Session};

pub fn prepare(session: &Session, prepare: &Prepare) -> Result<Response, SqlError> {
    let types: Vec<Option<DataType>> = prepare.parameter_types.iter().cloned().map(Some).collect();
    let described = super::describe(session, &prepare.statement, &types)?;
    let mut state = session.state();
    if state.prepared.contains_key(&prepare.name) {
        let message = format!("prepared statement \"{}\" already exists", prepare.name);
        return Err(SqlError::new(SqlState::DuplicatePreparedStatement, message));
    }
    state.prepared.insert(prepare.name.clone(), ((*prepare.statement).clone(), described.parameters));
    Ok(Response::Complete { tag: "PREPARE".to_owned() })
}

pub async fn execute(session: &Session, execute: &Execute) -> Result<Response, SqlError> {
    let (statement, types) = find(session, &execute.name)?;
    if types.len() != execute.arguments.len() {
        let message = format!("wrong number of parameters for prepared statement \"{}\"", execute.name);
        return Err(SqlError::syntax(message).with_detail(format!(
            "Expected {} parameters but got {}.",
            types.len(),
            execute.arguments.len()
        )));
    }
    let mut values = Vec::with_capacity(types.len());
    for (argument, data_type) in execute.arguments.iter().zip(&types) {
        let value: ScalarValue = session.server.planner.constant(argument)?;
        values.push(value.cast_to(data_type).map_err(freshet_planner::sql_error)?);
    }
    // Boxed, as a prepared statement could be an EXECUTE.
    Box::pin(super::execute(session, &statement, values)).await
}

pub fn describe(session: &Session, execute: &Execute) -> Result<Description, SqlError> {
    let (statement, types) = find(session, &execute.name)?;
    let types: Vec<Option<DataType>> = types.into_iter().map(Some).collect();
    let described = super::describe(session, &statement, &types)?;
    Ok(Description { parameters: vec![], columns: described.columns })
}

pub fn deallocate(session: &Session, name: Option<&str>) -> Result<Response, SqlError> {
    let mut state = session.state();
    let tag = match name {
        None => {
            state.prepared.clear();
            "DEALLOCATE ALL"
        }
        Some(name) => {
            state.prepared.remove(name).ok_or_else(|| undefined(name))?;
            "DEALLOCATE"
        }
    };
    Ok(Response::Complete { tag: tag.to_owned() })
}

fn find(session: &Session, name: &str) -> Result<(Statement, Vec<DataType>), SqlError> {
    session.state().prepared.get(name).cloned().ok_or_else(|| undefined(name))
}

fn undefined(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidSqlStatementName, format!("prepared statement \"{name}\" does not exist"))
}
