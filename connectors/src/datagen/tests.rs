//! Made-up rows: their bounds, their determinism, and what is refused.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};

use super::*;
use crate::definition::Column;
use crate::source::{Offsets, Range as SourceRange};

fn definition(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> SourceDefinition {
    let column = |(name, data_type): &(&str, DataType)| Column {
        name: (*name).into(),
        data_type: data_type.clone(),
        nullable: true,
        computed: None,
    };
    SourceDefinition {
        name: "s".into(),
        columns: columns.iter().map(column).collect(),
        checks: vec![],
        includes: vec![],
        options: [("connector", "datagen"), ("base_time", "1970-01-01T00:00:00Z")]
            .iter()
            .chain(options)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        format: None,
    }
}

async fn read(definition: SourceDefinition, from: i64, until: i64) -> RecordBatch {
    let source = crate::open(definition).unwrap();
    let columns: Vec<usize> = (0..source.schema().fields().len()).collect();
    let mut start = source.resolve_start().await.unwrap();
    start.0.insert(0, from);
    let until = Some(Offsets([(0, until)].into()));
    let mut reader = source.read(SourceRange { from: start, until }, &columns).await.unwrap();
    let mut batches = vec![];
    while let Some(batch) = reader.next().await.unwrap() {
        batches.push(batch.rows);
    }
    concat_batches(&source.schema(), &batches).unwrap()
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

#[tokio::test]
async fn every_type_within_its_bounds() {
    let columns = [
        ("id", DataType::Int64),
        ("turn", DataType::Int32),
        ("n", DataType::Int64),
        ("d", DataType::Float64),
        ("m", DataType::Decimal128(10, 2)),
        ("t", DataType::Utf8View),
        ("pick", DataType::Utf8),
        ("at", timestamp()),
        ("past", timestamp()),
        ("b", DataType::Boolean),
        ("raw", DataType::Binary),
        ("maybe", DataType::Int64),
        ("day", DataType::Date32),
    ];
    let options = [
        ("fields.id.kind", "sequence"),
        ("fields.turn.kind", "sequence"),
        ("fields.turn.start", "5"),
        ("fields.turn.end", "7"),
        ("fields.n.min", "-3"),
        ("fields.n.max", "3"),
        ("fields.t.length", "5"),
        ("fields.pick.values", "red, green"),
        ("fields.past.max_past", "10 minutes"),
        ("fields.maybe.null_rate", "0.25"),
        ("rows_per_second", "1000"),
    ];
    let rows = read(definition(&columns, &options), 0, 10_000).await;
    let column = |name: &str| rows.column_by_name(name).unwrap();
    assert!(column("id").as_primitive::<Int64Type>().values().iter().copied().eq(0..10_000));
    assert_eq!(column("turn").as_primitive::<Int32Type>().values()[..4], [5, 6, 7, 5]);
    let n = column("n").as_primitive::<Int64Type>().values();
    assert_eq!((n.iter().min(), n.iter().max()), (Some(&-3), Some(&3)));
    assert!(column("d").as_primitive::<Float64Type>().values().iter().all(|d| (0.0..1.0).contains(d)));
    assert!(column("m").as_primitive::<Decimal128Type>().values().iter().any(|m| *m > 50_000));
    assert!(column("t").as_string_view().iter().all(|t| t.is_some_and(|t| t.len() == 5)));
    let red = column("pick").as_string::<i32>().iter().filter(|pick| *pick == Some("red")).count();
    assert!((4500..5500).contains(&red), "{red}");
    assert_eq!(column("at").as_primitive::<TimestampMicrosecondType>().value(1500), 1_500_000);
    let past = column("past").as_primitive::<TimestampMicrosecondType>().values();
    assert!(past.iter().enumerate().all(|(row, at)| (0..=600_000_000).contains(&(row as i64 * 1000 - at))));
    assert!((4500..5500).contains(&column("b").as_boolean().true_count()));
    assert_eq!(column("raw").as_binary::<i32>().value(0).len(), 16);
    assert!((2200..2800).contains(&column("maybe").null_count()));
    assert_eq!(column("day").null_count(), 0);
}

#[tokio::test]
async fn a_range_reads_the_same_however_it_is_cut_and_a_seed_changes_it() {
    let columns = [("a", DataType::Int64), ("b", DataType::Utf8)];
    let whole = read(definition(&columns, &[]), 0, 20_000).await;
    let first = read(definition(&columns, &[]), 0, 777).await;
    let second = read(definition(&columns, &[]), 777, 20_000).await;
    assert_eq!(whole, concat_batches(&whole.schema(), &[first, second]).unwrap());
    assert_ne!(whole, read(definition(&columns, &[("seed", "1")]), 0, 20_000).await);
    let other = read(definition(&columns, &[("fields.a.seed", "1")]), 0, 20_000).await;
    assert_ne!(whole.column(0), other.column(0));
    assert_eq!(whole.column(1), other.column(1));
}

#[tokio::test]
async fn extremes_do_not_overflow() {
    let options = [("fields.a.min", "-9223372036854775808"), ("fields.a.max", "9223372036854775807")];
    assert_eq!(read(definition(&[("a", DataType::Int64)], &options), 0, 100).await.column(0).null_count(), 0);
}

#[test]
fn wrong_options_are_refused() {
    let refused = |name: &str, value: &str| {
        crate::open(definition(&[("a", DataType::Int64), ("at", timestamp())], &[(name, value)])).err().unwrap()
    };
    assert_eq!(refused("fields.b.kind", "random").hint.as_deref(), Some("did you mean \"a\"?"));
    assert_eq!(refused("fields.a.kin", "random").hint.as_deref(), Some("did you mean \"kind\"?"));
    assert_eq!(refused("row", "1").hint.as_deref(), Some("did you mean \"rows\"?"));
    let values = [
        ("fields.a.kind", "sequential"),
        ("fields.a.max", "-1"),
        ("fields.a.values", "1,x"),
        ("fields.a.null_rate", "2"),
        ("fields.at.max_past", "10 parsecs"),
        ("rows_per_second", "0"),
        ("rows", "-1"),
    ];
    for (name, value) in values {
        assert_eq!(refused(name, value).message, format!("invalid value for option \"{name}\": \"{value}\""));
    }
    assert!(crate::open(definition(&[], &[])).err().unwrap().message.contains("column list"));
    let interval = DataType::Interval(arrow::datatypes::IntervalUnit::DayTime);
    assert_eq!(crate::open(definition(&[("i", interval)], &[])).err().unwrap().state, SqlState::FeatureNotSupported);
}
