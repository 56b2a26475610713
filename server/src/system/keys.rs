//! `pg_index`, `pg_constraint` and `pg_description`: primary keys and comments.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::columns::Columns;
use super::objects::{Relation, SCHEMAS, quoted};

const PG_CLASS: i32 = 1259;
const PG_NAMESPACE: i32 = 2615;

fn keyed(relations: &[Relation]) -> Vec<&Relation> {
    relations.iter().filter(|relation| relation.has_key()).collect()
}

pub fn pg_index(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows = keyed(relations);
    let count = |row: &&Relation| i16::try_from(row.description.primary_key.len()).unwrap_or(i16::MAX);
    Columns::new(rows.len())
        .oid("indexrelid", rows.iter().map(|row| row.key_oid()))
        .oid("indrelid", rows.iter().map(|row| row.oid))
        .int2("indnatts", rows.iter().map(count))
        .int2("indnkeyatts", rows.iter().map(count))
        .all_bool("indisunique", true)
        .all_bool("indnullsnotdistinct", false)
        .all_bool("indisprimary", true)
        .all_bool("indisexclusion", false)
        .all_bool("indimmediate", true)
        .all_bool("indisclustered", false)
        .all_bool("indisvalid", true)
        .all_bool("indcheckxmin", false)
        .all_bool("indisready", true)
        .all_bool("indislive", true)
        .all_bool("indisreplident", false)
        .numbers("indkey", rows.iter().map(|row| row.key_numbers()))
        .numbers("indoption", rows.iter().map(|row| vec![0; row.description.primary_key.len()]))
        .null_text("indexprs")
        .null_text("indpred")
        .into_table()
}

pub fn pg_constraint(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let rows = keyed(relations);
    Columns::new(rows.len())
        .oid("oid", rows.iter().map(|row| row.key_oid()))
        .text("conname", rows.iter().map(|row| row.key_name()))
        .oid("connamespace", rows.iter().map(|row| row.namespace))
        .all_text("contype", "p")
        .all_bool("condeferrable", false)
        .all_bool("condeferred", false)
        .all_bool("convalidated", true)
        .oid("conrelid", rows.iter().map(|row| row.oid))
        .all_oid("contypid", 0)
        .oid("conindid", rows.iter().map(|row| row.key_oid()))
        .all_oid("conparentid", 0)
        .all_oid("confrelid", 0)
        .all_text("confupdtype", " ")
        .all_text("confdeltype", " ")
        .all_text("confmatchtype", " ")
        .all_bool("conislocal", true)
        .all_int2("coninhcount", 0)
        .all_bool("connoinherit", true)
        .numbers("conkey", rows.iter().map(|row| row.key_numbers()))
        .numbers("confkey", rows.iter().map(|_| vec![]))
        .null_text("conbin")
        .into_table()
}

/// Comments on relations (column 0), columns and schemas.
pub fn pg_description(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let mut rows: Vec<(i32, i32, i32, String)> = Vec::new();
    for relation in relations {
        rows.extend(relation.description.comment.clone().map(|comment| (relation.oid, PG_CLASS, 0, comment)));
        let columns = relation.columns().filter_map(|column| Some((column.number, column.comment?)));
        rows.extend(columns.map(|(number, comment)| (relation.oid, PG_CLASS, i32::from(number), comment)));
    }
    rows.extend(SCHEMAS.iter().map(|(oid, _, comment)| (*oid, PG_NAMESPACE, 0, (*comment).to_owned())));
    Columns::new(rows.len())
        .oid("objoid", rows.iter().map(|row| row.0))
        .oid("classoid", rows.iter().map(|row| row.1))
        .int4("objsubid", rows.iter().map(|row| row.2))
        .text("description", rows.iter().map(|row| row.3.clone()))
        .into_table()
}

/// `pg_catalog.freshet_definitions`: what `pg_get_indexdef`, `pg_get_constraintdef` and `pg_get_viewdef` tell.
/// An index and its constraint have the same id, so `kind` keeps them apart.
pub fn definitions(relations: &[Relation]) -> Arc<dyn TableProvider> {
    let mut rows: Vec<(i32, &str, String)> = Vec::new();
    let mut defaults: Vec<(i32, i32, String)> = Vec::new();
    for relation in relations {
        let (name, columns) = (quoted(&relation.description.name), relation.key_columns());
        if relation.has_key() {
            let key = quoted(&relation.key_name());
            let schema = quoted(&relation.description.schema_name);
            let index = format!("CREATE UNIQUE INDEX {key} ON {schema}.{name} USING btree ({columns})");
            rows.push((relation.key_oid(), "index", index));
            rows.push((relation.key_oid(), "constraint", format!("PRIMARY KEY ({columns})")));
        }
        rows.extend(relation.description.query_sql.clone().map(|query| (relation.oid, "view", query)));
        let columns = (1..).zip(&relation.description.column_defaults);
        defaults.extend(columns.filter_map(|(number, default)| Some((relation.oid, number, default.clone()?))));
    }
    Columns::new(rows.len() + defaults.len())
        .oid("oid", rows.iter().map(|row| row.0).chain(defaults.iter().map(|row| row.0)))
        .int4("number", rows.iter().map(|_| 0).chain(defaults.iter().map(|row| row.1)))
        .text("kind", rows.iter().map(|row| row.1.to_owned()).chain(defaults.iter().map(|_| "default".to_owned())))
        .text("definition", rows.iter().map(|row| row.2.clone()).chain(defaults.iter().map(|row| row.2.clone())))
        .into_table()
}
