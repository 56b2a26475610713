//! The catalogs that people read: `pg_tables`, `pg_views`, `pg_matviews`, `pg_indexes`, and the few rows of
//! `pg_namespace`, `pg_database`, `pg_roles`.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::columns::Columns;
use super::objects::{DATABASE_NAME, DATABASE_OID, OWNER, OWNER_NAME, Relation, SCHEMAS};

fn of_kind<'a>(relations: &'a [Relation], kind: &str) -> Vec<&'a Relation> {
    relations.iter().filter(|relation| relation.kind() == kind).collect()
}

fn named(rows: &[&Relation], name: &str) -> Columns {
    Columns::new(rows.len())
        .text("schemaname", rows.iter().map(|row| row.description.schema_name.clone()))
        .text(name, rows.iter().map(|row| row.description.name.clone()))
}

pub fn pg_tables(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows = of_kind(relations, "r");
    named(&rows, "tablename")
        .all_text("tableowner", OWNER_NAME)
        .null_text("tablespace")
        .bool("hasindexes", rows.iter().map(|row| row.has_key()))
        .all_bool("hasrules", false)
        .all_bool("hastriggers", false)
        .all_bool("rowsecurity", false)
        .into_table()
}

pub fn pg_views(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows = of_kind(relations, "v");
    named(&rows, "viewname")
        .all_text("viewowner", OWNER_NAME)
        .text("definition", rows.iter().map(|row| row.description.query_sql.clone()))
        .into_table()
}

pub fn pg_matviews(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows = of_kind(relations, "m");
    named(&rows, "matviewname")
        .all_text("matviewowner", OWNER_NAME)
        .null_text("tablespace")
        .all_bool("hasindexes", false)
        .all_bool("ispopulated", true)
        .text("definition", rows.iter().map(|row| row.description.query_sql.clone()))
        .into_table()
}

pub fn pg_namespace() -> Arc<dyn TableProvider> {
    Columns::new(SCHEMAS.len())
        .oid("oid", SCHEMAS.iter().map(|schema| schema.0))
        .text("nspname", SCHEMAS.iter().map(|schema| schema.1.to_owned()))
        .all_oid("nspowner", OWNER)
        .null_texts("nspacl")
        .into_table()
}

pub fn pg_database() -> Arc<dyn TableProvider> {
    Columns::new(1)
        .all_oid("oid", DATABASE_OID)
        .all_text("datname", DATABASE_NAME)
        .all_oid("datdba", OWNER)
        .all_int4("encoding", 6)
        .all_text("datlocprovider", "c")
        .all_bool("datistemplate", false)
        .all_bool("datallowconn", true)
        .all_int4("datconnlimit", -1)
        .all_oid("dattablespace", 1663)
        .all_text("datcollate", "C.UTF-8")
        .all_text("datctype", "C.UTF-8")
        .null_text("daticulocale")
        .null_text("datcollversion")
        .null_texts("datacl")
        .into_table()
}

pub fn pg_roles() -> Arc<dyn TableProvider> {
    Columns::new(1)
        .all_text("rolname", OWNER_NAME)
        .all_bool("rolsuper", true)
        .all_bool("rolinherit", true)
        .all_bool("rolcreaterole", true)
        .all_bool("rolcreatedb", true)
        .all_bool("rolcanlogin", true)
        .all_bool("rolreplication", false)
        .all_int4("rolconnlimit", -1)
        .all_text("rolpassword", "********")
        .null_text("rolvaliduntil")
        .all_bool("rolbypassrls", true)
        .null_texts("rolconfig")
        .all_oid("oid", OWNER)
        .into_table()
}
