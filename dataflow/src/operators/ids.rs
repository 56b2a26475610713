//! The ids of the rows of a state table: handed out, taken back, and which rows have changed since they were last told.
//!
//! An id stays with its row wherever the row is, in memory or on the disk.

use super::state::{ChangedIds, Changes, Telling};

/// The id of a row that has none yet.
pub const NO_ID: u32 = u32::MAX;

#[derive(Debug, Default)]
pub struct Ids {
    pub changes: Changes,
    free: Vec<u32>,
    /// All ids ever handed out are below this.
    end: u32,
    /// While saved rows come back: the ids that they have.
    used: Vec<bool>,
}

impl Ids {
    pub fn assign(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    /// The row of an id is gone.
    pub fn release(&mut self, id: u32) {
        self.changes.remove(id);
        self.free.push(id);
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        self.changes.memory_bytes() + self.free.capacity() * size_of::<u32>() + self.used.capacity()
    }

    /// Saved rows are there again. Where all is to be told anew, those that come to memory are touched besides.
    pub fn restored(&mut self, ids: &[u32], telling: Telling) {
        for id in ids {
            let id = *id as usize;
            self.used.resize(self.used.len().max(id + 1), false);
            self.used[id] = true;
        }
        match telling {
            Telling::OnlyChanges => self.changes.told(ids),
            Telling::All => self.changes.start_anew(),
        }
    }

    /// All saved rows are there: other ids below the last one are free.
    pub fn all_restored(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.end = u32::try_from(used.len()).expect("ids are u32");
        self.free = (0..).zip(used).filter(|(_, used)| !used).map(|(id, _)| id).collect();
    }
}

/// The ids of groups, by their slots.
#[derive(Debug, Default)]
pub struct GroupIds {
    pub ids: Ids,
    of_slot: Vec<u32>,
    /// The ids that were touched in memory, with their slots; what came last counts.
    touched: Vec<(u32, u32)>,
}

impl GroupIds {
    pub fn grow(&mut self, slots: usize) {
        self.of_slot.resize(slots, NO_ID);
    }

    pub fn by_slot(&self) -> &[u32] {
        &self.of_slot
    }

    /// Bytes held for groups in memory.
    pub fn slot_bytes(&self) -> usize {
        self.of_slot.capacity() * size_of::<u32>() + self.touched.capacity() * size_of::<(u32, u32)>()
    }

    fn id(&mut self, slot: u32) -> u32 {
        let id = &mut self.of_slot[slot as usize];
        if *id == NO_ID {
            *id = self.ids.assign();
        }
        *id
    }

    /// The group at `slot` is new or other than before.
    #[inline]
    pub fn touch(&mut self, slot: u32) {
        let id = self.id(slot);
        if self.ids.changes.touch(id) {
            self.touched.push((id, slot));
        }
    }

    /// The group at `slot` is gone.
    pub fn remove(&mut self, slot: u32) {
        let id = std::mem::replace(&mut self.of_slot[slot as usize], NO_ID);
        if id != NO_ID {
            self.ids.release(id);
        }
    }

    /// A group comes to `slot` from elsewhere.
    pub fn come(&mut self, slot: u32, id: u32, is_untold: bool) {
        self.of_slot[slot as usize] = id;
        if is_untold {
            self.touch(slot);
        }
    }

    /// Groups leave for the disk: gives the id of each, and whether it has to be told.
    pub fn leave(&mut self, slots: &[u32]) -> (Vec<u32>, Vec<bool>) {
        let ids: Vec<u32> = slots.iter().map(|slot| self.id(*slot)).collect();
        let untold = ids.iter().map(|id| self.ids.changes.leave(*id)).collect();
        (ids, untold)
    }

    /// No group is in memory any more.
    pub fn left(&mut self) {
        self.ids.changes.left();
        (self.of_slot, self.touched) = (Vec::new(), Vec::new());
    }

    /// What has changed in memory, and the slots of the changed groups.
    pub fn take(&mut self) -> (ChangedIds, Vec<u32>) {
        let changed = self.ids.changes.take();
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_by_key(|(id, _)| *id);
        let slot_of = |id: &u32| {
            let after = touched.partition_point(|(touched, _)| touched <= id);
            touched[after.checked_sub(1).expect("a changed group was touched in memory")].1
        };
        let slots = changed.changed.iter().map(slot_of).collect();
        (changed, slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_with_its_group_through_memory_and_disk() {
        let mut groups = GroupIds::default();
        groups.ids.changes.track();
        groups.grow(3);
        (0..3).for_each(|slot| groups.touch(slot));
        let (changed, slots) = groups.take();
        assert_eq!((changed.changed, slots), (vec![0, 1, 2], vec![0, 1, 2]));
        groups.touch(1);
        assert_eq!(groups.leave(&[0, 1, 2]), (vec![0, 1, 2], vec![false, true, false]));
        groups.left();
        assert!(groups.take().0.changed.is_empty(), "the disk tells of it");
        groups.grow(2);
        groups.come(1, 1, true);
        groups.come(0, 2, false);
        let (changed, slots) = groups.take();
        assert_eq!((changed.changed, slots), (vec![1], vec![1]));
        groups.touch(0);
        groups.remove(1);
        groups.touch(1);
        let (changed, slots) = groups.take();
        assert_eq!((changed.gone, changed.changed, slots), (vec![1], vec![2, 1], vec![0, 1]), "taken up again");
    }

    #[test]
    fn ids_that_did_not_come_back_are_free() {
        let mut ids = Ids::default();
        ids.restored(&[4, 1], Telling::OnlyChanges);
        ids.all_restored();
        let mut free: Vec<u32> = (0..4).map(|_| ids.assign()).collect();
        free.sort_unstable();
        assert_eq!(free, [0, 2, 3, 5]);
    }
}
