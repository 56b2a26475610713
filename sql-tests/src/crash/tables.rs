//! Sessions that change tables, and know what must be there: all that was acknowledged, and the one statement that was
//! not, wholly or not at all.
//!
//! Each writer has rows of its own, those with its number in `w`.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Outcome, unless_cut_off};
use crate::client::{Client, TextRow};

pub const CREATE: &str = "
    CREATE TABLE stock (id INT PRIMARY KEY, w INT NOT NULL, k INT, g TEXT, x BIGINT, m NUMERIC(12,2))
    WITH (hot = '0s', warm = '1s', cold = '36500 days');
    CREATE TABLE notes (w INT NOT NULL, k INT, y INT) WITH (hot = '1s')";

const IDS_EACH: i32 = 60;
const GROUPS: [&str; 4] = ["red", "green", "blue", "grey"];

pub struct Writer {
    number: i32,
    random: StdRng,
    rows: Rows,
    /// A statement that was not acknowledged.
    in_doubt: Option<Change>,
    pub acknowledged: usize,
}

/// The rows of one writer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rows {
    /// By id.
    stock: BTreeMap<i32, Stock>,
    /// How often there is (k, y).
    notes: BTreeMap<(i32, i32), usize>,
}

/// A row of `stock`, without its id and its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stock {
    k: i32,
    g: &'static str,
    x: i64,
    /// In hundredths.
    m: i64,
}

#[derive(Debug, Clone)]
enum Change {
    /// Inserts, or overwrites.
    Put(BTreeMap<i32, Stock>),
    Regroup {
        k: i32,
        g: &'static str,
    },
    Remove {
        k: i32,
    },
    AddNotes(Vec<(i32, i32)>),
    RaiseNotes {
        k: i32,
    },
    RemoveNotes {
        y: i32,
    },
}

impl Writer {
    pub fn new(number: i32, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { number, random, rows: Rows::default(), in_doubt: None, acknowledged: 0 }
    }

    /// Changes rows until the server is gone.
    pub async fn work(&mut self, client: &Client, over: &Cell<bool>) -> Result<()> {
        while !over.get() {
            let change = self.change();
            match unless_cut_off(client, &change.sql(self.number)).await? {
                Outcome::Acknowledged => {
                    self.rows.apply(&change);
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

    /// Compares the tables with what must be in them.
    pub async fn compare(&mut self, client: &Client) -> Result<()> {
        let w = self.number;
        let stock = client.rows(&format!("SELECT id, k, g, x, m FROM stock WHERE w = {w} ORDER BY id")).await?;
        let notes = format!("SELECT k, y, count(*) FROM notes WHERE w = {w} GROUP BY k, y ORDER BY k, y");
        let found = (stock, client.rows(&notes).await?);
        let Some(change) = self.in_doubt.take() else {
            return if found == self.rows.text() { Ok(()) } else { bail!(self.differs(&found, None)) };
        };
        if found != self.rows.text() {
            let before = self.rows.clone();
            self.rows.apply(&change);
            if found != self.rows.text() {
                self.rows = before;
                bail!(self.differs(&found, Some(&change)));
            }
        }
        Ok(())
    }

    fn differs(&self, found: &(Vec<TextRow>, Vec<TextRow>), in_doubt: Option<&Change>) -> String {
        let expected = self.rows.text();
        let only = |left: &[TextRow], right: &[TextRow]| -> Vec<String> {
            left.iter().filter(|row| !right.contains(row)).map(|row| row.join(" | ")).collect()
        };
        format!(
            "the tables do not hold what was acknowledged of writer {}.\nmissing: {:?} {:?}\ntoo much: {:?} {:?}\nnot acknowledged: {in_doubt:?}",
            self.number,
            only(&expected.0, &found.0),
            only(&expected.1, &found.1),
            only(&found.0, &expected.0),
            only(&found.1, &expected.1),
        )
    }

    fn change(&mut self) -> Change {
        let random = &mut self.random;
        let first = self.number * IDS_EACH;
        let k = random.random_range(0..8);
        let group = |random: &mut StdRng| GROUPS.choose(random).copied().unwrap_or("grey");
        match random.random_range(0..10) {
            0..=3 => {
                let mut put = BTreeMap::new();
                for _ in 0..random.random_range(1..12) {
                    let id = random.random_range(first..first + IDS_EACH);
                    let (x, m) = (random.random_range(0..6), random.random_range(-9999..9999));
                    put.insert(id, Stock { k: random.random_range(0..8), g: group(random), x, m });
                }
                Change::Put(put)
            }
            4 => Change::Regroup { k, g: group(random) },
            5 => Change::Remove { k },
            6..=7 => {
                let count = random.random_range(1..6);
                Change::AddNotes((0..count).map(|_| (random.random_range(0..8), random.random_range(0..5))).collect())
            }
            8 => Change::RaiseNotes { k },
            _ => Change::RemoveNotes { y: random.random_range(0..7) },
        }
    }
}

impl Change {
    fn sql(&self, w: i32) -> String {
        match self {
            Self::Put(rows) => {
                let rows = rows
                    .iter()
                    .map(|(id, Stock { k, g, x, m })| format!("({id}, {w}, {k}, '{g}', {x}, {})", decimal(*m)));
                let rows: Vec<String> = rows.collect();
                format!(
                    "INSERT INTO stock VALUES {} ON CONFLICT (id) DO UPDATE SET k = EXCLUDED.k, g = EXCLUDED.g,
                     x = EXCLUDED.x, m = EXCLUDED.m",
                    rows.join(", ")
                )
            }
            Self::Regroup { k, g } => {
                format!("UPDATE stock SET g = '{g}', x = (x + 1) % 6, m = m + 0.01 WHERE w = {w} AND k = {k}")
            }
            Self::Remove { k } => format!("DELETE FROM stock WHERE w = {w} AND k = {k}"),
            Self::AddNotes(rows) => {
                let rows: Vec<String> = rows.iter().map(|(k, y)| format!("({w}, {k}, {y})")).collect();
                format!("INSERT INTO notes VALUES {}", rows.join(", "))
            }
            Self::RaiseNotes { k } => format!("UPDATE notes SET y = y + 1 WHERE w = {w} AND k = {k}"),
            Self::RemoveNotes { y } => format!("DELETE FROM notes WHERE w = {w} AND y >= {y}"),
        }
    }
}

impl Rows {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(rows) => self.stock.extend(rows),
            Change::Regroup { k, g } => {
                for row in self.stock.values_mut().filter(|row| row.k == *k) {
                    *row = Stock { k: row.k, g, x: (row.x + 1) % 6, m: row.m + 1 };
                }
            }
            Change::Remove { k } => self.stock.retain(|_, row| row.k != *k),
            Change::AddNotes(rows) => rows.iter().for_each(|row| *self.notes.entry(*row).or_default() += 1),
            Change::RaiseNotes { k } => {
                let raise = |((note, y), count)| if note == *k { ((note, y + 1), count) } else { ((note, y), count) };
                self.notes = std::mem::take(&mut self.notes).into_iter().map(raise).collect();
            }
            Change::RemoveNotes { y } => self.notes.retain(|note, _| note.1 < *y),
        }
    }

    /// As the server writes them.
    fn text(&self) -> (Vec<TextRow>, Vec<TextRow>) {
        let stock = self.stock.iter().map(|(id, Stock { k, g, x, m })| {
            vec![id.to_string(), k.to_string(), (*g).to_owned(), x.to_string(), decimal(*m)]
        });
        let notes = self.notes.iter().map(|((k, y), count)| vec![k.to_string(), y.to_string(), count.to_string()]);
        (stock.collect(), notes.collect())
    }
}

fn decimal(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", hundredths.abs() / 100, hundredths.abs() % 100)
}
