//! What a user is told when something goes wrong: the fields of a Postgres error.
//!
//! Messages are lower case, without a full stop, with names in double quotes. The detail says what was
//! found, the hint says what to do. See "Error Message Style Guide" in the PostgreSQL manual.

use std::fmt;

/// The SQLSTATEs in use; codes and names are those of PostgreSQL's `errcodes.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlState {
    ConnectionFailure,
    FeatureNotSupported,
    ProtocolViolation,
    CardinalityViolation,
    NumericValueOutOfRange,
    DivisionByZero,
    DatetimeFieldOverflow,
    InvalidDatetimeFormat,
    InvalidTextRepresentation,
    InvalidBinaryRepresentation,
    InvalidParameterValue,
    CharacterNotInRepertoire,
    NotNullViolation,
    UniqueViolation,
    CheckViolation,
    InvalidCursorName,
    InvalidSqlStatementName,
    InvalidCatalogName,
    InvalidSchemaName,
    ActiveSqlTransaction,
    NoActiveSqlTransaction,
    InFailedSqlTransaction,
    InvalidAuthorization,
    DependentObjectsStillExist,
    SyntaxError,
    UndefinedColumn,
    UndefinedTable,
    UndefinedFunction,
    UndefinedParameter,
    UndefinedObject,
    DuplicateColumn,
    DuplicateCursor,
    DuplicateTable,
    DuplicateObject,
    DuplicatePreparedStatement,
    AmbiguousColumn,
    DatatypeMismatch,
    WrongObjectType,
    GroupingError,
    InvalidTableDefinition,
    InvalidName,
    DiskFull,
    OutOfMemory,
    TooManyConnections,
    ConfigurationLimitExceeded,
    ProgramLimitExceeded,
    StatementTooComplex,
    ObjectNotInPrerequisiteState,
    QueryCanceled,
    AdminShutdown,
    CannotConnectNow,
    IoError,
    InternalError,
}

impl SqlState {
    pub fn code(self) -> &'static str {
        match self {
            Self::ConnectionFailure => "08006",
            Self::FeatureNotSupported => "0A000",
            Self::ProtocolViolation => "08P01",
            Self::CardinalityViolation => "21000",
            Self::NumericValueOutOfRange => "22003",
            Self::DivisionByZero => "22012",
            Self::DatetimeFieldOverflow => "22008",
            Self::InvalidDatetimeFormat => "22007",
            Self::InvalidTextRepresentation => "22P02",
            Self::InvalidBinaryRepresentation => "22P03",
            Self::InvalidParameterValue => "22023",
            Self::CharacterNotInRepertoire => "22021",
            Self::NotNullViolation => "23502",
            Self::UniqueViolation => "23505",
            Self::CheckViolation => "23514",
            Self::InvalidCursorName => "34000",
            Self::InvalidSqlStatementName => "26000",
            Self::InvalidCatalogName => "3D000",
            Self::InvalidSchemaName => "3F000",
            Self::ActiveSqlTransaction => "25001",
            Self::NoActiveSqlTransaction => "25P01",
            Self::InFailedSqlTransaction => "25P02",
            Self::InvalidAuthorization => "28000",
            Self::DependentObjectsStillExist => "2BP01",
            Self::SyntaxError => "42601",
            Self::UndefinedColumn => "42703",
            Self::UndefinedTable => "42P01",
            Self::UndefinedFunction => "42883",
            Self::UndefinedParameter => "42P02",
            Self::UndefinedObject => "42704",
            Self::DuplicateColumn => "42701",
            Self::DuplicateCursor => "42P03",
            Self::DuplicateTable => "42P07",
            Self::DuplicateObject => "42710",
            Self::DuplicatePreparedStatement => "42P05",
            Self::AmbiguousColumn => "42702",
            Self::DatatypeMismatch => "42804",
            Self::WrongObjectType => "42809",
            Self::GroupingError => "42803",
            Self::InvalidTableDefinition => "42P16",
            Self::InvalidName => "42602",
            Self::DiskFull => "53100",
            Self::OutOfMemory => "53200",
            Self::TooManyConnections => "53300",
            Self::ConfigurationLimitExceeded => "53400",
            Self::ProgramLimitExceeded => "54000",
            Self::StatementTooComplex => "54001",
            Self::ObjectNotInPrerequisiteState => "55000",
            Self::QueryCanceled => "57014",
            Self::AdminShutdown => "57P01",
            Self::CannotConnectNow => "57P03",
            Self::IoError => "58030",
            Self::InternalError => "XX000",
        }
    }
}

/// An error as a Postgres client shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SqlError {
    pub state: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based position in the statement, in characters.
    pub position: Option<usize>,
}

pub type Result<T, E = SqlError> = std::result::Result<T, E>;

impl SqlError {
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), detail: None, hint: None, position: None }
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_position(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// A construct that Freshet does not have: SQLSTATE 0A000.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(SqlState::FeatureNotSupported, message)
    }

    /// A broken invariant of ours: SQLSTATE XX000.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(SqlState::InternalError, message)
    }

    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(SqlState::SyntaxError, message)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}
