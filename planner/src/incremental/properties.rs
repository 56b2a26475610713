//! What is proven of each operator's output: a key, append-only, watermarks.

use std::sync::Arc;

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::expression::column_index;
use crate::plan::{JoinKind, Node, Properties};

/// Some columns of a relation.
pub(super) fn input(relation: &Properties, columns: &[usize]) -> Properties {
    let new_index = |column: &usize| columns.iter().position(|kept| kept == column);
    Properties {
        key: relation.key.as_ref().and_then(|key| key.iter().map(new_index).collect()),
        append_only: relation.append_only,
        watermarks: relation.watermarks.iter().filter_map(new_index).collect(),
    }
}

/// A map keeps a key whose columns it keeps. A watermark passes through columns and monotone functions of them.
pub(super) fn map(input: &Node, expressions: &[Arc<dyn PhysicalExpr>]) -> Properties {
    let new_index = |column: &usize| expressions.iter().position(|expr| column_index(expr) == Some(*column));
    let watermarks = expressions
        .iter()
        .enumerate()
        .filter(|(_, expr)| monotone_source(expr).is_some_and(|column| input.properties.watermarks.contains(&column)));
    Properties {
        key: input.properties.key.as_ref().and_then(|key| key.iter().map(new_index).collect()),
        append_only: input.properties.append_only,
        watermarks: watermarks.map(|(at, _)| at).collect(),
    }
}

/// The column of which the expression is a monotone function: the column, its bin, or either moved by a constant.
fn monotone_source(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    if let Some(column) = column_index(expr) {
        return Some(column);
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return cast.cast_type().is_temporal().then(|| monotone_source(cast.expr())).flatten();
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let by_constant = matches!(binary.op(), Operator::Plus | Operator::Minus) && is_constant(binary.right());
        return by_constant.then(|| monotone_source(binary.left())).flatten();
    }
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    match (call.fun().name(), call.args()) {
        ("date_bin", [size, column, rest @ ..]) if is_constant(size) && rest.iter().all(is_constant) => {
            monotone_source(column)
        }
        ("date_trunc", [unit, column]) if is_constant(unit) => monotone_source(column),
        _ => None,
    }
}

fn is_constant(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some()
}

/// Rows of several inputs: nothing tells them apart, and the slowest watermark counts.
pub(super) fn union_all(inputs: &[Node]) -> Properties {
    let Some((first, rest)) = inputs.split_first() else {
        return Properties::default();
    };
    let everywhere = |column: &&usize| rest.iter().all(|input| input.properties.watermarks.contains(column));
    Properties {
        key: None,
        append_only: inputs.iter().all(|input| input.properties.append_only),
        watermarks: first.properties.watermarks.iter().filter(everywhere).copied().collect(),
    }
}

pub(super) fn distinct(input: &Node) -> Properties {
    let all_columns = || (0..input.schema.fields().len()).collect();
    Properties { key: Some(input.properties.key.clone().unwrap_or_else(all_columns)), ..input.properties.clone() }
}

/// The group columns are the key. A group changes as long as rows for it may arrive, so its watermark is theirs.
pub(super) fn aggregate(input: &Node, keys: &[usize]) -> Properties {
    let has_watermark = |at: &usize| input.properties.watermarks.contains(&keys[*at]);
    Properties {
        key: Some((0..keys.len()).collect()),
        append_only: false,
        watermarks: (0..keys.len()).filter(has_watermark).collect(),
    }
}

/// A pair of rows is known by the keys of both, or of one if it is met by at most one row of the other.
///
/// A watermark ends here unless both sides have it and are joined on it: an old row may be met by a new one at any time.
///
/// Rows that match nothing have the same NULLs on the other side, so only the key of their own side tells them apart.
pub(super) fn join(kind: JoinKind, left: &Node, right: &Node, on: &[(usize, usize)]) -> Properties {
    let width = left.schema.fields().len();
    let left_key = left.properties.key.clone();
    let right_key =
        right.properties.key.as_ref().map(|key| key.iter().map(|column| column + width).collect::<Vec<_>>());
    let left_is_unique =
        left_key.as_ref().is_some_and(|key| key.iter().all(|column| on.iter().any(|(l, _)| l == column)));
    let right_is_unique =
        right_key.as_ref().is_some_and(|key| key.iter().all(|column| on.iter().any(|(_, r)| r + width == *column)));
    let key = match (kind, left_key, right_key) {
        (JoinKind::Semi | JoinKind::Anti | JoinKind::Mark, left_key, _) => left_key,
        (JoinKind::Full, _, _) => None,
        (JoinKind::Inner | JoinKind::Left, Some(left_key), _) if right_is_unique => Some(left_key),
        (JoinKind::Inner | JoinKind::Right, _, Some(right_key)) if left_is_unique => Some(right_key),
        (_, Some(left_key), Some(right_key)) => Some(left_key.into_iter().chain(right_key).collect()),
        _ => None,
    };
    let on_watermarks = on.iter().filter(|(l, r)| {
        kind == JoinKind::Inner && left.properties.watermarks.contains(l) && right.properties.watermarks.contains(r)
    });
    let mut watermarks: Vec<usize> = on_watermarks.flat_map(|(l, r)| [*l, r + width]).collect();
    watermarks.sort_unstable();
    watermarks.dedup();
    let only_inserts = left.properties.append_only && right.properties.append_only;
    Properties { key, append_only: only_inserts && matches!(kind, JoinKind::Inner | JoinKind::Semi), watermarks }
}

/// A row may get other results as long as rows for its partition may arrive.
pub(super) fn window(input: &Node) -> Properties {
    Properties { key: input.properties.key.clone(), append_only: false, watermarks: Vec::new() }
}

/// Rows leave as others come. One row a partition is known by it.
pub(super) fn top_n(input: &Node, partition: &[usize], limit: Option<u64>) -> Properties {
    let by_partition = (limit == Some(1)).then(|| partition.to_vec());
    Properties { key: by_partition.or(input.properties.key.clone()), append_only: false, watermarks: Vec::new() }
}

/// Rows written in the query: there from the start, and never again.
pub(super) fn constant(rows: usize) -> Properties {
    Properties { key: (rows <= 1).then(Vec::new), append_only: true, watermarks: Vec::new() }
}
