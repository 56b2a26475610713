//! What the planner asks of the catalog: which relation a name means, and what is known of it.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use freshet_types::{Epoch, RelationId, SqlError};

use crate::plan::Properties;
use crate::statement::Query;

/// The names that a statement may refer to.
pub trait PlannerCatalog {
    /// The relation of that name. Without a schema the search path decides.
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation>;

    /// The same as it was at `at`; none in a catalog without a past.
    fn relation_at(&self, _schema: Option<&str>, _name: &str, _at: Epoch) -> Option<Relation> {
        None
    }

    /// What `now()` gives where an instant is named, in microseconds since 1970. One for all of a statement.
    fn now_us(&self) -> Option<i64> {
        None
    }

    /// Names for "did you mean".
    fn relation_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What kind of relation a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Source,
    Table,
    View,
    MaterializedView,
    /// A system catalog: readable ad hoc, but not by materialized views.
    System,
}

/// A relation as the planner sees it.
#[derive(Clone)]
pub struct Relation {
    pub id: RelationId,
    pub name: String,
    pub kind: RelationKind,
    pub schema: SchemaRef,
    pub properties: Properties,
    pub content: RelationContent,
}

/// Where the rows come from.
#[derive(Clone)]
pub enum RelationContent {
    /// Stored, or otherwise scanned.
    Stored(Arc<dyn TableProvider>),
    /// A plain view: a name for a query, put in its place. `columns` are names for its first columns.
    View { query: Query, columns: Vec<String> },
}

impl fmt::Debug for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relation").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Schema and name in a reference of the query engine.
pub(crate) fn split_reference(reference: &TableReference) -> Result<(Option<&str>, &str), SqlError> {
    match reference {
        TableReference::Bare { table } => Ok((None, table)),
        TableReference::Partial { schema, table } => Ok((Some(schema), table)),
        TableReference::Full { catalog, schema, table } if &**catalog == "freshet" => Ok((Some(schema), table)),
        TableReference::Full { .. } => {
            Err(SqlError::unsupported(format!("cross-database references are not implemented: \"{reference}\"")))
        }
    }
}
