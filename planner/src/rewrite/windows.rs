//! Window functions in FROM: `TUMBLE(relation, column, size [, offset])`.
//!
//! TUMBLE becomes the subquery that it means, with `window_start` and `window_end` beside the relation's columns:
//!
//! ```sql
//! (SELECT *, date_bin(size, column) AS window_start, date_bin(size, column) + size AS window_end FROM relation)
//! ```

use datafusion::sql::sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, TableFactor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use freshet_types::SqlError;

use crate::parse::names::fold_ident;

/// Window functions that are yet to come.
const TO_COME: [&str; 3] = ["hop", "session", "cumulate"];

/// Puts a subquery in the place of a window function; leaves anything else alone.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<(), SqlError> {
    let TableFactor::Table { name, args: Some(args), alias, .. } = factor else {
        return Ok(());
    };
    let Some(function) = name.0.last().and_then(|part| part.as_ident()).map(fold_ident) else {
        return Ok(());
    };
    if TO_COME.contains(&function.as_str()) && name.0.len() == 1 {
        return Err(SqlError::unsupported(format!("{} windows are not supported yet", function.to_uppercase()))
            .with_hint("use TUMBLE"));
    }
    if function != "tumble" {
        return Ok(());
    }
    *factor = tumble(&args.args, alias.take())?;
    Ok(())
}

fn tumble(arguments: &[FunctionArg], alias: Option<ast::TableAlias>) -> Result<TableFactor, SqlError> {
    let arguments = arguments.iter().map(plain_argument).collect::<Result<Vec<_>, _>>()?;
    let (relation, column, size, offset) = match arguments.as_slice() {
        [relation, column, size] => (relation, column, size, None),
        [relation, column, size, offset] => (relation, column, size, Some(offset)),
        _ => return Err(usage()),
    };
    let (from, own_name) = relation_of(relation)?;
    let column = column_of(column)?;
    let start = match offset {
        None => format!("date_bin({size}, {column})"),
        Some(offset) => format!("(date_bin({size}, {column} - ({offset})) + ({offset}))"),
    };
    let sql = format!("SELECT *, {start} AS window_start, {start} + ({size}) AS window_end FROM {from}");
    let alias =
        alias.or_else(|| own_name.map(|name| ast::TableAlias { explicit: true, name, columns: vec![], at: None }));
    Ok(TableFactor::Derived { lateral: false, subquery: subquery(&sql)?, alias, sample: None })
}

fn subquery(sql: &str) -> Result<Box<ast::Query>, SqlError> {
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_query())
        .map_err(|error| SqlError::internal(format!("the query that TUMBLE means does not parse: {error}")))
}

fn plain_argument(argument: &FunctionArg) -> Result<&Expr, SqlError> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(usage()),
    }
}

/// What stands in FROM, and the name it has there.
fn relation_of(expr: &Expr) -> Result<(String, Option<ast::Ident>), SqlError> {
    match expr {
        Expr::Identifier(name) => Ok((name.to_string(), Some(name.clone()))),
        Expr::CompoundIdentifier(parts) => Ok((expr.to_string(), parts.last().cloned())),
        Expr::Subquery(query) => Ok((format!("({query}) AS tumbled"), None)),
        Expr::Nested(inner) => relation_of(inner),
        _ => Err(usage()),
    }
}

/// `column` or `DESCRIPTOR(column)`.
fn column_of(expr: &Expr) -> Result<String, SqlError> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(expr.to_string()),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("descriptor") => {
            match &function.args {
                ast::FunctionArguments::List(list) if list.args.len() == 1 => column_of(plain_argument(&list.args[0])?),
                _ => Err(usage()),
            }
        }
        _ => Err(usage()),
    }
}

fn usage() -> SqlError {
    SqlError::syntax("TUMBLE takes a relation, a column and the size of the windows")
        .with_hint("for example TUMBLE(bids, date_time, INTERVAL '1 minute')")
}
