//! Tables are published, changed, and read back from their files.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use object_store::local::LocalFileSystem;
use parquet::arrow::ArrowWriter;

use super::*;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

struct Folder {
    dir: tempfile::TempDir,
    table: IcebergTable,
    schema: SchemaRef,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let location = format!("file://{}/cold/public.calls", dir.path().display());
        let table = IcebergTable::new(store, Path::from("cold/public.calls"), location);
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("agent name", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]);
        Self { dir, table, schema: Arc::new(schema) }
    }

    /// Writes a file with the rows `ids` of one day.
    fn file(&self, ids: std::ops::Range<i64>, day: i32) -> DataFile {
        let at = |id: i64| i64::from(day) * DAY_US + id;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(ids.clone())),
            Arc::new(StringArray::from_iter(ids.clone().map(|id| (id % 3 > 0).then(|| format!("agent {}", id % 3))))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(ids.clone().map(at))),
        ];
        let rows = RecordBatch::try_new(with_field_ids(&self.schema), columns).unwrap();
        let path = format!("data/at_day={day}/{}-{}.parquet", ids.start, ids.end);
        let full = self.dir.path().join("cold/public.calls").join(&path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&full).unwrap(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let column = |column: &ArrayRef| {
            let nulls = column.null_count() as u64;
            ColumnBounds::new(Some(nulls), &column.slice(0, 1), &column.slice(rows.num_rows() - 1, 1))
        };
        let mut columns: Vec<ColumnBounds> = rows.columns().iter().map(column).collect();
        // Names are not in order.
        columns[1] = ColumnBounds { nulls: columns[1].nulls, ..ColumnBounds::default() };
        let bytes = std::fs::metadata(&full).unwrap().len();
        DataFile { path, partition: Some(day), rows: rows.num_rows() as u64, bytes, columns, deleted: Vec::new() }
    }

    fn content(&self, files: &[DataFile]) -> TableContent {
        let partitioning = Some(Partitioning { column: 2, granularity: Granularity::Day });
        TableContent { schema: self.schema.clone(), partitioning, files: files.to_vec() }
    }

    async fn publish(&self, files: &[DataFile], now_ms: i64) -> Published {
        self.table.publish(&self.content(files), now_ms).await.unwrap()
    }

    /// The entries of the last snapshot: status, path and sequence number.
    async fn entries(&self) -> Vec<(Status, String, i64)> {
        let (_, metadata) = self.table.last_metadata().await.unwrap().unwrap();
        let previous = self.table.previous(&metadata).await.unwrap();
        let entries = previous.manifests.iter().flat_map(|(_, entries)| entries);
        let told = entries.map(|entry| {
            let path = entry.data_file.file_path.rsplit('/').next().unwrap().to_owned();
            (entry.status, path, entry.sequence().unwrap())
        });
        told.collect()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path().join("cold/public.calls").join(folder)).unwrap();
        let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_snapshot_tells_what_changed_and_keeps_the_rest() {
    let folder = Folder::new();
    let (first, second) = (folder.file(0..100, 1), folder.file(100..200, 1));
    let third = folder.file(200..300, 2);
    assert_eq!(folder.publish(std::slice::from_ref(&first), 1_000).await, Published { version: 1, is_new: true });
    assert_eq!(folder.publish(std::slice::from_ref(&first), 2_000).await, Published { version: 1, is_new: false });
    assert_eq!(folder.entries().await, [(Status::Added, "0-100.parquet".into(), 1)]);
    folder.publish(&[first.clone(), second.clone(), third.clone()], 3_000).await;
    let expected = [
        (Status::Existing, "0-100.parquet".to_owned(), 1),
        (Status::Added, "100-200.parquet".to_owned(), 2),
        (Status::Added, "200-300.parquet".to_owned(), 2),
    ];
    assert_eq!(folder.entries().await, expected);
    // The manifest of the second day is taken over, that of the first says what is gone.
    folder.publish(&[second.clone(), third.clone()], 4_000).await;
    let expected = [
        (Status::Existing, "100-200.parquet".to_owned(), 2),
        (Status::Deleted, "0-100.parquet".to_owned(), 1),
        (Status::Added, "200-300.parquet".to_owned(), 2),
    ];
    assert_eq!(folder.entries().await, expected);
    folder.publish(std::slice::from_ref(&third), 5_000).await;
    assert!(folder.entries().await.contains(&(Status::Deleted, "100-200.parquet".into(), 2)));
    folder.publish(&[], 6_000).await;
    folder.publish(&[], 7_000).await;
    assert_eq!(folder.entries().await, []);
}

#[tokio::test]
async fn deleted_rows_are_told_by_position() {
    let folder = Folder::new();
    let mut first = folder.file(0..100, 1);
    let second = folder.file(200..300, 2);
    folder.publish(&[first.clone(), second.clone()], 1_000).await;
    first.deleted = vec![0, 7, 99];
    assert!(folder.publish(&[first.clone(), second.clone()], 2_000).await.is_new);
    assert!(!folder.publish(&[first.clone(), second.clone()], 3_000).await.is_new);
    let deletes = |entries: Vec<(Status, String, i64)>| {
        entries.into_iter().filter(|(_, path, _)| path.ends_with(deletes::FILE_ENDING)).collect::<Vec<_>>()
    };
    let entries = deletes(folder.entries().await);
    assert_eq!(
        entries.iter().map(|(status, _, sequence)| (*status, *sequence)).collect::<Vec<_>>(),
        [(Status::Added, 2)]
    );
    first.deleted.push(100);
    folder.publish(&[first.clone(), second.clone()], 4_000).await;
    let entries = deletes(folder.entries().await);
    assert_eq!(entries.iter().map(|entry| entry.0).collect::<Vec<_>>(), [Status::Added, Status::Deleted]);
}

#[tokio::test]
async fn old_snapshots_go_with_their_files() {
    let folder = Folder::new();
    let mut file = folder.file(0..100, 1);
    for row in 0..3 * SNAPSHOTS_KEPT as u64 {
        file.deleted.push(row);
        folder.publish(&[file.clone()], 1_000 + row as i64).await;
    }
    let names = folder.names("metadata");
    let count = |part: &str| names.iter().filter(|name| name.contains(part)).count();
    assert_eq!(count("snap-"), SNAPSHOTS_KEPT);
    assert_eq!(count(".metadata.json"), SNAPSHOTS_KEPT);
    // A manifest of deletes a snapshot, and the one of the data.
    assert_eq!(count("-m"), SNAPSHOTS_KEPT + 1);
    let deletes = folder.names("data").iter().filter(|name| name.ends_with(deletes::FILE_ENDING)).count();
    assert_eq!(deletes, SNAPSHOTS_KEPT);
    assert_eq!(folder.names("data/at_day=1"), ["0-100.parquet"]);
}

#[tokio::test]
async fn another_schema_is_another_table() {
    let mut folder = Folder::new();
    folder.publish(&[folder.file(0..10, 1)], 1_000).await;
    let mut fields: Vec<Arc<Field>> = folder.schema.fields().iter().cloned().collect();
    fields.pop();
    folder.schema = Arc::new(Schema::new(fields));
    let content = TableContent { schema: folder.schema.clone(), partitioning: None, files: Vec::new() };
    assert_eq!(folder.table.publish(&content, 2_000).await.unwrap(), Published { version: 2, is_new: true });
    assert_eq!(folder.table.publish(&content, 3_000).await.unwrap(), Published { version: 2, is_new: false });
    let (_, metadata) = folder.table.last_metadata().await.unwrap().unwrap();
    assert!(metadata.snapshots.is_empty());
}

#[tokio::test]
async fn types_that_iceberg_lacks_are_named() {
    let folder = Folder::new();
    let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
    let schema = Arc::new(Schema::new(vec![Field::new("wait", interval, true)]));
    let error =
        folder.table.publish(&TableContent { schema, partitioning: None, files: Vec::new() }, 1).await.unwrap_err();
    assert!(error.to_string().starts_with("column \"wait\" of type Interval(MonthDayNano)"), "{error}");
    assert!(!folder.dir.path().join("cold/public.calls/metadata").exists());
}
