//! Relations as the Postgres catalogs number and name them.

use freshet_types::RelationId;

use crate::catalog::{Listing, ObjectKind, RelationDescription};
use crate::pg::{WireType, wire_type};

/// As in Postgres, ids below are the system's own.
const FIRST_USER_OID: i32 = 16_384;
/// Where the ids of relations that follow from others begin: dead letters and the like.
const DERIVED_OIDS: i32 = 1 << 30;
/// Where the ids of primary key indexes begin: the table's id and this.
const INDEX_OIDS: i32 = 1 << 29;

pub const OWNER: i32 = 10;
pub const OWNER_NAME: &str = "freshet";
pub const DATABASE_NAME: &str = "freshet";
pub const DATABASE_OID: i32 = 5;
pub const BTREE: i32 = 403;

/// The schemas that there always are: oid, name, comment.
pub const SCHEMAS: &[(i32, &str, &str)] = &[
    (11, "pg_catalog", "system catalog schema"),
    (2200, "public", "standard public schema"),
    (13_000, "information_schema", "the information schema of the SQL standard"),
    (13_001, "freshet_catalog", "what the server tells of itself"),
];

/// One relation with the numbers that the catalogs know it by.
#[derive(Debug, Clone)]
pub struct Relation {
    pub oid: i32,
    pub namespace: i32,
    pub description: RelationDescription,
}

pub fn relations(listing: &dyn Listing) -> Vec<Relation> {
    let described = listing.relations();
    let relation = |description: RelationDescription| {
        let known = SCHEMAS.iter().find(|(_, name, _)| *name == description.schema_name);
        let namespace = known.map_or(2200, |(oid, _, _)| *oid);
        Relation { oid: oid_of(description.id), namespace, description }
    };
    described.into_iter().map(relation).collect()
}

/// The object id of a relation.
pub fn oid_of(id: RelationId) -> i32 {
    match i32::try_from(id.0) {
        Ok(small) if small < INDEX_OIDS - FIRST_USER_OID => small + FIRST_USER_OID,
        // The high bits tell derived relations from the ones they derive from.
        _ => DERIVED_OIDS | ((id.0 & 0x3fff_ffff) as i32),
    }
}

impl Relation {
    /// `pg_class.relkind`. A source is shown as a table: a relation that can be read, and that `\dt` lists.
    pub fn kind(&self) -> &'static str {
        match self.description.kind {
            ObjectKind::View => "v",
            ObjectKind::MaterializedView => "m",
            ObjectKind::Source | ObjectKind::Table | ObjectKind::Sink | ObjectKind::System => "r",
        }
    }

    pub fn has_key(&self) -> bool {
        !self.description.primary_key.is_empty()
    }

    pub fn key_oid(&self) -> i32 {
        self.oid | INDEX_OIDS
    }

    pub fn key_name(&self) -> String {
        format!("{}_pkey", self.description.name)
    }

    /// Column numbers of the primary key, counted from 1.
    pub fn key_numbers(&self) -> Vec<i16> {
        self.description.primary_key.iter().map(|column| number(*column)).collect()
    }

    /// The columns of the primary key, as they stand in SQL.
    pub fn key_columns(&self) -> String {
        let fields = self.description.columns.fields();
        let names = self.description.primary_key.iter().filter_map(|column| fields.get(*column));
        names.map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ")
    }

    pub fn columns(&self) -> impl Iterator<Item = Column<'_>> {
        self.description.columns.fields().iter().enumerate().map(|(index, field)| Column {
            relation: self,
            number: number(index),
            name: field.name(),
            // As in Postgres, the columns of a view are not declared to be anything.
            not_null: self.kind() == "r" && (!field.is_nullable() || self.description.primary_key.contains(&index)),
            wire: wire_type(field),
            comment: self.description.column_comments.get(index).cloned().flatten(),
        })
    }
}

/// One column with its type.
pub struct Column<'a> {
    pub relation: &'a Relation,
    pub number: i16,
    pub name: &'a str,
    pub not_null: bool,
    pub wire: WireType,
    pub comment: Option<String>,
}

fn number(index: usize) -> i16 {
    i16::try_from(index + 1).expect("a relation has at most 1600 columns")
}

/// A name as it must be written in SQL.
pub fn quoted(name: &str) -> String {
    let plain = name
        .bytes()
        .enumerate()
        .all(|(position, byte)| byte.is_ascii_lowercase() || byte == b'_' || (position > 0 && byte.is_ascii_digit()));
    if plain && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
