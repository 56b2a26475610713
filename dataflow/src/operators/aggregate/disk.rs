//! Groups for which memory has no room.
//!
//! All groups leave memory at once, with the entries of their multisets, and the tables in memory begin anew; a batch
//! brings back the groups of its keys. So what is in memory is what was touched since. A group is either here or in
//! memory, and keeps its id.
//!
//! Groups that came up in the epoch at hand may leave before it is complete, as those of a large snapshot have to. They are
//! kept apart ([`Disk::open`]), and come back for their rows to be given when the epoch is complete, a range of
//! hashes at a time. While groups that had a row before wait for the end of the epoch, no group leaves: their old
//! rows are in memory, as is the batch that touched them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use freshet_storage::checkpoint::{StateRows, TableChange};
use freshet_storage::spill::SpillFolder;

use super::accumulators::SavedColumns;
use super::entries::{Arriving, disk_schema, hash_of_group, saved_columns};
use super::{Aggregate, AggregateState, Global, gather};
use crate::limits;
use crate::operators::key_table::{KeyTable, NO_SLOT};
use crate::operators::spilled_table::{SpilledPart, SpilledTable};
use crate::operators::state::{self, Room, SavedParts, Telling};
use crate::operators::{Operator, OperatorError};

pub struct Disk {
    folder: Arc<SpillFolder>,
    /// Of groups: key, then what the accumulators save. The number of rows is beside it.
    schema: SchemaRef,
    groups: SpilledTable,
    /// The groups that came up in the epoch at hand.
    open: Option<Open>,
    /// The entries of all groups, a table for each aggregate that has any.
    entries: Vec<SpilledTable>,
}

struct Open {
    groups: SpilledTable,
    /// Groups with a smaller hash have come back for the end of the epoch.
    next: u64,
}

/// What became of the groups that a batch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Their rows, if any, are those of an earlier epoch.
    Settled,
    /// They came up in the epoch at hand.
    New,
}

impl Disk {
    pub fn has_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes in memory and on the disk.
    pub fn bytes(&self) -> (usize, usize) {
        let open = self.open.iter().map(|open| &open.groups);
        let tables = open.chain([&self.groups]).chain(&self.entries).map(SpilledTable::bytes);
        tables.fold((0, 0), |(memory, disk), (more_memory, more_disk)| (memory + more_memory, disk + more_disk))
    }

    fn work(&mut self, rows: usize) -> Result<(), OperatorError> {
        let open = self.open.iter_mut().map(|open| &mut open.groups);
        open.chain([&mut self.groups]).chain(&mut self.entries).try_for_each(|table| table.work(rows))
    }
}

impl Aggregate {
    /// Brings the groups with these keys to memory.
    pub(super) fn fetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<(), OperatorError> {
        let Some(mut disk) = self.disk.take() else { return Ok(()) };
        disk.work(rows)?;
        self.groups.find(keys, rows, &mut self.slots)?;
        if self.slots.contains(&NO_SLOT) {
            let hashes = self.groups.hashes(keys, rows)?.into_iter().zip(&self.slots);
            let mut missing: Vec<u64> = hashes.filter(|(_, slot)| **slot == NO_SLOT).map(|(hash, _)| hash).collect();
            missing.sort_unstable();
            missing.dedup();
            let mut came = Vec::new();
            if let Some(open) = &mut disk.open {
                open.groups.fetch(&missing, &mut |part| self.come(&part, Standing::New, &mut came))?;
            }
            disk.groups.fetch(&missing, &mut |part| self.come(&part, Standing::Settled, &mut came))?;
            self.fetch_entries(&mut disk, came)?;
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// The epoch is complete: brings some of the groups that came up in it to memory, unless others are there already.
    pub(super) fn fetch_open(&mut self) -> Result<(), OperatorError> {
        let is_idle = self.touched.new.is_empty() && self.touched.old.is_empty();
        let Some(mut disk) = self.disk.take_if(|disk| is_idle && disk.has_open()) else { return Ok(()) };
        if let Some(Open { groups, next }) = disk.open.take() {
            let mut came = Vec::new();
            let next = groups.range(next, &mut |part| self.come(&part, Standing::New, &mut came))?;
            disk.open = next.map(|next| Open { groups, next });
            self.fetch_entries(&mut disk, came)?;
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// Files groups that come from the disk. Adds the id and slot of each to `came`.
    fn come(
        &mut self,
        part: &SpilledPart,
        standing: Standing,
        came: &mut Vec<(u32, u32)>,
    ) -> Result<(), OperatorError> {
        let mut slots = Vec::new();
        let (keys, saved) = part.columns.split_at(self.keys.len());
        self.load(keys, &part.weights, saved, &mut slots)?;
        for ((slot, id), is_untold) in slots.iter().zip(&part.ids).zip(&part.untold) {
            self.ids.come(*slot, *id, *is_untold);
            came.push((*id, *slot));
        }
        if standing == Standing::New {
            slots.iter().for_each(|slot| self.touched.marks[*slot as usize] = true);
            self.touched.new.extend(slots);
        }
        Ok(())
    }

    /// Files groups that are not in memory; gives their slots.
    fn load(
        &mut self,
        keys: &[ArrayRef],
        counts: &[i64],
        saved: &[ArrayRef],
        slots: &mut Vec<u32>,
    ) -> Result<(), OperatorError> {
        let before = self.groups.len();
        self.groups.file(keys, counts.len(), slots)?;
        if self.groups.len() != before + counts.len() {
            return Err(OperatorError::BrokenInvariant("a saved group is there twice".to_string()));
        }
        self.grow();
        slots.iter().zip(counts).for_each(|(slot, count)| self.counts[*slot as usize] = *count);
        let mut saved = SavedColumns(saved.iter());
        let mut accumulators = self.aggregates.iter_mut().filter_map(AggregateState::accumulator);
        accumulators.try_for_each(|accumulator| accumulator.load(slots, &mut saved))
    }

    /// Brings the entries of groups to memory, of which the ids and slots are given.
    fn fetch_entries(&mut self, disk: &mut Disk, mut came: Vec<(u32, u32)>) -> Result<(), OperatorError> {
        if came.is_empty() || disk.entries.is_empty() {
            return Ok(());
        }
        came.sort_unstable();
        let mut hashes: Vec<u64> = came.iter().map(|(id, _)| hash_of_group(*id)).collect();
        hashes.sort_unstable();
        let slot_of = |id: &u32| {
            let place = came.binary_search_by_key(id, |(id, _)| *id);
            came[place.expect("no other group has the hash of this id")].1
        };
        for (own, disk) in self.entries().zip(&mut disk.entries) {
            disk.fetch(&hashes, &mut |SpilledPart { ids, weights, untold, columns }| {
                let slots: Vec<u32> = state::ids_of_column(&columns[0]).iter().map(slot_of).collect();
                let values = &columns[1];
                own.come(&Arriving { ids: &ids, slots: &slots, values, copies: &weights, untold: &untold })
            })?;
        }
        Ok(())
    }

    /// What is kept of groups on the disk.
    fn disk(&mut self, folder: &Arc<SpillFolder>) -> Result<Disk, OperatorError> {
        if let Some(disk) = self.disk.take() {
            return Ok(disk);
        }
        let mut types = self.key_types.clone();
        for aggregate in &self.aggregates {
            types.extend(aggregate.save(&[])?.iter().map(|column| column.data_type().clone()));
        }
        let schema = state::schema(types);
        let entries = self.entries().map(|own| SpilledTable::new(folder, disk_schema(own.value_type()))).collect();
        let groups = SpilledTable::new(folder, schema.clone());
        Ok(Disk { folder: folder.clone(), schema, groups, open: None, entries })
    }

    /// Moves all groups to the disk, if they can go.
    pub(super) fn leave(&mut self, folder: &Arc<SpillFolder>) -> Result<(), OperatorError> {
        if self.keys.is_empty() || !self.touched.old.is_empty() {
            return Ok(());
        }
        let mut disk = self.disk(folder)?;
        let mut settled = self.groups.filed_slots();
        settled.retain(|slot| !self.touched.marks[*slot as usize]);
        self.write(&settled, &mut disk.groups)?;
        let new = std::mem::take(&mut self.touched).new;
        if !new.is_empty() {
            let Disk { folder, schema, open, .. } = &mut disk;
            let nothing = || Open { groups: SpilledTable::new(folder, schema.clone()), next: 0 };
            self.write(&new, &mut open.get_or_insert_with(nothing).groups)?;
        }
        let groups = std::mem::take(&mut self.ids);
        for (own, disk) in self.entries().zip(&mut disk.entries) {
            own.leave(groups.by_slot(), disk)?;
        }
        self.ids = groups;
        self.ids.left();
        self.groups = KeyTable::new(self.key_types.clone())?;
        (self.counts, self.slots) = (Vec::new(), Vec::new());
        self.aggregates.iter_mut().for_each(AggregateState::empty);
        self.disk = Some(disk);
        Ok(())
    }

    fn write(&mut self, slots: &[u32], table: &mut SpilledTable) -> Result<(), OperatorError> {
        let mut hashes = Vec::with_capacity(slots.len());
        for part in slots.chunks(limits::BATCH_ROWS_MAX) {
            hashes.extend(self.groups.hashes(&self.groups.columns(part)?, part.len())?);
        }
        table.add(&hashes, |places| {
            let slots: Vec<u32> = places.iter().map(|place| slots[*place as usize]).collect();
            let mut columns = self.groups.columns(&slots)?;
            for aggregate in &self.aggregates {
                columns.extend(aggregate.save(&slots)?);
            }
            let (ids, untold) = self.ids.leave(&slots);
            let weights = slots.iter().map(|slot| self.counts[*slot as usize]).collect();
            Ok(SpilledPart { ids, weights, untold, columns })
        })
    }

    /// What has changed since the last time, in memory and on the disk.
    pub(super) fn tell(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        let (ids, slots) = self.ids.take();
        let mut columns = self.groups.columns(&slots)?;
        columns.push(gather(&self.counts, &slots));
        for aggregate in &self.aggregates {
            columns.extend(aggregate.save(&slots)?);
        }
        let schema = state::schema(columns.iter().map(|column| column.data_type().clone()));
        let mut tables = vec![ids.with_rows(&schema, columns)?];
        let groups = std::mem::take(&mut self.ids);
        for entries in self.entries() {
            tables.push(entries.changes(groups.by_slot())?);
        }
        self.ids = groups;
        let Some(disk) = &mut self.disk else { return Ok(tables) };
        let number_columns = std::iter::once(self.keys.len()).chain(std::iter::repeat(2));
        let on_disk = [&mut disk.groups].into_iter().chain(&mut disk.entries);
        for ((told, table), number_column) in tables.iter_mut().zip(on_disk).zip(number_columns) {
            told.spilled = table.take_untold(&told.changed.rows.schema(), number_column);
        }
        Ok(tables)
    }

    /// Takes in saved rows, in parts of which no more are in memory at a time than there is room for.
    pub(super) fn come_back(&mut self, tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError> {
        let mut tables = tables.into_iter();
        let groups = tables.next().ok_or_else(state::not_of_this_operator)?;
        if tables.len() != self.entries().count() {
            return Err(state::not_of_this_operator());
        }
        let room = self.room.take();
        for saved in groups {
            for part in pieces(&saved?) {
                self.groups_come_back(&part, telling)?;
                self.keep_within_room(room.as_ref())?;
            }
        }
        self.ids.ids.all_restored();
        for (table, entries) in tables.enumerate() {
            let mut slots = self.slots_by_id();
            for saved in entries {
                for part in pieces(&saved?) {
                    self.entries_come_back(table, &part, &slots, telling)?;
                    if self.keep_within_room(room.as_ref())? {
                        slots = Vec::new();
                    }
                }
            }
            let own = self.entries().nth(table).ok_or_else(state::not_of_this_operator)?;
            own.ids().all_restored();
        }
        Ok(())
    }

    /// Whether all groups had to leave.
    fn keep_within_room(&mut self, room: Option<&Room>) -> Result<bool, OperatorError> {
        let Some(Room { bytes_max, folder }) = room else { return Ok(false) };
        let is_over = self.memory().spillable_bytes > *bytes_max;
        if is_over {
            self.leave(folder)?;
        }
        Ok(is_over)
    }

    fn groups_come_back(&mut self, saved: &StateRows, telling: Telling) -> Result<(), OperatorError> {
        let StateRows { ids, rows } = saved;
        let (keys, rest) = rows.columns().split_at_checked(self.keys.len()).ok_or_else(state::not_of_this_operator)?;
        let (counts, columns) = rest.split_first().ok_or_else(state::not_of_this_operator)?;
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(state::not_of_this_operator)?.values();
        let mut slots = Vec::new();
        self.load(keys, counts, columns, &mut slots)?;
        self.ids.ids.restored(ids, telling);
        let is_untold = telling == Telling::All;
        slots.iter().zip(ids).for_each(|(slot, id)| self.ids.come(*slot, *id, is_untold));
        if self.global == Global::NotGiven {
            self.global = Global::Given;
        }
        Ok(())
    }

    /// The slots of the groups in memory, by their ids.
    fn slots_by_id(&self) -> Vec<u32> {
        let mut slots = Vec::new();
        for slot in self.groups.filed_slots() {
            let id = self.ids.by_slot()[slot as usize] as usize;
            slots.resize(slots.len().max(id + 1), NO_SLOT);
            slots[id] = slot;
        }
        slots
    }

    /// Takes in saved entries: those of groups in memory, which are at `slots`, and those that go to the disk at once.
    fn entries_come_back(
        &mut self,
        table: usize,
        saved: &StateRows,
        slots: &[u32],
        telling: Telling,
    ) -> Result<(), OperatorError> {
        let (groups, values, copies) = saved_columns(saved)?;
        let is_untold = telling == Telling::All;
        let slot_of = |row: usize| slots.get(groups[row] as usize).copied().unwrap_or(NO_SLOT);
        let (here, away): (Vec<usize>, Vec<usize>) = (0..saved.ids.len()).partition(|row| slot_of(*row) != NO_SLOT);
        let own = self.entries().nth(table).ok_or_else(state::not_of_this_operator)?;
        own.ids().restored(&saved.ids, telling);
        own.come(&Arriving {
            ids: &here.iter().map(|row| saved.ids[*row]).collect::<Vec<_>>(),
            slots: &here.iter().map(|row| slot_of(*row)).collect::<Vec<_>>(),
            values: &state::rows_at(values, &here)?,
            copies: &here.iter().map(|row| copies[*row]).collect::<Vec<_>>(),
            untold: &vec![is_untold; here.len()],
        })?;
        if away.is_empty() {
            return Ok(());
        }
        // Whatever is told of them is told by the disk.
        let ids: Vec<u32> = away.iter().map(|row| saved.ids[*row]).collect();
        own.ids().changes.told(&ids);
        let disk = self.disk.as_mut().and_then(|disk| disk.entries.get_mut(table));
        let disk = disk.ok_or_else(|| OperatorError::BrokenInvariant("a saved entry has no group".to_string()))?;
        let hashes: Vec<u64> = away.iter().map(|row| hash_of_group(groups[*row])).collect();
        disk.add(&hashes, |places| {
            let rows: Vec<usize> = places.iter().map(|place| away[*place as usize]).collect();
            let group_ids = state::id_column(rows.iter().map(|row| groups[*row]).collect());
            Ok(SpilledPart {
                ids: rows.iter().map(|row| saved.ids[*row]).collect(),
                weights: rows.iter().map(|row| copies[*row]).collect(),
                untold: vec![is_untold; rows.len()],
                columns: vec![group_ids, state::rows_at(values, &rows)?],
            })
        })
    }
}

/// Saved rows in pieces of the size of batches.
fn pieces(saved: &StateRows) -> impl Iterator<Item = StateRows> + '_ {
    (0..saved.ids.len()).step_by(limits::BATCH_ROWS_MAX).map(|first| {
        let length = limits::BATCH_ROWS_MAX.min(saved.ids.len() - first);
        StateRows { ids: saved.ids[first..first + length].to_vec(), rows: saved.rows.slice(first, length) }
    })
}
