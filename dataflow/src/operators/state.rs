//! How the state of an operator leaves it for a checkpoint, and comes back after a restart.
//!
//! An operator keeps its state in whatever form is fast, and tells it as *state tables*: rows under ids. Between epochs
//! it can be asked what has changed in them since it was last asked; that is all that a checkpoint has to write.
//! A table with a row a group comes first; tables of what belongs to a group refer to it by the group's id.

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_storage::spill::SpillFolder;
use std::sync::Arc;

use super::OperatorError;

/// What an operator remembers between epochs.
pub trait State {
    /// Begins to note changes; called before the first delta, and not at all if nobody ever asks.
    fn track(&mut self);

    /// Says how much may be in memory while saved rows are taken in; called before that, if at all.
    fn keep_within(&mut self, _room: &Room) {}

    /// How many tables there are.
    fn table_count(&mut self) -> usize;

    /// What has changed in each table since the last call. Called between epochs.
    ///
    /// # Errors
    /// If rows cannot be made of the state, which would be a bug.
    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError>;

    /// Takes in the rows of all tables, as they were told; called once, before the first delta. Each table is read to its
    /// end before the next.
    ///
    /// # Errors
    /// If the rows are not of this operator, or cannot be read.
    fn restore(&mut self, tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError>;
}

/// The rows of a state table, part by part.
pub type SavedParts<'a> = Box<dyn Iterator<Item = Result<StateRows, OperatorError>> + 'a>;

/// Where saved rows go that memory has no room for.
#[derive(Debug, Clone)]
pub struct Room {
    pub bytes_max: usize,
    pub folder: Arc<SpillFolder>,
}

/// What an operator tells of restored rows at the next cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// They are known under their ids.
    OnlyChanges,
    /// They have new ids, so all that was told before is void.
    All,
}

const DIRTY: u8 = 1;
const TOLD: u8 = 2;
const LIVE: u8 = 4;

/// Which rows of a state table have changed since they were last told. Notes nothing unless it is tracking.
#[derive(Debug, Default)]
pub struct Changes {
    tracking: bool,
    reset: bool,
    /// What is known of each id.
    flags: Vec<u8>,
    /// The dirty ids; some may have gone since, or be there twice.
    dirty: Vec<u32>,
    /// Ids that were told and are gone.
    gone: Vec<u32>,
}

/// The ids to tell of.
pub struct ChangedIds {
    pub reset: bool,
    pub gone: Vec<u32>,
    pub changed: Vec<u32>,
}

impl Changes {
    pub fn track(&mut self) {
        self.tracking = true;
    }

    /// The row `id` is new or other than before; false if that was known.
    #[inline]
    pub fn touch(&mut self, id: u32) -> bool {
        if !self.tracking {
            return false;
        }
        if id as usize >= self.flags.len() {
            self.flags.resize(id as usize + 1, 0);
        }
        let flags = &mut self.flags[id as usize];
        let before = *flags;
        *flags |= DIRTY | LIVE;
        if before & DIRTY == 0 {
            self.dirty.push(id);
        }
        before & (DIRTY | LIVE) != DIRTY | LIVE
    }

    /// The row `id` is gone.
    #[inline]
    pub fn remove(&mut self, id: u32) {
        let Some(flags) = self.flags.get_mut(id as usize) else { return };
        if *flags & TOLD != 0 {
            self.gone.push(id);
        }
        *flags &= DIRTY;
    }

    /// The rows `ids` are there, and known as they are.
    pub fn told(&mut self, ids: &[u32]) {
        for id in ids {
            let id = *id as usize;
            if id >= self.flags.len() {
                self.flags.resize(id + 1, 0);
            }
            self.flags[id] = TOLD | LIVE;
        }
    }

    /// The row `id` leaves memory: whether it has yet to be told, which is up to the place to which it goes.
    pub fn leave(&mut self, id: u32) -> bool {
        let Some(flags) = self.flags.get_mut(id as usize) else { return false };
        let is_untold = *flags & (DIRTY | LIVE) == DIRTY | LIVE;
        if is_untold {
            *flags = TOLD | LIVE;
        }
        is_untold
    }

    /// Every row has left.
    pub fn left(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            self.flags[id as usize] &= !DIRTY;
        }
    }

    /// What was told so far does not hold any more.
    pub fn start_anew(&mut self) {
        self.reset = self.tracking;
    }

    pub fn memory_bytes(&self) -> usize {
        self.flags.capacity() + 4 * (self.dirty.capacity() + self.gone.capacity())
    }

    pub fn take(&mut self) -> ChangedIds {
        let mut changed = std::mem::take(&mut self.dirty);
        changed.retain(|id| {
            let flags = &mut self.flags[*id as usize];
            let is_changed = *flags & (DIRTY | LIVE) == DIRTY | LIVE;
            *flags &= !DIRTY;
            if is_changed {
                *flags |= TOLD;
            }
            is_changed
        });
        ChangedIds { reset: std::mem::take(&mut self.reset), gone: std::mem::take(&mut self.gone), changed }
    }
}

impl ChangedIds {
    /// The change whose new rows are `columns`.
    pub fn with_rows(self, schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<TableChange, OperatorError> {
        let rows = RecordBatch::try_new(schema.clone(), columns)?;
        let changed = StateRows { ids: self.changed, rows };
        Ok(TableChange { reset: self.reset, gone: self.gone, changed, spilled: None })
    }
}

/// The schema of a state table: columns of these types. Nothing is said of NULLs.
pub fn schema(types: impl IntoIterator<Item = DataType>) -> SchemaRef {
    let field = |(index, data_type)| Field::new(format!("c{index}"), data_type, true);
    Arc::new(Schema::new(types.into_iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// Ids as a column, by which other tables refer to rows.
pub fn id_column(ids: Vec<u32>) -> ArrayRef {
    Arc::new(UInt32Array::from(ids))
}

pub fn ids_of_column(column: &ArrayRef) -> &[u32] {
    column.as_primitive::<UInt32Type>().values()
}

/// The rows of `column` at `rows`.
pub fn rows_at(column: &ArrayRef, rows: &[usize]) -> Result<ArrayRef, ArrowError> {
    let indices: UInt32Array = rows.iter().map(|row| u32::try_from(*row).expect("a batch is small")).collect();
    take(column, &indices, None)
}

/// What was saved has another form than this operator's state.
pub fn not_of_this_operator() -> OperatorError {
    OperatorError::BrokenInvariant("the saved state is not of this operator".to_string())
}

/// Where the rows of a state table belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// On the worker of the hash of these columns.
    ByColumns(Vec<usize>),
    /// With the row of the first table whose id is in the first column.
    WithFirstTable,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(changes: &mut Changes) -> (Vec<u32>, Vec<u32>) {
        let ChangedIds { gone, changed, .. } = changes.take();
        (gone, changed)
    }

    #[test]
    fn a_row_is_told_once_and_its_end_only_if_it_was_told() {
        let mut changes = Changes::default();
        changes.touch(1);
        assert_eq!(taken(&mut changes), (vec![], vec![]), "nothing is noted before tracking");
        changes.track();
        assert!(changes.touch(0));
        assert!(!changes.touch(0));
        changes.touch(1);
        changes.remove(1);
        assert_eq!(taken(&mut changes), (vec![], vec![0]));
        changes.remove(0);
        changes.touch(2);
        assert_eq!(taken(&mut changes), (vec![0], vec![2]));
        changes.remove(2);
        assert!(changes.touch(2));
        assert!(!changes.touch(2));
        changes.remove(2);
        assert!(changes.touch(2), "another row under the same id");
        assert_eq!(taken(&mut changes), (vec![2], vec![2]), "taken up again");
        changes.told(&[7]);
        changes.remove(7);
        assert_eq!(taken(&mut changes), (vec![7], vec![]));
        changes.touch(8);
        changes.touch(9);
        changes.remove(9);
        assert!(changes.leave(8));
        assert!(!changes.leave(8), "who was said so tells of it");
        changes.left();
        assert_eq!(taken(&mut changes), (vec![], vec![]));
        changes.touch(9);
        changes.remove(8);
        assert_eq!(taken(&mut changes), (vec![8], vec![9]), "what is gone is forgotten");
        changes.start_anew();
        changes.touch(0);
        assert!(changes.take().reset);
    }
}
