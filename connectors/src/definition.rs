//! A declared source as plain data: what the server knows after planning CREATE SOURCE.
//!
//! The schema of a source is its declared columns in order, then its INCLUDE columns in order.
//! Expressions (computed columns, checks) are over that schema.
//!
//! | INCLUDE     | default name | type                     | content                                              |
//! |-------------|--------------|--------------------------|------------------------------------------------------|
//! | `key`       | `_key`       | BYTEA                    | key of the record, NULL if it has none               |
//! | `partition` | `_partition` | INTEGER                  | partition                                            |
//! | `offset`    | `_offset`    | BIGINT                   | offset in the partition                              |
//! | `timestamp` | `_timestamp` | TIMESTAMP WITH TIME ZONE | when the record was written, as the system tells     |
//! | `headers`   | `_headers`   | TEXT                     | JSON array of `{"key": …, "value": …}` in order      |
//! | `payload`   | `_payload`   | BYTEA                    | the record's bytes as they arrived                   |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::physical_expr::PhysicalExpr;

/// One declared source.
#[derive(Debug, Clone)]
pub struct SourceDefinition {
    /// Names the source in logs and errors.
    pub name: String,
    pub columns: Vec<Column>,
    pub checks: Vec<Check>,
    pub includes: Vec<Include>,
    /// The WITH options, names in lower case; `connector` among them.
    pub options: BTreeMap<String, String>,
    /// FORMAT … ENCODE …, for connectors that carry bytes.
    pub format: Option<Format>,
}

/// A declared column.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// `AS expression`: over the source's schema, of the column's type. May read earlier computed columns.
    pub computed: Option<Arc<dyn PhysicalExpr>>,
}

/// A CHECK constraint: a row passes unless `expression` is false.
#[derive(Debug, Clone)]
pub struct Check {
    /// The constraint's name.
    pub name: String,
    /// Boolean, over the source's schema.
    pub expression: Arc<dyn PhysicalExpr>,
}

/// `FORMAT format ENCODE encode (options)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Format {
    pub format: String,
    pub encode: String,
    pub options: BTreeMap<String, String>,
}

/// One INCLUDE column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    pub kind: IncludeKind,
    /// The column's name.
    pub name: String,
}

/// What a system tells of a record besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncludeKind {
    Key,
    Partition,
    Offset,
    Timestamp,
    Headers,
    Payload,
}

impl IncludeKind {
    pub const ALL: [Self; 6] =
        [Self::Key, Self::Partition, Self::Offset, Self::Timestamp, Self::Headers, Self::Payload];

    /// The word after INCLUDE.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
            Self::Headers => "headers",
            Self::Payload => "payload",
        }
    }

    pub fn from_keyword(keyword: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.keyword().eq_ignore_ascii_case(keyword))
    }

    /// The column's name unless AS gives another.
    pub fn default_name(self) -> String {
        format!("_{}", self.keyword())
    }

    pub fn data_type(self) -> DataType {
        match self {
            Self::Key | Self::Payload => DataType::Binary,
            Self::Partition => DataType::Int32,
            Self::Offset => DataType::Int64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::Headers => DataType::Utf8,
        }
    }
}

/// The field of an INCLUDE column.
pub fn include_field(kind: IncludeKind, name: &str) -> Field {
    let always_there = matches!(kind, IncludeKind::Partition | IncludeKind::Offset);
    Field::new(name, kind.data_type(), !always_there)
}

impl SourceDefinition {
    /// The columns of the source's rows: declared ones, then INCLUDE ones.
    pub fn schema(&self) -> SchemaRef {
        let declared = self.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable));
        let included = self.includes.iter().map(|include| include_field(include.kind, &include.name));
        Arc::new(Schema::new(declared.chain(included).collect::<Vec<_>>()))
    }
}
