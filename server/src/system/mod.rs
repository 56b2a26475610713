//! System relations: `pg_catalog` and `information_schema`, made from a [`Listing`] when a query names them.
//!
//! Relations that say something about Freshet's objects are built here. Those that are the same in every
//! Postgres (`pg_type`, `pg_proc`, `pg_am` …), or empty here, come from `datafusion-pg-catalog`, which also
//! knows how to put clients' catalog queries into what DataFusion can plan (see `freshet_planner::catalog_queries`).

mod columns;
mod functions;
mod information_schema;
mod keys;
mod listings;
mod objects;
mod pg_class;

use std::sync::{Arc, LazyLock};

use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList, TableProvider};
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables};
use freshet_planner::catalog_queries::DEFINITIONS;

use crate::catalog::Listing;

pub use freshet_planner::catalog_queries::rewrite_sql;
pub use functions::register_functions;

/// The system relation of that name; without a schema, `pg_catalog` is searched, as in Postgres.
pub fn system_relation(listing: Arc<dyn Listing>, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
    match schema {
        None | Some("pg_catalog") => pg_catalog(listing.as_ref(), name),
        Some("information_schema") => information_schema::relation(&objects::relations(listing.as_ref()), name),
        Some(_) => None,
    }
}

fn pg_catalog(listing: &dyn Listing, name: &str) -> Option<Arc<dyn TableProvider>> {
    // Most names that come here are users' typing errors; they cost no listing.
    if !name.starts_with("pg_") && name != DEFINITIONS {
        return None;
    }
    let relations = || objects::relations(listing);
    Some(match name {
        "pg_class" => pg_class::pg_class(&relations()),
        "pg_attribute" => pg_class::pg_attribute(&relations()),
        "pg_index" => keys::pg_index(&relations()),
        "pg_constraint" => keys::pg_constraint(&relations()),
        "pg_description" => keys::pg_description(&relations()),
        "pg_tables" => listings::pg_tables(&relations()),
        "pg_views" => listings::pg_views(&relations()),
        "pg_matviews" => listings::pg_matviews(&relations()),
        "pg_namespace" => listings::pg_namespace(),
        "pg_database" => listings::pg_database(),
        "pg_roles" | "pg_authid" | "pg_user" => listings::pg_roles(),
        DEFINITIONS => keys::definitions(&relations()),
        name => return fixed(name),
    })
}

type FixedRelations = PgCatalogSchemaProvider<Arc<dyn CatalogProviderList>, EmptyContextProvider>;

/// Relations that are the same in every Postgres. Read on first use: most servers never need them.
static FIXED: LazyLock<Option<FixedRelations>> = LazyLock::new(|| {
    let fixed = PgCatalogStaticTables::try_new().and_then(|tables| {
        let no_catalogs: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
        PgCatalogSchemaProvider::try_new(no_catalogs, Arc::new(tables), EmptyContextProvider)
    });
    fixed.inspect_err(|error| tracing::error!(%error, "the fixed part of pg_catalog cannot be read")).ok()
});

fn fixed(name: &str) -> Option<Arc<dyn TableProvider>> {
    let table = FIXED.as_ref()?.build_table_by_name(name).ok()??;
    table.try_into_table_provider().ok()
}
