//! Operators driven by hand, with scripts: deltas in, deltas out.
//!
//! `+ 1 a` inserts a row, `-2 1 a` deletes it twice, `right + 1 a` does so on the second port. `flush` ends an
//! epoch, whose whole output are the `=>` lines that follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{NullEquality, ScalarValue};
use datafusion::logical_expr::Operator as Symbol;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col, lit};
use freshet_dataflow::operators::aggregate::{Aggregate, OwnsGlobalGroup};
use freshet_dataflow::operators::distinct::distinct;
use freshet_dataflow::operators::filter::Map;
use freshet_dataflow::operators::join::Join;
use freshet_dataflow::operators::state::{SavedParts, Telling};
use freshet_dataflow::operators::union_all::UnionAll;
use freshet_dataflow::operators::{Operator, OperatorError, Output};
use freshet_planner::plan::{self, AggregateFunction};
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_storage::spill::SpillFolder;
use freshet_types::Delta;

use crate::rows::{self, append_only, input, schema};

/// Runs a script; deltas that follow each other in the script are absorbed one by one.
fn run(operator: &mut dyn Operator, schemas: &[SchemaRef], script: &str) -> Result<Output, OperatorError> {
    let mut out = Output::default();
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if line != "flush" {
            let (port, line) = line.strip_prefix("right ").map_or((0, line), |line| (1, line));
            let mut words = line.split_whitespace();
            let weight = match words.next().unwrap() {
                "+" => 1,
                "-" => -1,
                number => number.parse().unwrap(),
            };
            operator.absorb(port, rows::delta(&schemas[port], &[(weight, words.collect())]), &mut out)?;
            continue;
        }
        operator.flush(&mut out)?;
        let mut expected = rows::Rows::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("=>")) {
            let (weight, row) = line["=>".len()..].trim().split_once(' ').unwrap_or((&line[2..], ""));
            let weight = match weight.trim() {
                "+" => 1,
                "-" => -1,
                number => number.parse().unwrap(),
            };
            *expected.entry(row.to_string()).or_default() += weight;
        }
        assert_eq!(rows::of(out.take_deltas()), expected);
    }
    Ok(out)
}

fn aggregate(function: AggregateFunction, argument: usize, output_type: DataType) -> plan::Aggregate {
    plan::Aggregate { function, argument: Some(argument), distinct: false, filter: None, output_type }
}

fn count_star() -> plan::Aggregate {
    let function = AggregateFunction::Count;
    plan::Aggregate { function, argument: None, distinct: false, filter: None, output_type: DataType::Int64 }
}

fn aggregate_operator(node: &plan::Node, keys: &[usize], aggregates: &[plan::Aggregate]) -> Aggregate {
    let mut types: Vec<DataType> = keys.iter().map(|key| node.schema.field(*key).data_type().clone()).collect();
    types.extend(aggregates.iter().map(|aggregate| aggregate.output_type.clone()));
    Aggregate::new(node, keys, aggregates, schema(&types), OwnsGlobalGroup::Yes).unwrap()
}

const INT: DataType = DataType::Int64;
const FLOAT: DataType = DataType::Float64;
const TEXT: DataType = DataType::Utf8;

#[test]
fn aggregate_revises_only_changed_groups() {
    let node = input(1, &schema(&[INT, INT]));
    let aggregates = [count_star(), aggregate(AggregateFunction::Sum, 1, INT)];
    let mut operator = aggregate_operator(&node, &[0], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        + 1 10
        + 1 5
        + 2 null
        flush
        => + 1 2 15
        => + 2 1 null
        + 1 -15
        flush
        => - 1 2 15
        => + 1 3 0
        + 2 7
        - 2 7
        flush
        - 1 10
        -1 1 5
        - 2 null
        flush
        => - 1 3 0
        => + 1 1 -15
        => - 2 1 null
        - 1 -15
        + 3 3
        - 3 3
        flush
        => - 1 1 -15
        + 4 4
        flush
        => + 4 1 4
    ",
    )
    .unwrap();
}

#[test]
fn a_global_aggregate_has_a_row_over_nothing() {
    let node = input(1, &schema(&[INT]));
    let aggregates = [count_star(), aggregate(AggregateFunction::Max, 0, INT)];
    let mut operator = aggregate_operator(&node, &[], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        flush
        => + 0 null
        flush
        + 7
        flush
        => - 0 null
        => + 1 7
        - 7
        flush
        => - 1 7
        => + 0 null
    ",
    )
    .unwrap();
}

#[test]
fn min_and_max_fall_back_on_the_next_value() {
    let node = input(1, &schema(&[INT, TEXT, FLOAT]));
    let aggregates = [
        aggregate(AggregateFunction::Min, 1, TEXT),
        aggregate(AggregateFunction::Max, 1, TEXT),
        aggregate(AggregateFunction::Max, 2, FLOAT),
    ];
    let mut operator = aggregate_operator(&node, &[0], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        - 1 a 1
        + 1 a 1
        + 1 b NaN
        +2 1 c -2.5
        flush
        => + 1 b c NaN
        - 1 c -2.5
        - 1 b NaN
        flush
        => - 1 b c NaN
        => + 1 c c -2.5
        - 1 c -2.5
        flush
        => - 1 c c -2.5
    ",
    )
    .unwrap();
}

#[test]
fn distinct_and_filtered_aggregates() {
    let node = input(1, &schema(&[INT, TEXT, DataType::Boolean]));
    let count_distinct =
        plan::Aggregate { distinct: true, filter: Some(2), ..aggregate(AggregateFunction::Count, 1, INT) };
    let aggregates = [count_distinct, plan::Aggregate { filter: Some(2), ..count_star() }];
    let mut operator = aggregate_operator(&node, &[0], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        + 1 a true
        + 1 a true
        + 1 b true
        + 1 c false
        + 1 null true
        + 1 d null
        flush
        => + 1 2 4
        - 1 a true
        - 1 c false
        flush
        => - 1 2 4
        => + 1 2 3
        - 1 a true
        - 1 null true
        flush
        => - 1 2 3
        => + 1 1 1
    ",
    )
    .unwrap();
}

#[test]
fn averages_and_spreads_survive_retraction() {
    let node = input(1, &schema(&[FLOAT]));
    let aggregates = [
        aggregate(AggregateFunction::Sum, 0, FLOAT),
        aggregate(AggregateFunction::Avg, 0, FLOAT),
        aggregate(AggregateFunction::VarianceSample, 0, FLOAT),
        aggregate(AggregateFunction::StddevPopulation, 0, FLOAT),
    ];
    let mut operator = aggregate_operator(&node, &[], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        + 1e15
        + 2
        + 4
        - 1e15
        flush
        => + 6.0 3.0 2.0 1.0
        + inf
        flush
        => - 6.0 3.0 2.0 1.0
        => + inf inf NaN NaN
        + -inf
        flush
        => - inf inf NaN NaN
        => + NaN NaN NaN NaN
        - inf
        - -inf
        - 4
        flush
        => - NaN NaN NaN NaN
        => + 2.0 2.0 null 0.0
    ",
    )
    .unwrap();
}

#[test]
fn booleans_are_counted() {
    let node = input(1, &schema(&[DataType::Boolean]));
    let aggregates = [
        aggregate(AggregateFunction::BoolAnd, 0, DataType::Boolean),
        aggregate(AggregateFunction::BoolOr, 0, DataType::Boolean),
    ];
    let mut operator = aggregate_operator(&node, &[], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        + true
        + null
        flush
        => + true true
        + false
        flush
        => - true true
        => + false true
        - true
        flush
        => - false true
        => + false false
    ",
    )
    .unwrap();
}

#[test]
fn decimals_are_summed_exactly() {
    let node = input(1, &schema(&[DataType::Decimal128(10, 2)]));
    let aggregates = [
        aggregate(AggregateFunction::Sum, 0, DataType::Decimal128(20, 2)),
        aggregate(AggregateFunction::Avg, 0, DataType::Decimal128(14, 6)),
        aggregate(AggregateFunction::Max, 0, DataType::Decimal128(10, 2)),
    ];
    let mut operator = aggregate_operator(&node, &[], &aggregates);
    run(
        &mut operator,
        std::slice::from_ref(&node.schema),
        "
        + 0.10
        + 0.20
        + 0.20
        flush
        => + 0.50 0.166666 0.20
        -2 0.20
        flush
        => - 0.50 0.166666 0.20
        => + 0.10 0.100000 0.10
    ",
    )
    .unwrap();
}

#[test]
fn a_sum_may_leave_its_range_and_come_back_within_an_epoch() {
    let node = input(1, &schema(&[INT]));
    let mut operator = aggregate_operator(&node, &[], &[aggregate(AggregateFunction::Sum, 0, INT)]);
    let script = "
        + 9223372036854775807
        + 1
        - 1
        flush
        => + 9223372036854775807";
    let mut out = run(&mut operator, std::slice::from_ref(&node.schema), script).unwrap();
    assert!(out.take_errors().is_empty());
}

/// What the operator said of groups that fail: message, row and weight.
fn errors(out: &mut Output) -> Vec<(String, String, i64)> {
    let (errors, omitted) = out.take_errors().into_parts();
    assert_eq!(omitted, 0);
    errors.into_iter().map(|error| (error.message, error.row, error.weight)).collect()
}

#[test]
fn a_sum_out_of_range_fails_its_group_until_it_fits_again() {
    let node = input(1, &schema(&[INT, INT]));
    let mut operator = aggregate_operator(&node, &[0], &[aggregate(AggregateFunction::Sum, 1, INT), count_star()]);
    let error = |weight| ("bigint out of range".to_owned(), "c0=1".to_owned(), weight);
    let schemas = std::slice::from_ref(&node.schema);
    // Born failing; another group is not touched by it.
    let script = "
        + 1 9223372036854775807
        + 1 1
        + 2 5
        flush
        => + 2 5 1";
    assert_eq!(errors(&mut run(&mut operator, schemas, script).unwrap()), vec![error(1)]);
    // It goes on failing, and that is not said twice.
    assert_eq!(errors(&mut run(&mut operator, schemas, "+ 1 7\nflush").unwrap()), vec![]);
    let script = "
        - 1 1
        - 1 7
        flush
        => + 1 9223372036854775807 1";
    assert_eq!(errors(&mut run(&mut operator, schemas, script).unwrap()), vec![error(-1)]);
    let script = "
        + 1 1
        flush
        => - 1 9223372036854775807 1";
    assert_eq!(errors(&mut run(&mut operator, schemas, script).unwrap()), vec![error(1)]);
    // A group that goes takes its error with it.
    let script = "
        - 1 1
        - 1 9223372036854775807
        flush";
    assert_eq!(errors(&mut run(&mut operator, schemas, script).unwrap()), vec![error(-1)]);
}

#[test]
fn deleting_what_is_not_there_is_an_error() {
    let node = input(1, &schema(&[INT]));
    let schemas = [node.schema.clone(), node.schema.clone()];
    let mut grouped = aggregate_operator(&node, &[0], &[count_star()]);
    assert!(run(&mut grouped, &schemas, "- 1\nflush").is_err());
    let mut distinct_rows = distinct(&node).unwrap();
    assert!(run(&mut distinct_rows, &schemas, "+ 1\n-2 1\nflush").is_err());
    let mut join =
        Join::new(&node, &node, (&[(0, 0)], NullEquality::NullEqualsNothing), None, schema(&[INT, INT])).unwrap();
    assert!(run(&mut join, &schemas, "+ 1\n right - 1\nflush").is_err());
}

#[test]
fn distinct_tells_when_rows_come_and_go() {
    let schema = schema(&[INT, TEXT]);
    let mut operator = distinct(&input(1, &schema)).unwrap();
    run(
        &mut operator,
        &[schema],
        "
        - 1 a
        + 1 a
        + 1 b
        + 1 b
        + null b
        flush
        => + 1 b
        => + null b
        - 1 b
        flush
        - 1 b
        + 1 a
        flush
        => - 1 b
        => + 1 a
    ",
    )
    .unwrap();
}

#[test]
fn a_join_pairs_each_row_once() {
    let sides = [input(1, &schema(&[INT, TEXT])), input(2, &schema(&[TEXT, INT]))];
    let schemas = [sides[0].schema.clone(), sides[1].schema.clone()];
    let mut operator = Join::new(
        &sides[0],
        &sides[1],
        (&[(0, 1)], NullEquality::NullEqualsNothing),
        None,
        schema(&[INT, TEXT, TEXT, INT]),
    )
    .unwrap();
    run(
        &mut operator,
        &schemas,
        "
        + 1 a
        right + x 1
        right + y 1
        right + z 2
        + 1 b
        + null c
        right + w null
        flush
        => + 1 a x 1
        => + 1 a y 1
        => + 1 b x 1
        => + 1 b y 1
        right - y 1
        +3 2 c
        flush
        => - 1 a y 1
        => - 1 b y 1
        => +3 2 c z 2
        - 1 a
        - 2 c
        right -1 z 2
        right + z 2
        flush
        => - 1 a x 1
        => - 2 c z 2
        - 1 a
        right + v 1
        + 1 a
        - 1 b
        flush
        => - 1 b x 1
    ",
    )
    .unwrap();
}

#[test]
fn a_deletion_may_come_before_its_row_within_an_epoch() {
    let sides = [input(1, &schema(&[INT, TEXT])), append_only(input(2, &schema(&[INT])))];
    let schemas = [sides[0].schema.clone(), sides[1].schema.clone()];
    let mut operator =
        Join::new(&sides[0], &sides[1], (&[(0, 0)], NullEquality::NullEqualsNothing), None, schema(&[INT, TEXT, INT]))
            .unwrap();
    run(
        &mut operator,
        &schemas,
        "
        right + 1
        - 1 a
        + 1 b
        right + 1
        + 1 a
        flush
        => +2 1 b 1
        right + 1
        flush
        => + 1 b 1
    ",
    )
    .unwrap();
}

fn less_than(left: &str, right: &str, schema: &SchemaRef) -> Arc<dyn PhysicalExpr> {
    binary(col(left, schema).unwrap(), Symbol::Lt, col(right, schema).unwrap(), schema).unwrap()
}

#[test]
fn a_cross_join_keeps_what_passes_the_residual() {
    let node = input(1, &schema(&[INT]));
    let joined = schema(&[INT, INT]);
    let residual = less_than("c0", "c1", &joined);
    let mut operator = Join::new(&node, &node, (&[], NullEquality::NullEqualsNothing), Some(residual), joined).unwrap();
    run(
        &mut operator,
        &[node.schema.clone(), node.schema.clone()],
        "
        + 1
        + 5
        right + 3
        right + 9
        flush
        => + 1 3
        => + 1 9
        => + 5 9
        - 1
        flush
        => - 1 3
        => - 1 9
    ",
    )
    .unwrap();
}

#[test]
fn union_all_renames_and_keeps_all() {
    let inputs = schema(&[INT]);
    let mut operator = UnionAll::new(schema(&[INT]));
    run(
        &mut operator,
        &[inputs.clone(), inputs],
        "
        + 1
        right + 1
        right - 2
        flush
        => +2 1
        => - 2
    ",
    )
    .unwrap();
}

#[test]
fn a_map_leaves_out_failing_rows_and_reports_them() {
    let schemas = [schema(&[INT, INT])];
    let [input] = &schemas;
    let quotient = binary(col("c0", input).unwrap(), Symbol::Divide, col("c1", input).unwrap(), input).unwrap();
    let positive = binary(col("c0", input).unwrap(), Symbol::Gt, lit(ScalarValue::Int64(Some(0))), input).unwrap();
    let mut operator = Map::new(Some(positive), vec![quotient], schema(&[INT]));
    let script = rows::delta(
        input,
        &[(1, vec!["6", "2"]), (1, vec!["0", "0"]), (-2, vec!["5", "0"]), (1, vec!["null", "0"]), (3, vec!["9", "3"])],
    );
    let mut out = Output::default();
    operator.absorb(0, script, &mut out).unwrap();
    assert_eq!(rows::of(out.take_deltas()), rows::Rows::from([("3".to_string(), 4)]));
    let (errors, omitted) = out.take_errors().into_parts();
    assert_eq!(omitted, 0);
    let [error] = errors.as_slice() else { panic!("one row fails, not {errors:?}") };
    assert_eq!((error.message.as_str(), error.row.as_str()), ("division by zero", "c0=5, c1=0"));
    assert_eq!(error.weight, -2);
}

/// Columns of several types, and aggregates of all kinds over them.
fn many_aggregates() -> (Vec<DataType>, Vec<plan::Aggregate>) {
    use AggregateFunction as F;
    let decimal = DataType::Decimal128(12, 2);
    let types = vec![INT, INT, FLOAT, decimal.clone(), DataType::Boolean, TEXT, DataType::Date32];
    let distinct = |aggregate: plan::Aggregate| plan::Aggregate { distinct: true, ..aggregate };
    let mut aggregates = vec![
        count_star(),
        plan::Aggregate { filter: Some(4), ..count_star() },
        aggregate(F::Sum, 1, INT),
        aggregate(F::Sum, 2, FLOAT),
        aggregate(F::Avg, 2, FLOAT),
        aggregate(F::Sum, 3, DataType::Decimal128(22, 2)),
        aggregate(F::Avg, 3, DataType::Decimal128(16, 6)),
        aggregate(F::VarianceSample, 2, FLOAT),
        aggregate(F::StddevPopulation, 2, FLOAT),
        aggregate(F::BoolAnd, 4, DataType::Boolean),
        aggregate(F::BoolOr, 4, DataType::Boolean),
        distinct(aggregate(F::Sum, 1, INT)),
    ];
    for column in [1, 2, 3, 5, 6] {
        aggregates.push(distinct(aggregate(F::Count, column, INT)));
        aggregates.push(aggregate(F::Min, column, types[column].clone()));
        aggregates.push(aggregate(F::Max, column, types[column].clone()));
    }
    (types, aggregates)
}

const BEFORE: [(i64, [&str; 7]); 6] = [
    (1, ["1", "5", "0.1", "1.25", "true", "a", "2020-01-01"]),
    (2, ["1", "5", "NaN", "2.50", "false", "b", "2020-01-02"]),
    (1, ["1", "7", "1e300", "null", "true", "b", "null"]),
    (1, ["2", "null", "inf", "null", "null", "null", "1999-12-31"]),
    (1, ["null", "3", "-0.0", "9.99", "true", "", "2020-01-01"]),
    (1, ["3", "3", "3", "3", "true", "c", "2020-01-01"]),
];
const AFTER: [(i64, [&str; 7]); 4] = [
    (-2, ["1", "5", "NaN", "2.50", "false", "b", "2020-01-02"]),
    (-1, ["2", "null", "inf", "null", "null", "null", "1999-12-31"]),
    (1, ["1", "-8", "0.7", "0.75", "null", "", "2021-01-01"]),
    (1, ["4", "4", "4", "4", "false", "d", "2020-01-01"]),
];

/// Those of `changes` that the input may have.
fn changes_of(node: &plan::Node, changes: &[(i64, [&str; 7])]) -> Delta {
    let possible = changes.iter().filter(|(weight, _)| *weight > 0 || !node.properties.append_only);
    rows::delta(&node.schema, &possible.map(|(weight, row)| (*weight, row.to_vec())).collect::<Vec<_>>())
}

/// Whatever an aggregate keeps, it goes on from what it told as if nothing had happened.
#[test]
fn every_aggregate_comes_back() {
    let (types, aggregates) = many_aggregates();
    for append_only_input in [false, true] {
        let node = input(1, &schema(&types));
        let node = if append_only_input { append_only(node) } else { node };
        let mut original = aggregate_operator(&node, &[0], &aggregates);
        let mut out = Output::default();
        original.state().unwrap().track();
        original.absorb(0, changes_of(&node, &BEFORE), &mut out).unwrap();
        original.flush(&mut out).unwrap();
        let told = original.state().unwrap().changes().unwrap();
        let tables: Vec<_> = told.into_iter().map(|change| vec![change.changed]).collect();
        for telling in [Telling::OnlyChanges, Telling::All] {
            let mut restored = aggregate_operator(&node, &[0], &aggregates);
            restored.state().unwrap().track();
            restored.state().unwrap().restore(parts_of(&tables), telling).unwrap();
            let again = restored.state().unwrap().changes().unwrap();
            for (table, change) in tables.iter().zip(again) {
                assert_eq!(change.reset, telling == Telling::All);
                let expected = if telling == Telling::All { table[0].ids.len() } else { 0 };
                assert_eq!(change.changed.ids.len(), expected);
            }
            let mut twin = aggregate_operator(&node, &[0], &aggregates);
            let (mut of_twin, mut of_restored) = (Output::default(), Output::default());
            twin.absorb(0, changes_of(&node, &BEFORE), &mut of_twin).unwrap();
            twin.flush(&mut of_twin).unwrap();
            of_twin.take_deltas();
            for (operator, out) in [(&mut twin, &mut of_twin), (&mut restored, &mut of_restored)] {
                operator.absorb(0, changes_of(&node, &AFTER), out).unwrap();
                operator.flush(out).unwrap();
            }
            assert_eq!(rows::of(of_restored.take_deltas()), rows::of(of_twin.take_deltas()));
        }
    }
}

fn parts_of(tables: &[Vec<StateRows>]) -> Vec<SavedParts<'_>> {
    let parts = |parts: &'_ Vec<StateRows>| -> SavedParts<'_> { Box::new(parts.clone().into_iter().map(Ok)) };
    tables.iter().map(parts).collect()
}

/// What an operator has told, by table and id.
type Told = Vec<BTreeMap<u32, String>>;

fn tell(operator: &mut Aggregate, told: &mut Told) {
    let changes = operator.state().unwrap().changes().unwrap();
    told.resize_with(changes.len(), BTreeMap::new);
    for (told, TableChange { gone, changed, spilled, .. }) in told.iter_mut().zip(changes) {
        gone.iter().for_each(|id| drop(told.remove(id)));
        let spilled =
            spilled.iter().flat_map(|spilled| (0..spilled.pieces()).map(|piece| spilled.piece(piece).unwrap()));
        for StateRows { ids, rows } in spilled.chain([changed]) {
            for (row, id) in ids.into_iter().enumerate() {
                let text = rows::of([Delta::inserts(rows.slice(row, 1))]).into_keys().next().unwrap();
                told.insert(id, text);
            }
        }
    }
}

fn flush(operator: &mut Aggregate, out: &mut Output) {
    operator.flush(out).unwrap();
    while operator.has_more() {
        operator.flush(out).unwrap();
    }
}

/// Whatever an aggregate keeps, it may go to the disk, in the middle of an epoch too, and nobody sees that it did: neither
/// those who read, nor checkpoints.
#[test]
fn every_aggregate_goes_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let spill = SpillFolder::open(folder.path()).unwrap();
    let (types, aggregates) = many_aggregates();
    let again: Vec<(i64, [&str; 7])> = AFTER.iter().map(|(weight, row)| (-weight, *row)).collect();
    for append_only_input in [false, true] {
        let node = input(1, &schema(&types));
        let node = if append_only_input { append_only(node) } else { node };
        let operators = || {
            let mut operator = aggregate_operator(&node, &[0], &aggregates);
            operator.state().unwrap().track();
            (operator, Output::default(), Told::new())
        };
        let (mut twin, mut of_twin, mut told_by_twin) = operators();
        let (mut spilling, mut out, mut told) = operators();
        for (epoch, changes) in [&BEFORE[..], &AFTER[..], &again[..], &BEFORE[..]].into_iter().enumerate() {
            let delta = changes_of(&node, changes);
            for row in 0..delta.len() {
                twin.absorb(0, delta.slice(row, 1), &mut of_twin).unwrap();
                spilling.absorb(0, delta.slice(row, 1), &mut out).unwrap();
                spilling.spill(&spill).unwrap();
            }
            flush(&mut twin, &mut of_twin);
            flush(&mut spilling, &mut out);
            assert_eq!(rows::of(out.take_deltas()), rows::of(of_twin.take_deltas()), "epoch {epoch}");
            spilling.spill(&spill).unwrap();
            assert_eq!(spilling.memory().spillable_bytes, 0);
            if epoch != 1 {
                tell(&mut twin, &mut told_by_twin);
                tell(&mut spilling, &mut told);
                let texts = |told: &BTreeMap<u32, String>| told.values().cloned().collect::<BTreeSet<_>>();
                assert_eq!(texts(&told[0]), texts(&told_by_twin[0]), "groups, epoch {epoch}");
                let sizes = |told: &Told| told.iter().map(BTreeMap::len).collect::<Vec<_>>();
                assert_eq!(sizes(&told), sizes(&told_by_twin), "entries, epoch {epoch}");
            }
        }
        assert!(spilling.memory().disk_bytes > 0);
    }
    assert_eq!(spill.bytes(), 0);
}
