//! `<source>_dead_letters`: the records of a source that could not become rows, each with its reason.
//!
//! Bounded in number and bytes: past that, letters are counted in the source's status and not kept.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_connectors::DeadLetter;
use freshet_storage::collection::{Collection, CollectionDescription, HistoryPolicy, ShardWriter};
use freshet_types::{Delta, Epoch};
use tracing::{error, warn};

use crate::limits::{DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_MAX};

/// The columns of every dead-letter relation.
pub fn schema() -> SchemaRef {
    let utc = Some(Arc::from("UTC"));
    Arc::new(Schema::new(vec![
        Field::new("payload", DataType::Binary, true),
        Field::new("error", DataType::Utf8, false),
        Field::new("column", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, utc), true),
    ]))
}

/// The collection for the dead letters of the source `source_name`. The coordinator is its only writer.
pub fn description(source_name: &str) -> CollectionDescription {
    CollectionDescription {
        name: format!("{source_name}_dead_letters"),
        schema: schema(),
        key: None,
        append_only: true,
        history: HistoryPolicy::recent(),
        retention: None,
    }
}

/// The letters as rows.
fn rows(letters: &[DeadLetter]) -> RecordBatch {
    let times = letters.iter().map(|letter| letter.timestamp_ms.map(|ms| ms * 1_000));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter(letters.iter().map(|letter| letter.payload.as_deref()))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| letter.error.as_str()))),
        Arc::new(StringArray::from_iter(letters.iter().map(|letter| letter.column.as_deref()))),
        Arc::new(Int32Array::from_iter_values(letters.iter().map(|letter| letter.partition))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.offset))),
        Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are built to the schema")
}

/// The dead letters of one source, on their way into its collection.
pub struct LetterBox {
    writer: ShardWriter,
    count: usize,
    bytes: usize,
    full: bool,
}

impl LetterBox {
    pub fn new(letters: &Arc<Collection>) -> Self {
        let (count, bytes) = (letters.row_count(), letters.memory_bytes());
        Self { writer: letters.writer(0), count, bytes, full: false }
    }

    pub fn advance_upper(&mut self, epoch: Epoch) {
        self.writer.advance_upper(epoch);
    }

    /// Keeps the letters as far as there is room.
    pub fn keep(&mut self, epoch: Epoch, source: &str, letters: Vec<DeadLetter>) {
        let kept: Vec<DeadLetter> = letters.into_iter().filter(|letter| self.takes(source, letter)).collect();
        if kept.is_empty() {
            return;
        }
        if let Err(error) = self.writer.apply(epoch, &Delta::inserts(rows(&kept))) {
            error!(source, "cannot keep dead letters: {error}");
        }
    }

    fn takes(&mut self, source: &str, letter: &DeadLetter) -> bool {
        let bytes = letter.payload.as_ref().map_or(0, Vec::len) + letter.error.len();
        if self.count >= DEAD_LETTERS_MAX || self.bytes + bytes > DEAD_LETTERS_BYTES_MAX {
            if !std::mem::replace(&mut self.full, true) {
                warn!(source, "keeps {} dead letters already; further ones are only counted", self.count);
            }
            return false;
        }
        self.count += 1;
        self.bytes += bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(partition: i32, offset: i64, bytes: usize) -> DeadLetter {
        let payload = Some(vec![0; bytes]);
        DeadLetter { payload, error: "no".into(), column: None, partition, offset, timestamp_ms: None }
    }

    fn letter_box() -> (LetterBox, Arc<Collection>) {
        let collection = Collection::new(description("s"), 1).unwrap();
        (LetterBox::new(&collection), collection)
    }

    #[test]
    fn bytes_are_bounded() {
        let (mut letters, collection) = letter_box();
        let half = DEAD_LETTERS_BYTES_MAX / 2;
        letters.keep(Epoch(1), "s", vec![letter(0, 0, half), letter(0, 1, half), letter(0, 2, 10)]);
        assert_eq!(collection.row_count(), 2, "the second does not fit, the third does");
    }
}
