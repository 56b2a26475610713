//! What goes wrong in a view stays in it.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{NullEquality, Result as DataFusionResult};
use datafusion::logical_expr::{ColumnarValue, Operator as Symbol};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col, lit};
use freshet_dataflow::Event;
use freshet_planner::plan::{JoinKind, Node, Op};
use freshet_types::{Epoch, RelationId};

use crate::engine::{map, pairs, rows, totals};
use crate::rows::{delta, input, inserts};
use crate::running::Running;

/// An expression with a bug.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panics()")
    }
}

impl PhysicalExpr for Panics {
    fn data_type(&self, _schema: &Schema) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn nullable(&self, _schema: &Schema) -> DataFusionResult<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        let values = batch.column(0).as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
        assert!(!values.values().contains(&13), "thirteen");
        Ok(ColumnarValue::Array(batch.column(0).clone()))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[test]
fn a_panic_fails_one_view() {
    for workers in [1, 2] {
        let mut running = Running::start(workers);
        let broken = map(input(1, &pairs()), vec![Arc::new(Panics), col("c1", &pairs()).unwrap()]);
        running.install_over_nothing(10, totals(broken), 1);
        running.install_over_nothing(11, totals(input(1, &pairs())), 1);
        running.feed(1, 2, inserts(&pairs(), "1 1\n2 2"));
        running.seal(2);
        assert_eq!(running.rows(10, 2).len(), 2);
        running.feed(1, 3, inserts(&pairs(), "13 1"));
        for epoch in 3..10 {
            running.feed(1, epoch, inserts(&pairs(), "13 1"));
            running.seal(epoch);
        }
        let Event::Failed { view, error } = running.next_event() else { panic!("the view fails") };
        assert_eq!((view, error.as_str()), (RelationId(10), "internal error: thirteen"));
        assert_eq!(running.rows(11, 9), rows(&[("1 1 1", 1), ("13 8 8", 1), ("2 1 2", 1)]));
        assert_eq!(running.views[&10].upper(), Epoch(2));
        assert_eq!(running.rows(10, 2).len(), 2, "the last good answer stays");
        running.engine.remove(RelationId(10));
        running.engine.shutdown();
        assert!(running.events.try_recv().is_err(), "the failure is told once");
    }
}

#[test]
fn a_broken_invariant_fails_one_view() {
    let mut running = Running::start(2);
    running.install_over_nothing(10, totals(input(1, &pairs())), 1);
    running.install_over_nothing(11, totals(input(2, &pairs())), 1);
    running.feed(1, 2, delta(&pairs(), &[(-1, vec!["1", "1"])]));
    running.feed(2, 2, inserts(&pairs(), "1 1"));
    running.seal(2);
    let Event::Failed { view, error } = running.next_event() else { panic!("the view fails") };
    assert_eq!((view, error.as_str()), (RelationId(10), "more rows of a group were deleted than inserted"));
    assert_eq!(running.rows(11, 2), rows(&[("1 1 1", 1)]));
}

#[test]
fn a_plan_that_cannot_run_fails_its_view() {
    let mut running = Running::start(2);
    let text = crate::rows::schema(&[DataType::Utf8]);
    let op = Op::Join {
        kind: JoinKind::Inner,
        left: Box::new(input(1, &pairs())),
        right: Box::new(input(2, &text)),
        on: vec![(0, 0)],
        null_equality: NullEquality::NullEqualsNothing,
        residual: None,
    };
    let schema = crate::rows::schema(&[DataType::Int64, DataType::Int64, DataType::Utf8]);
    running.install(10, Node { op, schema, properties: freshet_planner::plan::Properties::default() }, 1);
    let Event::Failed { error, .. } = running.next_event() else { panic!("the view fails") };
    assert_eq!(error, "cannot join Int64 with Utf8");
    running.install_over_nothing(11, totals(input(1, &pairs())), 1);
    running.feed(1, 2, inserts(&pairs(), "1 1"));
    running.seal(2);
    assert_eq!(running.rows(11, 2), rows(&[("1 1 1", 1)]));
}

#[test]
fn failing_rows_are_reported_and_left_out() {
    let mut running = Running::start(1);
    let schema = pairs();
    let inverse = binary(lit(100_i64), Symbol::Divide, col("c1", &schema).unwrap(), &schema).unwrap();
    running.install_over_nothing(10, map(input(1, &schema), vec![col("c0", &schema).unwrap(), inverse]), 1);
    let bad: Vec<String> = (0..250).map(|i| format!("{i} 0")).collect();
    running.feed(1, 2, inserts(&schema, &format!("7 5\n{}\n8 4", bad.join("\n"))));
    running.seal(2);
    assert_eq!(running.rows(10, 2), rows(&[("7 20", 1), ("8 25", 1)]));
    let Event::RowErrors { view, epoch, errors, omitted } = running.next_event() else { panic!("rows fail") };
    assert_eq!((view, epoch, errors.len(), omitted), (RelationId(10), Epoch(2), 100, 150));
    assert_eq!(errors[0].row, "c0=0, c1=0");
    assert_eq!(errors[0].message, "division by zero");
}
