//! Time enters Freshet here and nowhere else, so that tests can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the wall clock time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands where it was put, for tests.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock for tests, standing at `now_ms`.
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Milliseconds since 1970. May jump back, as machines' clocks do; [`crate::Epoch::next`] does not.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => {
                #[expect(clippy::disallowed_methods, reason = "this is where time enters")]
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since_1970.as_millis()).expect("the year is below 584 million")
            }
            Self::Manual(now_ms) => now_ms.load(Ordering::SeqCst),
        }
    }

    /// Puts a manual clock at `now_ms`; the machine's clock is left alone.
    pub fn set(&self, now_ms: u64) {
        if let Self::Manual(clock) = self {
            clock.store(now_ms, Ordering::SeqCst);
        }
    }
}
