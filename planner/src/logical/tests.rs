//! Ad-hoc queries: names and types of columns, parameters.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

use crate::statement::Statement;
use crate::testing::{TestCatalog, one, planner, query};
use crate::{bind, output_schema, parameter_types};

fn columns(sql: &str) -> Vec<String> {
    let plan = planner().plan_query(&query(sql), &TestCatalog, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
    output_schema(&plan).fields().iter().map(|field| field.name().clone()).collect()
}

fn types(sql: &str) -> Vec<String> {
    let plan = planner().plan_query(&query(sql), &TestCatalog, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
    output_schema(&plan).fields().iter().map(|field| field.data_type().to_string()).collect()
}

#[test]
fn columns_have_the_names_that_postgres_makes_up() {
    let sql = "SELECT count(*), sum(a), a + 1, a::text, 'x', 1::int, CASE WHEN ok THEN 1 END, upper(t), max(b) - 1,
               (SELECT 1), true, extract(year FROM timestamp '2020-01-01'), now() FROM things GROUP BY a, ok, t";
    let expected = "count sum ?column? a ?column? int4 case upper ?column? ?column? bool extract now";
    assert_eq!(columns(sql).join(" "), expected);
    assert_eq!(columns("SELECT count FROM (SELECT count(*) FROM things) AS s"), ["count"]);
    assert_eq!(columns("SELECT t FROM things GROUP BY t ORDER BY count(*)"), ["t"]);
}

#[test]
fn names_may_repeat_in_a_result() {
    assert_eq!(
        columns("SELECT a, a, count(*) OVER (), 1 AS a, count(*) OVER () FROM things"),
        ["a", "a", "count", "a", "count"]
    );
    assert_eq!(columns("SELECT x.a, y.a FROM things x, things y"), ["a", "a"]);
    assert_eq!(columns("SELECT *, a FROM things"), ["a", "b", "f", "t", "ok", "a"]);
}

#[test]
fn timestamps_have_microseconds() {
    let sql = "SELECT timestamp '2020-01-01', '2020-01-01'::timestamptz, date_bin(INTERVAL '1 minute', ts), ts + INTERVAL '1 day'
               FROM clicks";
    assert_eq!(types(sql), ["Timestamp(µs)", "Timestamp(µs, \"UTC\")", "Timestamp(µs)", "Timestamp(µs)"]);
    assert_eq!(types("SELECT t || 'x', 'x', 7 / 2 FROM things"), ["Utf8", "Utf8", "Int32"]);
}

#[test]
fn parameters_are_inferred_from_their_places() {
    let sql = "SELECT $1 + 1, $2, $6::int FROM things WHERE t = $3 AND a > $4 LIMIT $5";
    let plan = planner().plan_query(&query(sql), &TestCatalog, &[]).unwrap();
    use DataType::{Int32, Int64, Utf8};
    assert_eq!(parameter_types(&plan).unwrap(), [Int32, Utf8, Utf8, Int32, Int64, Int32]);
    let values = vec![
        ScalarValue::from(1_i32),
        ScalarValue::from("x"),
        ScalarValue::from("y"),
        ScalarValue::from(2_i32),
        ScalarValue::from(3_i64),
        ScalarValue::from(4_i32),
    ];
    assert_eq!(parameter_types(&bind(plan, values).unwrap()).unwrap(), []);
    let declared = planner().plan_query(&query("SELECT $1"), &TestCatalog, &[Some(DataType::Boolean)]).unwrap();
    assert_eq!(parameter_types(&declared).unwrap(), [DataType::Boolean]);
}

#[test]
fn views_describe_their_columns_and_what_they_name() {
    let describe = |sql: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        planner().describe_view(&query(sql), &names, &TestCatalog)
    };
    let (schema, named) = describe("SELECT r.id, p.total FROM rich r, per_owner p", &["x"]).unwrap();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!((columns, named.len()), (vec!["x", "total"], 2));
    let error = describe("SELECT 1", &["a", "b"]).unwrap_err();
    assert_eq!(error.message, "CREATE VIEW specifies more column names than columns");
    let error = describe("SELECT a, b FROM things", &["b"]).unwrap_err();
    assert_eq!(error.message, "column \"b\" specified more than once");
}

#[test]
fn constants_of_execute_are_evaluated() {
    let Statement::Execute(execute) = one("EXECUTE p (1 + 1, 'x')") else { panic!() };
    let values: Vec<ScalarValue> =
        execute.arguments.iter().map(|argument| planner().constant(argument).unwrap()).collect();
    assert_eq!(values, [ScalarValue::from(2_i32), ScalarValue::from("x")]);
}
