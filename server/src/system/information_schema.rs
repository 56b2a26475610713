//! `information_schema`: what the SQL standard tells of relations. The system's own relations are left out.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::columns::Columns;
use super::objects::{Column, DATABASE_NAME, OWNER_NAME, Relation, SCHEMAS};
use crate::pg::type_name;

pub fn relation(relations: &[Relation], name: &str) -> Option<Arc<dyn TableProvider>> {
    Some(match name {
        "tables" => tables(relations),
        "columns" => columns(relations),
        "views" => views(relations),
        "schemata" => schemata(),
        _ => return None,
    })
}

fn tables(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let table_type = |row: &Relation| match row.kind() {
        "v" => "VIEW",
        // Postgres leaves materialized views out; tools that read this schema alone would never see them.
        "m" => "MATERIALIZED VIEW",
        _ => "BASE TABLE",
    };
    Columns::new(relations.len())
        .all_text("table_catalog", DATABASE_NAME)
        .text("table_schema", relations.iter().map(|row| row.description.schema_name.clone()))
        .text("table_name", relations.iter().map(|row| row.description.name.clone()))
        .text("table_type", relations.iter().map(|row| table_type(row).to_owned()))
        .text("is_insertable_into", relations.iter().map(|row| yes_or_no(table_type(row) == "BASE TABLE")))
        .all_text("is_typed", "NO")
        .into_table()
}

fn yes_or_no(value: bool) -> String {
    if value { "YES" } else { "NO" }.to_owned()
}

fn columns(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows: Vec<Column> = relations.iter().flat_map(Relation::columns).collect();
    Columns::new(rows.len())
        .all_text("table_catalog", DATABASE_NAME)
        .text("table_schema", rows.iter().map(|row| row.relation.description.schema_name.clone()))
        .text("table_name", rows.iter().map(|row| row.relation.description.name.clone()))
        .text("column_name", rows.iter().map(|row| row.name.to_owned()))
        .int4("ordinal_position", rows.iter().map(|row| i32::from(row.number)))
        .null_text("column_default")
        .text("is_nullable", rows.iter().map(|row| yes_or_no(!row.not_null)))
        .text("data_type", rows.iter().map(data_type))
        .int4("character_maximum_length", rows.iter().map(|_| None))
        .int4("numeric_precision", rows.iter().map(|row| row.wire.numeric().map(|(precision, _)| precision)))
        .int4("numeric_scale", rows.iter().map(|row| row.wire.numeric().map(|(_, scale)| scale)))
        .all_text("udt_catalog", DATABASE_NAME)
        .all_text("udt_schema", "pg_catalog")
        .text("udt_name", rows.iter().map(|row| row.wire.internal_name()))
        .all_text("is_identity", "NO")
        .all_text("is_generated", "NEVER")
        .all_text("is_updatable", "YES")
        .into_table()
}

fn data_type(column: &Column) -> String {
    if column.wire.is_array() { "ARRAY".to_owned() } else { type_name(column.wire.oid) }
}

fn views(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows: Vec<&Relation> = relations.iter().filter(|relation| relation.kind() == "v").collect();
    Columns::new(rows.len())
        .all_text("table_catalog", DATABASE_NAME)
        .text("table_schema", rows.iter().map(|row| row.description.schema_name.clone()))
        .text("table_name", rows.iter().map(|row| row.description.name.clone()))
        .text("view_definition", rows.iter().map(|row| row.description.query_sql.clone()))
        .all_text("check_option", "NONE")
        .all_text("is_updatable", "NO")
        .all_text("is_insertable_into", "NO")
        .into_table()
}

fn schemata() -> Arc<dyn TableProvider> {
    Columns::new(SCHEMAS.len())
        .all_text("catalog_name", DATABASE_NAME)
        .text("schema_name", SCHEMAS.iter().map(|schema| schema.1.to_owned()))
        .all_text("schema_owner", OWNER_NAME)
        .into_table()
}
