//! Each statement once as it should be, and the ways in which it goes wrong.

use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use freshet_types::{SqlError, SqlState};

use super::parse;
use crate::declaration::{Include, IncludeField};
use crate::statement::*;
use crate::testing::one;

fn error(sql: &str) -> SqlError {
    parse(sql).expect_err(sql)
}

/// SQLSTATE, message and position.
fn shown(sql: &str) -> String {
    let error = error(sql);
    let position = error.position.map_or(String::new(), |position| format!(" at {position}"));
    format!("{}: {}{position}", error.state.code(), error.message)
}

fn name(name: &str) -> ObjectName {
    ObjectName::unqualified(name)
}

#[test]
fn empty_statements_give_nothing() {
    assert_eq!(parse("").unwrap(), vec![]);
    assert_eq!(parse(" ; -- nothing\n;; /* at all */ ").unwrap(), vec![]);
}

#[test]
fn statements_keep_their_own_text() {
    let statements = parse("SELECT 1 ;\n select 'ä', 2 -- end\n; TABLE t").unwrap();
    let texts: Vec<&str> = statements
        .iter()
        .map(|statement| match statement {
            Statement::Query(query) => query.sql(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["SELECT 1", "select 'ä', 2", "TABLE t"]);
}

#[test]
fn syntax_errors_name_the_token_and_its_position() {
    assert_eq!(shown("FOO bar"), "42601: syntax error at or near \"FOO\" at 1");
    assert_eq!(shown("SELECT 1 FROM"), "42601: syntax error at end of input at 14");
    assert_eq!(shown("SELECT 1;\nSELECT 'é' FROM t WHERE )"), "42601: syntax error at or near \")\" at 35");
    assert_eq!(shown("SELECT 1 FROM WHERE"), "42601: syntax error at or near \"WHERE\" at 15");
    assert_eq!(shown("SELECT 1 FROM t JOIN ON true"), "42601: syntax error at or near \"ON\" at 22");
    assert_eq!(shown("SELECT (SELECT 1 FROM Order)"), "42601: syntax error at or near \"Order\" at 23");
    assert_eq!(shown("DELETE FROM WHERE x"), "42601: syntax error at or near \"WHERE\" at 13");
    assert_eq!(shown("CREATE TABLE select (a INT)"), "42601: syntax error at or near \"select\" at 14");
    assert!(parse("SELECT 1 FROM \"where\", public.order, values").is_ok());
    assert_eq!(shown("SELECT 1 2"), "42601: syntax error at or near \"2\" at 10");
    assert_eq!(shown("DROP TABLE 'x'"), "42601: syntax error at or near \"'x'\" at 12");
    assert_eq!(shown("CREATE TABLE t (a INT,)"), "42601: syntax error at or near \")\" at 23");
    assert_eq!(shown("SELECT 'abc"), "42601: unterminated quoted string at or near \"'abc\" at 8");
    assert_eq!(shown("SELECT \"abc"), "42601: unterminated quoted identifier at or near \"\"abc\" at 8");
    assert_eq!(shown("INSERT t VALUES (1)"), "42601: syntax error at or near \"t\" at 8");
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let depth = 100_000;
    for sql in [
        format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth)),
        format!("SELECT {}1", "- ".repeat(depth)),
        format!("SELECT {}true", "NOT ".repeat(depth)),
        format!("SELECT 1{}", " + 1".repeat(depth)),
        format!("SELECT 1 WHERE a = 1{}", " OR a = 1".repeat(depth)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(depth)),
        format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(depth), " END".repeat(depth)),
        format!("SELECT 1{}", "::INT".repeat(depth)),
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(depth), ")".repeat(depth)),
    ] {
        assert_eq!(error(&sql).state, SqlState::StatementTooComplex, "{}", &sql[..40]);
    }
    let wide = format!("INSERT INTO t VALUES (1, 2){}", ", (1, 2)".repeat(20_000));
    assert!(parse(&wide).is_ok());
    let in_list = format!("SELECT 1 WHERE a IN (1{})", ", 1".repeat(50_000));
    assert!(parse(&in_list).is_ok());
}

#[test]
fn create_source_reads_everything() {
    let sql = "CREATE SOURCE Bids (
      auction BIGINT NOT NULL, \"Bidder\" BIGINT, price BIGINT, date_time TIMESTAMP,
      usd DOUBLE PRECISION AS price * 0.908,
      CHECK (price >= 0),
      CONSTRAINT sane CHECK (price < 1000000 AND auction > 0),
      WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
    ) INCLUDE key, partition AS p, offset
    WITH (connector = 'kafka', topic = bids, \"Bootstrap_Servers\" = 'localhost:9092', rate = 10, delta = -1.5, on = true)
    FORMAT PLAIN ENCODE JSON (schema_registry = 'http://x')";
    let Statement::CreateSource(create) = one(sql) else { panic!() };
    assert_eq!((create.name, create.if_exists, create.sql.as_str()), (name("bids"), IfExists::Fail, sql));
    let declared = create.declaration;
    let columns: Vec<_> = declared.columns.iter().map(|c| (c.name.as_str(), c.data_type.clone(), c.nullable)).collect();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(
        columns,
        [
            ("auction", DataType::Int64, false),
            ("Bidder", DataType::Int64, true),
            ("price", DataType::Int64, true),
            ("date_time", time, true),
            ("usd", DataType::Float64, true)
        ]
    );
    assert_eq!(declared.columns[4].computed.as_ref().unwrap().to_string(), "price * 0.908");
    let checks: Vec<_> = declared.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["bids_price_check", "sane"]);
    let watermark = declared.watermark.unwrap();
    assert_eq!(
        (watermark.column.as_str(), watermark.expression.to_string().as_str()),
        ("date_time", "date_time - INTERVAL '4 seconds'")
    );
    let include = |field, name: &str| Include { field, name: name.into() };
    assert_eq!(
        declared.include,
        [
            include(IncludeField::Key, "_key"),
            include(IncludeField::Partition, "p"),
            include(IncludeField::Offset, "_offset")
        ]
    );
    let options: Vec<_> = declared.options.iter().collect();
    assert_eq!(
        options,
        [
            ("bootstrap_servers", "localhost:9092"),
            ("connector", "kafka"),
            ("delta", "-1.5"),
            ("on", "true"),
            ("rate", "10"),
            ("topic", "bids")
        ]
    );
    assert_eq!(declared.format.as_deref(), Some("plain"));
    let encode = declared.encode.unwrap();
    assert_eq!((encode.name.as_str(), encode.options.get("schema_registry")), ("json", Some("http://x")));
}

#[test]
fn create_source_in_its_shortest_form() {
    let Statement::CreateSource(create) = one("CREATE SOURCE IF NOT EXISTS s WITH (connector = 'nexmark')") else {
        panic!()
    };
    assert_eq!((create.if_exists, create.declaration.columns.len()), (IfExists::Skip, 0));
    let Statement::CreateSource(create) = one("CREATE OR REPLACE SOURCE a.s WITH (connector = 'nexmark')") else {
        panic!()
    };
    assert_eq!((create.if_exists, create.name), (IfExists::Replace, ObjectName::qualified("a", "s")));
}

#[test]
fn create_source_goes_wrong() {
    for (sql, expected) in [
        ("CREATE SOURCE s (a INT, A INT) WITH (x = 1)", "42701: column \"a\" specified more than once at 25"),
        ("CREATE SOURCE s WITH (x = 1, X = 2)", "42601: option \"x\" specified more than once at 30"),
        ("CREATE SOURCE s INCLUDE kee WITH (x = 1)", "42601: unknown INCLUDE column \"kee\" at 25"),
        ("CREATE SOURCE s (_key INT) INCLUDE key WITH (x = 1)", "42701: column \"_key\" specified more than once"),
        (
            "CREATE SOURCE s (a INT PRIMARY KEY) WITH (x = 1)",
            "0A000: PRIMARY KEY is not supported in CREATE SOURCE yet",
        ),
        (
            "CREATE SOURCE s (a INT, WATERMARK FOR b AS b) WITH (x = 1)",
            "42703: column \"b\" named in WATERMARK FOR does not exist",
        ),
        ("CREATE SOURCE s (a UUID) WITH (x = 1)", "0A000: type uuid is not supported yet at 20"),
        ("CREATE SOURCE s (a BIGNT) WITH (x = 1)", "42704: type \"BIGNT\" does not exist at 20"),
        ("CREATE SOURCE s (a NUMERIC(50)) WITH (x = 1)", "22023: NUMERIC precision 50 must be between 1 and 38 at 20"),
        ("CREATE SOURCE s (a INT) WITH (x)", "42601: syntax error at or near \")\" at 32"),
    ] {
        assert_eq!(shown(sql), expected, "{sql}");
    }
}

#[test]
fn create_table_reads_keys_checks_and_defaults() {
    let sql = "CREATE TABLE accounts (id BIGINT, owner TEXT NOT NULL, balance NUMERIC(18,2) DEFAULT 0 CHECK (balance >= 0), \
               CHECK (balance < 10), CHECK (id > balance), PRIMARY KEY (owner, id), UNIQUE (id, owner))";
    let Statement::CreateTable(create) = one(sql) else { panic!() };
    let table = create.definition;
    assert_eq!(table.primary_key, Some(vec![1, 0]));
    let nullable: Vec<bool> = table.columns.iter().map(|column| column.nullable).collect();
    assert_eq!(nullable, [false, false, true]);
    assert_eq!(table.columns[2].default.as_ref().unwrap().to_string(), "0");
    assert_eq!(table.columns[2].data_type, DataType::Decimal128(18, 2));
    let checks: Vec<_> = table.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["accounts_balance_check", "accounts_balance_check1", "accounts_check"]);
    let Statement::CreateTable(again) = one(&create.sql) else { panic!() };
    assert_eq!(again.definition, table);
}

#[test]
fn create_table_maps_all_types() {
    let sql = "CREATE TABLE t (a SMALLINT, b INT, c BIGINT, d REAL, e DOUBLE PRECISION, f NUMERIC, g NUMERIC(5), h VARCHAR(3), \
               i BOOLEAN, j BYTEA, k DATE, l TIME, m TIMESTAMP(3), n TIMESTAMPTZ, o TIMESTAMP WITH TIME ZONE, p INTERVAL, q INT[])";
    let Statement::CreateTable(create) = one(sql) else { panic!() };
    let types: Vec<String> = create.definition.columns.iter().map(|column| column.data_type.to_string()).collect();
    assert_eq!(
        types.join(", "),
        "Int16, Int32, Int64, Float32, Float64, Decimal128(38, 9), Decimal128(5, 0), Utf8, Boolean, Binary, Date32, \
         Time64(µs), Timestamp(µs), Timestamp(µs, \"UTC\"), Timestamp(µs, \"UTC\"), Interval(MonthDayNano), List(Int32)"
    );
}

#[test]
fn create_table_goes_wrong() {
    for (sql, expected) in [
        (
            "CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))",
            "42P16: multiple primary keys for table \"t\" are not allowed at 36",
        ),
        ("CREATE TABLE t (a INT, PRIMARY KEY (b))", "42703: column \"b\" named in key does not exist"),
        ("CREATE TABLE t (a INT UNIQUE)", "0A000: UNIQUE is not supported yet in table \"t\""),
        ("CREATE TABLE t (a INT REFERENCES u)", "0A000: foreign keys are not supported yet at 23"),
        ("CREATE TABLE t AS SELECT 1", "0A000: CREATE TABLE AS is not supported yet"),
        (
            "CREATE TABLE t (a INT) WITH (connector = 'kafka')",
            "0A000: CREATE TABLE with a connector is not supported yet",
        ),
        ("CREATE TABLE t (a INT) WITH (x = 1)", "22023: unknown option \"x\""),
        ("CREATE OR REPLACE TABLE t (a INT)", "0A000: CREATE OR REPLACE TABLE is not supported yet"),
        ("CREATE TEMP TABLE t (a INT)", "0A000: CREATE TEMP TABLE or VIEW is not supported yet"),
        ("CREATE INDEX i ON t (a)", "0A000: CREATE INDEX is not supported yet"),
        ("CREATE NONSENSE t", "42601: syntax error at or near \"NONSENSE\" at 8"),
    ] {
        assert_eq!(shown(sql), expected, "{sql}");
    }
}

#[test]
fn views() {
    let Statement::CreateView(create) = one("CREATE OR REPLACE VIEW public.v (a, \"B\") AS SELECT 1, 2") else {
        panic!()
    };
    assert_eq!((create.if_exists, create.columns), (IfExists::Replace, vec!["a".to_owned(), "B".to_owned()]));
    assert_eq!((create.query.sql(), create.name), ("SELECT 1, 2", ObjectName::qualified("public", "v")));
    let sql =
        "CREATE MATERIALIZED VIEW IF NOT EXISTS freshet.public.v WITH (hot = '1h') AS SELECT a FROM t ORDER BY a;";
    let Statement::CreateMaterializedView(create) = one(sql) else { panic!() };
    assert_eq!((create.if_exists, create.options.get("hot")), (IfExists::Skip, Some("1h")));
    assert_eq!(create.sql, sql.trim_end_matches(';'));
    for (sql, expected) in [
        ("CREATE VIEW v (a, a) AS SELECT 1, 2", "42701: column \"a\" specified more than once at 15"),
        ("CREATE VIEW x.y.v AS SELECT 1", "0A000: cross-database references are not implemented: \"x.y.v\""),
        ("CREATE MATERIALIZED VIEW v AS INSERT INTO t VALUES (1)", "42601: syntax error at or near \"INSERT\" at 31"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT a FROM t GROUP BY a EMIT ON WINDOW CLOSE",
            "0A000: EMIT ON WINDOW CLOSE is not supported yet",
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT a FROM t EMIT ON WINDOW CLOSE",
            "0A000: EMIT ON WINDOW CLOSE is not supported yet",
        ),
    ] {
        assert_eq!(shown(sql), expected, "{sql}");
    }
}

#[test]
fn drop_and_comment() {
    let Statement::Drop(drop) = one("DROP MATERIALIZED VIEW IF EXISTS a, s.b CASCADE") else { panic!() };
    let names = vec![name("a"), ObjectName::qualified("s", "b")];
    assert_eq!(drop, DropObjects { kind: ObjectKind::MaterializedView, names, if_exists: true, cascade: true });
    assert_eq!(shown("DROP SCHEMA s"), "0A000: DROP SCHEMA is not supported yet");
    let Statement::Comment(comment) = one("COMMENT ON COLUMN public.t.c IS 'it''s'") else { panic!() };
    let relation = ObjectName::qualified("public", "t");
    assert_eq!(comment.subject, CommentSubject::Column { relation, column: "c".into() });
    assert_eq!(comment.text.as_deref(), Some("it's"));
    let Statement::Comment(comment) = one("COMMENT ON MATERIALIZED VIEW v IS NULL") else { panic!() };
    assert_eq!(comment.text, None);
}

#[test]
fn reads_changes_of_tables() {
    let Statement::Insert(insert) = one("INSERT INTO public.t AS x (a) VALUES (1) RETURNING *") else { panic!() };
    assert_eq!((insert.table, insert.sql.len()), (ObjectName::qualified("public", "t"), 52));
    let Statement::Update(update) = one("UPDATE t SET a = 1 WHERE b = 2") else { panic!() };
    assert_eq!(update.table, name("t"));
    let Statement::Delete(delete) = one("DELETE FROM t") else { panic!() };
    assert_eq!(delete.table, name("t"));
    assert_eq!(
        shown("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x"),
        "0A000: WITH before INSERT, UPDATE or DELETE is not supported yet"
    );
}

#[test]
fn show_set_and_reset() {
    assert_eq!(one("SHOW materialized VIEWS"), Statement::Show(Show::Objects(ObjectKind::MaterializedView)));
    assert_eq!(one("SHOW search_path"), Statement::Show(Show::Setting("search_path".into())));
    assert_eq!(one("SHOW TIME ZONE"), Statement::Show(Show::Setting("timezone".into())));
    assert_eq!(one("SHOW ALL"), Statement::Show(Show::AllSettings));
    assert_eq!(one("DESCRIBE v"), Statement::Show(Show::Columns(name("v"))));
    let create = Show::Create { kind: ObjectKind::Source, name: name("s") };
    assert_eq!(one("SHOW CREATE SOURCE s"), Statement::Show(create));
    let set = |name: &str, values: &[&str], local| {
        let value = SetValue::Values(values.iter().map(ToString::to_string).collect());
        Statement::Set(Set { name: name.into(), value, local })
    };
    assert_eq!(one("SET DateStyle = ISO, 'MDY'"), set("datestyle", &["iso", "MDY"], false));
    assert_eq!(one("SET LOCAL a.b TO 1"), set("a.b", &["1"], true));
    assert_eq!(one("SET TIME ZONE 'UTC'"), set("timezone", &["UTC"], false));
    assert_eq!(one("SET NAMES 'utf8'"), set("client_encoding", &["utf8"], false));
    assert_eq!(
        one("SET x TO DEFAULT"),
        Statement::Set(Set { name: "x".into(), value: SetValue::Default, local: false })
    );
    assert_eq!(one("RESET ALL"), Statement::Reset(None));
    assert_eq!(one("DISCARD ALL"), Statement::DiscardAll);
}

#[test]
fn transactions() {
    assert_eq!(one("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"), Statement::Begin);
    assert_eq!(one("START TRANSACTION"), Statement::Begin);
    assert_eq!(one("END"), Statement::Commit);
    assert_eq!(one("ABORT WORK"), Statement::Rollback);
    assert_eq!(shown("SAVEPOINT a"), "0A000: SAVEPOINT is not supported yet");
    assert_eq!(shown("ROLLBACK TO a"), "0A000: ROLLBACK TO SAVEPOINT is not supported yet");
}

#[test]
fn reading_changes() {
    let sql = "SUBSCRIBE v WITH (SNAPSHOT = false, PROGRESS) AS OF 17";
    let Statement::Subscribe(subscribe) = one(sql) else { panic!() };
    let target = SubscribeTarget::Relation(name("v"));
    assert_eq!(subscribe.as_of.as_ref().map(ToString::to_string).as_deref(), Some("17"));
    assert_eq!(subscribe, Subscribe { target, snapshot: false, progress: true, upsert: false, ..subscribe.clone() });
    let Statement::Subscribe(subscribe) = one("SUBSCRIBE TO (SELECT 1)") else { panic!() };
    assert!(matches!(subscribe.target, SubscribeTarget::Query(query) if query.sql() == "SELECT 1"));
    let error = error("SUBSCRIBE v WITH (SNAPSHOTS = true)");
    assert_eq!(
        (error.message.as_str(), error.hint.as_deref()),
        ("unknown option \"snapshots\"", Some("did you mean \"snapshot\"?"))
    );
    let Statement::Copy(copy) = one("COPY (SUBSCRIBE v) TO STDOUT") else { panic!() };
    assert!(matches!(copy.subject, CopySubject::SubscribeToStdout(_)));
    let Statement::Copy(copy) = one("COPY s.t (a, \"B\") TO STDOUT WITH (FORMAT csv, HEADER)") else { panic!() };
    assert!(matches!(copy.subject, CopySubject::QueryToStdout(query) if query.sql() == "SELECT a, \"B\" FROM s.t"));
    assert_eq!((copy.options.get("format"), copy.options.get("header")), (Some("csv"), Some("true")));
    let Statement::Copy(copy) = one("COPY t FROM STDIN CSV") else { panic!() };
    assert_eq!(copy.subject, CopySubject::TableFromStdin { table: name("t"), columns: vec![] });
    assert_eq!(shown("COPY t FROM '/etc/passwd'"), "0A000: COPY to or from a file is not supported yet");
}

#[test]
fn cursors() {
    let Statement::Declare(declare) = one("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SUBSCRIBE v") else { panic!() };
    assert_eq!((declare.cursor.as_str(), declare.hold), ("c", true));
    assert!(matches!(declare.subject, CursorSubject::Subscribe(_)));
    let fetch = |rows_max, timeout| Statement::Fetch(Fetch { cursor: "c".into(), rows_max, timeout });
    assert_eq!(one("FETCH 100 FROM c WITH (timeout = '1s')"), fetch(Some(100), Some(Duration::from_secs(1))));
    assert_eq!(one("FETCH FORWARD ALL c WITH (timeout = '500 ms')"), fetch(None, Some(Duration::from_millis(500))));
    assert_eq!(one("FETCH c"), fetch(Some(1), None));
    assert_eq!(one("FETCH NEXT IN c"), fetch(Some(1), None));
    assert_eq!(one("CLOSE ALL"), Statement::Close(Close::All));
    let message = "22023: invalid value for option \"timeout\": \"soon\"";
    assert_eq!(shown("FETCH c WITH (timeout = 'soon')"), message);
}

#[test]
fn prepared_statements_and_explain() {
    let Statement::Prepare(prepare) = one("PREPARE p (INT, TEXT) AS SELECT $1, $2") else { panic!() };
    assert_eq!((prepare.name.as_str(), prepare.parameter_types), ("p", vec![DataType::Int32, DataType::Utf8]));
    let Statement::Execute(execute) = one("EXECUTE p (1 + 1, 'x')") else { panic!() };
    assert_eq!(execute.arguments.len(), 2);
    assert_eq!(one("DEALLOCATE PREPARE ALL"), Statement::Deallocate(None));
    let Statement::Explain(explain) = one("EXPLAIN (ANALYZE, VERBOSE off) SELECT 1") else { panic!() };
    assert_eq!((explain.analyze, explain.verbose), (true, false));
    let Statement::Explain(explain) = one("EXPLAIN (SELECT 1)") else { panic!() };
    assert!(matches!(explain.subject, ExplainSubject::Query(_)));
    let Statement::Explain(explain) = one("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1") else { panic!() };
    assert!(
        matches!(explain.subject, ExplainSubject::CreateMaterializedView(create) if create.sql.starts_with("CREATE"))
    );
}

#[test]
fn a_name_has_at_least_one_letter() {
    for (sql, position) in
        [("CREATE TABLE \"\" (a INT)", 14), ("SELECT 1 AS \"\"", 13), ("SELECT * FROM public.\"\"", 22)]
    {
        let expected = format!("42601: zero-length delimited identifier at or near \"\"\"\" at {position}");
        assert_eq!(shown(sql), expected, "{sql}");
    }
}

#[test]
fn other_statements_are_refused_by_name() {
    for (sql, expected) in [
        ("LISTEN v", "0A000: LISTEN is not supported yet"),
        ("ALTER TABLE t MOVE TIERS now", "42601: syntax error at or near \"now\" at 26"),
        ("ALTER MATERIALIZED VIEW v RESTART now", "42601: syntax error at or near \"now\" at 35"),
        ("ALTER TABLE t ADD COLUMN a INT", "0A000: ALTER TABLE is not supported yet"),
        ("TRUNCATE t", "0A000: TRUNCATE is not supported yet"),
        ("SELECT 1 INTO t", "0A000: SELECT INTO is not supported yet"),
        ("VACUUM", "0A000: VACUUM is not supported yet"),
    ] {
        assert_eq!(shown(sql), expected, "{sql}");
    }
    assert_eq!(one("CHECKPOINT"), Statement::Checkpoint);
    assert_eq!(one("BACKUP TO 's3://b/p'"), Statement::Backup { to: "s3://b/p".to_owned() });
}

#[test]
fn sinks() {
    let sql =
        "CREATE SINK IF NOT EXISTS s FROM public.v WITH (connector = 'kafka', key = 'a, b') FORMAT Upsert ENCODE JSON";
    let Statement::CreateSink(create) = one(sql) else { panic!("not a sink") };
    assert_eq!((create.if_exists, &create.name), (IfExists::Skip, &ObjectName::unqualified("s")));
    assert_eq!(create.relation, ObjectName::qualified("public", "v"));
    assert_eq!(create.options.get("key"), Some("a, b"));
    assert_eq!((create.format.as_deref(), create.encode.unwrap().name.as_str()), (Some("upsert"), "json"));
    assert_eq!(create.sql, sql);
    assert_eq!(one("SHOW SINKS"), Statement::Show(Show::Objects(ObjectKind::Sink)));
    for (sql, expected) in [
        ("CREATE SINK s AS SELECT 1", "0A000: CREATE SINK ... AS query is not supported yet"),
        ("CREATE OR REPLACE SINK s FROM v", "0A000: CREATE OR REPLACE SINK is not supported yet"),
        ("CREATE SINK s WITH (a = 1)", "42601: syntax error at or near \"WITH\" at 15"),
        ("CREATE SINK s FROM v WITH (a = 1) FORMAT PLAIN ENCODE JSON x", "42601: syntax error at or near \"x\" at 60"),
    ] {
        assert_eq!(shown(sql), expected, "{sql}");
    }
}

#[test]
fn relations_as_they_were() {
    let text = "SELECT * FROM Orders FOR SYSTEM_TIME AS OF now() - INTERVAL '5 minutes' AS o, s.\"T\" for system_time as of 17 JOIN u ON true";
    let Statement::Query(query) = one(text) else { panic!() };
    assert_eq!(query.sql(), text, "the text of a query is what was written");
    let short = "CREATE VIEW v AS SELECT 1 FROM t FOR SYSTEM_TIME AS OF 5 -- then";
    let Statement::CreateView(view) = one(short) else { panic!() };
    assert_eq!(view.query.sql(), "SELECT 1 FROM t FOR SYSTEM_TIME AS OF 5");
    assert_eq!(shown("SELECT a FOR SYSTEM_TIME AS OF 5 FROM t"), "42601: syntax error at or near \"FOR\" at 10");
    for wrong in [
        "SELECT * FROM t AS x FOR SYSTEM_TIME AS OF 5",
        "SELECT * FROM t FOR SYSTEM_TIME AS OF",
        "SELECT * FROM t FOR SYSTEM_TIME AS OF )",
        "SELECT * FROM (SELECT 1) FOR SYSTEM_TIME AS OF 5",
        "UPDATE t FOR SYSTEM_TIME AS OF 5 SET a = 1",
        "DELETE FROM t FOR SYSTEM_TIME AS OF 5",
        "INSERT INTO t FOR SYSTEM_TIME AS OF 5 VALUES (1)",
        "DROP TABLE t FOR SYSTEM_TIME AS OF 5",
        "SUBSCRIBE t FOR SYSTEM_TIME AS OF 5",
    ] {
        assert!(shown(wrong).starts_with("42601: "), "{wrong}: {}", shown(wrong));
    }
    assert!(matches!(one("INSERT INTO t SELECT * FROM t FOR SYSTEM_TIME AS OF 5"), Statement::Insert(_)));
}
