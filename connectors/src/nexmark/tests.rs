//! Nexmark rows: stable by event number, bounded, and cut the same however they are read.

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use super::*;
use crate::source::{Offsets, Range as SourceRange};

fn definition(pairs: &[(&str, &str)]) -> SourceDefinition {
    let options: BTreeMap<String, String> =
        [("connector", "nexmark")].iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let columns = crate::columns_without_list(&options).unwrap().unwrap();
    let columns = columns.fields().iter().map(|field| crate::Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: true,
        computed: None,
    });
    SourceDefinition {
        name: "s".into(),
        columns: columns.collect(),
        checks: vec![],
        includes: vec![],
        options,
        format: None,
    }
}

async fn read(source: &dyn Source, from: i64, until: i64, columns: &[usize]) -> RecordBatch {
    let mut start = source.resolve_start().await.unwrap();
    start.0.insert(0, from);
    let until = Offsets([(0, until)].into());
    let mut reader = source.read(SourceRange { from: start, until: Some(until) }, columns).await.unwrap();
    let mut batches = vec![];
    while let Some(batch) = reader.next().await.unwrap() {
        batches.push(batch.rows);
    }
    concat_batches(&source.schema(), &batches).unwrap()
}

#[test]
fn events_are_numbered_across_kinds() {
    for kind in [EventKind::Person, EventKind::Auction, EventKind::Bid] {
        let mine: Vec<i64> = (0..200).filter(|event| kind.places().contains(&(event % ROUND))).collect();
        for (nth, event) in mine.iter().enumerate() {
            assert_eq!(kind.event_number(nth as i64), *event);
            assert_eq!(kind.count_below(*event), nth as i64);
            assert_eq!(kind.count_below(*event + 1), nth as i64 + 1);
        }
        assert_eq!(kind.count_below(200), mine.len() as i64);
    }
}

#[tokio::test]
async fn a_range_reads_the_same_however_it_is_cut() {
    for kind in ["person", "auction", "bid"] {
        let source = crate::open(definition(&[("type", kind), ("base_time", "2026-01-01T00:00:00Z")])).unwrap();
        let columns: Vec<usize> = (0..source.schema().fields().len()).collect();
        let whole = read(source.as_ref(), 0, 20_000, &columns).await;
        let first = read(source.as_ref(), 0, 12_345, &columns).await;
        let second = read(source.as_ref(), 12_345, 20_000, &columns).await;
        assert_eq!(whole, concat_batches(&source.schema(), &[first, second]).unwrap());
        assert!(whole.columns().iter().all(|column| column.null_count() == 0));
        let rows = match kind {
            "person" => 400,
            "auction" => 1200,
            _ => 18_400,
        };
        assert_eq!(whole.num_rows(), rows);
    }
}

#[tokio::test]
async fn times_follow_the_event_number() {
    let source =
        crate::open(definition(&[("type", "bid"), ("base_time", "1970-01-01T00:00:00Z"), ("rate", "1000")])).unwrap();
    let rows = read(source.as_ref(), 50_000_000, 50_000_100, &[5]).await;
    let times = rows.column(5).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.value(91)), (50_000_004_000, 50_000_099_000), "to the millisecond");
    assert_eq!(rows.column(0).null_count(), rows.num_rows(), "not asked for");
}

#[tokio::test]
async fn live_reading_ends_after_the_last_event() {
    let definition = definition(&[("type", "bid"), ("events", "1000"), ("rate", "max")]);
    let source = crate::open_with_clock(definition, Clock::manual(123_000)).unwrap();
    let start = source.resolve_start().await.unwrap();
    assert_eq!(start.0, [(-1, 123_000), (0, 0)].into());
    let mut reader = source.read(SourceRange { from: start, until: None }, &[0]).await.unwrap();
    let batch = reader.next().await.unwrap().unwrap();
    assert_eq!((batch.rows.num_rows(), batch.offsets.0), (920, [(-1, 123_000), (0, 1000)].into()));
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn live_reading_is_paced() {
    let source = crate::open(definition(&[("type", "bid"), ("rate", "2000"), ("events", "200")])).unwrap();
    let start = source.resolve_start().await.unwrap();
    let started = std::time::Instant::now();
    let mut reader = source.read(SourceRange { from: start, until: None }, &[0]).await.unwrap();
    let (mut rows, mut batches) = (0, 0);
    while let Some(batch) = reader.next().await.unwrap() {
        rows += batch.rows.num_rows();
        batches += 1;
        let due = started.elapsed().as_secs_f64() * 2000.0 + 1.0;
        assert!(batch.offsets.0[&0] as f64 <= due, "ahead of time");
    }
    assert_eq!(rows, 184);
    assert!(batches > 3, "{batches} batches");
}

#[test]
fn batches_for_benchmarks_hold_all_rows() {
    let all: Vec<RecordBatch> = batches(EventKind::Bid, 0..10_000, 1000, 10_000, 0).collect();
    assert_eq!(
        all.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(),
        [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 200]
    );
    assert!(all[0].column(2).as_primitive::<Int64Type>().values().iter().all(|price| *price > 0));
}

#[test]
fn wrong_declarations_are_refused() {
    let refused = |definition: SourceDefinition| crate::open(definition).err().unwrap();
    let good = definition(&[("type", "bid")]);
    let mut unknown = good.clone();
    unknown.columns[0].name = "auctoin".into();
    assert_eq!(refused(unknown).hint.as_deref(), Some("did you mean \"auction\"?"));
    let mut retyped = good.clone();
    retyped.columns[0].data_type = DataType::Utf8;
    assert_eq!(refused(retyped).state, SqlState::DatatypeMismatch);
    let mut narrowed = good.clone();
    narrowed.columns.truncate(2);
    narrowed.columns.swap(0, 1);
    assert!(crate::open(narrowed).is_ok());
    for (option, value) in [("rate", "0"), ("rate", "-1"), ("events", "many"), ("type", "bit"), ("base_time", "noon")] {
        let mut wrong = good.clone();
        wrong.options.insert(option.into(), value.into());
        assert_eq!(refused(wrong).message, format!("invalid value for option \"{option}\": \"{value}\""));
    }
    let options = [("connector".to_owned(), "nexmark".to_owned())].into();
    assert!(crate::columns_without_list(&options).unwrap_err().message.contains("needs the option \"type\""));
}
