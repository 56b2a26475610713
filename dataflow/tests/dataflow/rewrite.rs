//! A join side whose rows are updated until its log is written anew, again and again: nothing is lost, found twice, or
//! found under another key.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::engine::{join, pairs};
use crate::rows::{Rows, delta, input};
use crate::running::Running;

/// Rows of the side that changes.
const ROWS: usize = 4_000;
const KEYS: i64 = 500;
/// A log is written anew once it has more holes than this, and than rows.
const HOLES: usize = 65_536;

type Row = (i64, i64);

/// Changes on their way into one epoch, in no order.
#[derive(Default)]
struct Changes(Vec<(i64, Row)>);

impl Changes {
    /// Feeds the changes as several deltas.
    fn feed(mut self, running: &Running, relation: u64, epoch: u64, rng: &mut StdRng) {
        self.0.shuffle(rng);
        for part in self.0.chunks(1_500) {
            let words: Vec<(i64, [String; 2])> =
                part.iter().map(|(weight, (key, value))| (*weight, [key.to_string(), value.to_string()])).collect();
            let rows: Vec<(i64, Vec<&str>)> =
                words.iter().map(|(weight, [key, value])| (*weight, vec![key.as_str(), value.as_str()])).collect();
            running.feed(relation, epoch, delta(&pairs(), &rows));
        }
    }
}

fn joined(left: &[Row], right: &[Row]) -> Rows {
    let mut rows = Rows::new();
    for (key, value) in left {
        for (_, other) in right.iter().filter(|(other, _)| other == key) {
            *rows.entry(format!("{key} {value} {key} {other}")).or_default() += 1;
        }
    }
    rows
}

fn random_row(rng: &mut StdRng) -> Row {
    // Few values, so that equal rows occur.
    (rng.random_range(0..KEYS), rng.random_range(0..20))
}

/// Updates the rows of one side of `r1 JOIN r2 ON r1.c0 = r2.c0` until its log has been written anew twice.
fn update(changing: u64) {
    let mut rng = StdRng::seed_from_u64(7 + changing);
    let mut running = Running::start(1);
    running.install_over_nothing(10, join(input(1, &pairs()), input(2, &pairs()), &[(0, 0)]), 1);
    let standing = 3 - changing;
    let mut rows: Vec<Row> = (0..ROWS).map(|_| random_row(&mut rng)).collect();
    let mut others: Vec<Row> = (0..200).map(|_| random_row(&mut rng)).collect();
    Changes(rows.iter().map(|row| (1, *row)).collect()).feed(&running, changing, 2, &mut rng);
    Changes(others.iter().map(|row| (1, *row)).collect()).feed(&running, standing, 2, &mut rng);
    running.seal(2);
    let (mut deleted, mut epoch) = (0, 2);
    while deleted < 5 * HOLES / 2 {
        epoch += 1;
        let mut changes = Changes::default();
        for row in &mut rows {
            if rng.random_bool(0.9) {
                changes.0.push((-1, *row));
                *row = if rng.random_bool(0.8) { (row.0, (row.1 + 1) % 20) } else { random_row(&mut rng) };
                changes.0.push((1, *row));
                deleted += 1;
            }
        }
        if epoch % 10 == 0 {
            // All rows of some keys go for good, and keys that are new come.
            let (gone, kept): (Vec<Row>, Vec<Row>) = rows.iter().partition(|row| row.0 % 50 == epoch as i64 / 10);
            let come: Vec<Row> = gone.iter().map(|row| (row.0 + KEYS, row.1)).collect();
            changes.0.extend(gone.iter().map(|row| (-1, *row)).chain(come.iter().map(|row| (1, *row))));
            rows = [kept, come].concat();
        }
        changes.feed(&running, changing, epoch, &mut rng);
        let place = rng.random_range(0..others.len());
        let other = std::mem::replace(&mut others[place], random_row(&mut rng));
        Changes(vec![(-1, other), (1, others[place])]).feed(&running, standing, epoch, &mut rng);
        running.seal(epoch);
        let expected = if changing == 1 { joined(&rows, &others) } else { joined(&others, &rows) };
        assert_eq!(running.rows(10, epoch), expected, "after {deleted} deletions");
    }
    running.engine.shutdown();
}

#[test]
fn the_left_side_of_a_join_is_written_anew() {
    update(1);
}

#[test]
fn the_right_side_of_a_join_is_written_anew() {
    update(2);
}
