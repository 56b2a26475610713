//! The extended protocol: prepared statements and portals.
//!
//! Parse analyses what reads or writes relations, as in Postgres: a name that does not exist is told there. What it
//! finds is kept, for Bind and Describe. Other statements are described when it is first asked what they give.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use freshet_planner::Statement;
use freshet_types::{SqlError, SqlState};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::ParameterDescription;

use super::encode::Format;
use super::frontend::Bind;
use super::params;
use super::rows::Cursor;
use super::types::{self, Oid, data_type_of, oid_of};
use crate::session::{Description, Session};

/// A prepared statement.
pub struct Prepared {
    /// `None` if the text was empty.
    pub statement: Option<Statement>,
    /// The types that the client declared; 0 where it left them open.
    declared: Vec<Oid>,
    description: OnceLock<Description>,
}

impl Prepared {
    pub async fn parse(session: &Session, sql: &str, declared: Vec<Oid>) -> Result<Self, SqlError> {
        let mut statements = session.parse(sql)?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(SqlError::syntax(message).with_hint("prepare each command by itself"));
        }
        let prepared = Self { statement: statements.pop(), declared, description: OnceLock::new() };
        if let Some(statement) = &prepared.statement
            && session.analyzes(statement)?
        {
            prepared.describe(session).await?;
        }
        Ok(prepared)
    }

    /// What the statement takes and gives; planned once.
    pub async fn describe(&self, session: &Session) -> Result<&Description, SqlError> {
        if let Some(known) = self.description.get() {
            return Ok(known);
        }
        let description = match &self.statement {
            None => Description { parameters: vec![], columns: None },
            Some(statement) => {
                let declared: Vec<Option<DataType>> = self.declared.iter().map(|oid| data_type_of(*oid)).collect();
                session.describe(statement, &declared).await?
            }
        };
        Ok(self.description.get_or_init(|| description))
    }

    /// The columns told to the client, if it asked.
    fn known_columns(&self) -> Option<&SchemaRef> {
        self.description.get()?.columns.as_ref()
    }

    fn parameter_oid(&self, position: usize, inferred: &DataType) -> Oid {
        match self.declared.get(position) {
            Some(declared) if !matches!(*declared, 0 | types::UNKNOWN) => *declared,
            _ => oid_of(inferred),
        }
    }

    pub async fn parameter_description(&self, session: &Session) -> Result<PgWireBackendMessage, SqlError> {
        let parameters = &self.describe(session).await?.parameters;
        let oids = parameters.iter().enumerate().map(|(position, inferred)| self.parameter_oid(position, inferred));
        Ok(PgWireBackendMessage::ParameterDescription(ParameterDescription::new(oids.collect())))
    }

    async fn parameters(&self, session: &Session, bind: &Bind) -> Result<Vec<ScalarValue>, SqlError> {
        // What has not been analysed takes nothing, and may not be describable before it is executed.
        if bind.parameters.is_empty() && self.description.get().is_none() {
            return Ok(vec![]);
        }
        let types = &self.describe(session).await?.parameters;
        if types.len() != bind.parameters.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                bind.parameters.len(),
                bind.statement,
                types.len()
            );
            return Err(SqlError::new(SqlState::ProtocolViolation, message));
        }
        let formats = formats(&bind.parameter_formats)?;
        let values = bind.parameters.iter().zip(types).enumerate().map(|(position, (bytes, target))| {
            let format = match formats.as_slice() {
                [all] => *all,
                each => each.get(position).copied().unwrap_or(Format::Text),
            };
            params::decode(bytes.as_deref(), format, self.parameter_oid(position, target), target).map_err(|error| {
                let place = format!("parameter ${} of prepared statement \"{}\"", position + 1, bind.statement);
                if error.detail.is_none() { error.with_detail(place) } else { error }
            })
        });
        values.collect()
    }
}

/// A statement with its parameters, and how far it got.
pub struct Portal {
    pub prepared: Arc<Prepared>,
    pub formats: Vec<Format>,
    pub state: PortalState,
}

pub enum PortalState {
    Ready(Vec<ScalarValue>),
    Running(Cursor),
    /// All rows were given; more Executes give none.
    Exhausted,
    /// A statement without rows has run, and cannot run again.
    Done,
}

impl Portal {
    pub async fn bind(session: &Session, prepared: Arc<Prepared>, bind: &Bind) -> Result<Self, SqlError> {
        let parameters = prepared.parameters(session, bind).await?;
        let formats = formats(&bind.result_formats)?;
        Ok(Self { prepared, formats, state: PortalState::Ready(parameters) })
    }

    /// Refuses rows of other types than those that the client was told of: a relation has changed in between.
    pub fn check_columns(&self, actual: &SchemaRef) -> Result<(), SqlError> {
        let Some(told) = self.prepared.known_columns() else { return Ok(()) };
        let same = told.fields().len() == actual.fields().len()
            && told
                .fields()
                .iter()
                .zip(actual.fields())
                .all(|(told, actual)| oid_of(told.data_type()) == oid_of(actual.data_type()));
        if same {
            return Ok(());
        }
        Err(SqlError::unsupported("cached plan must not change result type").with_hint("prepare the statement again"))
    }
}

fn formats(codes: &[i16]) -> Result<Vec<Format>, SqlError> {
    let format = |code: &i16| match code {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        other => Err(SqlError::new(SqlState::InvalidParameterValue, format!("unsupported format code: {other}"))),
    };
    codes.iter().map(format).collect()
}
