//! Retention: until when rows are kept, by the time in one of their columns.
//!
//! It is a function of the epoch, and of nothing else: of all that was written up to epoch `e`, a collection holds
//!
//! ```text
//! rows(e) = { row : time(row) >= horizon(e), or it has no time }
//! horizon(e) = e, rounded down to a step, less the time that rows are kept
//! ```
//!
//! So a row that expires leaves at the same epoch on every worker, in every life of the server, and nothing need be remembered
//! of it: a change that comes later is about a row that is kept, or about none ([`Retention::kept`]). Steps
//! are there so that rows leave in few epochs, many at a time.

use std::borrow::Cow;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::kernels::cmp;
use arrow::compute::{not, prep_null_mask_filter};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use freshet_types::{Delta, Epoch};

/// The shortest and the longest step.
const STEP_MS: (u64, u64) = (1_000, 3_600_000);

/// For how long rows are kept, counted from the time in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub time_column: usize,
    pub keep_ms: u64,
}

/// Rows with a time before this, in microseconds since 1970, are not kept at `now_ms`.
pub fn horizon_us(keep_ms: u64, now_ms: u64) -> i64 {
    let step_ms = step_ms(keep_ms);
    micros(now_ms / step_ms * step_ms).saturating_sub(micros(keep_ms))
}

/// A hundredth of the time that rows are kept, within bounds.
fn step_ms(keep_ms: u64) -> u64 {
    (keep_ms / 100).clamp(STEP_MS.0, STEP_MS.1)
}

fn micros(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000)
}

impl Retention {
    /// Rows with a time before this, in microseconds since 1970, are not there at `epoch`.
    pub fn horizon_us(&self, epoch: Epoch) -> i64 {
        horizon_us(self.keep_ms, epoch.millis())
    }

    /// The last epoch up to `epoch` at which rows may have left.
    pub(super) fn step(&self, epoch: Epoch) -> Epoch {
        let step_ms = step_ms(self.keep_ms);
        Epoch(epoch.millis() / step_ms * step_ms)
    }

    /// The first epoch at which a row of this time is not there.
    pub(super) fn end(&self, time_us: i64) -> Epoch {
        let step_ms = step_ms(self.keep_ms);
        // The horizon is past the time, not at it.
        let after_ms = time_us.div_euclid(1_000).saturating_add(1);
        let gone_ms = u64::try_from(after_ms.saturating_add(micros(self.keep_ms) / 1_000)).unwrap_or(0);
        Epoch(gone_ms.div_ceil(step_ms).saturating_mul(step_ms))
    }

    /// What of a change of `epoch` is about rows that are there then. A deletion of a row that has expired, be it
    /// at this very epoch, is not: the row leaves without it.
    ///
    /// # Errors
    /// If the column has no times.
    pub(super) fn kept<'a>(&self, epoch: Epoch, delta: Cow<'a, Delta>) -> Result<Cow<'a, Delta>, ArrowError> {
        let (times, horizon) = (times_of(delta.rows(), self.time_column)?, self.horizon_us(epoch));
        if arrow::compute::min(&times).is_none_or(|oldest| oldest >= horizon) {
            return Ok(delta);
        }
        Ok(Cow::Owned(delta.filter(&not(&expired(&times, horizon)?)?)?))
    }
}

/// Which of some times are before the horizon; rows without a time are not.
pub(super) fn expired(times: &Int64Array, horizon_us: i64) -> Result<BooleanArray, ArrowError> {
    let before = cmp::lt(times, &Int64Array::new_scalar(horizon_us))?;
    Ok(if before.null_count() > 0 { prep_null_mask_filter(&before) } else { before })
}

/// The times of rows in microseconds.
pub(super) fn times_of(rows: &RecordBatch, column: usize) -> Result<Int64Array, ArrowError> {
    let column = rows.column(column);
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = arrow::compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    let micros = arrow::compute::cast(&micros, &DataType::Int64)?;
    Ok(arrow::array::AsArray::as_primitive(&micros).clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn a_row_is_there_until_its_end_and_not_after() {
        for keep_ms in [0, 1, 1_000, 250_000, 86_400_000] {
            let retention = Retention { time_column: 0, keep_ms };
            for time_us in [0, 1, 999_999, 1_000_000, 1_790_000_000_123_456] {
                let end = retention.end(time_us);
                assert!(retention.horizon_us(end) > time_us, "keep {keep_ms}, time {time_us}");
                assert!(retention.horizon_us(end.minus_millis(1)) <= time_us, "keep {keep_ms}, time {time_us}");
                assert_eq!(retention.step(end), end);
            }
            assert_eq!(retention.end(i64::MIN), Epoch::ZERO, "long before 1970 there was no epoch");
        }
    }

    #[test]
    fn the_horizon_moves_in_steps() {
        let retention = Retention { time_column: 0, keep_ms: 200_000 };
        let horizons = [300_000, 301_999, 302_000].map(|epoch| retention.horizon_us(Epoch(epoch)));
        assert_eq!(horizons, [100_000_000, 100_000_000, 102_000_000]);
    }

    #[test]
    fn changes_of_expired_rows_are_left_out() {
        let retention = Retention { time_column: 0, keep_ms: 1_000 };
        let schema = Schema::new(vec![Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true)]);
        let times = TimestampMicrosecondArray::from(vec![Some(4_999_999), Some(5_000_000), None, Some(-1)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times)]).unwrap();
        let delta = Delta::new(rows, vec![1, -2, 3, -1]);
        let kept = |epoch| retention.kept(Epoch(epoch), Cow::Borrowed(&delta)).unwrap().weight_column().to_vec();
        assert_eq!(kept(6_999), [-2, 3]);
        assert_eq!(kept(5_999), [1, -2, 3]);
        assert_eq!(kept(7_000), [3]);
    }
}
