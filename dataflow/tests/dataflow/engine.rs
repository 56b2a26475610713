//! Whole dataflows on one and more workers.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::NullEquality;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col, lit};
use freshet_planner::plan::{Aggregate, AggregateFunction, JoinKind, Node, Op, Properties};
use freshet_types::{Delta, Epoch, RelationId};
use std::sync::Arc;

use crate::rows::{Rows, append_only, delta, input, inserts, keyed, of, schema};
use crate::running::Running;

const INT: DataType = DataType::Int64;

pub fn pairs() -> SchemaRef {
    schema(&[INT, INT])
}

/// `SELECT c0, count(*), sum(c1) FROM input GROUP BY c0`
pub fn totals(input: Node) -> Node {
    let count = Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
        output_type: INT,
    };
    let sum = Aggregate { function: AggregateFunction::Sum, argument: Some(1), ..count.clone() };
    let op = Op::Aggregate { input: Box::new(input), keys: vec![0], aggregates: vec![count, sum] };
    keyed(Node { op, schema: schema(&[INT, INT, INT]), properties: Properties::default() }, &[0])
}

pub fn map(input: Node, expressions: Vec<Arc<dyn PhysicalExpr>>) -> Node {
    let types: Vec<DataType> = expressions.iter().map(|e| e.data_type(&input.schema).unwrap()).collect();
    let op = Op::Map { input: Box::new(input), predicate: None, expressions };
    Node { op, schema: schema(&types), properties: Properties::default() }
}

pub fn join(left: Node, right: Node, on: &[(usize, usize)]) -> Node {
    let types = |node: &Node| node.schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    let schema = schema(&[types(&left), types(&right)].concat());
    let (left, right, on) = (Box::new(left), Box::new(right), on.to_vec());
    let null_equality = NullEquality::NullEqualsNothing;
    let op = Op::Join { kind: JoinKind::Inner, left, right, on, null_equality, residual: None };
    Node { op, schema, properties: Properties::default() }
}

pub fn rows(lines: &[(&str, i64)]) -> Rows {
    lines.iter().map(|(row, count)| (row.to_string(), *count)).collect()
}

#[test]
fn a_view_follows_its_table() {
    for workers in [1, 2, 4] {
        let mut running = Running::start(workers);
        running.install(10, totals(input(1, &pairs())), 5);
        running.snapshot(10, 1, inserts(&pairs(), "1 10\n2 20\n1 11"));
        assert_eq!(running.rows(10, 5), rows(&[("1 2 21", 1), ("2 1 20", 1)]));
        running.feed(1, 8, inserts(&pairs(), "3 30\n1 1"));
        running.feed(1, 8, delta(&pairs(), &[(-1, vec!["2", "20"])]));
        running.seal(8);
        assert_eq!(running.rows(10, 8), rows(&[("1 3 22", 1), ("3 1 30", 1)]));
        assert_eq!(running.rows(10, 5), rows(&[("1 2 21", 1), ("2 1 20", 1)]), "history stays");
        running.seal(9);
        assert_eq!(running.rows(10, 9).len(), 2);
        running.engine.shutdown();
    }
}

#[test]
fn a_snapshot_holds_the_view_back_but_not_the_deltas() {
    let mut running = Running::start(2);
    running.install(10, totals(input(1, &pairs())), 5);
    running.install_over_nothing(11, totals(input(1, &pairs())), 5);
    running.engine.feed_snapshot(RelationId(10), RelationId(1), inserts(&pairs(), "1 1"));
    running.feed(1, 6, inserts(&pairs(), "1 2"));
    running.seal(6);
    assert_eq!(running.rows(11, 6), rows(&[("1 1 2", 1)]));
    assert!(running.views[&10].upper() < Epoch(5));
    running.snapshot(10, 1, inserts(&pairs(), "1 4"));
    assert_eq!(running.rows(10, 5), rows(&[("1 2 5", 1)]));
    assert_eq!(running.rows(10, 6), rows(&[("1 3 7", 1)]));
}

#[test]
fn views_over_views_see_one_history() {
    for workers in [1, 2, 4] {
        let mut running = Running::start(workers);
        running.install_over_nothing(10, totals(input(1, &pairs())), 1);
        running.feed(1, 2, inserts(&pairs(), "1 10\n2 10\n3 5"));
        running.seal(2);
        let at_2 = running.rows(10, 2);
        // How many groups there are of each sum; it starts from what the first view holds at 2.
        let base = input(10, &schema(&[INT, INT, INT]));
        let swapped = map(base.clone(), vec![col("c2", &base.schema).unwrap(), col("c1", &base.schema).unwrap()]);
        running.install(11, totals(swapped), 2);
        let content = running.views[&10].snapshot(Epoch(2)).unwrap().batches(None).unwrap();
        assert_eq!(at_2.len(), 3);
        for batch in content {
            running.engine.feed_snapshot(RelationId(11), RelationId(10), Delta::inserts(batch));
        }
        running.feed(1, 3, inserts(&pairs(), "3 5"));
        running.seal(3);
        running.engine.finish_snapshot(RelationId(11), RelationId(10));
        assert_eq!(running.rows(11, 2), rows(&[("10 2 2", 1), ("5 1 1", 1)]), "{workers} workers");
        assert_eq!(running.rows(11, 3), rows(&[("10 3 4", 1)]));
        running.feed(1, 4, delta(&pairs(), &[(-1, vec!["1", "10"])]));
        running.seal(4);
        assert_eq!(running.rows(11, 4), rows(&[("10 2 3", 1)]));
    }
}

#[test]
fn a_self_join_reads_its_relation_twice() {
    for workers in [1, 2, 4] {
        let mut running = Running::start(workers);
        let plan = join(input(1, &pairs()), input(1, &pairs()), &[(0, 1)]);
        running.install(10, plan, 1);
        running.snapshot(10, 1, inserts(&pairs(), "1 2\n2 1"));
        assert_eq!(running.rows(10, 1), rows(&[("1 2 2 1", 1), ("2 1 1 2", 1)]));
        running.feed(1, 2, delta(&pairs(), &[(1, vec!["1", "1"]), (-1, vec!["2", "1"])]));
        running.seal(2);
        assert_eq!(running.rows(10, 2), rows(&[("1 1 1 1", 1), ("1 2 1 1", 1)]), "{workers} workers");
    }
}

#[test]
fn constants_and_global_aggregates_need_no_input() {
    for workers in [1, 3] {
        let mut running = Running::start(workers);
        let values = inserts(&pairs(), "1 2\n1 3").rows().clone();
        let properties = Properties { append_only: true, ..Properties::default() };
        let constant = Node { op: Op::Constant { rows: values }, schema: pairs(), properties: properties.clone() };
        running.install(10, constant.clone(), 4);
        running.install(11, totals(constant.clone()), 4);
        let count = Aggregate {
            function: AggregateFunction::Count,
            argument: None,
            distinct: false,
            filter: None,
            output_type: INT,
        };
        let op = Op::Aggregate { input: Box::new(input(1, &pairs())), keys: vec![], aggregates: vec![count] };
        let global = keyed(Node { op, schema: schema(&[INT]), properties: Properties::default() }, &[]);
        running.install_over_nothing(12, global, 4);
        let both = Op::UnionAll { inputs: vec![constant, input(1, &pairs())] };
        running.install_over_nothing(13, Node { op: both, schema: pairs(), properties: Properties::default() }, 4);
        assert_eq!(running.rows(12, 4), rows(&[("0", 1)]));
        running.feed(1, 5, inserts(&pairs(), "1 2\n7 7"));
        running.seal(5);
        for epoch in [4, 5] {
            assert_eq!(running.rows(10, epoch), rows(&[("1 2", 1), ("1 3", 1)]));
            assert_eq!(running.rows(11, epoch), rows(&[("1 2 5", 1)]));
        }
        assert_eq!(running.rows(12, 5), rows(&[("2", 1)]));
        assert_eq!(running.rows(13, 5), rows(&[("1 2", 2), ("1 3", 1), ("7 7", 1)]));
    }
}

#[test]
fn retractions_meet_their_rows_on_every_worker() {
    let mut running = Running::start(4);
    let base = input(1, &pairs());
    let doubled = binary(
        col("c1", &base.schema).unwrap(),
        datafusion::logical_expr::Operator::Multiply,
        lit(2_i64),
        &base.schema,
    );
    let plan = map(base, vec![col("c0", &pairs()).unwrap(), doubled.unwrap()]);
    running.install_over_nothing(10, plan, 1);
    let all: Vec<String> = (0..40_000).map(|i| format!("{} {}", i % 1000, i)).collect();
    running.feed(1, 2, inserts(&pairs(), &all.join("\n")));
    running.seal(2);
    assert_eq!(running.rows(10, 2).len(), 40_000);
    for (epoch, chunk) in (3..).zip(all.chunks(10_000)) {
        let rows: Vec<(i64, Vec<&str>)> = chunk.iter().map(|row| (-1, row.split(' ').collect())).collect();
        running.feed(1, epoch, delta(&pairs(), &rows));
        running.seal(epoch);
    }
    assert_eq!(running.rows(10, 6), of([]));
}

#[test]
fn a_removed_view_leaves_the_others_alone() {
    let mut running = Running::start(2);
    running.install_over_nothing(10, totals(input(1, &pairs())), 1);
    running.install_over_nothing(11, totals(input(1, &pairs())), 1);
    let base = input(10, &schema(&[INT, INT, INT]));
    running.install_over_nothing(12, map(base.clone(), vec![col("c0", &base.schema).unwrap()]), 1);
    running.feed(1, 2, inserts(&pairs(), "1 1"));
    running.seal(2);
    assert_eq!(running.rows(12, 2), rows(&[("1", 1)]));
    running.engine.remove(RelationId(10));
    for epoch in 3..20 {
        running.feed(1, epoch, inserts(&pairs(), "1 1"));
        running.seal(epoch);
    }
    running.install(13, totals(append_only(input(1, &pairs()))), 19);
    running.snapshot(13, 1, inserts(&pairs(), "5 5"));
    assert_eq!(running.rows(11, 19), rows(&[("1 18 18", 1)]));
    assert_eq!(running.rows(13, 19), rows(&[("5 1 5", 1)]));
    assert_eq!(running.views[&12].upper(), Epoch(2), "a reader of a removed view stays where it is");
}

#[test]
fn inputs_are_projected() {
    let mut running = Running::start(1);
    let op = Op::Input { relation: RelationId(1), name: "t".to_string(), columns: vec![2, 0] };
    let node = Node { op, schema: pairs(), properties: Properties::default() };
    running.install(10, node, 1);
    running.snapshot(10, 1, inserts(&schema(&[INT, DataType::Utf8, INT]), "1 a 3"));
    assert_eq!(running.rows(10, 1), rows(&[("3 1", 1)]));
}
