//! The rules of a declaration, through the whole way from record to row.

use std::collections::BTreeMap;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{binary, col, lit};

use super::*;
use crate::decode::records::{Decoded, Record, RecordDecoder};
use crate::definition::{Check, Column, Format, Include, IncludeKind};

/// `a BIGINT NOT NULL, b BIGINT, c TEXT, ratio BIGINT AS a / b, CHECK (a < 100)`, with all INCLUDE columns.
fn definition() -> SourceDefinition {
    let column = |name: &str, data_type, nullable| Column { name: name.into(), data_type, nullable, computed: None };
    let mut definition = SourceDefinition {
        name: "s".into(),
        columns: vec![
            column("a", DataType::Int64, false),
            column("b", DataType::Int64, true),
            column("c", DataType::Utf8, true),
            column("ratio", DataType::Int64, true),
        ],
        checks: vec![],
        includes: IncludeKind::ALL.map(|kind| Include { kind, name: kind.default_name() }).to_vec(),
        options: BTreeMap::new(),
        format: Some(Format { format: "plain".into(), encode: "json".into(), options: BTreeMap::new() }),
    };
    let schema = definition.schema();
    let column = |name: &str| col(name, &schema).unwrap();
    definition.columns[3].computed = Some(binary(column("a"), Operator::Divide, column("b"), &schema).unwrap());
    let small = binary(column("a"), Operator::Lt, lit(100_i64), &schema).unwrap();
    definition.checks.push(Check { name: "small".into(), expression: small });
    definition
}

fn decode(definition: &SourceDefinition, columns: &[usize], on_error: OnError, payloads: &[&str]) -> Decoded {
    try_decode(definition, columns, on_error, payloads).unwrap()
}

fn try_decode(
    definition: &SourceDefinition,
    columns: &[usize],
    on_error: OnError,
    payloads: &[&str],
) -> Result<Decoded, SourceError> {
    let records: Vec<Record<'_>> = payloads
        .iter()
        .enumerate()
        .map(|(position, payload)| Record {
            key: (position % 2 == 0).then_some(b"k"),
            payload: Some(payload.as_bytes()),
            partition: 7,
            offset: 10 + position as i64,
            timestamp_ms: Some(5),
            headers: None,
        })
        .collect();
    RecordDecoder::new(definition, columns, on_error).unwrap().decode(&records)
}

fn letters(decoded: &Decoded) -> Vec<(i64, &str, Option<&str>)> {
    decoded.dead_letters.iter().map(|l| (l.offset, l.error.as_str(), l.column.as_deref())).collect()
}

const MIXED: [&str; 7] = [
    "{\"a\":6,\"b\":3}",
    "{\"a\":1,\"b\":0}",
    "{\"b\":1}",
    "{\"a\":200,\"b\":1}",
    "{\"a\":8,\"b\":null}",
    "{\"a\":\"x\",\"b\":1}",
    "{\"a\":9,\"b\":2}",
];

#[test]
fn rows_that_break_a_rule_become_dead_letters() {
    let decoded = decode(&definition(), &[0, 1, 2, 3], OnError::Quarantine, &MIXED);
    let expected = [
        (11, "division by zero", Some("ratio")),
        (12, "null value in column \"a\" violates not-null constraint", Some("a")),
        (13, "new row for source \"s\" violates check constraint \"small\"", None),
        (15, "invalid input syntax for type bigint: \"x\"", Some("a")),
    ];
    assert_eq!(letters(&decoded), expected);
    assert_eq!(decoded.dead_letters[0].payload.as_deref(), Some(MIXED[1].as_bytes()));
    assert_eq!((decoded.dead_letters[0].partition, decoded.dead_letters[0].timestamp_ms), (7, Some(5)));
    let ratio: Vec<_> = decoded.rows.column(3).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(ratio, [Some(2), None, Some(4)]);
    assert_eq!(decoded.rows.schema(), definition().schema());
}

#[test]
fn include_columns_tell_of_the_record() {
    let all: Vec<usize> = (0..10).collect();
    let rows = decode(&definition(), &all, OnError::Quarantine, &MIXED).rows;
    let column = |name: &str| rows.column_by_name(name).unwrap();
    assert_eq!(column("_offset").as_primitive::<Int64Type>().values()[..], [10, 14, 16]);
    assert_eq!(column("_partition").as_primitive::<Int32Type>().value(0), 7);
    assert_eq!(column("_timestamp").as_primitive::<TimestampMicrosecondType>().value(0), 5000);
    assert_eq!(column("_key").as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"k"[..]); 3]);
    assert_eq!(column("_payload").as_binary::<i32>().value(0), MIXED[0].as_bytes());
    assert!(column("_headers").is_null(0));
}

#[test]
fn columns_that_nobody_needs_hold_nulls() {
    let payloads = ["{\"a\":6,\"b\":1,\"c\":\"x\"}", "{\"a\":7,\"b\":1,\"c\":\"x\"}"];
    let decoded = decode(&definition(), &[0], OnError::Quarantine, &payloads);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values()[..], [6, 7]);
    for unneeded in [2, 4] {
        assert_eq!(decoded.rows.column(unneeded).null_count(), 2);
    }
    let decoded = decode(&definition(), &[2], OnError::Quarantine, &payloads);
    assert_eq!(decoded.rows.column(2).as_string::<i32>(), &StringArray::from(vec!["x", "x"]));
}

#[test]
fn the_same_records_become_rows_whoever_reads() {
    let more = ["{\"a\":6,\"b\":1,\"c\":\"\\ud800\"}", "{\"a\":6,\"b\":\"x\",\"c\":\"\\ud800\"}"];
    let payloads: Vec<&str> = MIXED.into_iter().chain(more).collect();
    for on_error in [OnError::Quarantine, OnError::Null] {
        let all = decode(&definition(), &(0..10).collect::<Vec<_>>(), on_error, &payloads);
        for columns in [&[][..], &[0], &[1], &[2], &[3], &[2, 3], &[4]] {
            let some = decode(&definition(), columns, on_error, &payloads);
            assert_eq!(some.dead_letters, all.dead_letters, "{columns:?}");
            assert_eq!(some.rows.num_rows(), all.rows.num_rows(), "{columns:?}");
        }
    }
}

#[test]
fn on_error_null_keeps_what_it_can() {
    let decoded = decode(&definition(), &[0, 1, 2, 3], OnError::Null, &MIXED);
    let offsets: Vec<_> = letters(&decoded).iter().map(|letter| letter.0).collect();
    assert_eq!(offsets, [12, 13, 15], "the division by zero is NULL, a bad NOT NULL column is not");
    let ratio: Vec<_> = decoded.rows.column(3).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(ratio, [Some(2), None, None, Some(4)]);
}

#[test]
fn on_error_fail_names_the_record() {
    let error = try_decode(&definition(), &[3], OnError::Fail, &MIXED).unwrap_err();
    assert!(matches!(error, SourceError::Record { partition: 7, offset: 11, .. }), "{error:?}");
    assert_eq!(error.to_string(), "source \"s\" stopped at a bad record: division by zero");
}

#[test]
fn failing_rows_are_found_one_by_one_in_a_large_batch() {
    let payloads: Vec<String> =
        (0..3000).map(|row| format!("{{\"a\":1,\"b\":{}}}", if row % 1000 == 999 { 0 } else { 1 })).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let decoded = decode(&definition(), &[3], OnError::Quarantine, &payloads);
    assert_eq!(decoded.rows.num_rows(), 2997);
    let offsets: Vec<_> = decoded.dead_letters.iter().map(|letter| letter.offset - 10).collect();
    assert_eq!(offsets, [999, 1999, 2999]);
}

#[test]
fn a_check_that_is_null_passes() {
    let mut definition = definition();
    definition.columns[0].nullable = true;
    let decoded = decode(&definition, &[0], OnError::Quarantine, &["{}", "{\"a\":100}"]);
    assert_eq!(decoded.rows.num_rows(), 1);
    assert_eq!(decoded.dead_letters.len(), 1);
}

#[test]
fn an_empty_batch_is_fine() {
    let decoded = decode(&definition(), &[0, 3], OnError::Quarantine, &[]);
    assert_eq!((decoded.rows.num_rows(), decoded.dead_letters.len()), (0, 0));
}
