//! Rewrites of syntax trees before planning: what Freshet's SQL has and the query engine's does not.

mod functions;
mod literals;
mod output_names;
mod windows;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut};
use freshet_types::SqlError;

use crate::parse::names::fold_ident;
use crate::parse::versions;

pub(crate) use literals::{literal, numeric_literal};
pub(crate) use output_names::{MARK as NAME_MARK, name_of, visible_name};

/// The query with window functions in FROM put as subqueries, and output columns named as Postgres names them.
pub(crate) fn rewrite(query: &ast::Query) -> Result<ast::Query, SqlError> {
    let mut query = query.clone();
    match query.visit(&mut Rewriter::default()) {
        ControlFlow::Continue(()) => Ok(query),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Puts expressions into the form in which the engine can plan them with Postgres' meaning; to be done last.
pub(crate) fn prepare<T: ast::VisitMut>(tree: &mut T) {
    functions::rewrite(tree);
    literals::type_numbers(tree);
}

#[derive(Default)]
struct Rewriter {
    /// The names that WITH gives, of each query around the place at hand.
    with: Vec<Vec<String>>,
}

impl Rewriter {
    /// What WITH names has no past: it is a query, whose relations have one.
    fn check_version(&self, factor: &ast::TableFactor) -> Result<(), SqlError> {
        let ast::TableFactor::Table { name, .. } = factor else { return Ok(()) };
        match versions::version_of(name) {
            Some(own_name) if name.0.len() == 1 && self.with.iter().flatten().any(|with| *with == own_name) => {
                let message = format!("FOR SYSTEM_TIME AS OF is not supported for the WITH query \"{own_name}\"");
                Err(SqlError::unsupported(message).with_hint("write it behind the relations in the WITH query"))
            }
            _ => Ok(()),
        }
    }
}

impl ast::VisitorMut for Rewriter {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<SqlError> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| fold_ident(&cte.alias.name));
        self.with.push(with.collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut ast::Query) -> ControlFlow<SqlError> {
        self.with.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<SqlError> {
        match self.check_version(factor).and_then(|()| windows::rewrite(factor)) {
            Ok(()) => {
                versions::named_by_itself(factor);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<SqlError> {
        output_names::name_columns(&mut select.projection);
        ControlFlow::Continue(())
    }
}
