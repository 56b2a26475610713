//! FORMAT UPSERT: for each key that has changed, its row, or that it has none any more.

use freshet_types::Delta;

use super::{ByKey, Event};
use crate::sink::SinkError;

pub(super) fn events(change: &Delta, by_key: &ByKey) -> Result<Vec<Event>, SinkError> {
    let mut events = Vec::with_capacity(change.len());
    for rows in by_key.groups() {
        let deleted = rows.iter().take_while(|row| change.weight(**row as usize) < 0).count();
        events.push(match &rows[deleted..] {
            [] => Event { before: rows.first().copied(), after: None },
            [row] if change.weight(*row as usize) == 1 => Event { before: None, after: Some(*row) },
            _ => {
                let message =
                    "two rows have the same values in the columns of the key, which FORMAT UPSERT cannot tell";
                return Err(SinkError::Unfit(message.to_owned()));
            }
        });
    }
    Ok(events)
}
