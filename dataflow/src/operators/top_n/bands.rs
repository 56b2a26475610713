//! The rows of a partition in order, cut into three bands: those skipped, those given, and the rest.
//!
//! A band has rows only if the one before it is full. A row that comes or goes moves one row a band across each border
//! behind it, whatever the number of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A row, encoded so that the order of the bytes is that of the rows.
pub type RowBytes = Arc<[u8]>;

/// The band that is given.
const GIVEN: usize = 1;
const LAST: usize = 2;

pub struct Bands {
    bands: [Band; 3],
    /// How many rows the first two have room for.
    room: [u64; 2],
}

#[derive(Default)]
struct Band {
    /// How many copies of each row, and its id.
    rows: BTreeMap<RowBytes, (u64, u32)>,
    copies: u64,
}

/// Copies that became part of what is given, or ceased to be.
pub type Given<'a> = dyn FnMut(&RowBytes, i64) + 'a;

impl Band {
    fn add(&mut self, row: RowBytes, copies: u64, id: u32) {
        self.rows.entry(row).or_insert((0, id)).0 += copies;
        self.copies += copies;
    }

    /// Takes away at most `copies` of a row; gives how many there were.
    fn remove(&mut self, row: &RowBytes, copies: u64) -> u64 {
        let Some((there, _)) = self.rows.get_mut(row) else { return 0 };
        let removed = copies.min(*there);
        *there -= removed;
        if *there == 0 {
            self.rows.remove(row);
        }
        self.copies -= removed;
        removed
    }

    /// The first row or the last one.
    fn end(&self, last: bool) -> Option<(RowBytes, u64, u32)> {
        let end = if last { self.rows.last_key_value() } else { self.rows.first_key_value() };
        end.map(|(row, (copies, id))| (row.clone(), *copies, *id))
    }
}

impl Bands {
    pub fn new(offset: u64, limit: Option<u64>) -> Self {
        Self { bands: Default::default(), room: [offset, limit.unwrap_or(u64::MAX)] }
    }

    pub fn is_empty(&self) -> bool {
        self.bands.iter().all(|band| band.copies == 0)
    }

    /// The id of a row that is there.
    pub fn id(&self, row: &RowBytes) -> Option<u32> {
        self.bands.iter().find_map(|band| band.rows.get(row)).map(|(_, id)| *id)
    }

    /// Adds copies of a row, which keeps its id if it is there.
    pub fn insert(&mut self, row: RowBytes, copies: u64, id: u32, given: &mut Given<'_>) {
        let belongs = |at: &usize| {
            let band = &self.bands[*at];
            band.copies < self.room[*at] || band.rows.last_key_value().is_some_and(|(last, _)| row <= *last)
        };
        let at = (0..LAST).find(belongs).unwrap_or(LAST);
        self.enter(at, row, copies, id, given);
        for at in 0..LAST {
            while self.bands[at].copies > self.room[at]
                && let Some((row, copies, id)) = self.bands[at].end(true)
            {
                let surplus = copies.min(self.bands[at].copies - self.room[at]);
                self.leave(at, &row, surplus, given);
                self.enter(at + 1, row, surplus, id, given);
            }
        }
    }

    /// Takes away copies of a row; gives how many there were not.
    pub fn remove(&mut self, row: &RowBytes, copies: u64, given: &mut Given<'_>) -> u64 {
        let mut left = copies;
        for at in (0..=LAST).rev() {
            left -= self.leave(at, row, left, given);
        }
        for at in 0..LAST {
            while self.bands[at].copies < self.room[at]
                && let Some(from) = (at + 1..=LAST).find(|from| self.bands[*from].copies > 0)
                && let Some((row, copies, id)) = self.bands[from].end(false)
            {
                let moved = copies.min(self.room[at] - self.bands[at].copies);
                self.leave(from, &row, moved, given);
                self.enter(at, row, moved, id, given);
            }
        }
        left
    }

    /// Takes away the rest: rows, their copies and ids. For rows that are never deleted, nothing of it is given any more.
    pub fn take_rest(&mut self) -> impl Iterator<Item = (RowBytes, u64, u32)> {
        let rest = std::mem::take(&mut self.bands[LAST]);
        rest.rows.into_iter().map(|(row, (copies, id))| (row, copies, id))
    }

    fn enter(&mut self, at: usize, row: RowBytes, copies: u64, id: u32, given: &mut Given<'_>) {
        if at == GIVEN {
            given(&row, signed(copies));
        }
        self.bands[at].add(row, copies, id);
    }

    fn leave(&mut self, at: usize, row: &RowBytes, copies: u64, given: &mut Given<'_>) -> u64 {
        let removed = self.bands[at].remove(row, copies);
        if at == GIVEN && removed > 0 {
            given(row, -signed(removed));
        }
        removed
    }
}

/// Copies as a weight.
pub fn signed(copies: u64) -> i64 {
    i64::try_from(copies).expect("copies come from weights")
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn row(number: u8) -> RowBytes {
        Arc::from([number].as_slice())
    }

    /// What is given, as numbers.
    fn expected(rows: &[u8], offset: usize, limit: Option<u64>) -> Vec<u8> {
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        sorted.into_iter().skip(offset).take(limit).collect()
    }

    #[test]
    fn what_is_given_is_what_sorting_gives() {
        for (seed, (offset, limit)) in
            (0..).zip([(0, Some(3)), (2, Some(3)), (5, Some(1)), (3, None), (0, Some(0)), (0, None), (1, Some(20))])
        {
            let mut random = StdRng::seed_from_u64(seed);
            let mut bands = Bands::new(offset, limit);
            let mut rows: Vec<u8> = Vec::new();
            let mut given = BTreeMap::<u8, i64>::new();
            for _ in 0..2_000 {
                let mut note = |row: &RowBytes, copies: i64| *given.entry(row[0]).or_default() += copies;
                let copies = random.random_range(1..4_u8);
                if random.random_range(0..10) < 5 || rows.is_empty() {
                    let number = random.random_range(0..20);
                    let id = bands.id(&row(number)).unwrap_or(number.into());
                    bands.insert(row(number), copies.into(), id, &mut note);
                    rows.extend(std::iter::repeat_n(number, copies.into()));
                } else {
                    let number = rows[random.random_range(0..rows.len())];
                    let there = rows.iter().filter(|other| **other == number).count();
                    let missing = bands.remove(&row(number), copies.into(), &mut note);
                    let removed = there.min(copies.into());
                    assert_eq!(missing, u64::from(copies) - removed as u64);
                    for _ in 0..removed {
                        let at = rows.iter().position(|other| *other == number).unwrap();
                        rows.swap_remove(at);
                    }
                }
                let told = given.iter().flat_map(|(row, copies)| {
                    std::iter::repeat_n(*row, usize::try_from(*copies).expect("never less than none"))
                });
                assert_eq!(told.collect::<Vec<u8>>(), expected(&rows, usize::try_from(offset).unwrap(), limit));
                assert_eq!(bands.is_empty(), rows.is_empty());
            }
        }
    }

    #[test]
    fn the_rest_need_not_be_kept() {
        let mut bands = Bands::new(0, Some(2));
        let mut given = Vec::new();
        for number in [5, 3, 9, 1] {
            bands.insert(row(number), 1, number.into(), &mut |row, copies| given.push((row[0], copies)));
        }
        assert_eq!(given, [(5, 1), (3, 1), (1, 1), (5, -1)]);
        let rest: Vec<u32> = bands.take_rest().map(|(_, _, id)| id).collect();
        assert_eq!(rest, [5, 9]);
        assert_eq!(bands.id(&row(9)), None);
    }
}
