//! How much of its past a collection keeps, and what that may take.
//!
//! The last [`RECENT_HISTORY_MS`] are always kept: queries, subscribers and checkpoints read there. What is older is for those who
//! ask for the past, and costs memory where rows change: each row that was deleted stays until nobody can ask for an
//! epoch at which it lived. So a collection has a bound, all that share a [`HistoryBudget`] have one together, and
//! at either the oldest versions go first. Where nothing is deleted the past costs a few bytes an epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How long old epochs stay readable whatever they take.
pub const RECENT_HISTORY_MS: u64 = 10_000;

/// What a collection keeps.
#[derive(Debug, Clone)]
pub struct HistoryPolicy {
    /// How far `since` stays behind `upper`, if memory lets it.
    pub ms: u64,
    /// Bytes of the history, those of the last [`RECENT_HISTORY_MS`] aside. At the bound: `since` moves up.
    pub bytes_max: usize,
    /// Shared with other collections.
    pub budget: Arc<HistoryBudget>,
}

impl HistoryPolicy {
    /// All of the last `ms` milliseconds, whatever it takes.
    pub fn unbounded(ms: u64) -> Self {
        Self { ms, bytes_max: usize::MAX, budget: Arc::new(HistoryBudget::new(usize::MAX)) }
    }

    /// No more than everybody needs.
    pub fn recent() -> Self {
        Self::unbounded(RECENT_HISTORY_MS)
    }
}

/// What the histories of many collections may take together.
#[derive(Debug)]
pub struct HistoryBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl HistoryBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0) }
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What the history of one collection takes, as its shards have told.
#[derive(Debug)]
pub(super) struct HistoryUse {
    policy: HistoryPolicy,
    bytes: AtomicUsize,
}

impl HistoryUse {
    pub fn new(policy: HistoryPolicy) -> Self {
        Self { policy, bytes: AtomicUsize::new(0) }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that a shard takes `now` bytes, where it took `before`.
    pub fn note(&self, before: usize, now: usize) {
        for counter in [&self.bytes, &self.policy.budget.bytes] {
            counter.fetch_add(now, Ordering::Relaxed);
            counter.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// What a shard may take that takes `own`. Whoever is past a bound gives up all in the same proportion, so that none has
    /// to know of the others.
    pub fn allowance(&self, own: usize) -> usize {
        let budget = &self.policy.budget;
        share(own, self.bytes(), self.policy.bytes_max).min(share(own, budget.bytes(), budget.bytes_max))
    }
}

impl Drop for HistoryUse {
    fn drop(&mut self) {
        self.policy.budget.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

fn share(own: usize, total: usize, bytes_max: usize) -> usize {
    if total <= bytes_max {
        return own;
    }
    // Of 128 bits, as the product of two sizes may need them; no more than `own`, as it is less than `total` in proportion.
    usize::try_from(own as u128 * bytes_max as u128 / total as u128).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_give_up_in_proportion_and_what_is_dropped_gives_all_back() {
        let budget = Arc::new(HistoryBudget::new(1_000));
        let policy = HistoryPolicy { ms: 1, bytes_max: 900, budget: budget.clone() };
        let (first, second) = (HistoryUse::new(policy.clone()), HistoryUse::new(policy));
        first.note(0, 800);
        assert_eq!(first.allowance(800), 800);
        second.note(0, 1_200);
        assert_eq!((first.allowance(800), second.allowance(1_200)), (400, 600), "half of what both take");
        drop(second);
        assert_eq!((budget.bytes(), first.allowance(800)), (800, 800));
        first.note(800, 1_000);
        assert_eq!(first.allowance(500), 450, "its own bound is less than the one of all");
        drop(first);
        assert_eq!(budget.bytes(), 0);
    }
}
