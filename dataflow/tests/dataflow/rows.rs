//! Rows as text, for tests: `1 a null` is a row of three columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use freshet_planner::plan::{Node, Op, Properties};
use freshet_types::{Delta, RelationId};

/// A multiset of rows.
pub type Rows = BTreeMap<String, i64>;

/// Columns `c0`, `c1`, … of these types.
pub fn schema(types: &[DataType]) -> SchemaRef {
    let field = |(index, data_type): (usize, &DataType)| Field::new(format!("c{index}"), data_type.clone(), true);
    Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// Rows given as words, with a weight each.
pub fn delta(schema: &SchemaRef, rows: &[(i64, Vec<&str>)]) -> Delta {
    let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
        let words = rows.iter().map(|(_, words)| Some(words[index]).filter(|word| *word != "null"));
        cast(&words.collect::<StringArray>(), field.data_type()).unwrap()
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let weights: Vec<i64> = rows.iter().map(|(weight, _)| *weight).collect();
    if weights.iter().all(|weight| *weight == 1) { Delta::inserts(batch) } else { Delta::new(batch, weights) }
}

/// Insertions of the rows in `text`, one a line.
pub fn inserts(schema: &SchemaRef, text: &str) -> Delta {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let rows: Vec<(i64, Vec<&str>)> = lines.map(|line| (1, line.split_whitespace().collect())).collect();
    delta(schema, &rows)
}

/// Adds the rows of `delta` to `rows`.
pub fn add(rows: &mut Rows, delta: &Delta) {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<_> = delta.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    for row in 0..delta.len() {
        let words: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        let count = rows.entry(words.join(" ")).or_default();
        *count += delta.weight(row);
    }
    rows.retain(|_, count| *count != 0);
}

pub fn of(deltas: impl IntoIterator<Item = Delta>) -> Rows {
    let mut rows = Rows::new();
    deltas.into_iter().for_each(|delta| add(&mut rows, &delta));
    rows
}

pub fn input(relation: u64, schema: &SchemaRef) -> Node {
    let columns = (0..schema.fields().len()).collect();
    let op = Op::Input { relation: RelationId(relation), name: format!("r{relation}"), columns };
    Node { op, schema: schema.clone(), properties: Properties::default() }
}

pub fn append_only(mut node: Node) -> Node {
    node.properties.append_only = true;
    node
}

pub fn keyed(mut node: Node, key: &[usize]) -> Node {
    node.properties.key = Some(key.to_vec());
    node
}
