//! FORMAT DEBEZIUM: `before`, `after` and `op` of each row that has changed, as Debezium's connectors write them without
//! a schema.
//!
//! `op` is `c` for a row that is new, `u` for one that has changed, `d` for one that has gone. `ts_ms` is the epoch, which
//! is a time in milliseconds, and the same for all that changed together.

use freshet_types::{Delta, Epoch};

use super::json::put_string;
use super::{ByKey, Event};

/// A row becomes another one if its key says so; without such a
/// proof it goes, and another one comes.
pub(super) fn events(change: &Delta, by_key: &ByKey) -> Vec<Event> {
    let weight = |row: u32| change.weight(row as usize);
    let mut events = Vec::with_capacity(change.len());
    for rows in by_key.groups() {
        if let [before, after] = rows[..]
            && (weight(before), weight(after)) == (-1, 1)
        {
            events.push(Event { before: Some(before), after: Some(after) });
            continue;
        }
        for row in rows.iter().copied() {
            let event = match weight(row) < 0 {
                true => Event { before: Some(row), after: None },
                false => Event { before: None, after: Some(row) },
            };
            events.extend((0..weight(row).unsigned_abs()).map(|_| event));
        }
    }
    events
}

/// Writes the values of messages, one after the other, in the same memory.
pub(super) struct Envelope {
    out: Vec<u8>,
    /// What all values end with.
    tail: Vec<u8>,
}

impl Envelope {
    pub fn new(sink: &str, epoch: Epoch) -> Self {
        let mut tail = format!(",\"ts_ms\":{epoch},\"source\":{{\"connector\":\"freshet\",\"name\":").into_bytes();
        put_string(sink, &mut tail);
        tail.extend_from_slice(format!(",\"ts_ms\":{epoch}}}}}").as_bytes());
        Self { out: Vec::new(), tail }
    }

    pub fn wrap(&mut self, before: Option<&[u8]>, after: Option<&[u8]>) -> &[u8] {
        self.out.clear();
        self.out.extend_from_slice(b"{\"before\":");
        self.out.extend_from_slice(before.unwrap_or(b"null"));
        self.out.extend_from_slice(b",\"after\":");
        self.out.extend_from_slice(after.unwrap_or(b"null"));
        self.out.extend_from_slice(match (before, after) {
            (Some(_), Some(_)) => b",\"op\":\"u\"",
            (Some(_), None) => b",\"op\":\"d\"",
            (None, _) => b",\"op\":\"c\"",
        });
        self.out.extend_from_slice(&self.tail);
        &self.out
    }
}
