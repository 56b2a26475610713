//! Outer, semi, anti and mark joins under random changes, against a naive run.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::NullEquality;
use datafusion::logical_expr::Operator as Symbol;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col};
use freshet_dataflow::StateBudget;
use freshet_planner::plan::{JoinKind, Node, Op, Properties};
use freshet_storage::spill::SpillFolder;

use crate::random::{Row, compare, compare_within, line, table};
use crate::rows::{Rows, append_only, input, schema};

const KINDS: [JoinKind; 6] =
    [JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::Semi, JoinKind::Anti, JoinKind::Mark];

/// Which rows of two tables match: by the left key and the right value, and by more.
#[derive(Clone, Copy)]
struct Matching {
    /// Whether keys are compared at all.
    by_key: bool,
    null_equality: NullEquality,
    /// Whether the left value must be less than the right key.
    has_residual: bool,
}

impl Matching {
    fn holds(self, left: &Row, right: &Row) -> bool {
        let same_key = match self.null_equality {
            NullEquality::NullEqualsNothing => left.0.is_some() && left.0 == right.1,
            NullEquality::NullEqualsNull => left.0 == right.1,
        };
        let passes = matches!((left.1, right.0), (Some(left), Some(right)) if left < right);
        (same_key || !self.by_key) && (passes || !self.has_residual)
    }

    fn plan(self, kind: JoinKind, left: Node, right: Node) -> Node {
        let side = table().fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let pairs = schema(&[&side[..], &side[..]].concat());
        let schema = match kind {
            JoinKind::Semi | JoinKind::Anti => schema(&side),
            JoinKind::Mark => schema(&[&side[..], &[DataType::Boolean]].concat()),
            _ => pairs.clone(),
        };
        let on = if self.by_key { vec![(0, 1)] } else { Vec::new() };
        let residual = self.has_residual.then(|| less_than("c1", "c3", &pairs));
        let (left, right) = (Box::new(left), Box::new(right));
        let op = Op::Join { kind, left, right, on, null_equality: self.null_equality, residual };
        Node { op, schema, properties: Properties::default() }
    }
}

fn less_than(left: &str, right: &str, schema: &SchemaRef) -> Arc<dyn PhysicalExpr> {
    binary(col(left, schema).unwrap(), Symbol::Lt, col(right, schema).unwrap(), schema).unwrap()
}

fn naive(kind: JoinKind, matching: Matching, left: &[Row], right: &[Row]) -> Rows {
    const NOTHING: &str = "null null null";
    let mut rows = Rows::new();
    let mut give = |row: String| *rows.entry(row).or_default() += 1;
    for l in left {
        let partners: Vec<&Row> = right.iter().filter(|r| matching.holds(l, r)).collect();
        match kind {
            JoinKind::Semi if !partners.is_empty() => give(line(l)),
            JoinKind::Anti if partners.is_empty() => give(line(l)),
            JoinKind::Semi | JoinKind::Anti => {}
            JoinKind::Mark => give(format!("{} {}", line(l), !partners.is_empty())),
            JoinKind::Left | JoinKind::Full if partners.is_empty() => give(format!("{} {NOTHING}", line(l))),
            _ => partners.iter().for_each(|r| give(format!("{} {}", line(l), line(r)))),
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| matching.holds(l, r)));
        alone.for_each(|r| give(format!("{NOTHING} {}", line(r))));
    }
    rows
}

fn check(matching: Matching) {
    for kind in KINDS {
        let plan = matching.plan(kind, input(1, &table()), input(2, &table()));
        compare(&plan, |left, right| naive(kind, matching, left, right));
    }
}

#[test]
fn by_key() {
    check(Matching { by_key: true, null_equality: NullEquality::NullEqualsNothing, has_residual: false });
}

#[test]
fn by_key_where_null_equals_null() {
    check(Matching { by_key: true, null_equality: NullEquality::NullEqualsNull, has_residual: false });
}

#[test]
fn by_key_and_residual() {
    check(Matching { by_key: true, null_equality: NullEquality::NullEqualsNothing, has_residual: true });
}

#[test]
fn by_key_where_null_equals_null_and_residual() {
    check(Matching { by_key: true, null_equality: NullEquality::NullEqualsNull, has_residual: true });
}

#[test]
fn by_residual_alone() {
    check(Matching { by_key: false, null_equality: NullEquality::NullEqualsNothing, has_residual: true });
}

#[test]
fn by_nothing() {
    check(Matching { by_key: false, null_equality: NullEquality::NullEqualsNothing, has_residual: false });
}

#[test]
fn a_semi_join_of_inserts_gives_inserts() {
    let matching = Matching { by_key: true, null_equality: NullEquality::NullEqualsNothing, has_residual: false };
    let [left, right] = [1, 2].map(|relation| append_only(input(relation, &table())));
    let plan = append_only(matching.plan(JoinKind::Semi, left, right));
    compare(&plan, |left, right| naive(JoinKind::Semi, matching, left, right));
}

#[test]
fn memory_has_no_room_for_them() {
    for has_residual in [false, true] {
        let matching = Matching { by_key: true, null_equality: NullEquality::NullEqualsNothing, has_residual };
        for kind in [JoinKind::Full, JoinKind::Anti] {
            let folder = tempfile::tempdir().unwrap();
            let spill = SpillFolder::open(folder.path()).unwrap();
            let state = StateBudget { bytes_max: 0, folder: Some(spill.clone()) };
            let plan = matching.plan(kind, input(1, &table()), input(2, &table()));
            compare_within(&plan, &state, |left, right| naive(kind, matching, left, right));
            assert!(spill.files_made() > 50, "state went to the disk");
            assert_eq!(spill.bytes(), 0, "and nothing is left there");
        }
    }
}
