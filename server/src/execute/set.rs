//! `SET`, `RESET`, `DISCARD ALL`.

use freshet_planner::statement::{Set, SetValue};
use freshet_types::SqlError;

use crate::session::{Response, Session};

pub fn execute(session: &Session, set: &Set) -> Result<Response, SqlError> {
    let mut state = session.state();
    match &set.value {
        SetValue::Default => state.settings.reset(&set.name)?,
        SetValue::Values(values) => state.settings.set(&set.name, &values.join(", "))?,
    }
    Ok(Response::Complete { tag: "SET".to_owned() })
}

pub fn reset(session: &Session, name: Option<&str>) -> Result<Response, SqlError> {
    let mut state = session.state();
    match name {
        Some(name) => state.settings.reset(name)?,
        None => state.settings.reset_all(),
    }
    Ok(Response::Complete { tag: "RESET".to_owned() })
}

pub fn discard_all(session: &Session) -> Result<Response, SqlError> {
    let mut state = session.state();
    state.settings.reset_all();
    state.prepared.clear();
    state.cursors.clear();
    Ok(Response::Complete { tag: "DISCARD ALL".to_owned() })
}
