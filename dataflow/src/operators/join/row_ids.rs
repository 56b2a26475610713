//! What checkpoints know of the rows of an arrangement: under which ids they were told, and what has changed since.
//!
//! A row in memory gets its id when it is told, or when it leaves for the disk. Rows come in order, so those that are new
//! are the ones behind the last that was told; there is nothing to note for them.

use super::arrangement::NO_ROW;

/// The id of a row that has none.
pub const NO_ID: u32 = u32::MAX;

#[derive(Default)]
pub struct RowIds {
    tracking: bool,
    reset: bool,
    /// By row number.
    ids: Vec<u32>,
    /// Rows before this one were told.
    told_until: u32,
    /// Of these, rows that are other now; some may have gone since, or be there twice.
    touched: Vec<u32>,
    /// Ids that were told and are gone.
    gone: Vec<u32>,
    free: Vec<u32>,
    /// All ids ever handed out are below this.
    end: u32,
    /// While saved rows come back: the ids that they have.
    used: Vec<bool>,
}

/// What to tell of the rows in memory.
pub struct ToTell {
    pub reset: bool,
    pub gone: Vec<u32>,
    pub rows: Vec<u32>,
    pub ids: Vec<u32>,
}

impl RowIds {
    pub fn track(&mut self) {
        self.tracking = true;
    }

    pub fn memory_bytes(&self) -> usize {
        4 * (self.touched.capacity() + self.gone.capacity() + self.free.capacity()) + self.used.capacity()
    }

    /// Bytes held for rows in memory.
    pub fn row_bytes(&self) -> usize {
        4 * self.ids.capacity()
    }

    /// A row comes, after all others.
    #[inline]
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
    }

    /// A row in memory is other than before.
    pub fn touch(&mut self, row: u32) {
        if row < self.told_until {
            self.touched.push(row);
        }
    }

    /// A row in memory is gone.
    pub fn remove(&mut self, row: u32) {
        let id = std::mem::replace(&mut self.ids[row as usize], NO_ID);
        self.let_go(id);
    }

    /// The row `id` is gone, wherever it was.
    pub fn let_go(&mut self, id: u32) {
        if self.tracking && id != NO_ID {
            // To say of an id that was never told that it is gone does no harm.
            self.gone.push(id);
            self.free.push(id);
        }
    }

    fn assign(&mut self, row: u32) -> u32 {
        let id = &mut self.ids[row as usize];
        if *id == NO_ID {
            *id = self.free.pop().unwrap_or_else(|| {
                self.end += 1;
                self.end - 1
            });
        }
        *id
    }

    /// What has changed in memory since the last time. `is_live` says which rows there are.
    pub fn take(&mut self, is_live: impl Fn(u32) -> bool) -> ToTell {
        let mut rows = std::mem::take(&mut self.touched);
        rows.sort_unstable();
        rows.dedup();
        let end = u32::try_from(self.ids.len()).expect("rows are numbered as u32");
        rows.extend(self.told_until..end);
        rows.retain(|row| is_live(*row));
        self.told_until = end;
        let ids = rows.iter().map(|row| self.assign(*row)).collect();
        ToTell { reset: std::mem::take(&mut self.reset), gone: std::mem::take(&mut self.gone), rows, ids }
    }

    /// The rows leave memory, all of them: gives the id of each of `rows`, and whether it has to be told.
    pub fn leave(&mut self, rows: &[u32]) -> (Vec<u32>, Vec<bool>) {
        if !self.tracking {
            return (vec![NO_ID; rows.len()], vec![false; rows.len()]);
        }
        let mut untold: Vec<bool> = rows.iter().map(|row| *row >= self.told_until).collect();
        self.touched.sort_unstable();
        for (row, untold) in rows.iter().zip(&mut untold) {
            *untold |= self.touched.binary_search(row).is_ok();
        }
        (rows.iter().map(|row| self.assign(*row)).collect(), untold)
    }

    /// No row is in memory any more.
    pub fn left(&mut self) {
        self.ids = Vec::new();
        self.touched = Vec::new();
        self.told_until = 0;
    }

    /// The rows in memory have other numbers: `live` are those that there are, in order.
    pub fn renumber(&mut self, live: &[u32]) {
        self.ids = live.iter().map(|row| self.ids[*row as usize]).collect();
        let number = |row: u32| live.binary_search(&row).ok().and_then(|row| u32::try_from(row).ok());
        self.touched = self.touched.iter().map(|row| number(*row).unwrap_or(NO_ROW)).collect();
        self.touched.retain(|row| *row != NO_ROW);
        let told = live.partition_point(|row| *row < self.told_until);
        self.told_until = u32::try_from(told).expect("rows are numbered as u32");
    }

    /// Nothing that was told before holds any more.
    pub fn reset(&mut self) {
        self.reset = self.tracking;
    }

    /// The rows `ids` are in memory again, and known as they are.
    pub fn came_back(&mut self, ids: &[u32]) {
        self.told_until = u32::try_from(self.ids.len()).expect("rows are numbered as u32");
        for id in ids {
            let id = *id as usize;
            self.used.resize(self.used.len().max(id + 1), false);
            self.used[id] = true;
        }
    }

    /// All rows did: other ids below the last one are free.
    pub fn all_came_back(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.end = u32::try_from(used.len()).expect("ids are u32");
        self.free = (0..).zip(used).filter(|(_, used)| !used).map(|(id, _)| id).collect();
    }
}
