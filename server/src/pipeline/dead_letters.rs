//! `<source>_dead_letters`: the records of a source that could not become rows, each with its reason.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_connectors::DeadLetter;
use freshet_storage::collection::{CollectionDescription, DEFAULT_HISTORY_MS};

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
        history_ms: DEFAULT_HISTORY_MS,
    }
}

/// The letters as rows.
pub fn rows(letters: &[DeadLetter]) -> RecordBatch {
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
