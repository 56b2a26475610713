//! Changes to messages: the FORMAT and ENCODE of a sink. Pure.
//!
//! | format                 | key                          | value                                      | file          |
//! |------------------------|------------------------------|--------------------------------------------|---------------|
//! | PLAIN                  | as declared, or none         | the row                                    | `plain.rs`    |
//! | UPSERT                 | the key columns              | the row; none where the key is gone        | `upsert.rs`   |
//! | DEBEZIUM               | the key columns, or all      | the row before, the row after, and which   | `debezium.rs` |
//!
//! A format turns a change into [`Event`]s; here they become messages, a few thousand at a time, with the values of each
//! column encoded by [`json`].

mod debezium;
pub mod json;
mod plain;
#[cfg(test)]
mod tests;
mod upsert;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use freshet_types::delta::take_rows;
use freshet_types::{Delta, Epoch, KeyEncoder, RowTable, SqlError, SqlState};

use self::json::JsonRows;
use crate::options::suggest;
use crate::sink::{SinkDefinition, SinkError};

/// Events that become messages at a time.
const EVENTS_AT_ONCE: usize = 4096;

/// The FORMAT of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Envelope {
    Plain,
    Upsert,
    Debezium,
}

/// One thing to tell: a row as it was and as it is, by their places in the delta. One of them at least is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    before: Option<u32>,
    after: Option<u32>,
}

/// One message. Without a value it is a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Turns the changes of one sink into messages.
#[derive(Debug, Clone)]
pub struct ChangeEncoder {
    sink: String,
    envelope: Envelope,
    /// Which columns become the messages' keys.
    key: Option<Vec<usize>>,
}

impl ChangeEncoder {
    /// Checks FORMAT, ENCODE and the option `key` of a sink.
    ///
    /// # Errors
    /// If the format does not exist, or cannot tell the changes of the relation.
    pub fn new(definition: &SinkDefinition) -> Result<Self, SqlError> {
        let envelope = envelope(definition)?;
        let declared = declared_key(definition)?;
        let relation = &definition.relation;
        let key = match envelope {
            Envelope::Plain if !definition.append_only => {
                let message = format!("FORMAT PLAIN cannot tell the changes of \"{relation}\"");
                return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message)
                    .with_detail("its rows may change or go, and a plain message only ever adds a row")
                    .with_hint("use FORMAT UPSERT or FORMAT DEBEZIUM"));
            }
            Envelope::Plain => declared,
            Envelope::Upsert => Some(declared.or_else(|| definition.key.clone()).ok_or_else(|| {
                SqlError::new(SqlState::ObjectNotInPrerequisiteState, format!("\"{relation}\" has no key"))
                    .with_detail("FORMAT UPSERT tells changes by key")
                    .with_hint("name columns that no two rows share with key = 'a, b', or use FORMAT DEBEZIUM")
            })?),
            // All columns, if need be: what is said of one row stays in order then.
            Envelope::Debezium => {
                let all = || (0..definition.schema.fields().len()).collect();
                Some(declared.or_else(|| definition.key.clone()).unwrap_or_else(all))
            }
        };
        Ok(Self { sink: definition.name.clone(), envelope, key })
    }

    /// Hands the messages of a change to `put`, those of one key in their order.
    ///
    /// # Errors
    /// If the change does not fit the format; or what `put` says.
    pub fn encode(
        &self,
        epoch: Epoch,
        change: &Delta,
        mut put: impl FnMut(Message<'_>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        if change.is_empty() {
            return Ok(());
        }
        let events = match self.envelope {
            Envelope::Plain => plain::events(change)?,
            Envelope::Upsert => upsert::events(change, &self.by_key(change)?)?,
            Envelope::Debezium => debezium::events(change, &self.by_key(change)?),
        };
        for events in events.chunks(EVENTS_AT_ONCE) {
            self.messages(epoch, change, events, &mut put)?;
        }
        Ok(())
    }

    fn messages(
        &self,
        epoch: Epoch,
        change: &Delta,
        events: &[Event],
        put: &mut impl FnMut(Message<'_>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let rows = |pick: fn(&Event) -> Option<u32>| {
            let places: UInt32Array = events.iter().filter_map(pick).collect();
            take_rows(change.rows(), &places).and_then(|rows| JsonRows::new(&rows)).map_err(unfit)
        };
        let after = rows(|event| event.after)?;
        let before = match self.envelope {
            Envelope::Debezium => rows(|event| event.before)?,
            Envelope::Plain | Envelope::Upsert => JsonRows::default(),
        };
        let keys = match &self.key {
            Some(key) => {
                let places: UInt32Array = events.iter().filter_map(|event| event.after.or(event.before)).collect();
                let rows = change.rows().project(key).and_then(|rows| take_rows(&rows, &places));
                Some(rows.and_then(|rows| JsonRows::new(&rows)).map_err(unfit)?)
            }
            None => None,
        };
        let (mut next_before, mut next_after) = (before.iter(), after.iter());
        let mut envelope = debezium::Envelope::new(&self.sink, epoch);
        for (at, event) in events.iter().enumerate() {
            let after = event.after.and_then(|_| next_after.next());
            let value = match self.envelope {
                Envelope::Debezium => {
                    let before = event.before.and_then(|_| next_before.next());
                    Some(envelope.wrap(before, after))
                }
                Envelope::Plain | Envelope::Upsert => after,
            };
            put(Message { key: keys.as_ref().map(|keys| keys.row(at)), value })?;
        }
        Ok(())
    }

    fn by_key(&self, change: &Delta) -> Result<ByKey, SinkError> {
        let key = self.key.as_deref().unwrap_or_default();
        let columns: Vec<ArrayRef> = key.iter().map(|column| change.columns()[*column].clone()).collect();
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let keys = KeyEncoder::new(&types).and_then(|encoder| encoder.encode(&columns, change.len())).map_err(unfit)?;
        let mut table = RowTable::with_capacity(change.len());
        let hashes = keys.hashes().into_iter().enumerate();
        let first: Vec<usize> =
            hashes.map(|(row, hash)| table.find_or_insert(hash, row, |slot| keys.equal(slot, &keys, row))).collect();
        let mut order: Vec<u32> = (0_u32..).zip(&first).map(|(row, _)| row).collect();
        order.sort_by_key(|row| (first[*row as usize], change.weight(*row as usize) > 0));
        Ok(ByKey { first, order })
    }
}

/// The rows of a change by key.
struct ByKey {
    /// For each row, the first one with its key.
    first: Vec<usize>,
    /// All rows, those with one key together, and of these the deleted ones first.
    order: Vec<u32>,
}

impl ByKey {
    /// The rows of each key.
    fn groups(&self) -> impl Iterator<Item = &[u32]> {
        self.order.chunk_by(|one, other| self.first[*one as usize] == self.first[*other as usize])
    }
}

fn unfit(error: ArrowError) -> SinkError {
    SinkError::Unfit(format!("a row cannot be encoded: {error}"))
}

fn envelope(definition: &SinkDefinition) -> Result<Envelope, SqlError> {
    let Some(format) = &definition.format else {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "a sink needs FORMAT and ENCODE")
            .with_hint("add FORMAT PLAIN ENCODE JSON, FORMAT UPSERT ENCODE JSON, or FORMAT DEBEZIUM ENCODE JSON"));
    };
    match format.encode.as_str() {
        "json" => {}
        "avro" | "protobuf" | "csv" | "parquet" | "bytes" | "text" => {
            let encode = format.encode.to_uppercase();
            return Err(SqlError::unsupported(format!("ENCODE {encode} is not supported for sinks yet"))
                .with_hint("use ENCODE JSON"));
        }
        other => {
            let message = format!("there is no encoding \"{other}\"");
            return Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint("use ENCODE JSON"));
        }
    }
    if let Some(option) = format.options.keys().next() {
        let message = format!("unknown option \"{option}\" of ENCODE JSON");
        return Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint("it has no options"));
    }
    match format.format.as_str() {
        "plain" => Ok(Envelope::Plain),
        "upsert" => Ok(Envelope::Upsert),
        "debezium" => Ok(Envelope::Debezium),
        other => Err(SqlError::new(SqlState::InvalidParameterValue, format!("there is no format \"{other}\""))
            .with_hint(suggest(other, &["plain", "upsert", "debezium"], "formats"))),
    }
}

/// The columns that the option `key` names.
fn declared_key(definition: &SinkDefinition) -> Result<Option<Vec<usize>>, SqlError> {
    let Some(text) = definition.options.get("key") else { return Ok(None) };
    let schema = &definition.schema;
    let column = |name: &str| {
        schema.index_of(name).map_err(|_| {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let message = format!("column \"{name}\" named in option \"key\" does not exist");
            SqlError::new(SqlState::UndefinedColumn, message).with_hint(suggest(name, &names, "columns"))
        })
    };
    let mut key = Vec::new();
    for name in text.split(',') {
        let index = column(name.trim())?;
        if key.contains(&index) {
            let message = format!("column \"{}\" named twice in option \"key\"", name.trim());
            return Err(SqlError::new(SqlState::DuplicateColumn, message));
        }
        key.push(index);
    }
    Ok(Some(key))
}
