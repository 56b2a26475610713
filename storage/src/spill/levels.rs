//! Runs in levels: as many rows as the disk holds, in so few runs that a look-up stays quick.
//!
//! New rows are a run of level 0. As soon as a level has [`FAN_IN`] runs, they are merged into one of the next, so there are
//! `O(log rows)` runs, and each row is written `O(log rows)` times. A run that is more than half dead is rewritten.
//!
//! A merge goes by ranges of hashes, a step at a time, so that nobody waits for a large one: rows below its bound are
//! found in its output, others in its inputs. A deletion marks the row where it is found, so a merge never
//! has to be told of it (I-15).

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::row_bits::RowBits;
use super::run::{BLOCK_ROWS, Layout, Run, Wanted};
use super::untold::Untold;
use super::{SpillError, SpillFolder};

/// Runs of a level that are merged into one of the next.
const FAN_IN: usize = 4;
/// Runs of a level at which a merge that is under way is finished at once.
const RUNS_MAX: usize = 2 * FAN_IN;
/// Blocks that one step of a merge reads, roughly: one key's rows are merged at once, however many there are.
const STEP_BLOCKS: usize = 128;
/// Blocks that are read at once for who asks for all rows, range by range.
const RANGE_BLOCKS: usize = 32;

/// Rows on the disk, found by hash. The order among them does not matter.
pub struct SpilledRows {
    folder: Arc<SpillFolder>,
    layout: Arc<Layout>,
    levels: Vec<Vec<Run>>,
    merges: Vec<Merge>,
    live: usize,
}

/// Several runs of one level on their way into one.
struct Merge {
    from_level: usize,
    to_level: usize,
    inputs: Vec<Run>,
    output: Run,
    /// Rows with a smaller hash are in the output, others in the inputs.
    bound: u64,
}

/// Rows to be kept on the disk.
pub struct NewRows {
    pub hashes: Vec<u64>,
    /// The hash of the whole row, if rows are found by it.
    pub contents: Option<Vec<u64>>,
    pub ids: Vec<u32>,
    pub weights: Vec<i64>,
    pub columns: Vec<ArrayRef>,
    /// Whether a checkpoint has yet to be told of each.
    pub untold: Vec<bool>,
}

/// Where a row is, until rows are added or merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    run: usize,
    row: usize,
}

/// Rows that were found in one block.
pub struct Found<'a> {
    layout: &'a Layout,
    batch: &'a RecordBatch,
    untold: &'a RowBits,
    run: usize,
    first_row: usize,
    /// The tag of what was wanted, and the row in the block.
    pub pairs: &'a [(u32, u32)],
}

impl Found<'_> {
    pub fn columns(&self) -> &[ArrayRef] {
        self.layout.columns(self.batch)
    }

    pub fn id(&self, row: u32) -> u32 {
        self.layout.ids(self.batch)[row as usize]
    }

    pub fn weight(&self, row: u32) -> i64 {
        self.layout.weights(self.batch)[row as usize]
    }

    /// Whether a checkpoint has yet to be told of the row.
    pub fn is_untold(&self, row: u32) -> bool {
        self.untold.contains(self.first_row + row as usize)
    }

    pub fn place(&self, row: u32) -> Place {
        Place { run: self.run, row: self.first_row + row as usize }
    }
}

impl SpilledRows {
    pub fn new(folder: Arc<SpillFolder>, layout: Layout) -> Self {
        Self { folder, layout: Arc::new(layout), levels: Vec::new(), merges: Vec::new(), live: 0 }
    }

    /// The rows that are not deleted.
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub fn memory_bytes(&self) -> usize {
        self.runs().map(Run::memory_bytes).sum()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.runs().map(Run::disk_bytes).sum()
    }

    /// All runs, in the order by which a [`Place`] numbers them.
    fn runs(&self) -> impl Iterator<Item = &Run> {
        let merging = self.merges.iter().flat_map(|merge| merge.inputs.iter().chain([&merge.output]));
        self.levels.iter().flatten().chain(merging)
    }

    fn run_mut(&mut self, number: usize) -> Option<&mut Run> {
        let merging = self.merges.iter_mut().flat_map(|merge| merge.inputs.iter_mut().chain([&mut merge.output]));
        self.levels.iter_mut().flatten().chain(merging).nth(number)
    }

    /// Takes in `count` rows, and begins the merges that are due. The parts are sorted by [`sorted_order`], and so are the
    /// rows of all parts together.
    ///
    /// # Errors
    /// If they cannot be written, or what is to be merged cannot be read; or those of `parts`.
    pub fn add<E: From<SpillError>>(
        &mut self,
        count: usize,
        parts: impl Iterator<Item = Result<NewRows, E>>,
    ) -> Result<(), E> {
        let mut run = Run::create(&self.folder, self.layout.clone(), count)?;
        for part in parts {
            let NewRows { hashes, contents, ids, weights, columns, untold } = part?;
            let contents = contents.map(|contents| Arc::new(UInt64Array::from(contents)) as ArrayRef);
            let others: [ArrayRef; 2] = [Arc::new(UInt32Array::from(ids)), Arc::new(Int64Array::from(weights))];
            let batch = self.layout.batch(Arc::new(UInt64Array::from(hashes)), contents, others, &columns);
            append(&mut run, &batch.map_err(SpillError::from)?, |row| untold[row])?;
        }
        debug_assert_eq!(run.rows(), count);
        self.live += run.rows();
        self.put(0, run);
        Ok(self.plan()?)
    }

    fn put(&mut self, level: usize, run: Run) {
        if run.live() == 0 {
            return;
        }
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        self.levels[level].push(run);
    }

    /// Begins the merges that are due, and drops runs without rows.
    fn plan(&mut self) -> Result<(), SpillError> {
        let mut level = 0;
        while level < self.levels.len() {
            self.levels[level].retain(|run| run.live() > 0);
            let under_way = self.merges.iter().position(|merge| merge.from_level == level);
            if let Some(merge) = under_way
                && self.levels[level].len() >= RUNS_MAX
            {
                while self.step(merge)? > 0 {}
            }
            if !self.merges.iter().any(|merge| merge.from_level == level) {
                let sparse = |run: &Run| run.rows() > BLOCK_ROWS && 2 * run.live() < run.rows();
                if self.levels[level].len() >= FAN_IN {
                    let inputs = self.levels[level].drain(..FAN_IN).collect();
                    self.merge(level, level + 1, inputs)?;
                } else if let Some(run) = self.levels[level].iter().position(sparse) {
                    let inputs = vec![self.levels[level].remove(run)];
                    self.merge(level, level, inputs)?;
                }
            }
            level += 1;
        }
        Ok(())
    }

    fn merge(&mut self, from_level: usize, to_level: usize, inputs: Vec<Run>) -> Result<(), SpillError> {
        let rows = inputs.iter().map(Run::live).sum();
        let output = Run::create(&self.folder, self.layout.clone(), rows)?;
        self.merges.push(Merge { from_level, to_level, inputs, output, bound: 0 });
        Ok(())
    }

    /// Goes on with merges for about `rows` rows.
    ///
    /// # Errors
    /// If a run cannot be read or written.
    pub fn work(&mut self, rows: usize) -> Result<(), SpillError> {
        let mut left = rows;
        while left > 0 && !self.merges.is_empty() {
            // The merge of the lowest level first: it holds up the next one there.
            let lowest = (0..self.merges.len()).min_by_key(|merge| self.merges[*merge].from_level);
            let done = lowest.map_or(Ok(0), |merge| self.step(merge))?;
            if done == 0 {
                self.plan()?;
            }
            left = left.saturating_sub(done.max(BLOCK_ROWS));
        }
        if self.merges.is_empty() { self.plan() } else { Ok(()) }
    }

    /// One step of a merge. Gives the number of rows that were read; when there are no more, the merge is done and gone.
    fn step(&mut self, number: usize) -> Result<usize, SpillError> {
        let Merge { inputs, output, bound, .. } = &mut self.merges[number];
        let blocks = (STEP_BLOCKS / inputs.len()).max(1);
        let end = inputs.iter().filter_map(|run| run.hash_after(*bound, blocks)).min();
        let mut batches = Vec::new();
        let (mut untold, mut read) = (Vec::new(), 0);
        for run in inputs.iter() {
            run.scan::<SpillError>(*bound, end, &mut |first_row, batch, range| {
                read += range.len();
                let live: Vec<usize> = range.filter(|row| !run.dead.contains(first_row + row)).collect();
                untold.extend(live.iter().map(|row| run.untold.contains(first_row + row)));
                let live: UInt32Array = live.iter().map(|row| u32::try_from(*row).expect("a block is small")).collect();
                batches.push(take_record_batch(batch, &live)?);
                Ok(())
            })?;
        }
        if let Some(first) = batches.first() {
            let all = concat_batches(first.schema_ref(), &batches)?;
            let order = sorted_order(self.layout.hashes(&all), self.layout.contents(&all));
            let all = take_record_batch(&all, &UInt32Array::from(order.clone()))?;
            append(output, &all, |row| untold[order[row] as usize])?;
        }
        if let Some(end) = end {
            *bound = end;
            return Ok(read.max(1));
        }
        let Merge { to_level, output, .. } = self.merges.swap_remove(number);
        self.put(to_level, output);
        Ok(0)
    }

    /// Finds live rows: hands those of each block to `found`. `wanted`, each with a tag, is sorted.
    ///
    /// # Errors
    /// If a run cannot be read; or those of `found`.
    pub fn find<E: From<SpillError>>(
        &self,
        wanted: &[(Wanted, u32)],
        found: &mut impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(wanted.is_sorted());
        let layout = &*self.layout;
        for (number, (run, below, from)) in self.searched().enumerate() {
            let start = wanted.partition_point(|(wanted, _)| wanted.hash < from);
            let end = below.map_or(wanted.len(), |below| wanted.partition_point(|(wanted, _)| wanted.hash < below));
            let untold = &run.untold;
            run.find(&wanted[start..end.max(start)], &mut |first_row, batch, pairs| {
                found(Found { layout, batch, untold, run: number, first_row, pairs })
            })?;
        }
        Ok(())
    }

    /// Hands all live rows of a range of hashes that begins at `first` to `found`, as those of the tag 0. The range is such
    /// that it has some ten thousand rows, unless one hash has more. Gives where the next one begins; `None`: there is none.
    ///
    /// # Errors
    /// If a run cannot be read; or those of `found`.
    pub fn range<E: From<SpillError>>(
        &self,
        first: u64,
        found: &mut impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<Option<u64>, E> {
        let layout = &*self.layout;
        let blocks = (RANGE_BLOCKS / self.runs().count().max(1)).max(1);
        let end = self.runs().filter_map(|run| run.hash_after(first, blocks)).min();
        for (number, (run, below, from)) in self.searched().enumerate() {
            let until = [below, end].into_iter().flatten().min();
            run.scan(first.max(from), until, &mut |first_row, batch, range| {
                let live = range.filter(|row| !run.dead.contains(first_row + row));
                let pairs: Vec<(u32, u32)> =
                    live.map(|row| (0, u32::try_from(row).expect("a block has few rows"))).collect();
                if pairs.is_empty() {
                    return Ok(());
                }
                found(Found { layout, batch, untold: &run.untold, run: number, first_row, pairs: &pairs })
            })?;
        }
        Ok(end)
    }

    /// All runs in their order, with the hashes of which they have the rows: below the first (`None`: no bound), from the
    /// second on.
    fn searched(&self) -> impl Iterator<Item = (&Run, Option<u64>, u64)> {
        let merging = self.merges.iter().flat_map(|merge| {
            let inputs = merge.inputs.iter().map(|run| (run, None, merge.bound));
            inputs.chain([(&merge.output, Some(merge.bound), 0)])
        });
        self.levels.iter().flatten().map(|run| (run, None, 0)).chain(merging)
    }

    /// Deletes a row.
    pub fn remove(&mut self, place: Place) {
        let run = self.run_mut(place.run).expect("a place holds until rows are added or merged");
        run.untold.remove(place.row);
        let is_new = run.dead.insert(place.row);
        self.live -= usize::from(is_new);
    }

    /// The rows that were not told yet. They count as told from now on.
    pub fn take_untold(&mut self) -> Untold {
        let untold = Untold::of(&self.layout, self.searched());
        let merging = self.merges.iter_mut().flat_map(|merge| merge.inputs.iter_mut().chain([&mut merge.output]));
        self.levels.iter_mut().flatten().chain(merging).for_each(|run| run.untold.clear());
        untold
    }
}

/// The numbers of rows in the order in which they lie in a run. Rows that come in sorted parts are put in order in one
/// pass.
pub fn sorted_order(hashes: &[u64], contents: Option<&[u64]>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(hashes.len()).expect("rows are numbered as u32")).collect();
    let content = |row: u32| contents.map_or(0, |contents| contents[row as usize]);
    order.sort_by_key(|row| (hashes[*row as usize], content(*row)));
    order
}

/// Appends sorted rows.
fn append(run: &mut Run, batch: &RecordBatch, is_untold: impl Fn(usize) -> bool) -> Result<(), SpillError> {
    let start = run.rows();
    run.append(batch)?;
    (0..batch.num_rows()).filter(|row| is_untold(*row)).for_each(|row| {
        run.untold.insert(start + row);
    });
    Ok(())
}

#[cfg(test)]
mod tests;
