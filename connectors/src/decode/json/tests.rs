//! JSON decoding: what each type accepts, how bad payloads are told apart, and that no bytes upset it.

use arrow::array::{Array, AsArray, BinaryArray, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::decode::Reject;

fn decode_with(fields: &[Field], payloads: &[&str], on_error: OnError) -> (Vec<ArrayRef>, Rejects) {
    let payloads: Vec<_> = payloads.iter().map(|payload| Some(payload.as_bytes())).collect();
    let mut rejects = Rejects::default();
    let columns = JsonDecoder::new(fields, &|_| true, on_error).unwrap().decode(&payloads, &mut rejects);
    for column in &columns {
        assert_eq!(column.len(), payloads.len());
    }
    (columns, rejects)
}

fn decode(fields: &[Field], payloads: &[&str]) -> (Vec<ArrayRef>, Rejects) {
    decode_with(fields, payloads, OnError::Quarantine)
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// Each value as the only field of a payload; all must fit.
fn values(data_type: DataType, values: &[&str]) -> ArrayRef {
    let payloads: Vec<String> = values.iter().map(|value| format!("{{\"x\":{value}}}")).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let (columns, rejects) = decode(&[field("x", data_type)], &payloads);
    assert!(rejects.is_empty(), "{rejects:?}");
    columns[0].clone()
}

/// Why one value does not fit.
fn misfit(data_type: DataType, value: &str) -> String {
    let (columns, rejects) = decode(&[field("x", data_type)], &[&format!("{{\"x\":{value}}}")]);
    assert!(columns[0].is_null(0));
    let (_, Reject { reason, column }) = rejects.iter().next().expect(value);
    assert_eq!(column.as_deref(), Some("x"));
    reason.clone()
}

fn timestamp(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
}

#[test]
fn whole_numbers() {
    let big =
        values(DataType::Int64, &["-9223372036854775808", "7.0", "2e3", "\" 12 \"", "null", "9223372036854775807"]);
    let big: Vec<_> = big.as_primitive::<Int64Type>().iter().collect();
    assert_eq!(big, [Some(i64::MIN), Some(7), Some(2000), Some(12), None, Some(i64::MAX)]);
    assert_eq!(values(DataType::Int32, &["-5"]).as_primitive::<Int32Type>().value(0), -5);
    assert_eq!(values(DataType::Int16, &["32767"]).as_primitive::<Int16Type>().value(0), 32767);
    assert_eq!(misfit(DataType::Int16, "32768"), "value 32768 is out of range for type smallint");
    assert_eq!(
        misfit(DataType::Int64, "9223372036854775808"),
        "value 9223372036854775808 is out of range for type bigint"
    );
    assert_eq!(misfit(DataType::Int64, "3.7"), "invalid value for type bigint: 3.7 (it has a fraction)");
    assert_eq!(misfit(DataType::Int64, "\"abc\""), "invalid input syntax for type bigint: \"abc\"");
    assert_eq!(misfit(DataType::Int64, "1e999"), "value 1e999 is out of range for type bigint");
    let beyond_floats = values(DataType::Int64, &["9007199254740993.0", "-9223372036854775808e0", "1e18", "50e-1"]);
    let beyond_floats = beyond_floats.as_primitive::<Int64Type>().values();
    assert_eq!(beyond_floats[..], [9_007_199_254_740_993, i64::MIN, 1_000_000_000_000_000_000, 5]);
    assert!(misfit(DataType::Int64, "9007199254740993.5").ends_with("(it has a fraction)"));
    assert!(misfit(DataType::Int64, "1e-99999999999").ends_with("(it has a fraction)"));
    assert!(misfit(DataType::Int64, "1e99999999999").ends_with("is out of range for type bigint"));
    for wrong in ["true", "{}", "[1]", "\"\"", "\"NaN\"", "\"inf\"", "1-2", "\"1e\""] {
        assert!(misfit(DataType::Int64, wrong).starts_with("invalid input syntax for type bigint"));
    }
}

#[test]
fn floats_and_booleans() {
    let doubles = values(DataType::Float64, &["1", "-0.5e-3", "\"NaN\"", "\"-Infinity\"", "\"2.5\""]);
    let doubles = doubles.as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(doubles[..2], [1.0, -0.5e-3]);
    assert!(doubles[2].is_nan());
    assert_eq!(doubles[3..], [f64::NEG_INFINITY, 2.5]);
    assert_eq!(values(DataType::Float32, &["0.1"]).as_primitive::<Float32Type>().value(0), 0.1);
    assert_eq!(misfit(DataType::Float64, "1e999"), "value 1e999 is out of range for type double precision");
    assert_eq!(misfit(DataType::Float32, "1e39"), "value 1e39 is out of range for type real");
    assert_eq!(misfit(DataType::Float64, "true"), "invalid input syntax for type double precision: true");
    let booleans = values(DataType::Boolean, &["true", "false", "\"true\""]);
    assert_eq!(booleans.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
    assert_eq!(misfit(DataType::Boolean, "1"), "invalid input syntax for type boolean: 1");
}

#[test]
fn decimals_round_half_away_from_zero_and_know_their_bounds() {
    let scaled = |value: &str| values(DataType::Decimal128(10, 2), &[value]).as_primitive::<Decimal128Type>().value(0);
    let cases = [
        ("1", 100),
        ("-1.005", -101),
        ("1.004", 100),
        ("\"12.3\"", 1230),
        ("1e3", 100_000),
        ("1234e-3", 123),
        ("5e-3", 1),
        ("4e-3", 0),
        ("5e-4", 0),
        ("0e99999", 0),
        ("99999999.99", 9_999_999_999),
        ("0.000000000000000000000000000000000000000000000000001", 0),
    ];
    for (text, expected) in cases {
        assert_eq!(scaled(text), expected, "{text}");
    }
    for wrong in ["100000000", "99999999.995", "1e30", "1e999999999", "\"1e99999999999\"", "\".\"", "\"1.2.3\"", "true"]
    {
        misfit(DataType::Decimal128(10, 2), wrong);
    }
    assert_eq!(misfit(DataType::Decimal128(10, 2), "1e30"), "value 1e30 is out of range for type numeric(10,2)");
}

#[test]
fn text_takes_any_value() {
    let written = ["\"plain\"", "\"\\u00e9\\ud83d\\ude00\\n\"", "12.50", "true", "{\"a\": [1, null]}", "null", "\"\""];
    let expected =
        [Some("plain"), Some("é😀\n"), Some("12.50"), Some("true"), Some("{\"a\": [1, null]}"), None, Some("")];
    assert_eq!(values(DataType::Utf8, &written).as_string::<i32>(), &StringArray::from(expected.to_vec()));
    assert_eq!(values(DataType::Utf8View, &written).as_string_view().iter().collect::<Vec<_>>(), expected);
    assert_eq!(values(DataType::LargeUtf8, &written).as_string::<i64>().iter().collect::<Vec<_>>(), expected);
    assert_eq!(misfit(DataType::Utf8, "{\"a\" 1}"), "invalid value for type text: {\"a\" 1} (invalid JSON)");
    assert_eq!(
        misfit(DataType::Utf8, "\"\\ud800\""),
        "invalid value for type text: \"\\ud800\" (invalid escape or control character in the string)"
    );
    assert!(misfit(DataType::Utf8, "1.2.3").contains("invalid JSON"));
    assert!(misfit(DataType::Int64, &format!("\"{}\"", "x".repeat(1000))).len() < 200);
}

#[test]
fn bytes_dates_and_times() {
    let bytes = values(DataType::Binary, &["\"\\\\x00fF\"", "\"AAE=\"", "\"\""]);
    assert_eq!(bytes.as_binary::<i32>(), &BinaryArray::from(vec![&[0_u8, 255][..], &[0, 1], &[]]));
    misfit(DataType::Binary, "\"\\\\x0\"");
    misfit(DataType::Binary, "\"\\\\x+1\"");
    misfit(DataType::Binary, "\"!\"");
    assert_eq!(values(DataType::Date32, &["\"1970-01-03\"", "4"]).as_primitive::<Date32Type>().values()[..], [2, 4]);
    misfit(DataType::Date32, "\"1970-02-30\"");
    let time = values(DataType::Time64(TimeUnit::Microsecond), &["\"00:00:01.5\""]);
    assert_eq!(time.as_primitive::<Time64MicrosecondType>().value(0), 1_500_000);
    misfit(DataType::Time64(TimeUnit::Microsecond), "\"12\"");
}

#[test]
fn timestamps() {
    let written = [
        "\"1970-01-01T00:00:01Z\"",
        "\"1970-01-01 00:00:01.25\"",
        "\"1970-01-01T01:00:00+01:00\"",
        "\"1970-01-02\"",
        "1500",
        "\"2262-12-31T00:00:00.000001Z\"",
    ];
    for data_type in [timestamp(None), timestamp(Some("+00:00"))] {
        let column = values(data_type.clone(), &written);
        assert_eq!(column.data_type(), &data_type);
        let micros = &column.as_primitive::<TimestampMicrosecondType>().values()[..];
        assert_eq!(micros, [1_000_000, 1_250_000, 0, 86_400_000_000, 1_500_000, 9_246_096_000_000_001]);
    }
    assert_eq!(misfit(timestamp(None), "\"yesterday\""), "invalid input syntax for type timestamp: \"yesterday\"");
    for wrong in ["1.5", "true", "9223372036854775807", "\"1500\""] {
        misfit(timestamp(None), wrong);
    }
}

#[test]
fn arrays_and_structs_isolate_their_misfits() {
    let list = DataType::new_list(DataType::Int64, true);
    let fields = [field("x", list), field("s", DataType::Struct(vec![field("a", DataType::Int32)].into()))];
    let (columns, rejects) =
        decode(&fields, &["{\"x\":[1,2]}", "{\"x\":[\"y\"]}", "{\"x\":[3],\"s\":{\"a\":4}}", "{\"x\":[3] ,\"s\":[]}"]);
    let lengths: Vec<_> = columns[0].as_list::<i32>().iter().map(|list| list.map(|list| list.len())).collect();
    assert_eq!(lengths, [Some(2), None, Some(1), Some(1)]);
    assert_eq!(columns[1].as_struct().column(0).as_primitive::<Int32Type>().value(2), 4);
    let found: Vec<_> = rejects.iter().map(|(row, reject)| (row, reject.column.as_deref())).collect();
    assert_eq!(found, [(1, Some("x")), (3, Some("s"))]);
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let (_, rejects) = decode(&fields, &[&deep]);
    assert_eq!(rejects.len(), 1);
    let error = JsonDecoder::new(
        &[field("d", DataType::Interval(arrow::datatypes::IntervalUnit::DayTime))],
        &|_| true,
        OnError::Fail,
    );
    assert_eq!(error.err().unwrap().hint.as_deref(), Some("declare it as TEXT, which takes any JSON value"));
}

#[test]
fn fields_find_their_columns() {
    let fields = [field("userid", DataType::Int64), field("userName", DataType::Utf8), field("a\"b", DataType::Int64)];
    let payloads = [
        "{\"userId\":1,\"userName\":\"x\",\"a\\\"b\":2}",
        "{\"userId\":1,\"userid\":2}",
        "{\"userid\":2,\"userId\":1,\"username\":\"no\"}",
        "{\"userid\":2,\"userid\":3}",
        "{\"userid\":2,\"userid\":null,\"other\":[{}]}",
        "{}",
    ];
    let (columns, rejects) = decode(&fields, &payloads);
    assert!(rejects.is_empty(), "{rejects:?}");
    let ids: Vec<_> = columns[0].as_primitive::<Int64Type>().iter().collect();
    assert_eq!(ids, [Some(1), Some(2), Some(2), Some(3), None, None]);
    let names: Vec<_> = columns[1].as_string::<i32>().iter().collect();
    assert_eq!(names, [Some("x"), None, None, None, None, None]);
    assert_eq!(columns[2].as_primitive::<Int64Type>().value(0), 2);
}

#[test]
fn payloads_that_are_no_object_are_rejected_whole() {
    let fields = [field("x", DataType::Int64)];
    let payloads = [
        Some(&b"{\"x\":1}"[..]),
        None,
        Some(b""),
        Some(b"{\"x\":1}{\"x\":2}"),
        Some(b"[{\"x\":1}]"),
        Some(b"{\"x\":1"),
        Some(b"{\"x\":\"\xff\"}"),
        Some(b"{\"x\":2}"),
    ];
    let mut rejects = Rejects::default();
    let columns = JsonDecoder::new(&fields, &|_| true, OnError::Quarantine).unwrap().decode(&payloads, &mut rejects);
    let read: Vec<_> = columns[0].as_primitive::<Int64Type>().iter().collect();
    assert_eq!(read, [Some(1), None, None, None, None, None, None, Some(2)]);
    let reasons: Vec<_> = rejects.iter().map(|(_, reject)| reject.reason.as_str()).collect();
    let expected = [
        "the record has no payload (a tombstone)",
        "the payload is empty, expected a JSON object",
        "the payload holds more than one JSON object: the second starts at byte 7",
        "the payload is a JSON array, expected one JSON object",
        "invalid JSON: the payload ends at byte 6 where \",\" or \"}\" was expected",
        "the payload is not valid UTF-8 at byte 6",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn on_error_null_spares_the_record_where_the_column_may_be_null() {
    let fields = [field("x", DataType::Int64), Field::new("y", DataType::Int64, false)];
    let (columns, rejects) =
        decode_with(&fields, &["{\"x\":\"?\",\"y\":1}", "{\"x\":2,\"y\":\"?\"}", "nonsense"], OnError::Null);
    assert!(columns[0].is_null(0));
    assert_eq!(columns[1].as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(rejects.iter().map(|(row, _)| row).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn rows_stay_aligned_across_chunks() {
    let payloads: Vec<String> = (0..CHUNK_ROWS * 2 + 10)
        .map(|row| if row % 100 == 7 { "bad".into() } else { format!("{{\"x\":{row}}}") })
        .collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let (columns, rejects) = decode(&[field("x", DataType::Int64)], &payloads);
    for (row, value) in columns[0].as_primitive::<Int64Type>().iter().enumerate() {
        assert_eq!(value, (row % 100 != 7).then_some(row as i64));
        assert_eq!(rejects.contains(row), row % 100 == 7);
    }
}

/// Whatever the bytes, nothing panics, and a payload that a strict parser takes for an object of fitting values is a row.
#[test]
fn random_mutations_never_panic() {
    let fields = [
        field("a", DataType::Int64),
        field("b", DataType::Utf8),
        field("c", timestamp(None)),
        field("d", DataType::Decimal128(12, 3)),
        field("e", DataType::new_list(DataType::Float64, true)),
        field("f", DataType::Boolean),
        field("g", DataType::Binary),
    ];
    let valid = br#"{"a":-12,"b":"x\u00e9\"y","c":"2024-02-29T12:00:00.5Z","d":12.25,"e":[1,2.5,null],"f":true,"g":"AAE=","z":{"k":[{}]}}"#;
    let mut random = StdRng::seed_from_u64(2);
    let mut decoder = JsonDecoder::new(&fields, &|_| true, OnError::Quarantine).unwrap();
    for _ in 0..300 {
        let payloads: Vec<Vec<u8>> = (0..64).map(|_| mutate(valid, &mut random)).collect();
        let borrowed: Vec<Option<&[u8]>> = payloads.iter().map(|payload| Some(payload.as_slice())).collect();
        let mut rejects = Rejects::default();
        let columns = decoder.decode(&borrowed, &mut rejects);
        assert!(columns.iter().all(|column| column.len() == 64));
        for (row, payload) in payloads.iter().enumerate() {
            let object = serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(payload);
            if let Ok(object) = object
                && !rejects.contains(row)
            {
                // As a column "a" takes a field "A".
                let number = object.get("a").or(object.get("A")).and_then(serde_json::Value::as_i64);
                let read = columns[0].as_primitive::<Int64Type>();
                assert_eq!(number.is_some(), read.is_valid(row), "{}", String::from_utf8_lossy(payload));
                assert!(number.is_none_or(|number| number == read.value(row)));
            }
        }
    }
}

fn mutate(valid: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut payload = valid.to_vec();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..payload.len().max(1)).min(payload.len());
        match random.random_range(0..6) {
            0 => payload.truncate(at),
            1 => payload.insert(at, random.random()),
            2 if at < payload.len() => payload[at] = *b"{}[]\",:\\0-e.n".get(random.random_range(0..13)).unwrap(),
            3 if at < payload.len() => payload[at] ^= 1 << random.random_range(0..8),
            4 if at < payload.len() => _ = payload.remove(at),
            _ => payload.extend_from_slice(&valid[at.min(valid.len())..]),
        }
    }
    payload
}
