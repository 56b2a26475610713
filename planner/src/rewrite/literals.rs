//! Numbers as Postgres types them: `1` is INTEGER, BIGINT if it does not fit, and NUMERIC beyond; `0.5` is NUMERIC.
//!
//! The query engine would read them as BIGINT and DOUBLE PRECISION, and lets nobody plan a literal. It does let a
//! dictionary literal (`{…}`) be planned, which is no construct of this SQL: so each number travels as a dictionary
//! with one entry from here to [`literal`], which says what it is. Numbers that are not values keep their form:
//! positions in ORDER BY and GROUP BY, bounds of LIMIT and of window frames, arguments of functions in FROM.

use std::ops::ControlFlow;

use datafusion::logical_expr::{Expr as Planned, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, Expr, Value, VisitMut};

use super::output_names::MARK;

const PRECISION_MAX: usize = 38;
/// A number that would keep fewer digits as a NUMERIC here is a DOUBLE PRECISION, which keeps about as many.
const DIGITS_MIN: usize = 17;

/// Marks the numbers of a query.
pub(crate) fn type_numbers<T: VisitMut>(tree: &mut T) {
    // Nothing breaks off the visit.
    let _ = tree.visit(&mut Marker);
}

struct Marker;

impl ast::VisitorMut for Marker {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Value(ast::ValueWithSpan { value: Value::Number(digits, _), .. }) => *expr = marked(digits.clone()),
            Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: inner } => {
                if let Some(digits) = digits_of(inner).filter(|digits| !digits.starts_with('-')) {
                    *expr = marked(format!("-{digits}"));
                }
            }
            Expr::Function(ast::Function { over: Some(ast::WindowType::WindowSpec(window)), .. }) => {
                if let Some(frame) = &mut window.window_frame {
                    unmark_bound(&mut frame.start_bound);
                    frame.end_bound.iter_mut().for_each(unmark_bound);
                }
            }
            Expr::Interval(interval) => unmark(&mut interval.value),
            Expr::Tuple(values) => values.iter_mut().for_each(unmark),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        if let ast::GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            for key in keys {
                match key {
                    Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
                        sets.iter_mut().flatten().for_each(unmark);
                    }
                    key => unmark(key),
                }
            }
        }
        if let Some(ast::Distinct::On(keys)) = &mut select.distinct {
            keys.iter_mut().for_each(unmark);
        }
        for window in &mut select.named_window {
            if let ast::NamedWindowExpr::WindowSpec(ast::WindowSpec { window_frame: Some(frame), .. }) = &mut window.1 {
                unmark_bound(&mut frame.start_bound);
                frame.end_bound.iter_mut().for_each(unmark_bound);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        if let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) = &mut query.order_by {
            keys.iter_mut().for_each(|key| unmark(&mut key.expr));
        }
        if let Some(limit) = &mut query.limit_clause {
            unmark_all(limit);
        }
        if let Some(fetch) = &mut query.fetch {
            unmark_all(fetch);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        match factor {
            ast::TableFactor::Table { args: Some(args), .. } => unmark_all(&mut args.args),
            ast::TableFactor::Function { args, .. } => unmark_all(args),
            ast::TableFactor::TableFunction { expr, .. } => unmark_all(expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Takes the marks off again.
struct Unmarker;

impl ast::VisitorMut for Unmarker {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        unmark(expr);
        ControlFlow::Continue(())
    }
}

fn unmark_all<T: VisitMut>(tree: &mut T) {
    // Nothing breaks off the visit.
    let _ = tree.visit(&mut Unmarker);
}

fn unmark_bound(bound: &mut ast::WindowFrameBound) {
    if let ast::WindowFrameBound::Preceding(Some(offset)) | ast::WindowFrameBound::Following(Some(offset)) = bound {
        unmark(offset);
    }
}

fn unmark(expr: &mut Expr) {
    let Some(digits) = digits_of(expr) else { return };
    let number = |digits: &str| Expr::Value(Value::Number(digits.to_owned(), false).with_empty_span());
    *expr = match digits.strip_prefix('-') {
        Some(digits) => Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: Box::new(number(digits)) },
        None => number(digits),
    };
}

fn marked(digits: String) -> Expr {
    let value = Expr::Value(Value::SingleQuotedString(digits).with_empty_span());
    Expr::Dictionary(vec![ast::DictionaryField { key: ast::Ident::new(MARK), value: Box::new(value) }])
}

fn digits_of(expr: &Expr) -> Option<&str> {
    let Expr::Dictionary(entries) = expr else { return None };
    let [ast::DictionaryField { key, value }] = entries.as_slice() else { return None };
    match &**value {
        Expr::Value(ast::ValueWithSpan { value: Value::SingleQuotedString(digits), .. })
            if key.value.starts_with(MARK) =>
        {
            Some(digits)
        }
        _ => None,
    }
}

/// The number that a dictionary with these entries stands for, if it is one of those made here.
pub(crate) fn literal(keys: &[Planned], values: &[Planned]) -> Option<Planned> {
    let ([Planned::Literal(ScalarValue::Utf8(Some(key)), _)], [Planned::Literal(ScalarValue::Utf8(Some(digits)), _)]) =
        (keys, values)
    else {
        return None;
    };
    key.starts_with(MARK).then(|| number(digits))
}

/// As in Postgres, a sign is part of the literal: `-2147483648` is an INTEGER.
fn number(written: &str) -> Planned {
    let written = written.replace('_', "");
    if let Ok(small) = written.parse::<i32>() {
        return lit(small);
    }
    if let Ok(large) = written.parse::<i64>() {
        return lit(large);
    }
    let (sign, digits) = match written.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, written.as_str()),
    };
    match decimal(digits) {
        Some((value, precision, scale)) => {
            Planned::Literal(ScalarValue::Decimal128(Some(sign * value), precision, scale), None)
        }
        // Rust's parser takes all that the tokenizer takes for a number.
        None => lit(f64::from(sign as i8) * digits.parse::<f64>().unwrap_or(f64::NAN)),
    }
}

/// The NUMERIC that a text is, if it is one.
pub(crate) fn numeric_literal(text: &str) -> Option<Planned> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let begins = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    if !begins || digits.parse::<f64>().is_err() {
        return None;
    }
    let (value, precision, scale) = decimal(digits)?;
    Some(Planned::Literal(ScalarValue::Decimal128(Some(sign * value), precision, scale), None))
}

/// Value, precision and scale of digits with a point or an exponent.
fn decimal(written: &str) -> Option<(i128, u8, i8)> {
    let (mantissa, exponent) = match written.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (written, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    let mut scale = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
    if scale < 0 {
        let zeros = usize::try_from(-scale).ok().filter(|zeros| *zeros <= PRECISION_MAX)?;
        digits.extend(std::iter::repeat_n('0', if digits.is_empty() { 0 } else { zeros }));
        scale = 0;
    }
    let scale = usize::try_from(scale).ok()?;
    let excess = digits.len().max(scale).saturating_sub(PRECISION_MAX);
    let scale = scale.checked_sub(excess)?;
    let kept = digits.len().saturating_sub(excess);
    if excess > 0 && kept < DIGITS_MIN {
        return None;
    }
    let rounds_up = digits.as_bytes().get(kept).is_some_and(|digit| *digit >= b'5');
    let value = if kept == 0 { 0 } else { digits[..kept].parse::<i128>().ok()? } + i128::from(rounds_up);
    let precision = if value == 0 { 1 } else { value.ilog10() as usize + 1 }.max(scale);
    let precision = u8::try_from(precision).ok().filter(|precision| usize::from(*precision) <= PRECISION_MAX)?;
    Some((value, precision, i8::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(written: &str) -> String {
        match number(written) {
            Planned::Literal(value, _) => format!("{value} {}", value.data_type()),
            other => other.to_string(),
        }
    }

    #[test]
    fn integers_have_the_smallest_of_three_types() {
        assert_eq!(text("1"), "1 Int32");
        assert_eq!(text("-1"), "-1 Int32");
        assert_eq!(text("2147483647"), "2147483647 Int32");
        assert_eq!(text("2147483648"), "2147483648 Int64");
        assert_eq!(text("-2147483648"), "-2147483648 Int32");
        assert!(matches!(number("9223372036854775808"), Planned::Literal(ScalarValue::Decimal128(..), _)));
    }

    #[test]
    fn fractions_keep_their_digits() {
        assert_eq!(decimal("0.5"), Some((5, 1, 1)));
        assert_eq!(decimal("1.50"), Some((150, 3, 2)));
        assert_eq!(decimal("0.00"), Some((0, 2, 2)));
        assert_eq!(decimal(".25"), Some((25, 2, 2)));
        assert_eq!(decimal("5."), Some((5, 1, 0)));
        assert_eq!(decimal("1e3"), Some((1000, 4, 0)));
        assert_eq!(decimal("1.5e-3"), Some((15, 4, 4)));
        assert_eq!(decimal("99999999999999999999999999999999999999"), Some((10_i128.pow(38) - 1, 38, 0)));
    }

    #[test]
    fn what_does_not_fit_is_rounded_or_a_double() {
        let pi = "3.14159265358979323846264338327950288419716939937510";
        assert_eq!(decimal(pi), Some((31_415_926_535_897_932_384_626_433_832_795_028_842, 38, 37)));
        assert_eq!(decimal("1e300"), None);
        assert_eq!(decimal("1e-300"), None);
        assert_eq!(number("1e300"), lit(1e300));
    }
}
