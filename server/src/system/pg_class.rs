//! `pg_class` and `pg_attribute`: relations and primary key indexes, and their columns.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::columns::Columns;
use super::objects::{BTREE, Column, OWNER, Relation};

/// A row of `pg_class`.
struct Class<'a> {
    oid: i32,
    name: String,
    kind: &'static str,
    access_method: i32,
    columns: usize,
    relation: &'a Relation,
}

pub fn pg_class(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let tables = relations.iter().map(|relation| Class {
        oid: relation.oid,
        name: relation.description.name.clone(),
        kind: relation.kind(),
        access_method: 0,
        columns: relation.description.columns.fields().len(),
        relation,
    });
    let indexes = relations.iter().filter(|relation| relation.has_key()).map(|relation| Class {
        oid: relation.key_oid(),
        name: relation.key_name(),
        kind: "i",
        access_method: BTREE,
        columns: relation.description.primary_key.len(),
        relation,
    });
    let rows: Vec<Class> = tables.chain(indexes).collect();
    Columns::new(rows.len())
        .oid("oid", rows.iter().map(|row| row.oid))
        .text("relname", rows.iter().map(|row| row.name.clone()))
        .oid("relnamespace", rows.iter().map(|row| row.relation.namespace))
        .all_oid("reltype", 0)
        .all_oid("reloftype", 0)
        .all_oid("relowner", OWNER)
        .oid("relam", rows.iter().map(|row| row.access_method))
        .oid("relfilenode", rows.iter().map(|row| row.oid))
        .all_oid("reltablespace", 0)
        .all_int4("relpages", 0)
        .all_float4("reltuples", -1.0)
        .all_int4("relallvisible", 0)
        .all_oid("reltoastrelid", 0)
        .bool("relhasindex", rows.iter().map(|row| row.kind != "i" && row.relation.has_key()))
        .all_bool("relisshared", false)
        .all_text("relpersistence", "p")
        .text("relkind", rows.iter().map(|row| row.kind.to_owned()))
        .int2("relnatts", rows.iter().map(|row| i16::try_from(row.columns).unwrap_or(i16::MAX)))
        .all_int2("relchecks", 0)
        .all_bool("relhasrules", false)
        .all_bool("relhastriggers", false)
        .all_bool("relhassubclass", false)
        .all_bool("relrowsecurity", false)
        .all_bool("relforcerowsecurity", false)
        .all_bool("relispopulated", true)
        .all_text("relreplident", "d")
        .all_bool("relispartition", false)
        .all_oid("relrewrite", 0)
        .all_int4("relfrozenxid", 0)
        .all_int4("relminmxid", 0)
        .null_texts("relacl")
        .null_texts("reloptions")
        .null_text("relpartbound")
        .into_table()
}

pub fn pg_attribute(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows: Vec<Column> = relations.iter().flat_map(Relation::columns).collect();
    Columns::new(rows.len())
        .oid("attrelid", rows.iter().map(|row| row.relation.oid))
        .text("attname", rows.iter().map(|row| row.name.to_owned()))
        .oid("atttypid", rows.iter().map(|row| row.wire.oid.cast_signed()))
        .all_int4("attstattarget", -1)
        .int2("attlen", rows.iter().map(|row| row.wire.size))
        .int2("attnum", rows.iter().map(|row| row.number))
        .int4("attndims", rows.iter().map(|row| i32::from(row.wire.is_array())))
        .all_int4("attcacheoff", -1)
        .int4("atttypmod", rows.iter().map(|row| row.wire.modifier))
        .bool("attbyval", rows.iter().map(|row| (1..=8).contains(&row.wire.size)))
        .all_text("attalign", "i")
        .text("attstorage", rows.iter().map(|row| if row.wire.size < 0 { "x" } else { "p" }.to_owned()))
        .all_text("attcompression", "")
        .bool("attnotnull", rows.iter().map(|row| row.not_null))
        .all_bool("atthasdef", false)
        .all_bool("atthasmissing", false)
        .all_text("attidentity", "")
        .all_text("attgenerated", "")
        .all_bool("attisdropped", false)
        .all_bool("attislocal", true)
        .all_int4("attinhcount", 0)
        .all_oid("attcollation", 0)
        .null_texts("attacl")
        .null_texts("attoptions")
        .null_texts("attfdwoptions")
        .null_text("attmissingval")
        .into_table()
}
