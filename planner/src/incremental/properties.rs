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
pub(super) fn join(kind: JoinKind, left: &Node, right: &Node, on: &[(usize, usize)]) -> Properties {
    let inner = inner_join(left, right, on);
    let append_only = inner.append_only && matches!(kind, JoinKind::Inner | JoinKind::Semi);
    let both = |left: &Node, right: &Node| {
        let width = left.schema.fields().len();
        let (left, right) = (left.properties.key.as_ref()?, right.properties.key.as_ref()?);
        Some(left.iter().copied().chain(right.iter().map(|column| column + width)).collect())
    };
    let is_unique = |node: &Node, columns: Vec<usize>| {
        node.properties.key.as_ref().is_some_and(|key| key.iter().all(|column| columns.contains(column)))
    };
    let key = match kind {
        JoinKind::Inner => inner.key.clone(),
        // Rows that match nothing have the same NULLs on the other side, so only their own key tells them apart.
        JoinKind::Left if is_unique(right, on.iter().map(|(_, right)| *right).collect()) => left.properties.key.clone(),
        JoinKind::Right if is_unique(left, on.iter().map(|(left, _)| *left).collect()) => {
            let width = left.schema.fields().len();
            right.properties.key.as_ref().map(|key| key.iter().map(|column| column + width).collect())
        }
        JoinKind::Left | JoinKind::Right => both(left, right),
        JoinKind::Full => None,
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => left.properties.key.clone(),
    };
    match kind {
        JoinKind::Inner => inner,
        _ => Properties { key, append_only, watermarks: Vec::new() },
    }
}

fn inner_join(left: &Node, right: &Node, on: &[(usize, usize)]) -> Properties {
    let width = left.schema.fields().len();
    let left_key = left.properties.key.as_ref();
    let right_key: Option<Vec<usize>> =
        right.properties.key.as_ref().map(|key| key.iter().map(|column| column + width).collect());
    let right_is_unique =
        right.properties.key.as_ref().is_some_and(|key| key.iter().all(|column| on.iter().any(|(_, r)| r == column)));
    let left_is_unique = left_key.is_some_and(|key| key.iter().all(|column| on.iter().any(|(l, _)| l == column)));
    let key = match (left_key, right_key) {
        (Some(left_key), _) if right_is_unique => Some(left_key.clone()),
        (_, Some(right_key)) if left_is_unique => Some(right_key),
        (Some(left_key), Some(right_key)) => Some(left_key.iter().copied().chain(right_key).collect()),
        _ => None,
    };
    let on_watermarks =
        on.iter().filter(|(l, r)| left.properties.watermarks.contains(l) && right.properties.watermarks.contains(r));
    let mut watermarks: Vec<usize> = on_watermarks.flat_map(|(l, r)| [*l, r + width]).collect();
    watermarks.sort_unstable();
    watermarks.dedup();
    Properties { key, append_only: left.properties.append_only && right.properties.append_only, watermarks }
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
