//! What a user asked for: the result of parsing one SQL statement.
//!
//! It is plain data that the server matches on. Queries and expressions are kept as opaque wrappers
//! around their syntax trees ([`Query`], [`Expression`]), so that no other crate sees the SQL parser.
//! Names are folded as Postgres folds them, types are Arrow types, and nothing is resolved against a
//! catalog yet.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;

use crate::declaration::{Encode, SourceDeclaration, TableDefinition};

/// One SQL statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    CreateSource(CreateSource),
    CreateTable(CreateTable),
    CreateView(CreateView),
    CreateMaterializedView(CreateMaterializedView),
    CreateSink(CreateSink),
    Drop(DropObjects),
    Comment(Comment),

    Query(Query),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Explain(Explain),

    Subscribe(Subscribe),
    Copy(Copy),
    Declare(Declare),
    Fetch(Fetch),
    Close(Close),

    Show(Show),
    Set(Set),
    /// `RESET name`, or `RESET ALL` for `None`.
    Reset(Option<String>),
    /// `DISCARD ALL`.
    DiscardAll,

    Begin,
    Commit,
    Rollback,

    Prepare(Prepare),
    Execute(Execute),
    /// `DEALLOCATE name`, or `DEALLOCATE ALL` for `None`.
    Deallocate(Option<String>),

    Checkpoint,
    MoveTiers(MoveTiers),
    /// Computes a materialized view anew that has stopped.
    RestartView(ObjectName),
    /// `BACKUP TO 'folder or URL'`
    Backup {
        to: String,
    },
}

/// A possibly qualified name of a relation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `None` where the user wrote none: the search path decides, which begins with `public`.
    pub schema: Option<String>,
    pub name: String,
}

/// The kinds of named objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Source,
    Table,
    View,
    MaterializedView,
    Sink,
}

/// `WITH (name = value, …)`: names in lower case, values as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(pub BTreeMap<String, String>);

/// What to do if the object to be created is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    Fail,
    /// `IF NOT EXISTS`: say so in a notice and do nothing.
    Skip,
    /// `OR REPLACE`.
    Replace,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateSource {
    pub name: ObjectName,
    pub if_exists: IfExists,
    pub declaration: SourceDeclaration,
    /// The statement's own text, which parses to the same statement again.
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    pub name: ObjectName,
    pub if_exists: IfExists,
    pub definition: TableDefinition,
    /// The statement's own text, which parses to the same statement again.
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    pub name: ObjectName,
    pub if_exists: IfExists,
    /// Names for the columns; may be fewer than the query has, and then name the first ones.
    pub columns: Vec<String>,
    pub query: Query,
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateMaterializedView {
    pub name: ObjectName,
    pub if_exists: IfExists,
    /// Names for the columns; may be fewer than the query has, and then name the first ones.
    pub columns: Vec<String>,
    pub options: Options,
    pub query: Query,
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSink {
    pub name: ObjectName,
    pub if_exists: IfExists,
    /// What it sends the changes of.
    pub relation: ObjectName,
    pub options: Options,
    /// `FORMAT UPSERT`, in lower case.
    pub format: Option<String>,
    /// `ENCODE JSON (…)`.
    pub encode: Option<Encode>,
    /// The statement's own text, which parses to the same statement again.
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropObjects {
    pub kind: ObjectKind,
    pub names: Vec<ObjectName>,
    pub if_exists: bool,
    pub cascade: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    pub subject: CommentSubject,
    /// `None` takes the comment away.
    pub text: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommentSubject {
    Object { kind: ObjectKind, name: ObjectName },
    Column { relation: ObjectName, column: String },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    pub table: ObjectName,
    pub(crate) ast: Box<ast::Insert>,
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub table: ObjectName,
    pub(crate) ast: Box<ast::Update>,
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    pub table: ObjectName,
    pub(crate) ast: Box<ast::Delete>,
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub subject: ExplainSubject,
    pub analyze: bool,
    pub verbose: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExplainSubject {
    Query(Query),
    CreateMaterializedView(CreateMaterializedView),
    /// An INSERT, UPDATE or DELETE.
    Change(Box<Statement>),
}

/// `SUBSCRIBE`: the changes of a relation, from now on.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    pub target: SubscribeTarget,
    /// Begin with the rows as they are now.
    pub snapshot: bool,
    /// Also tell when an epoch has passed without a change.
    pub progress: bool,
    /// Tell a change as its key and the new row.
    pub upsert: bool,
    /// Tell of rows that leave because they have expired.
    pub expired: bool,
    /// Begin after this instant, to be evaluated with [`crate::Planner::instant`].
    pub as_of: Option<Expression>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SubscribeTarget {
    Relation(ObjectName),
    Query(Query),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    pub subject: CopySubject,
    /// FORMAT, DELIMITER, NULL, HEADER …, with names in lower case.
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CopySubject {
    SubscribeToStdout(Subscribe),
    /// `COPY (query) TO STDOUT`, and `COPY table [(columns)] TO STDOUT` as the query that it means.
    QueryToStdout(Query),
    TableFromStdin {
        table: ObjectName,
        columns: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Declare {
    pub cursor: String,
    pub hold: bool,
    pub subject: CursorSubject,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CursorSubject {
    Subscribe(Subscribe),
    Query(Query),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub cursor: String,
    /// At most so many rows; `None` is all there are.
    pub rows_max: Option<u64>,
    /// How long to wait for the first row, if the user said so.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    Cursor(String),
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// `SHOW SOURCES` and the like.
    Objects(ObjectKind),
    /// `SHOW COLUMNS FROM x`, `DESCRIBE x`.
    Columns(ObjectName),
    /// `SHOW CREATE TABLE x`.
    Create { kind: ObjectKind, name: ObjectName },
    /// `SHOW name`, in lower case; `timezone` for `SHOW TIME ZONE`.
    Setting(String),
    /// `SHOW ALL`.
    AllSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// In lower case; `timezone` for `SET TIME ZONE`, `client_encoding` for `SET NAMES`.
    pub name: String,
    pub value: SetValue,
    /// `SET LOCAL`: until the transaction ends.
    pub local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    Default,
    /// The values as text, without quotes.
    Values(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Prepare {
    pub name: String,
    /// The types that were declared; the rest are inferred.
    pub parameter_types: Vec<DataType>,
    pub statement: Box<Statement>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Execute {
    pub name: String,
    /// Constant expressions, to be evaluated with [`crate::Planner::constant`].
    pub arguments: Vec<Expression>,
}

/// `ALTER … MOVE TIERS`: moves now what may move, as if nobody read earlier epochs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveTiers {
    pub kind: ObjectKind,
    pub name: ObjectName,
}

/// A SELECT, VALUES, TABLE or WITH query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub(crate) ast: Box<ast::Query>,
    sql: String,
}

/// A scalar expression as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    pub(crate) ast: Box<ast::Expr>,
}

impl Query {
    pub(crate) fn new(ast: Box<ast::Query>, sql: String) -> Self {
        Self { ast, sql }
    }

    /// The query's text as the user wrote it.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

impl Expression {
    pub(crate) fn new(ast: ast::Expr) -> Self {
        Self { ast: Box::new(ast) }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ast.fmt(f)
    }
}

impl ObjectName {
    pub fn unqualified(name: impl Into<String>) -> Self {
        Self { schema: None, name: name.into() }
    }

    pub fn qualified(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: Some(schema.into()), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

impl ObjectKind {
    /// As it stands in a message: `cannot drop materialized view "v"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Sink => "sink",
        }
    }

    /// As it stands in a statement: `DROP MATERIALIZED VIEW`.
    pub fn keywords(self) -> &'static str {
        match self {
            Self::Source => "SOURCE",
            Self::Table => "TABLE",
            Self::View => "VIEW",
            Self::MaterializedView => "MATERIALIZED VIEW",
            Self::Sink => "SINK",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Options {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Statement {
    /// What a Postgres client is told when the statement has run; INSERT, UPDATE, DELETE, SELECT, FETCH and COPY
    /// are followed by a number of rows.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::CreateSource(_) => "CREATE SOURCE",
            Self::CreateTable(_) => "CREATE TABLE",
            Self::CreateView(_) => "CREATE VIEW",
            Self::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
            Self::CreateSink(_) => "CREATE SINK",
            Self::Drop(drop) => match drop.kind {
                ObjectKind::Source => "DROP SOURCE",
                ObjectKind::Table => "DROP TABLE",
                ObjectKind::View => "DROP VIEW",
                ObjectKind::MaterializedView => "DROP MATERIALIZED VIEW",
                ObjectKind::Sink => "DROP SINK",
            },
            Self::Comment(_) => "COMMENT",
            Self::Query(_) => "SELECT",
            Self::Insert(_) => "INSERT",
            Self::Update(_) => "UPDATE",
            Self::Delete(_) => "DELETE",
            Self::Explain(_) => "EXPLAIN",
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::Copy(_) => "COPY",
            Self::Declare(_) => "DECLARE CURSOR",
            Self::Fetch(_) => "FETCH",
            Self::Close(Close::All) => "CLOSE CURSOR ALL",
            Self::Close(Close::Cursor(_)) => "CLOSE CURSOR",
            Self::Show(_) => "SHOW",
            Self::Set(_) => "SET",
            Self::Reset(_) => "RESET",
            Self::DiscardAll => "DISCARD ALL",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
            Self::Prepare(_) => "PREPARE",
            Self::Execute(_) => "EXECUTE",
            Self::Deallocate(None) => "DEALLOCATE ALL",
            Self::Deallocate(Some(_)) => "DEALLOCATE",
            Self::Checkpoint => "CHECKPOINT",
            Self::Backup { .. } => "BACKUP",
            Self::MoveTiers(MoveTiers { kind: ObjectKind::MaterializedView, .. }) => "ALTER MATERIALIZED VIEW",
            Self::MoveTiers(_) => "ALTER TABLE",
            Self::RestartView(_) => "ALTER MATERIALIZED VIEW",
        }
    }
}
