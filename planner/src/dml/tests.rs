//! Plans of INSERT, UPDATE and DELETE.

use arrow::datatypes::DataType;
use freshet_types::SqlError;

use crate::declaration::TableDefinition;
use crate::dml::OnConflict;
use crate::statement::Statement;
use crate::testing::{TestCatalog, one, planner};
use crate::{output_schema, parameter_types};

fn accounts() -> TableDefinition {
    let sql =
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner TEXT DEFAULT 'nobody', balance NUMERIC(18,2) DEFAULT 0,
               CHECK (balance >= 0))";
    match one(sql) {
        Statement::CreateTable(create) => create.definition,
        other => panic!("{other:?}"),
    }
}

/// The plan of the rows, and the types of the parameters.
fn rows(sql: &str) -> Result<(String, Vec<DataType>), SqlError> {
    let (planner, table) = (planner(), accounts());
    let rows = match one(sql) {
        Statement::Insert(insert) => planner.plan_insert(&insert, &table, &TestCatalog, &[])?.rows,
        Statement::Update(update) => planner.plan_update(&update, &table, &TestCatalog, &[])?.rows,
        Statement::Delete(delete) => planner.plan_delete(&delete, &table, &TestCatalog, &[])?.rows,
        other => panic!("{other:?}"),
    };
    let schema = output_schema(&rows);
    let columns = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
    let columns = columns.collect::<Vec<_>>().join(", ");
    Ok((columns, parameter_types(&rows)?))
}

fn failed(sql: &str) -> String {
    let error = rows(sql).expect_err(sql);
    format!("{}: {}", error.state.code(), error.message)
}

const COLUMNS: &str = "id Int64, owner Utf8, balance Decimal128(18, 2)";

#[test]
fn inserted_rows_have_the_columns_of_the_table() {
    for sql in [
        "INSERT INTO accounts VALUES (1, 'a', 2.50), (2, DEFAULT, -3), (3, NULL, NULL)",
        "INSERT INTO accounts VALUES (1)",
        "INSERT INTO accounts (balance, id) VALUES (1, 2)",
        "INSERT INTO accounts DEFAULT VALUES",
        "INSERT INTO accounts SELECT a, t, f FROM things",
        "INSERT INTO accounts (id, owner) SELECT b, 'x' FROM things WHERE ok",
    ] {
        assert_eq!(rows(sql).unwrap().0, COLUMNS, "{sql}");
    }
}

#[test]
fn updated_rows_are_given_as_they_were_and_as_they_will_be() {
    let both = format!("{COLUMNS}, {COLUMNS}");
    assert_eq!(rows("UPDATE accounts SET balance = balance + 1 WHERE id = 3").unwrap().0, both);
    assert_eq!(rows("UPDATE accounts AS a SET (owner, balance) = (DEFAULT, 0) WHERE a.id > 3").unwrap().0, both);
    assert_eq!(rows("DELETE FROM accounts a WHERE a.owner IN (SELECT t FROM things)").unwrap().0, COLUMNS);
}

#[test]
fn parameters_take_the_types_of_their_columns() {
    let decimal = DataType::Decimal128(18, 2);
    let types = rows("INSERT INTO accounts VALUES ($1, $2, $3)").unwrap().1;
    assert_eq!(types, [DataType::Int64, DataType::Utf8, decimal.clone()]);
    let types = rows("UPDATE accounts SET balance = $2 WHERE id = $1").unwrap().1;
    assert_eq!(types, [DataType::Int64, decimal]);
    assert_eq!(rows("DELETE FROM accounts WHERE id = $1").unwrap().1, [DataType::Int64]);
}

#[test]
fn on_conflict_and_returning() {
    let sql = "INSERT INTO accounts VALUES (1, 'a', 2) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance
               WHERE excluded.owner = 'a' RETURNING *, balance * 2, owner AS who";
    let Statement::Insert(insert) = one(sql) else { panic!() };
    let plan = planner().plan_insert(&insert, &accounts(), &TestCatalog, &[]).unwrap();
    let Some(OnConflict::Update { assignments, filter: Some(filter) }) = plan.conflict else { panic!() };
    let assigned: Vec<bool> = assignments.iter().map(Option::is_some).collect();
    assert_eq!(assigned, [false, false, true]);
    assert_eq!(assignments[2].as_ref().unwrap().to_string(), "CAST(+(balance@2, balance@5) AS Decimal128(18, 2))");
    assert_eq!(filter.to_string(), "owner@4 = a");
    let returning = plan.returning.unwrap();
    let names: Vec<&str> = returning.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "owner", "balance", "?column?", "who"]);
}

#[test]
fn wrong_changes() {
    for (sql, expected) in [
        ("INSERT INTO accounts (idd) VALUES (1)", "42703: column \"idd\" of relation \"accounts\" does not exist"),
        ("INSERT INTO accounts (id, id) VALUES (1, 2)", "42701: column \"id\" specified more than once"),
        ("INSERT INTO accounts VALUES (1, 'a', 2, 3)", "42601: INSERT has more expressions than target columns"),
        ("INSERT INTO accounts (id, owner) VALUES (1)", "42601: INSERT has more target columns than expressions"),
        ("INSERT INTO accounts VALUES (1), (2, 'b')", "42601: VALUES lists must all be the same length"),
        (
            "INSERT INTO accounts SELECT t FROM things",
            "42804: column \"id\" is of type bigint but expression is of type text",
        ),
        ("UPDATE accounts SET id = owner", "42804: column \"id\" is of type bigint but expression is of type text"),
        (
            "DELETE FROM accounts RETURNING $1::int",
            "0A000: parameters are not supported in RETURNING and ON CONFLICT yet",
        ),
        ("UPDATE accounts SET id = 1, id = 2", "42601: multiple assignments to same column \"id\""),
        ("UPDATE accounts SET nope = 1", "42703: column \"nope\" of relation \"accounts\" does not exist"),
        ("UPDATE accounts SET id = 1 FROM things", "0A000: UPDATE ... FROM is not supported yet"),
        ("DELETE FROM accounts USING things", "0A000: DELETE ... USING is not supported yet"),
        ("DELETE FROM accounts WHERE nope = 1", "42703: column \"nope\" does not exist"),
        (
            "INSERT INTO accounts VALUES (1) ON CONFLICT (owner) DO NOTHING",
            "42P16: there is no unique or exclusion constraint matching the ON CONFLICT specification",
        ),
    ] {
        assert_eq!(failed(sql), expected, "{sql}");
    }
}

#[test]
fn rules_of_tables_and_sources() {
    let rules = planner().table_rules(&accounts()).unwrap();
    assert_eq!((rules.checks.len(), rules.checks[0].name.as_str()), (1, "accounts_balance_check"));
    let source = "CREATE SOURCE s (price BIGINT, ts TIMESTAMP, usd DOUBLE PRECISION AS price * 0.9, CHECK (price > 0),
                  WATERMARK FOR ts AS ts - INTERVAL '4 seconds') WITH (connector = 'x')";
    let Statement::CreateSource(create) = one(source) else { panic!() };
    let rules = planner().source_rules(&create.declaration, &create.declaration.schema()).unwrap();
    assert_eq!((rules.computed.len(), rules.computed[0].0, rules.checks.len()), (1, 2, 1));
    assert_eq!(rules.watermark.unwrap().column, 1);
    for (columns, expected) in [
        ("a INT, CHECK (a + 1)", "42804: argument of CHECK must be type boolean, not type integer"),
        ("a INT, CHECK (b > 1)", "42703: column \"b\" does not exist"),
        ("a INT, CHECK (max(a) > 1)", "42803: aggregate functions are not allowed in CHECK"),
        ("a INT DEFAULT true", "42804: column \"a\" is of type integer but expression is of type boolean"),
    ] {
        let Statement::CreateTable(create) = one(&format!("CREATE TABLE t ({columns})")) else { panic!() };
        let error = planner().table_rules(&create.definition).expect_err(columns);
        assert_eq!(format!("{}: {}", error.state.code(), error.message), expected, "{columns}");
    }
}
