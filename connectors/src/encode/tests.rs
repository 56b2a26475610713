//! Every type of ours as JSON, and every envelope around rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch, StringArray,
    StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano, Schema};

use super::*;
use crate::definition::Format;

fn json(values: impl arrow::array::Array + 'static) -> Vec<String> {
    let rows = RecordBatch::try_from_iter_with_nullable([("v", Arc::new(values) as ArrayRef, true)]).unwrap();
    let rows = JsonRows::new(&rows).unwrap();
    let value = |row: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(row).expect("it is JSON");
        let text = std::str::from_utf8(row).unwrap();
        text.strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned()
    };
    rows.iter().map(value).collect()
}

#[test]
fn integers_and_booleans() {
    assert_eq!(json(Int16Array::from(vec![Some(-7), None])), ["-7", "null"]);
    assert_eq!(json(Int32Array::from(vec![i32::MIN])), ["-2147483648"]);
    assert_eq!(json(Int64Array::from(vec![i64::MAX])), ["9223372036854775807"]);
    assert_eq!(json(BooleanArray::from(vec![Some(true), Some(false), None])), ["true", "false", "null"]);
}

#[test]
fn floats() {
    let doubles = vec![1.0, -0.1, 1e300, 5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let expected = ["1", "-0.1", "1e+300", "5e-324", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""];
    let found = json(Float64Array::from(doubles));
    assert_eq!(found.iter().map(|text| text.replace("e300", "e+300")).collect::<Vec<_>>(), expected);
    assert_eq!(json(Float32Array::from(vec![0.1, 16_777_216.0, f32::NAN])), ["0.1", "16777216", "\"NaN\""]);
}

#[test]
fn numerics_keep_their_digits() {
    let decimals = |values: Vec<Option<i128>>, precision, scale| {
        json(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    assert_eq!(decimals(vec![Some(1250), Some(-5), Some(0), None], 18, 2), ["12.50", "-0.05", "0.00", "null"]);
    let most = 99_999_999_999_999_999_999_999_999_999_999_999_999;
    assert_eq!(decimals(vec![Some(most)], 38, 10), ["9999999999999999999999999999.9999999999"]);
    assert_eq!(decimals(vec![Some(42)], 10, 0), ["42"]);
}

#[test]
fn text_is_escaped() {
    let texts = vec![Some("a\"b\\c\n\t\u{1}\u{7f}"), Some("žluťoučký \u{1f40e} </script>"), Some(""), None];
    let found = json(StringArray::from(texts));
    assert_eq!(found[0], r#""a\"b\\c\n\t\u0001"#.to_owned() + "\u{7f}\"");
    assert_eq!(found[1..], ["\"žluťoučký \u{1f40e} </script>\"", "\"\"", "null"]);
}

#[test]
fn bytes_are_hexadecimal() {
    assert_eq!(json(BinaryArray::from(vec![&b"\x00\xff~"[..], b""])), [r#""\\x00ff7e""#, r#""\\x""#]);
}

#[test]
fn dates_and_times() {
    assert_eq!(json(Date32Array::from(vec![19_782, -1])), ["\"2024-02-29\"", "\"1969-12-31\""]);
    assert_eq!(json(Time64MicrosecondArray::from(vec![86_399_500_000, 0])), ["\"23:59:59.500\"", "\"00:00:00\""]);
    let stamps = TimestampMicrosecondArray::from(vec![Some(1_500_000), Some(-1), Some(i64::MAX), Some(i64::MIN), None]);
    let plain =
        ["\"1970-01-01T00:00:01.500\"", "\"1969-12-31T23:59:59.999999\"", "\"infinity\"", "\"-infinity\"", "null"];
    assert_eq!(json(stamps.clone()), plain);
    assert_eq!(
        json(stamps.with_timezone("UTC"))[..2],
        ["\"1970-01-01T00:00:01.500Z\"", "\"1969-12-31T23:59:59.999999Z\""]
    );
}

/// As Postgres prints them with `IntervalStyle = iso_8601`.
#[test]
fn intervals() {
    let parts = |months, days, micros: i64| IntervalMonthDayNano::new(months, days, micros * 1_000);
    let intervals = [
        (parts(14, 3, 14_706_700_000), "\"P1Y2M3DT4H5M6.7S\""),
        (parts(0, 0, 0), "\"PT0S\""),
        (parts(-1, 0, 0), "\"P-1M\""),
        (parts(0, 1, -500_000), "\"P1DT-0.5S\""),
        (parts(0, 0, -3_661_000_000), "\"PT-1H-1M-1S\""),
    ];
    for (interval, expected) in intervals {
        assert_eq!(json(IntervalMonthDayNanoArray::from(vec![interval])), [expected]);
    }
    assert_eq!(json(DurationMicrosecondArray::from(vec![Some(90_000_000), None])), ["\"PT1M30S\"", "null"]);
}

#[test]
fn arrays_and_records() {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![]), None]);
    assert_eq!(json(lists), ["[1,null]", "[]", "null"]);
    let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None]));
    let record = StructArray::from(vec![(Arc::new(Field::new("x", DataType::Float64, true)), values)]);
    assert_eq!(json(record), ["{\"x\":\"NaN\"}", "{\"x\":null}"]);
}

/// Rows `(k, v)` with weights.
fn change(rows: &[(i64, &str, i64)]) -> Delta {
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        ],
    );
    Delta::new(batch.unwrap(), rows.iter().map(|row| row.2).collect::<Vec<_>>())
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Utf8, true)]))
}

fn definition(format: &str, key: Option<Vec<usize>>, option: Option<&str>) -> SinkDefinition {
    SinkDefinition {
        name: "s".into(),
        identity: "x".into(),
        relation: "r".into(),
        schema: schema(),
        key,
        append_only: format == "plain",
        options: option.iter().map(|key| ("key".to_owned(), (*key).to_owned())).collect(),
        format: Some(Format { format: format.into(), encode: "json".into(), options: BTreeMap::new() }),
    }
}

/// Each message as `key=value`.
fn messages(definition: &SinkDefinition, change: &Delta) -> Result<Vec<String>, SinkError> {
    let text = |part: Option<&[u8]>| part.map_or("-".to_owned(), |part| String::from_utf8(part.to_vec()).unwrap());
    let mut messages = Vec::new();
    ChangeEncoder::new(definition)?.encode(Epoch(7), change, |message| {
        messages.push(format!("{}={}", text(message.key), text(message.value)));
        Ok(())
    })?;
    Ok(messages)
}

#[test]
fn plain_tells_each_row_as_often_as_it_is_there() {
    let rows = change(&[(1, "a", 2), (2, "b", 1)]);
    let a = r#"-={"k":1,"v":"a"}"#;
    assert_eq!(messages(&definition("plain", None, None), &rows).unwrap(), [a, a, r#"-={"k":2,"v":"b"}"#]);
    let keyed = messages(&definition("plain", None, Some("v")), &rows).unwrap();
    assert_eq!(keyed[2], r#"{"v":"b"}={"k":2,"v":"b"}"#);
    assert!(matches!(messages(&definition("plain", None, None), &change(&[(1, "a", -1)])), Err(SinkError::Unfit(_))));
}

#[test]
fn upsert_tells_the_last_row_of_a_key_or_that_there_is_none() {
    let rows = change(&[(1, "new", 1), (2, "gone", -1), (1, "old", -1), (3, "more", 1)]);
    let expected = [r#"{"k":1}={"k":1,"v":"new"}"#, r#"{"k":2}=-"#, r#"{"k":3}={"k":3,"v":"more"}"#];
    assert_eq!(messages(&definition("upsert", Some(vec![0]), None), &rows).unwrap(), expected);
    // A declared key counts more than the one that is proven.
    let by_both = messages(&definition("upsert", Some(vec![0]), Some("v, k")), &rows).unwrap();
    assert_eq!(by_both[2], r#"{"v":"old","k":1}=-"#);
    let twice = change(&[(1, "a", 1), (1, "b", 1)]);
    assert!(matches!(messages(&definition("upsert", Some(vec![0]), None), &twice), Err(SinkError::Unfit(_))));
}

#[test]
fn debezium_tells_before_and_after() {
    let tail = r#","ts_ms":7,"source":{"connector":"freshet","name":"s","ts_ms":7}}"#;
    let rows = change(&[(1, "new", 1), (2, "gone", -1), (1, "old", -1), (3, "more", 1)]);
    let expected = [
        format!(r#"{{"k":1}}={{"before":{{"k":1,"v":"old"}},"after":{{"k":1,"v":"new"}},"op":"u"{tail}"#),
        format!(r#"{{"k":2}}={{"before":{{"k":2,"v":"gone"}},"after":null,"op":"d"{tail}"#),
        format!(r#"{{"k":3}}={{"before":null,"after":{{"k":3,"v":"more"}},"op":"c"{tail}"#),
    ];
    assert_eq!(messages(&definition("debezium", Some(vec![0]), None), &rows).unwrap(), expected);
    // Without a key, all columns are it, and copies are told one by one.
    let found = messages(&definition("debezium", None, None), &change(&[(1, "a", -2)])).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with(r#"{"k":1,"v":"a"}={"before":{"k":1,"v":"a"},"after":null,"op":"d""#), "{}", found[0]);
}

#[test]
fn no_change_is_no_message() {
    for format in ["plain", "upsert", "debezium"] {
        let nothing = Delta::empty(Arc::new(Schema::empty()));
        assert!(messages(&definition(format, Some(vec![0]), None), &nothing).unwrap().is_empty());
    }
}

#[test]
fn many_rows_keep_their_keys() {
    let texts: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let rows: Vec<(i64, &str, i64)> =
        (0..).zip(&texts).map(|(n, text)| (n, text.as_str(), if n % 3 == 0 { -1 } else { 1 })).collect();
    let found = messages(&definition("upsert", Some(vec![0]), None), &change(&rows)).unwrap();
    assert_eq!(found.len(), 10_000);
    for (n, message) in found.iter().enumerate() {
        let value = if n % 3 == 0 { "-".to_owned() } else { format!(r#"{{"k":{n},"v":"{n}"}}"#) };
        assert_eq!(*message, format!(r#"{{"k":{n}}}={value}"#));
    }
}

#[test]
fn what_cannot_be_told_is_refused() {
    let refused = |definition: SinkDefinition| ChangeEncoder::new(&definition).unwrap_err();
    let error = refused(SinkDefinition { append_only: false, ..definition("plain", None, None) });
    assert_eq!(error.hint.as_deref(), Some("use FORMAT UPSERT or FORMAT DEBEZIUM"));
    assert_eq!(refused(definition("upsert", None, None)).message, "\"r\" has no key");
    let error = refused(definition("upsert", None, Some("kk")));
    assert_eq!(error.hint.as_deref(), Some("did you mean \"k\"?"));
    assert_eq!(refused(definition("upset", None, None)).hint.as_deref(), Some("did you mean \"upsert\"?"));
    let avro = Format { format: "plain".into(), encode: "avro".into(), options: BTreeMap::new() };
    let error = refused(SinkDefinition { format: Some(avro), ..definition("plain", None, None) });
    assert_eq!(error.message, "ENCODE AVRO is not supported for sinks yet");
}
