//! A session that writes rows which grow old: they go down the tiers within seconds, and expire. What was acknowledged
//! must be there for as long as it is not too old; whether a row that is, is there still, is up to the server.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use super::{Outcome, unless_cut_off};
use crate::client::Client;

/// The retention, in the words of the statement and as it is reckoned with.
const RETAIN: Duration = Duration::from_secs(15);
pub const CREATE: &str = "
    CREATE TABLE readings (id BIGINT PRIMARY KEY, ts TIMESTAMPTZ NOT NULL, v INT)
    WITH (hot = '0s', warm = '2s', cold = '4s', retain = '15s', time_column = 'ts')";
/// How many of the latest rows are changed or deleted: older ones may have expired, and nothing is said of that.
const CHANGED_AMONG: usize = 200;

pub struct AgingRows {
    random: StdRng,
    next_id: i64,
    /// By id: what must be there unless it has expired.
    rows: BTreeMap<i64, Reading>,
    in_doubt: Option<Change>,
    pub acknowledged: usize,
}

/// A row as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    v: i32,
    /// Before the row got its time: it is not older than this.
    since: Instant,
}

#[derive(Debug, Clone)]
enum Change {
    Add(BTreeMap<i64, Reading>),
    Raise(Vec<i64>),
    Remove(Vec<i64>),
}

impl AgingRows {
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, next_id: 0, rows: BTreeMap::new(), in_doubt: None, acknowledged: 0 }
    }

    /// Adds, changes and deletes rows until the server is gone.
    pub async fn work(&mut self, client: &Client, over: &Cell<bool>) -> Result<()> {
        while !over.get() {
            let change = self.change();
            match unless_cut_off(client, &change.sql()).await? {
                Outcome::Acknowledged => {
                    change.apply(&mut self.rows);
                    self.acknowledged += 1;
                }
                Outcome::Unknown => {
                    self.in_doubt = Some(change);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Compares the table with what must be in it.
    pub async fn compare(&mut self, client: &Client) -> Result<()> {
        let mut found = BTreeMap::new();
        for row in client.rows("SELECT id, v FROM readings").await? {
            let again = found.insert(row[0].parse::<i64>()?, row[1].parse::<i32>()?);
            ensure!(again.is_none(), "the reading {} is there twice", row[0]);
        }
        let now = Instant::now();
        if let Some(change) = self.in_doubt.take() {
            let mut changed = self.rows.clone();
            change.apply(&mut changed);
            if contradiction(&self.rows, &found, now).is_some() {
                let wrong = contradiction(&changed, &found, now);
                ensure!(wrong.is_none(), "with {change:?}, which was not acknowledged: {}", wrong.unwrap_or_default());
                self.rows = changed;
            }
        }
        let wrong = contradiction(&self.rows, &found, now);
        ensure!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        // What has expired once stays away.
        self.rows.retain(|id, _| found.contains_key(id));
        Ok(())
    }

    fn change(&mut self) -> Change {
        let random = &mut self.random;
        let some_of = |random: &mut StdRng, rows: &BTreeMap<i64, Reading>| {
            let count = random.random_range(1..10);
            rows.keys().rev().take(CHANGED_AMONG).copied().choose_multiple(random, count)
        };
        match random.random_range(0..10) {
            0..=5 => {
                let since = Instant::now();
                let count = random.random_range(1..20);
                let ids = self.next_id..self.next_id + count;
                self.next_id += count;
                Change::Add(ids.map(|id| (id, Reading { v: random.random_range(0..9), since })).collect())
            }
            6..=7 => Change::Raise(some_of(random, &self.rows)),
            _ => Change::Remove(some_of(random, &self.rows)),
        }
    }
}

/// What is wrong with the rows found, if those expected are right but for those that may have expired.
fn contradiction(expected: &BTreeMap<i64, Reading>, found: &BTreeMap<i64, i32>, now: Instant) -> Option<String> {
    let lost = expected.iter().find(|(id, row)| !found.contains_key(*id) && now.duration_since(row.since) < RETAIN);
    if let Some((id, row)) = lost {
        let age = now.duration_since(row.since);
        return Some(format!("the reading {id} was acknowledged {age:?} ago, and is lost"));
    }
    let wrong = found.iter().find(|(id, v)| expected.get(*id).is_none_or(|row| row.v != **v));
    wrong.map(|(id, v)| format!("the reading {id} is there with {v}, and should be {:?}", expected.get(id)))
}

impl Change {
    fn sql(&self) -> String {
        let list = |ids: &[i64]| ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Add(rows) => {
                let rows: Vec<String> = rows.iter().map(|(id, row)| format!("({id}, now(), {})", row.v)).collect();
                format!("INSERT INTO readings VALUES {}", rows.join(", "))
            }
            Self::Raise(ids) if ids.is_empty() => "UPDATE readings SET v = v + 1 WHERE false".to_owned(),
            Self::Raise(ids) => format!("UPDATE readings SET v = v + 1 WHERE id IN ({})", list(ids)),
            Self::Remove(ids) if ids.is_empty() => "DELETE FROM readings WHERE false".to_owned(),
            Self::Remove(ids) => format!("DELETE FROM readings WHERE id IN ({})", list(ids)),
        }
    }

    fn apply(&self, rows: &mut BTreeMap<i64, Reading>) {
        match self {
            Self::Add(new) => rows.extend(new),
            Self::Raise(ids) => {
                for id in ids {
                    rows.entry(*id).and_modify(|row| row.v += 1);
                }
            }
            Self::Remove(ids) => {
                for id in ids {
                    rows.remove(id);
                }
            }
        }
    }
}
