//! `current_setting`, `set_config` and `current_epoch`: what a query asks of its session, answered before it runs.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use freshet_planner::sql_error;
use freshet_types::SqlError;

use crate::session::Session;

/// The plan with the answers in the place of the calls.
pub fn resolve(plan: LogicalPlan, session: &Session) -> Result<LogicalPlan, SqlError> {
    let resolved = plan.transform_down_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let resolved = expr.transform_up(|expr| answer(expr, session))?;
            Ok(resolved.update_data(|expr| name.restore(expr)))
        })
    });
    resolved.data().map_err(sql_error)
}

fn answer(expr: Expr, session: &Session) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
    let arguments: Option<Vec<&ScalarValue>> = call.args.iter().map(constant).collect();
    let answer = match (call.name(), arguments.as_deref()) {
        ("current_setting", Some([ScalarValue::Utf8(Some(name)), rest @ ..])) => {
            let is_missing_ok = matches!(rest, [ScalarValue::Boolean(Some(true))]);
            match session.state().settings.get(name) {
                Ok((_, value)) => Some(value.to_owned()),
                Err(_) if is_missing_ok => None,
                Err(error) => return Err(external(error)),
            }
        }
        ("set_config", Some([ScalarValue::Utf8(Some(name)), ScalarValue::Utf8(Some(value)), _])) => {
            let mut state = session.state();
            state.settings.set(name, value).map_err(external)?;
            Some(state.settings.get(name).map_err(external)?.1.to_owned())
        }
        ("current_epoch", Some([])) => {
            let sealed = i64::try_from(session.server.coordinator.sealed().millis()).ok();
            return Ok(Transformed::yes(Expr::Literal(ScalarValue::Int64(sealed), None)));
        }
        _ => return Ok(Transformed::no(expr)),
    };
    Ok(Transformed::yes(Expr::Literal(ScalarValue::Utf8(answer), None)))
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
