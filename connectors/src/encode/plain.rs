//! FORMAT PLAIN: each row that is added is a message. What is added is never taken back.

use freshet_types::Delta;

use super::Event;
use crate::sink::SinkError;

/// A row that is there several times is told several times.
pub(super) fn events(change: &Delta) -> Result<Vec<Event>, SinkError> {
    let mut events = Vec::with_capacity(change.len());
    for (row, weight) in (0_u32..).zip(change.weight_column().iter()) {
        if *weight < 0 {
            return Err(SinkError::Unfit("a row has gone, which FORMAT PLAIN cannot tell".to_owned()));
        }
        events.extend((0..*weight).map(|_| Event { before: None, after: Some(row) }));
    }
    Ok(events)
}
