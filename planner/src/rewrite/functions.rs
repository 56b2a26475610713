//! Operators written as functions, and functions written as operators, in the form that can be planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use crate::parse::names::fold_ident;

/// `time AT TIME ZONE zone` becomes `timezone(zone, time)`, and `mod(a, b)` becomes `a % b`.
pub(super) fn rewrite<T: ast::VisitMut>(tree: &mut T) {
    // Nothing breaks off the visit.
    let _ = tree.visit(&mut Rewriter);
}

struct Rewriter;

impl ast::VisitorMut for Rewriter {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::AtTimeZone { timestamp, time_zone } = expr {
            let arguments = [&**time_zone, &**timestamp]
                .map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument.clone())));
            *expr = call("timezone", arguments.into());
        } else if let Some((dividend, divisor)) = modulo(expr) {
            let operation =
                Expr::BinaryOp { left: grouped(dividend), op: BinaryOperator::Modulo, right: grouped(divisor) };
            *expr = *grouped(&operation);
        }
        ControlFlow::Continue(())
    }
}

fn modulo(expr: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::Function(ast::Function { name, args: FunctionArguments::List(list), over: None, .. }) = expr else {
        return None;
    };
    let name = name.0.last().and_then(|part| part.as_ident()).map(fold_ident)?;
    match list.args.as_slice() {
        [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(dividend)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(divisor)),
        ] if name == "mod" => Some((dividend, divisor)),
        _ => None,
    }
}

fn grouped(expr: &Expr) -> Box<Expr> {
    Box::new(Expr::Nested(Box::new(expr.clone())))
}

fn call(name: &str, args: Vec<FunctionArg>) -> Expr {
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
