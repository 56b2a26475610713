//! An epoch is when: milliseconds since 1970, strictly increasing.
//!
//! All that happened up to an epoch is one consistent state of the whole database (I-3). Epochs are
//! handed out by the coordinator alone; two epochs never have the same number, even if the clock
//! stands still or jumps back.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in the history of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before anything happened: every collection is empty here.
    pub const ZERO: Epoch = Epoch(0);

    /// The epoch to hand out after `self` when the clock says `now_ms`.
    pub fn next(self, now_ms: u64) -> Epoch {
        Epoch(now_ms.max(self.0 + 1))
    }

    pub fn millis(self) -> u64 {
        self.0
    }

    /// The epoch `ms` milliseconds earlier, or [`Epoch::ZERO`].
    pub fn minus_millis(self, ms: u64) -> Epoch {
        Epoch(self.0.saturating_sub(ms))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_increase_when_the_clock_does_not() {
        assert_eq!(Epoch(5).next(10), Epoch(10));
        assert_eq!(Epoch(10).next(10), Epoch(11));
        assert_eq!(Epoch(10).next(3), Epoch(11));
    }
}
