//! Names of relations and columns, from tokens and from syntax trees.

use datafusion::sql::sqlparser::ast;
use freshet_types::{SqlError, SqlState};

use crate::statement::ObjectName;

/// The one database there is.
const DATABASE: &str = "freshet";

/// A relation's name from its folded parts.
pub(crate) fn object_name(mut parts: Vec<String>) -> Result<ObjectName, SqlError> {
    if parts.iter().any(|part| super::versions::split(part).1.is_some()) {
        return Err(SqlError::syntax("FOR SYSTEM_TIME AS OF is for relations that are read"));
    }
    let written = parts.join(".");
    let name = parts.pop().ok_or_else(|| SqlError::internal("a name without parts"))?;
    let schema = parts.pop();
    match parts.as_slice() {
        [] => Ok(ObjectName { schema, name }),
        [database] if database == DATABASE => Ok(ObjectName { schema, name }),
        [_] => Err(SqlError::unsupported(format!("cross-database references are not implemented: \"{written}\""))),
        _ => Err(SqlError::new(
            SqlState::SyntaxError,
            format!("improper qualified name (too many dotted names): {written}"),
        )),
    }
}

/// A relation's name from a syntax tree.
pub(crate) fn object_name_of(name: &ast::ObjectName) -> Result<ObjectName, SqlError> {
    object_name(folded_parts(name)?)
}

/// A column's name from a syntax tree: the last part, as Postgres ignores qualifiers there.
pub(crate) fn column_name_of(name: &ast::ObjectName) -> Result<String, SqlError> {
    folded_parts(name)?.pop().ok_or_else(|| SqlError::internal("a name without parts"))
}

pub(crate) fn fold_ident(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn folded_parts(name: &ast::ObjectName) -> Result<Vec<String>, SqlError> {
    name.0
        .iter()
        .map(|part| {
            part.as_ident().map(fold_ident).ok_or_else(|| SqlError::syntax(format!("\"{name}\" is not a name")))
        })
        .collect()
}
