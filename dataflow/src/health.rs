//! Whether a view still runs: shared by its operators on all workers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use freshet_types::{Epoch, RelationId};

use crate::operators::{OperatorError, RowErrors};
use crate::{Event, limits};

/// Takes the events of all views; may be called on any worker thread.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// The state of one view, and the way to tell its owner of faults. Clones share the state.
#[derive(Clone)]
pub struct ViewHealth {
    view: RelationId,
    name: Arc<str>,
    failed: Arc<AtomicBool>,
    on_event: EventSink,
}

impl ViewHealth {
    pub fn new(view: RelationId, name: &str, on_event: EventSink) -> Self {
        Self { view, name: name.into(), failed: Arc::default(), on_event }
    }

    pub fn view(&self) -> RelationId {
        self.view
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn tell(&self, event: Event) {
        (self.on_event)(event);
    }

    /// Marks the view failed and says so, if it had not failed before.
    pub fn fail(&self, error: &str) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(view = %self.name, error, "view failed");
            (self.on_event)(Event::Failed { view: self.view, error: error.to_string() });
        }
    }

    /// Stops the view because it holds `used_bytes`, and says so, if it had not stopped before.
    pub fn pause(&self, used_bytes: u64, bytes_max: u64) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            (self.on_event)(Event::Paused { view: self.view, used_bytes, bytes_max });
        }
    }

    /// Runs a part of an operator. An error or a panic in it fails the view, and nothing but the view.
    pub fn guard<R>(&self, work: impl FnOnce() -> Result<R, OperatorError>) -> Option<R> {
        // The operator's state may be broken after a panic; it is dropped and never looked at again.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(result)) => Some(result),
            Ok(Err(error)) => {
                self.fail(&error.to_string());
                None
            }
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().copied();
                let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                self.fail(&format!("internal error: {}", message.unwrap_or("a part of the view panicked")));
                None
            }
        }
    }
}

/// Reports the failing rows of one operator, with a bound on the details given for an epoch.
pub struct RowErrorReporter {
    health: ViewHealth,
    epoch: u64,
    details_given: usize,
}

impl RowErrorReporter {
    pub fn new(health: ViewHealth) -> Self {
        Self { health, epoch: 0, details_given: 0 }
    }

    pub fn report(&mut self, epoch: u64, found: RowErrors) {
        if found.is_empty() {
            return;
        }
        if self.epoch != epoch {
            (self.epoch, self.details_given) = (epoch, 0);
        }
        let (mut errors, mut omitted) = found.into_parts();
        let kept = errors.len().min(limits::ROW_ERROR_DETAILS_PER_EPOCH - self.details_given);
        omitted += (errors.len() - kept) as u64;
        errors.truncate(kept);
        self.details_given += kept;
        let view = self.health.view;
        (self.health.on_event)(Event::RowErrors { view, epoch: Epoch(epoch), errors, omitted });
    }
}
