//! What CREATE TABLE and CREATE SOURCE declare: columns, defaults, keys, checks, watermarks.
//!
//! A declaration is what the parser read; it is kept by its SQL text and parsed again at restart. Its
//! expressions are turned into executable ones by [`crate::Planner::table_rules`] and
//! [`crate::Planner::source_rules`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::statement::{Expression, Options};

/// The columns and constraints of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDefinition {
    pub columns: Vec<ColumnDefinition>,
    /// Indices of the PRIMARY KEY's columns, in its order; its columns are not nullable.
    pub primary_key: Option<Vec<usize>>,
    pub checks: Vec<Check>,
    /// What stood in `WITH (…)`.
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDefinition {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// Tables: the DEFAULT.
    pub default: Option<Expression>,
    /// Sources: what a computed column (`name type AS expression`) is computed from.
    pub computed: Option<Expression>,
}

/// A CHECK constraint. Violated where its expression is false; NULL satisfies it, as in Postgres.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// As given by CONSTRAINT, or made up as Postgres does (`bids_price_check`).
    pub name: String,
    pub expression: Expression,
}

/// The columns, constraints and origin of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceDeclaration {
    /// Empty where the source itself knows its columns.
    pub columns: Vec<ColumnDefinition>,
    pub checks: Vec<Check>,
    pub watermark: Option<WatermarkDeclaration>,
    pub include: Vec<Include>,
    /// What stood in `WITH (…)`.
    pub options: Options,
    /// `FORMAT PLAIN`, in lower case.
    pub format: Option<String>,
    /// `ENCODE JSON (…)`.
    pub encode: Option<Encode>,
}

/// `WATERMARK FOR column AS expression`.
#[derive(Debug, Clone, PartialEq)]
pub struct WatermarkDeclaration {
    pub column: String,
    pub expression: Expression,
}

/// One column of `INCLUDE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    pub field: IncludeField,
    /// The column's name: as given by AS, or the field's with an underscore in front.
    pub name: String,
}

/// What is known of a record besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncludeField {
    Key,
    Partition,
    Offset,
    Timestamp,
    Headers,
    Payload,
}

/// `ENCODE name (options)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encode {
    /// In lower case.
    pub name: String,
    pub options: Options,
}

impl IncludeField {
    pub const ALL: [Self; 6] =
        [Self::Key, Self::Partition, Self::Offset, Self::Timestamp, Self::Headers, Self::Payload];

    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
            Self::Headers => "headers",
            Self::Payload => "payload",
        }
    }
}

impl ColumnDefinition {
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), self.nullable)
    }
}

impl TableDefinition {
    pub fn schema(&self) -> SchemaRef {
        schema_of(&self.columns)
    }

    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

impl SourceDeclaration {
    /// The declared columns, computed ones among them; INCLUDE columns come after these.
    pub fn schema(&self) -> SchemaRef {
        schema_of(&self.columns)
    }
}

fn schema_of(columns: &[ColumnDefinition]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(ColumnDefinition::field).collect::<Vec<_>>()))
}
