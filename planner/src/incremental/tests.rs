//! Plans of views as EXPLAIN prints them, and refusals.

use crate::explain;
use crate::plan::Op;
use crate::testing::view;

/// Checks a plan against its text, whose common indentation is taken off.
fn check(sql: &str, expected: &str) {
    let plan = view(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = explain(&plan.node).join("\n");
    let lines: Vec<&str> = expected.trim_matches('\n').trim_end().lines().collect();
    let indent = lines.first().map_or(0, |line| line.len() - line.trim_start().len());
    let expected: Vec<&str> = lines.iter().map(|line| line.get(indent..).unwrap_or("")).collect();
    assert_eq!(text, expected.join("\n"), "\n{sql}\n{text}\n");
}

fn refused(sql: &str) -> String {
    match view(sql) {
        Ok(plan) => panic!("{sql} was planned:\n{}", explain(&plan.node).join("\n")),
        Err(error) => format!("{}: {}", error.state.code(), error.message),
    }
}

fn schema(sql: &str) -> String {
    let schema = view(sql).unwrap().schema;
    let fields = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
    fields.collect::<Vec<_>>().join(", ")
}

#[test]
fn per_page() {
    check(
        "SELECT page, window_start, count(*) AS views, avg(ms) AS avg_ms, count(DISTINCT user_id) AS users
         FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY page, window_start",
        "
        Aggregate  [key: page, window_start; watermark: window_start]
          group by: page, window_start
          compute: count(*) AS views, avg(ms) AS avg_ms, count(DISTINCT user_id) AS users
          -> Map  [append-only; watermark: window_start]
               columns: page, date_bin('1 mins', ts) AS window_start, CAST(ms AS double precision) AS ms, user_id
               -> Input clicks (user_id, page, ms, ts)  [append-only; watermark: ts]",
    );
}

#[test]
fn nexmark_q0() {
    check(
        "SELECT auction, bidder, price, date_time FROM bid",
        "
        Input bid (auction, bidder, price, date_time)  [append-only; watermark: date_time]",
    );
}

#[test]
fn nexmark_q1() {
    check(
        "SELECT auction, bidder, 0.908 * price AS price, date_time FROM bid",
        "
        Map  [append-only; watermark: date_time]
          columns: auction, bidder, 0.908 * CAST(price AS numeric) AS price, date_time
          -> Input bid (auction, bidder, price, date_time)  [append-only; watermark: date_time]",
    );
}

#[test]
fn nexmark_q2() {
    check(
        "SELECT auction, price FROM bid WHERE auction % 123 = 0",
        "
        Filter and map  [append-only]
          where: auction % 123 = 0
          columns: auction, price
          -> Input bid (auction, price)  [append-only]",
    );
}

#[test]
fn nexmark_q3() {
    check(
        "SELECT P.name, P.city, P.state, A.id
         FROM auction A INNER JOIN person P ON A.seller = P.id WHERE A.category = 10 AND (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')",
        "
        Map  [append-only]
          columns: name, city, state, a.id AS id
          -> Join  [append-only]
               on: seller = id
               -> Filter and map  [append-only]
                    where: category = 10
                    columns: id, seller
                    -> Input auction (id, seller, category)  [append-only]
               -> Filter and map  [append-only]
                    where: state = 'OR' OR state = 'ID' OR state = 'CA'
                    columns: id, name, city, state
                    -> Input person (id, name, city, state)  [append-only]",
    );
}

#[test]
fn nexmark_q12_with_tumble() {
    check(
        "SELECT bidder, count(*) AS bid_count, window_start, window_end
         FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY bidder, window_start, window_end",
        "
        Map  [key: bidder, window_start, window_end; watermark: window_start, window_end]
          columns: bidder, count(*) AS bid_count, window_start, window_end
          -> Aggregate  [key: bidder, window_start, window_end; watermark: window_start, window_end]
               group by: bidder, window_start, window_end
               compute: count(*)
               -> Map  [append-only; watermark: window_start, window_end]
                    columns: bidder, date_bin('10.000000000 secs', date_time) AS window_start, date_bin('10.000000000 secs', date_time) + '10.000000000 secs' AS window_end
                    -> Input bid (bidder, date_time)  [append-only; watermark: date_time]",
    );
}

#[test]
fn nexmark_agg() {
    check(
        "SELECT auction, count(*), sum(price), max(price) FROM bid GROUP BY auction",
        "
        Aggregate  [key: auction]
          group by: auction
          compute: count(*) AS count, sum(price) AS sum, max(price) AS max
          -> Input bid (auction, price)  [append-only]",
    );
}

#[test]
fn comma_join() {
    check(
        "SELECT b.price, a.id FROM bid b, auction a WHERE b.auction = a.id AND b.price > a.category",
        "
        Map  [append-only]
          columns: price, id
          -> Join  [append-only]
               on: auction = id
               where: price > category
               -> Input bid (auction, price)  [append-only]
               -> Input auction (id, category)  [append-only]",
    );
}

#[test]
fn computed_join_keys() {
    check(
        "SELECT b.auction, a.id AS aid
         FROM bid b JOIN auction a ON b.auction + 1 = a.id * 2 AND b.price < a.category",
        "
        Map  [append-only]
          columns: auction, id AS aid
          -> Join  [append-only]
               on: key2 = key2
               where: price < category
               -> Map  [append-only]
                    columns: auction, price, auction + 1 AS key2
                    -> Input bid (auction, price)  [append-only]
               -> Map  [append-only]
                    columns: id, category, id * 2 AS key2
                    -> Input auction (id, category)  [append-only]",
    );
}

#[test]
fn cross_join() {
    check(
        "SELECT a.id, o.owner FROM accounts a CROSS JOIN per_owner o",
        "
        Cross join  [key: id, owner]
          -> Input accounts (id)  [key: id]
          -> Input per_owner (owner)  [key: owner]",
    );
}

#[test]
fn keyed_join() {
    check(
        "SELECT a.id, a.balance, o.total FROM accounts a JOIN per_owner o ON a.owner = o.owner",
        "
        Map  [key: id]
          columns: id, balance, total
          -> Join  [key: id]
               on: owner = owner
               -> Input accounts (id, owner, balance)  [key: id]
               -> Input per_owner (owner, total)  [key: owner]",
    );
}

#[test]
fn union_all() {
    check(
        "SELECT a FROM things UNION ALL SELECT b FROM things UNION ALL SELECT 7",
        "
        Union all
          -> Map
               columns: CAST(a AS bigint) AS a
               -> Input things (a)
          -> Input things (a)
          -> Constant (a), rows: 1  [at most one row; append-only]",
    );
}

#[test]
fn union_distinct() {
    check(
        "SELECT a FROM things UNION SELECT b FROM things",
        "
        Distinct  [key: a]
          -> Union all
               -> Map
                    columns: CAST(a AS bigint) AS a
                    -> Input things (a)
               -> Input things (a)",
    );
}

#[test]
fn distinct_without_order() {
    check(
        "SELECT DISTINCT a, t FROM things ORDER BY t",
        "
        Distinct  [key: a, t]
          -> Input things (a, t)",
    );
}

#[test]
fn distinct_is_nothing_over_a_key() {
    check(
        "SELECT DISTINCT id, owner FROM accounts",
        "
        Input accounts (id, owner)  [key: id]",
    );
}

#[test]
fn plain_views_are_seen_through() {
    check(
        "SELECT owner, count(*) AS n FROM rich GROUP BY owner HAVING count(*) > 1",
        "
        Filter and map  [key: owner]
          where: count(*) > 1
          columns: owner, count(*) AS n
          -> Aggregate  [key: owner]
               group by: owner
               compute: count(*)
               -> Filter and map
                    where: balance > 1000.00
                    columns: owner
                    -> Input accounts (owner, balance)",
    );
}

#[test]
fn filters() {
    check(
        "SELECT count(*) FILTER (WHERE a > 1) AS n, sum(f) AS s, stddev(a) AS sd, bool_and(ok) AS every
         FROM things",
        "
        Aggregate  [at most one row]
          compute: count(*) FILTER (WHERE a > 1) AS n, sum(f) AS s, stddev_samp(a) AS sd, bool_and(ok) AS every
          -> Map
               columns: a > 1, f, CAST(a AS double precision) AS a, ok
               -> Input things (a, f, ok)",
    );
}

#[test]
fn a_filter_makes_an_outer_join_inner() {
    check(
        "SELECT a.id, o.total
         FROM accounts a LEFT JOIN per_owner o ON a.owner = o.owner WHERE o.total > 5",
        "
        Map  [key: id]
          columns: id, total
          -> Join  [key: id]
               on: owner = owner
               -> Input accounts (id, owner)  [key: id]
               -> Filter and map  [key: owner]
                    where: total > 5.00
                    columns: owner, total
                    -> Input per_owner (owner, total)  [key: owner]",
    );
}

#[test]
fn an_outer_join_knows_its_key_where_a_row_meets_one_at_most() {
    check(
        "SELECT a.id, o.total FROM accounts a LEFT JOIN per_owner o ON a.owner = o.owner",
        "
        Map  [key: id]
          columns: id, total
          -> Left join  [key: id]
               on: owner = owner
               -> Input accounts (id, owner)  [key: id]
               -> Input per_owner (owner, total)  [key: owner]",
    );
}

#[test]
fn subqueries_become_joins() {
    check(
        "SELECT id FROM accounts WHERE EXISTS (SELECT 1 FROM things WHERE a = id)",
        "
        Semi join  [key: id]
          on: id = key1
          -> Input accounts (id)  [key: id]
          -> Map
               columns: a, CAST(a AS bigint) AS key1
               -> Input things (a)",
    );
}

#[test]
fn numbers_up_to_a_limit_are_given_to_the_first_rows_alone() {
    check(
        "SELECT id, n FROM (SELECT id, row_number() OVER (PARTITION BY owner ORDER BY id DESC) AS n FROM accounts) WHERE n < 3",
        "
        Filter and map  [key: id]
          where: row_number() < 3
          columns: id, row_number() AS n
          -> Window  [key: id]
               partition by: owner
               order by: id DESC
               compute: row_number()
               -> Top rows  [key: id]
                    partition by: owner
                    order by: id DESC
                    limit: 2
                    -> Input accounts (id, owner)  [key: id]",
    );
}

#[test]
fn constants_are_evaluated() {
    check(
        "SELECT 1 AS one, 'x' AS x",
        "
        Constant (one, x), rows: 1  [at most one row; append-only]",
    );
}

#[test]
fn constant_rows() {
    check(
        "SELECT column1 AS a, column2 AS b FROM (VALUES (1, 'a'), (2, NULL)) AS v",
        "
        Constant (a, b), rows: 2  [append-only]",
    );
}

#[test]
fn group_by_expression() {
    check(
        "SELECT a % 10 AS bucket, sum(a + 1) AS total FROM things GROUP BY a % 10",
        "
        Aggregate  [key: bucket]
          group by: a % 10
          compute: sum(CAST(a + 1 AS bigint)) AS total
          -> Map
               columns: a % 10, CAST(a + 1 AS bigint)
               -> Input things (a)",
    );
}

#[test]
fn maps_fuse() {
    check(
        "SELECT x * 2 AS y FROM (SELECT a + 1 AS x, t FROM things WHERE ok) AS s WHERE t = 'z'",
        "
        Filter and map
          where: ok AND t = 'z'
          columns: (a + 1) * 2 AS y
          -> Input things (a, t, ok)",
    );
}

#[test]
fn maps_stay_apart_where_fusing_would_compute_twice() {
    check(
        "SELECT x + x AS y FROM (SELECT sqrt(f) AS x FROM things) AS s",
        "
        Map
          columns: x + x AS y
          -> Map
               columns: sqrt(f) AS x
               -> Input things (f)",
    );
}

#[test]
fn count_column() {
    check(
        "SELECT count(a) AS a, count(1) AS one, count(DISTINCT t) AS t, max(DISTINCT b) AS b
         FROM things",
        "
        Aggregate  [at most one row]
          compute: count(a) AS a, count(*) AS one, count(DISTINCT t) AS t, max(b) AS b
          -> Input things (a, t, b)",
    );
}

#[test]
fn nested_aggregates() {
    check(
        "SELECT max(n) AS most FROM (SELECT count(*) AS n FROM bid GROUP BY auction) AS counts",
        "
        Aggregate  [at most one row]
          compute: max(n) AS most
          -> Map
               columns: count(*) AS n
               -> Aggregate  [key: auction]
                    group by: auction
                    compute: count(*)
                    -> Input bid (auction)  [append-only]",
    );
}

#[test]
fn tumble_takes_aliases_subqueries_offsets_and_descriptors() {
    let expected = "
        Map  [append-only; watermark: s]
          columns: page, date_bin('1 mins', ts) AS s
          -> Input clicks (page, ts)  [append-only; watermark: ts]";
    check("SELECT c.page, c.window_start AS s FROM TUMBLE(clicks, ts, INTERVAL '1 minute') AS c", expected);
    check(
        "SELECT clicks.page, window_start AS s FROM tumble(public.clicks, DESCRIPTOR(ts), INTERVAL '1 minute')",
        expected,
    );
    let filtered =
        "SELECT page, window_start AS s FROM TUMBLE((SELECT page, ts FROM clicks), ts, INTERVAL '1 minute') x";
    check(filtered, expected);
    check(
        "SELECT window_start AS s FROM TUMBLE(clicks, ts, INTERVAL '1 hour', INTERVAL '5 minutes')",
        "
        Map  [append-only; watermark: s]
          columns: date_bin('1 hours', ts - '5 mins') + '5 mins' AS s
          -> Input clicks (ts)  [append-only; watermark: ts]",
    );
}

#[test]
fn views_read_each_relation_once() {
    let plan = view("SELECT x.owner FROM accounts x JOIN rich y ON x.id = y.id JOIN per_owner z ON z.owner = x.owner")
        .unwrap();
    assert_eq!(plan.relations, [freshet_types::RelationId(5), freshet_types::RelationId(8)]);
    assert_eq!(schema("SELECT id AS \"Id\", balance FROM accounts"), "Id Int64, balance Decimal128(18, 2)");
}

#[test]
fn overflow_fails_instead_of_wrapping() {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};

    let plan = view("SELECT b + 1 AS x, b * 2 AS y, b - 1 AS z FROM things").unwrap();
    let Op::Map { input, expressions, .. } = &plan.node.op else { panic!() };
    let extremes = Int64Array::from(vec![i64::MAX, i64::MIN]);
    let rows = RecordBatch::try_new(input.schema.clone(), vec![Arc::new(extremes)]).unwrap();
    for expr in expressions {
        let error = expr.evaluate(&rows).expect_err("the numbers are at the end of their range");
        assert_eq!(crate::sql_error(error).message, "bigint out of range");
    }
}

#[test]
fn what_cannot_be_maintained_is_refused_by_name() {
    for (sql, construct) in [
        ("SELECT a FROM things LIMIT 3", "LIMIT without ORDER BY"),
        ("SELECT a, (SELECT id FROM accounts) FROM things", "a scalar subquery that may give more than one row"),
        ("SELECT a FROM things INTERSECT ALL SELECT a FROM things", "INTERSECT ALL"),
        ("SELECT a FROM things EXCEPT ALL SELECT a FROM things", "EXCEPT ALL"),
        ("SELECT random() FROM things", "random()"),
        ("SELECT a FROM things WHERE now() > '2020-01-01'", "now()"),
        ("SELECT current_timestamp AS n", "now()"),
        ("SELECT a, sum(b) FROM things GROUP BY ROLLUP (a)", "GROUPING SETS, ROLLUP or CUBE"),
        ("SELECT string_agg(t, ',') FROM things", "the aggregate function string_agg"),
        ("SELECT array_agg(t ORDER BY t) FROM things", "the aggregate function array_agg"),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r",
            "WITH RECURSIVE",
        ),
        ("SELECT unnest([1,2])", "unnest"),
    ] {
        let expected = format!("0A000: {construct} is not supported in a materialized view yet");
        assert_eq!(refused(sql), expected, "{sql}");
    }
}

#[test]
fn what_does_not_make_sense_is_refused_as_postgres_does() {
    for (sql, expected) in [
        ("SELECT oid FROM pg_class", "42809: system catalog \"pg_class\" cannot be read by a materialized view"),
        (
            "SELECT * FROM HOP(bid, date_time, INTERVAL '1 second', INTERVAL '2 seconds')",
            "0A000: HOP windows are not supported yet",
        ),
        ("SELECT * FROM TUMBLE(bid)", "42601: TUMBLE takes a relation, a column and the size of the windows"),
        ("SELECT a, a FROM things", "42701: column \"a\" specified more than once"),
        ("SELECT count(*), count(*) FROM things", "42701: column \"count\" specified more than once"),
        ("SELECT a FROM thing", "42P01: relation \"thing\" does not exist"),
        ("SELECT aa FROM things", "42703: column \"aa\" does not exist"),
        ("SELECT x.a FROM things", "42P01: missing FROM-clause entry for table \"x\""),
        ("SELECT id FROM auction, person", "42702: column reference \"id\" is ambiguous"),
        (
            "SELECT a, count(*) FROM things",
            "42803: column \"things.a\" must appear in the GROUP BY clause or be used in an aggregate function",
        ),
        ("SELECT summ(a) FROM things", "42883: function summ(integer) does not exist"),
        ("SELECT t + 1 FROM things", "42883: operator does not exist: text + integer"),
        ("SELECT a FROM things WHERE t", "42804: argument of WHERE must be type boolean, not type text"),
        ("SELECT upper(a, b) FROM things", "42883: function upper(integer, bigint) does not exist"),
        ("SELECT a FROM things WHERE a = $1", "0A000: a view cannot contain the parameter $1"),
        (
            "SELECT a FROM things UNION SELECT a, b FROM things",
            "42601: each UNION query must have the same number of columns",
        ),
        ("SELECT a FROM other.things", "42P01: relation \"other.things\" does not exist"),
        ("SELECT a FROM things WHERE count(*) > 1", "42803: aggregate functions are not allowed here"),
        ("SELECT a::int FROM things WHERE f = 'abc'", "22P02: invalid input syntax for type double precision: \"abc\""),
        ("SELECT 'abc'::int AS x", "22P02: invalid input syntax for type integer: \"abc\""),
        ("SELECT a FROM things WHERE ts > 1", "42703: column \"ts\" does not exist"),
        ("SELECT sum(t) FROM things", "42883: function sum(text) does not exist"),
        ("SELECT a FROM things WHERE ok = 3", "42883: operator does not exist: boolean = integer"),
    ] {
        assert_eq!(refused(sql), expected, "{sql}");
    }
    let hint = |sql: &str| view(sql).unwrap_err().hint;
    assert_eq!(hint("SELECT pagee FROM clicks").as_deref(), Some("did you mean \"page\"?"));
    assert_eq!(hint("SELECT page FROM click").as_deref(), Some("did you mean \"clicks\"?"));
}
