//! Rewrites of syntax trees before planning: what Freshet's SQL has and the query engine's does not.

mod functions;
mod literals;
mod output_names;
mod windows;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut};
use freshet_types::SqlError;

pub(crate) use literals::{literal, numeric_literal};
pub(crate) use output_names::{MARK as NAME_MARK, name_of, visible_name};

/// The query with window functions in FROM put as subqueries, and output columns named as Postgres names them.
pub(crate) fn rewrite(query: &ast::Query) -> Result<ast::Query, SqlError> {
    let mut query = query.clone();
    match query.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(query),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Puts expressions into the form in which the engine can plan them with Postgres' meaning; to be done last.
pub(crate) fn prepare<T: ast::VisitMut>(tree: &mut T) {
    functions::rewrite(tree);
    literals::type_numbers(tree);
}

struct Rewriter;

impl ast::VisitorMut for Rewriter {
    type Break = SqlError;

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<SqlError> {
        match windows::rewrite(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<SqlError> {
        output_names::name_columns(&mut select.projection);
        ControlFlow::Continue(())
    }
}
