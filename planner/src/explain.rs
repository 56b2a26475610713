//! Incremental plans as text, for EXPLAIN.
//!
//! An indented tree, the last operator first. Columns go by name; what is proven of a node stands in brackets.
//!
//! ```text
//! Aggregate  [key: page; watermark: window_start]
//!   group by: page, window_start
//!   compute: count(*), avg(ms)
//!   -> Map  [append-only; watermark: window_start]
//! ```

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::fmt_sql;
use datafusion::scalar::ScalarValue;

use crate::functions::operator_of;
use crate::plan::{Aggregate, JoinKind, Node, Op, Properties};
use crate::sql_type::sql_name;

/// The plan as lines without line ends.
pub fn explain(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    describe(node, 0, &mut lines);
    lines
}

fn describe(node: &Node, depth: usize, lines: &mut Vec<String>) {
    let indent = "     ".repeat(depth);
    let (first, rest) = match depth {
        0 => (String::new(), "  ".to_owned()),
        _ => (format!("{}  -> ", &indent[5..]), format!("{indent}  ")),
    };
    lines.push(format!("{first}{}{}", title(node), properties(&node.properties, &node.schema)));
    lines.extend(details(node).into_iter().map(|(what, text)| format!("{rest}{what}: {text}")));
    for input in node.inputs() {
        describe(input, depth + 1, lines);
    }
}

fn title(node: &Node) -> String {
    match &node.op {
        Op::Input { name, .. } => format!("Input {name} ({})", names(&node.schema)),
        Op::Constant { rows } => format!("Constant ({}), rows: {}", names(&node.schema), rows.num_rows()),
        Op::Map { predicate: Some(_), .. } => "Filter and map".into(),
        Op::Map { .. } => "Map".into(),
        Op::UnionAll { .. } => "Union all".into(),
        Op::Distinct { .. } => "Distinct".into(),
        Op::Aggregate { .. } => "Aggregate".into(),
        Op::Window { .. } => "Window".into(),
        Op::TopN { .. } => "Top rows".into(),
        Op::Join { kind: JoinKind::Inner, on, .. } if on.is_empty() => "Cross join".into(),
        Op::Join { kind, .. } => join(*kind).into(),
    }
}

fn details(node: &Node) -> Vec<(&'static str, String)> {
    let mut details = Vec::new();
    match &node.op {
        Op::Map { input, predicate, expressions } => {
            if let Some(predicate) = predicate {
                details.push(("where", expression(predicate, &input.schema)));
            }
            let columns = expressions.iter().zip(node.schema.fields());
            let columns = columns.map(|(expr, field)| named(&expression(expr, &input.schema), field.name()));
            details.push(("columns", columns.collect::<Vec<_>>().join(", ")));
        }
        Op::Aggregate { input, keys, aggregates } => {
            if !keys.is_empty() {
                details.push(("group by", columns_of(keys, &input.schema)));
            }
            let results = node.schema.fields().iter().skip(keys.len());
            let calls = aggregates.iter().zip(results);
            let calls = calls.map(|(call, field)| named(&aggregate(call, &input.schema), field.name()));
            details.push(("compute", calls.collect::<Vec<_>>().join(", ")));
        }
        Op::Window { input, partition, functions } => {
            if !partition.is_empty() {
                details.push(("partition by", columns_of(partition, &input.schema)));
            }
            let order = functions.first().map_or(&[][..], |function| function.order_by());
            if !order.is_empty() {
                let keys = order.iter().map(|key| sort_key(key, &input.schema));
                details.push(("order by", keys.collect::<Vec<_>>().join(", ")));
            }
            let results = node.schema.fields().iter().skip(input.schema.fields().len());
            details.push(("compute", results.map(|field| field.name().clone()).collect::<Vec<_>>().join(", ")));
        }
        Op::TopN { partition, order, offset, limit, .. } => {
            if !partition.is_empty() {
                details.push(("partition by", columns_of(partition, &node.schema)));
            }
            let keys = order.iter().map(|key| {
                let expr = Arc::new(Column::new(node.schema.field(key.column).name(), key.column));
                sort_key(&PhysicalSortExpr::new(expr, key.options), &node.schema)
            });
            details.push(("order by", keys.collect::<Vec<_>>().join(", ")));
            details.extend(limit.map(|limit| ("limit", limit.to_string())));
            details.extend((*offset > 0).then(|| ("offset", offset.to_string())));
        }
        Op::Join { left, right, on, null_equality, residual, .. } => {
            let equals = match null_equality {
                NullEquality::NullEqualsNothing => "=",
                NullEquality::NullEqualsNull => "IS NOT DISTINCT FROM",
            };
            let names = on.iter().map(|(l, r)| (left.schema.field(*l).name(), right.schema.field(*r).name()));
            let pairs = names.map(|(left, right)| format!("{left} {equals} {right}"));
            if !on.is_empty() {
                details.push(("on", pairs.collect::<Vec<_>>().join(" AND ")));
            }
            if let Some(residual) = residual {
                let fields = left.schema.fields().iter().chain(right.schema.fields()).cloned();
                details.push(("where", expression(residual, &Arc::new(Schema::new(fields.collect::<Vec<_>>())))));
            }
        }
        Op::Input { .. } | Op::Constant { .. } | Op::UnionAll { .. } | Op::Distinct { .. } => {}
    }
    details
}

fn join(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "Join",
        JoinKind::Left => "Left join",
        JoinKind::Right => "Right join",
        JoinKind::Full => "Full join",
        JoinKind::Semi => "Semi join",
        JoinKind::Anti => "Anti join",
        JoinKind::Mark => "Mark join",
    }
}

fn sort_key(key: &PhysicalSortExpr, schema: &Schema) -> String {
    let direction = if key.options.descending { " DESC" } else { "" };
    // As in Postgres, NULL is the greatest value.
    let nulls = match (key.options.nulls_first, key.options.descending) {
        (true, false) => " NULLS FIRST",
        (false, true) => " NULLS LAST",
        _ => "",
    };
    format!("{}{direction}{nulls}", expression(&key.expr, schema))
}

fn named(text: &str, name: &str) -> String {
    if text == name { text.to_owned() } else { format!("{text} AS {name}") }
}

/// A call of an aggregate function over the columns of `input`.
pub(crate) fn aggregate(call: &Aggregate, input: &Schema) -> String {
    let argument = match call.argument {
        None => "*".to_owned(),
        Some(argument) => input.field(argument).name().clone(),
    };
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let filter = call.filter.map(|filter| format!(" FILTER (WHERE {})", input.field(filter).name()));
    format!("{}({distinct}{argument}){}", call.function, filter.unwrap_or_default())
}

/// A call of a window function over the columns of `input`.
pub(crate) fn window_function(function: &dyn WindowExpr, input: &Schema) -> String {
    let (name, _) = function.name().split_once('(').unwrap_or((function.name(), ""));
    let arguments = function.expressions();
    let arguments: Vec<String> = arguments.iter().map(|argument| expression(argument, input)).collect();
    format!("{name}({})", arguments.join(", "))
}

fn properties(properties: &Properties, schema: &SchemaRef) -> String {
    let mut said = Vec::new();
    match properties.key.as_deref() {
        Some([]) => said.push("at most one row".to_owned()),
        Some(key) => said.push(format!("key: {}", columns_of(key, schema))),
        None => {}
    }
    if properties.append_only {
        said.push("append-only".to_owned());
    }
    if !properties.watermarks.is_empty() {
        said.push(format!("watermark: {}", columns_of(&properties.watermarks, schema)));
    }
    if said.is_empty() { String::new() } else { format!("  [{}]", said.join("; ")) }
}

fn names(schema: &SchemaRef) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn columns_of(columns: &[usize], schema: &SchemaRef) -> String {
    columns.iter().map(|column| schema.field(*column).name().as_str()).collect::<Vec<_>>().join(", ")
}

/// An expression in SQL, with the names that its columns have in `schema`.
pub(crate) fn expression(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> String {
    let readable = expr.clone().transform_up(|expr| {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return Ok(Transformed::yes(Text::of(schema.field(column.index()).name().clone())));
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return Ok(Transformed::yes(Text::of(constant(literal.value()))));
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            let text = format!("CAST({} AS {})", fmt_sql(cast.expr().as_ref()), sql_name(cast.cast_type()));
            return Ok(Transformed::yes(Text::of(text)));
        }
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
            && let (Some(operator), [left, right]) = (operator_of(call.fun().name()), call.args())
        {
            let infix = BinaryExpr::new(left.clone(), operator, right.clone());
            return Ok(Transformed::yes(Arc::new(infix)));
        }
        Ok(Transformed::no(expr))
    });
    match readable.data() {
        Ok(readable) => fmt_sql(readable.as_ref()).to_string(),
        Err(_) => expr.to_string(),
    }
}

fn constant(value: &ScalarValue) -> String {
    if value.is_null() {
        return "NULL".into();
    }
    let options = FormatOptions::default();
    let text = value.to_array().ok().and_then(|array| {
        ArrayFormatter::try_new(array.as_ref(), &options).ok().map(|formatter| formatter.value(0).to_string())
    });
    let text = text.unwrap_or_else(|| value.to_string());
    if value.data_type().is_numeric() || value.data_type() == arrow::datatypes::DataType::Boolean {
        return text;
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// A piece of SQL that stands for an expression while it is printed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Text(String);

impl Text {
    fn of(text: String) -> Arc<dyn PhysicalExpr> {
        Arc::new(Self(text))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PhysicalExpr for Text {
    fn data_type(&self, _input: &Schema) -> datafusion::error::Result<arrow::datatypes::DataType> {
        Ok(arrow::datatypes::DataType::Utf8)
    }

    fn nullable(&self, _input: &Schema) -> datafusion::error::Result<bool> {
        Ok(true)
    }

    fn evaluate(
        &self,
        _rows: &arrow::array::RecordBatch,
    ) -> datafusion::error::Result<datafusion::logical_expr::ColumnarValue> {
        Err(datafusion::error::DataFusionError::Internal("a text cannot be evaluated".into()))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
