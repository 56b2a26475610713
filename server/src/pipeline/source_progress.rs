//! How far a source has been read at each recent epoch.
//!
//! A query over a source, and the backfill of a new view over it, read the same records that live views have seen at
//! that epoch: from the source's start up to the offsets sealed with the epoch.

use std::collections::VecDeque;

use freshet_connectors::Offsets;
use freshet_types::Epoch;
use parking_lot::Mutex;

use crate::limits::OFFSET_HISTORY_MS;

/// The offsets of a source by epoch. Written by the coordinator alone.
#[derive(Debug, Default)]
pub struct SourceProgress {
    history: Mutex<VecDeque<(Epoch, Offsets)>>,
}

impl SourceProgress {
    /// Records that all before `offsets` belongs to `epoch` or an earlier one.
    pub fn seal(&self, epoch: Epoch, offsets: Offsets) {
        let mut history = self.history.lock();
        history.push_back((epoch, offsets));
        let horizon = epoch.minus_millis(OFFSET_HISTORY_MS);
        // The newest entry at or before the horizon still answers for the horizon itself.
        while history.get(1).is_some_and(|(next, _)| *next <= horizon) {
            history.pop_front();
        }
    }

    /// Forgets everything: the source is not being read any more.
    pub fn clear(&self) {
        self.history.lock().clear();
    }

    /// The offsets at `epoch`; `None` if the source was not being read then, or nobody remembers.
    pub fn at(&self, epoch: Epoch) -> Option<Offsets> {
        let history = self.history.lock();
        let after = history.partition_point(|(sealed, _)| *sealed <= epoch);
        after.checked_sub(1).map(|index| history[index].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(offset: i64) -> Offsets {
        Offsets([(0, offset)].into())
    }

    #[test]
    fn an_epoch_sees_the_last_offsets_sealed_by_then() {
        let progress = SourceProgress::default();
        assert_eq!(progress.at(Epoch(10)), None);
        progress.seal(Epoch(10), offsets(1));
        progress.seal(Epoch(20), offsets(2));
        assert_eq!(progress.at(Epoch(9)), None);
        assert_eq!(progress.at(Epoch(19)), Some(offsets(1)));
        assert_eq!(progress.at(Epoch(20)), Some(offsets(2)));
    }

    #[test]
    fn the_horizon_stays_readable() {
        let progress = SourceProgress::default();
        for epoch in [1_000, 2_000, 3_000 + OFFSET_HISTORY_MS] {
            progress.seal(Epoch(epoch), offsets(i64::try_from(epoch).unwrap()));
        }
        assert_eq!(progress.at(Epoch(1_500)), None);
        assert_eq!(progress.at(Epoch(3_000)), Some(offsets(2_000)));
    }
}
