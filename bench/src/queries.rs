//! The Nexmark queries that Freshet can keep up to date today, and `agg`.

use anyhow::{Result, bail};

/// A query with the name that Nexmark gives it.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    pub name: &'static str,
    pub sql: &'static str,
}

const QUERIES: &[Query] = &[
    Query { name: "q0", sql: "SELECT auction, bidder, price, date_time FROM bid" },
    Query {
        name: "q1",
        sql: "SELECT auction, bidder, CAST(0.908 AS DOUBLE PRECISION) * price AS price, date_time FROM bid",
    },
    Query { name: "q2", sql: "SELECT auction, price FROM bid WHERE auction % 123 = 0" },
    Query { name: "agg", sql: "SELECT auction, count(*), sum(price), max(price) FROM bid GROUP BY auction" },
    Query {
        name: "q3",
        sql: "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
              WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca')",
    },
    // Nexmark's q12 counts in processing time; in event time it is the same work.
    Query {
        name: "q12",
        sql: "SELECT bidder, window_start, count(*) AS bids FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
              GROUP BY bidder, window_start",
    },
];

/// The query of that name.
pub fn named(name: &str) -> Result<Query> {
    match QUERIES.iter().find(|query| query.name == name) {
        Some(query) => Ok(*query),
        None => {
            let names: Vec<&str> = QUERIES.iter().map(|query| query.name).collect();
            bail!("there is no query \"{name}\"; there are {}", names.join(", "))
        }
    }
}
