//! The first rows of partitions, and window functions, under random changes, against a naive run.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::{WindowFrame, WindowFunctionDefinition};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::windows::create_window_expr;
use freshet_planner::plan::{Node, Op, Properties, SortKey};

use crate::random::{Row, compare, line, table};
use crate::rows::{Rows, append_only, input, schema};

/// By the value, the greatest first and NULL last, then by the text.
const ORDER: [SortKey; 2] = [
    SortKey { column: 1, options: SortOptions { descending: true, nulls_first: false } },
    SortKey { column: 2, options: SortOptions { descending: false, nulls_first: false } },
];

fn in_order(rows: &[Row]) -> Vec<Row> {
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|(key, value, text)| (std::cmp::Reverse(*value), text.clone(), *key));
    sorted
}

fn top_n(input: Node, partition: &[usize], offset: u64, limit: Option<u64>) -> Node {
    let schema = input.schema.clone();
    let (partition, order) = (partition.to_vec(), ORDER.to_vec());
    let op = Op::TopN { input: Box::new(input), partition, order, offset, limit };
    Node { op, schema, properties: Properties::default() }
}

fn naive(rows: &[Row], by_key: bool, offset: usize, limit: usize) -> Rows {
    let mut partitions: BTreeMap<Option<i64>, Vec<Row>> = BTreeMap::new();
    rows.iter().for_each(|row| partitions.entry(row.0.filter(|_| by_key)).or_default().push(row.clone()));
    let mut first = Rows::new();
    for rows in partitions.values() {
        for row in in_order(rows).iter().skip(offset).take(limit) {
            *first.entry(line(row)).or_default() += 1;
        }
    }
    first
}

/// The least key first where value and text are the same, as NULL stands first in the order of columns.
#[test]
fn the_first_rows_of_all() {
    for (offset, limit) in [(0, Some(3)), (2, Some(2)), (4, None)] {
        let plan = top_n(input(1, &table()), &[], offset, limit);
        let skip = usize::try_from(offset).unwrap();
        let take = limit.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap());
        compare(&plan, |rows, _| naive(rows, false, skip, take));
    }
}

#[test]
fn the_first_rows_of_each_partition() {
    compare(&top_n(input(1, &table()), &[0], 0, Some(2)), |rows, _| naive(rows, true, 0, 2));
    compare(&top_n(input(1, &table()), &[0], 1, Some(1)), |rows, _| naive(rows, true, 1, 1));
}

#[test]
fn the_first_rows_of_what_is_only_inserted() {
    compare(&top_n(append_only(input(1, &table())), &[0], 1, Some(2)), |rows, _| naive(rows, true, 1, 2));
}

#[test]
fn numbers_of_rows() {
    let rows = table();
    let order: Vec<PhysicalSortExpr> = ["c1", "c2"]
        .iter()
        .zip(ORDER)
        .map(|(name, key)| PhysicalSortExpr::new(col(name, &rows).unwrap(), key.options))
        .collect();
    let partition: Vec<Arc<dyn PhysicalExpr>> = vec![col("c0", &rows).unwrap()];
    let function = WindowFunctionDefinition::WindowUDF(row_number_udwf());
    let frame = Arc::new(WindowFrame::new(Some(true)));
    let function = create_window_expr(
        &function,
        "n".to_string(),
        &[],
        &partition,
        &order,
        frame,
        rows.clone(),
        false,
        false,
        None,
    )
    .unwrap();
    let types = [DataType::Int64, DataType::Int64, DataType::Utf8, DataType::UInt64];
    let op = Op::Window { input: Box::new(input(1, &rows)), partition: vec![0], functions: vec![function] };
    let plan = Node { op, schema: schema(&types), properties: Properties::default() };
    compare(&plan, |rows, _| {
        let mut partitions: BTreeMap<Option<i64>, Vec<Row>> = BTreeMap::new();
        rows.iter().for_each(|row| partitions.entry(row.0).or_default().push(row.clone()));
        let numbered = partitions.values().flat_map(|rows| in_order(rows).into_iter().zip(1..));
        let mut all = Rows::new();
        numbered.for_each(|(row, number): (Row, i32)| *all.entry(format!("{} {number}", line(&row))).or_default() += 1);
        all
    });
}
