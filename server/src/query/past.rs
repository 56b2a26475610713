//! Reading a relation as it was: at an instant that its history still has.
//!
//! An instant that has not passed yet, by the clock and by the epochs, is refused: its state could still change. One that has
//! passed by the clock alone is waited for: the next epoch, at most a heartbeat away, is later.

use arrow::temporal_conversions::timestamp_ms_to_datetime;
use freshet_storage::collection::{Collection, CollectionError};
use freshet_types::{Epoch, SqlError, SqlState};

use crate::catalog::MaterializedViewObject;
use crate::pipeline::view_status::ViewState;
use crate::query::pin::read_error;

/// Which instants have passed.
#[derive(Clone, Copy)]
pub struct Passed {
    pub sealed: Epoch,
    pub now_ms: u64,
}

impl Passed {
    /// # Errors
    /// If `at` is in the future.
    pub fn check(self, name: &str, at: Epoch) -> Result<(), SqlError> {
        if at <= self.sealed.max(Epoch(self.now_ms)) {
            return Ok(());
        }
        let message = format!("\"{name}\" cannot be read as of a time in the future");
        Err(SqlError::new(SqlState::InvalidParameterValue, message).with_detail(format!(
            "{} is wanted, and it is {} now",
            time(at),
            time(Epoch(self.now_ms))
        )))
    }
}

/// Waits until all of epoch `at`, which has passed, is in `collection`: that of `view`, if it is one.
///
/// # Errors
/// If the view failed before.
pub async fn wait_for(
    name: &str,
    collection: &Collection,
    view: Option<&MaterializedViewObject>,
    at: Epoch,
) -> Result<(), SqlError> {
    let mut upper = collection.watch_upper();
    while *upper.borrow_and_update() < at {
        if let Some(ViewState::Failed(failure)) = view.map(|view| view.status.lock().state.clone()) {
            let message = format!("materialized view \"{name}\" has failed before that time");
            let last = collection.upper();
            return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
                .with_detail(format!("its last state is that of {} (epoch {last}): {}", time(last), failure.error()))
                .with_hint(failure.hint()));
        }
        // A view fails without moving its upper, so look again now and then.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), upper.changed()).await;
    }
    Ok(())
}

/// What a user is told if `collection` is not readable at an instant that was asked for.
pub fn not_kept(collection: &Collection, error: CollectionError) -> SqlError {
    let CollectionError::NotReadable { wanted, since, .. } = error else { return read_error(error) };
    let name = &collection.description().name;
    let message = format!("\"{name}\" cannot be read as of {} (epoch {wanted})", time(wanted));
    let trimmed = match collection.history().is_trimmed {
        true => "; what was before has been given up to save memory",
        false => "",
    };
    SqlError::new(SqlState::InvalidParameterValue, message)
        .with_detail(format!("the oldest readable time is {} (epoch {since}){trimmed}", time(since)))
        .with_hint(
            "how far back a relation is readable is in freshet_catalog.history, and said by WITH (history = ...)",
        )
}

/// The time of an epoch, as Postgres writes it.
fn time(epoch: Epoch) -> String {
    let time = i64::try_from(epoch.millis()).ok().and_then(timestamp_ms_to_datetime);
    time.map_or_else(|| format!("epoch {epoch}"), |time| time.format("%Y-%m-%d %H:%M:%S%.3f+00").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_is_what_is_after_both_the_clock_and_the_last_epoch() {
        let passed = Passed { sealed: Epoch(2_000), now_ms: 1_000 };
        assert!(passed.check("t", Epoch(2_000)).is_ok());
        let error = passed.check("t", Epoch(2_001)).unwrap_err();
        assert_eq!(error.message, "\"t\" cannot be read as of a time in the future");
        let detail = "1970-01-01 00:00:02.001+00 is wanted, and it is 1970-01-01 00:00:01.000+00 now";
        assert_eq!(error.detail.as_deref(), Some(detail));
        assert!(Passed { sealed: Epoch(1), now_ms: 2_000 }.check("t", Epoch(2_000)).is_ok());
    }
}
