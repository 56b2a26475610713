//! The views of the crash test: at least one of every operator, over the topic, over the tables, and over each other.
//!
//! A new operator adds a line. `events` is the topic, `stock` a table with a key, `notes` one without, and `readings` one whose
//! rows expire.

/// Names and queries, in the order of creation.
pub const VIEWS: &[(&str, &str)] = &[
    (SEEN, "SELECT id, k, g, x, at FROM events"),
    ("selected", "SELECT id, x * 2 AS x, upper(g) AS g FROM events WHERE x > 3 OR g IS NULL"),
    ("united", "SELECT k, g FROM events UNION ALL SELECT k, g FROM stock UNION ALL SELECT k, 'note' FROM notes"),
    ("different", "SELECT DISTINCT k, g FROM united"),
    (
        "event_groups",
        "SELECT g, count(*) AS n, count(DISTINCT k) AS dk, sum(x) AS sx, avg(x) AS ax, min(x) AS x0, max(at) AS at1,
         count(*) FILTER (WHERE x > 5) AS n5, bool_or(x = 0) AS any0, stddev_pop(x) AS sd FROM events GROUP BY g",
    ),
    (
        "stock_groups",
        "SELECT g, count(*) AS n, count(x) AS nx, count(DISTINCT x) AS dx, sum(DISTINCT k) AS dk, sum(x) AS sx,
         sum(m) AS sm, avg(x) AS ax, avg(m) AS am, min(x) AS x0, max(x) AS x1, min(m) AS m0, max(id) AS id1,
         bool_and(x > 1) AS all1, count(*) FILTER (WHERE x > 2) AS n2, var_pop(x) AS v FROM stock GROUP BY g",
    ),
    ("event_total", "SELECT count(*) AS n, sum(x) AS x, max(id) AS id1 FROM events"),
    ("stock_total", "SELECT count(*) AS n, sum(x) AS x, min(m) AS m0, max(m) AS m1 FROM stock"),
    ("note_counts", "SELECT k, y, count(*) AS n FROM notes GROUP BY k, y HAVING count(*) > 1"),
    ("enriched", "SELECT e.id, e.x, s.g, s.m FROM events e JOIN stock s ON e.k = s.id"),
    ("matched", "SELECT s.id, n.y FROM stock s JOIN notes n ON s.k = n.k AND s.x < n.y"),
    ("left_joined", "SELECT s.id, s.g, n.y FROM stock s LEFT JOIN notes n ON s.k = n.k"),
    ("fully_joined", "SELECT s.id, n.k, n.y FROM stock s FULL JOIN notes n ON s.k = n.k AND s.x < n.y"),
    ("noted", "SELECT id, g FROM stock WHERE EXISTS (SELECT 1 FROM notes WHERE notes.k = stock.k)"),
    ("not_noted", "SELECT id, g FROM stock WHERE k NOT IN (SELECT k FROM notes)"),
    ("not_in_stock", "SELECT k, g FROM events EXCEPT SELECT k, g FROM stock"),
    ("to_the_least", "SELECT id, x - (SELECT min(x) FROM stock) AS above FROM stock"),
    ("greatest", "SELECT id, x FROM stock ORDER BY x DESC NULLS LAST, id LIMIT 5"),
    (
        "first_of_groups",
        "SELECT id, g, n FROM (SELECT id, g, row_number() OVER (PARTITION BY g ORDER BY id) AS n FROM events) AS numbered WHERE n <= 3",
    ),
    (
        "neighbours",
        "SELECT id, lag(x) OVER (PARTITION BY g ORDER BY id) AS before, sum(x) OVER (PARTITION BY g ORDER BY id) AS so_far FROM stock",
    ),
    ("pairs", "SELECT l.id AS l, r.id AS r FROM stock l JOIN stock r ON l.k = r.k AND l.w = r.w AND l.id < r.id"),
    (
        "chain",
        "SELECT s.g, count(*) AS n, sum(n.y) AS y FROM events e JOIN stock s ON e.k = s.id JOIN notes n ON s.k = n.k AND s.w = n.w GROUP BY s.g",
    ),
    ("above", "SELECT n % 10 AS n, count(*) AS groups FROM chain GROUP BY n % 10"),
    ("of_views", "SELECT e.g, e.n AS events, s.n AS stock FROM event_groups e JOIN stock_groups s ON e.g = s.g"),
    (
        "windows",
        "SELECT window_start, g, count(*) AS n, sum(x) AS x FROM TUMBLE(events, at, INTERVAL '1 minute') GROUP BY window_start, g",
    ),
    super::sink::VIEW,
    ("per_reading", "SELECT v, count(*) AS n, max(id) AS id1 FROM readings GROUP BY v"),
    ("event_ratios", "SELECT id, 100 / (x - 7) AS ratio FROM events"),
    ("stock_ratios", "SELECT id, 100 / x AS ratio FROM stock"),
];

/// Options of some: what lies in files, of what the past is known, and whose state goes to the disk.
const OPTIONS: &[(&str, &str)] = &[
    (SEEN, "hot = '0s', warm = '3s', cold = '36500 days', time_column = 'at'"),
    ("stock_groups", "hot = '0s'"),
    ("enriched", "hot = '1s', warm = '2s', memory = '1MiB', on_limit = 'spill'"),
    ("pairs", "memory = '64KiB', on_limit = 'spill'"),
    ("windows", "hot = '0s', warm = '0s', time_column = 'window_start'"),
    ("event_total", "history = '1 hour'"),
    ("stock_total", "history = '1 hour'"),
];

/// The statement that creates a view.
pub fn create(name: &str, query: &str) -> String {
    let options = OPTIONS.iter().find(|(of, _)| *of == name).map(|(_, options)| format!("WITH ({options})"));
    format!("CREATE MATERIALIZED VIEW {name} {} AS {query}", options.unwrap_or_default())
}

/// The view that has every row of the topic.
pub const SEEN: &str = "seen";

/// A view of which some rows fail.
pub struct Failing {
    pub view: &'static str,
    /// What it holds.
    pub content: &'static str,
    /// How many rows fail, each a different one.
    pub failing: &'static str,
}

pub const FAILING: &[Failing] = &[
    Failing {
        view: "event_ratios",
        content: "SELECT id, 100 / (x - 7) AS ratio FROM seen WHERE x <> 7",
        failing: "SELECT count(*) FROM seen WHERE x = 7",
    },
    Failing {
        view: "stock_ratios",
        content: "SELECT id, 100 / x AS ratio FROM stock WHERE x <> 0",
        failing: "SELECT count(*) FROM stock WHERE x = 0",
    },
];
