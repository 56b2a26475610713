//! Manifests and lists of them, as Avro files: <https://iceberg.apache.org/spec/#manifests>.

use std::collections::BTreeMap;

use apache_avro::{Reader, Schema as AvroSchema, Writer, from_value, to_value};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_repr::{Deserialize_repr, Serialize_repr};

use super::broken;
use super::deletes::{DeleteFile, PATH_FIELD_ID};
use super::metadata::{PartitionSpec, TableMetadata};
use super::schema::partition_avro_type;
use crate::StorageError;

/// What the files of a manifest hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize_repr, Deserialize_repr)]
#[repr(i32)]
pub(super) enum Content {
    Data = 0,
    Deletes = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize_repr, Deserialize_repr)]
#[repr(i32)]
pub(super) enum Status {
    Existing = 0,
    Added = 1,
    Deleted = 2,
}

/// A file in a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub status: Status,
    snapshot_id: Option<i64>,
    /// `None`: that of the manifest, which is known only once it is committed.
    sequence_number: Option<i64>,
    file_sequence_number: Option<i64>,
    pub data_file: DataFile,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DataFile {
    content: Content,
    pub file_path: String,
    file_format: String,
    /// The values of the partition's fields, of which there is one or none, by their names.
    partition: BTreeMap<String, Option<i32>>,
    record_count: i64,
    file_size_in_bytes: i64,
    null_value_counts: Option<Vec<ColumnCount>>,
    lower_bounds: Option<Vec<ColumnBound>>,
    upper_bounds: Option<Vec<ColumnBound>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ColumnCount {
    key: i32,
    value: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ColumnBound {
    key: i32,
    #[serde(with = "apache_avro::serde_avro_bytes")]
    value: Vec<u8>,
}

/// A manifest in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ManifestFile {
    pub manifest_path: String,
    manifest_length: i64,
    partition_spec_id: i32,
    pub content: Content,
    sequence_number: i64,
    min_sequence_number: i64,
    pub added_snapshot_id: i64,
    pub added_files_count: i32,
    existing_files_count: i32,
    pub deleted_files_count: i32,
    pub added_rows_count: i64,
    existing_rows_count: i64,
    pub deleted_rows_count: i64,
    partitions: Option<Vec<FieldSummary>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FieldSummary {
    contains_null: bool,
    #[serde(with = "apache_avro::serde_avro_bytes_opt")]
    lower_bound: Option<Vec<u8>>,
    #[serde(with = "apache_avro::serde_avro_bytes_opt")]
    upper_bound: Option<Vec<u8>>,
}

impl DataFile {
    pub fn data(uri: String, file: &super::DataFile, spec: &PartitionSpec) -> Self {
        let bounds = |bound: fn(&super::ColumnBounds) -> Option<&Vec<u8>>| {
            let known = file.columns.iter().zip(1..).filter_map(|(column, key)| Some((key, bound(column)?)));
            Some(known.map(|(key, value)| ColumnBound { key, value: value.clone() }).collect())
        };
        let nulls = file.columns.iter().zip(1..).filter_map(|(column, key)| Some((key, column.nulls?)));
        Self {
            content: Content::Data,
            file_path: uri,
            file_format: "PARQUET".to_owned(),
            partition: partition_data(file.partition, spec),
            record_count: signed(file.rows),
            file_size_in_bytes: signed(file.bytes),
            null_value_counts: Some(nulls.map(|(key, value)| ColumnCount { key, value: signed(value) }).collect()),
            lower_bounds: bounds(|column| column.lower.as_ref()),
            upper_bounds: bounds(|column| column.upper.as_ref()),
        }
    }

    pub fn deletes(uri: String, file: &DeleteFile, partition: Option<i32>, spec: &PartitionSpec) -> Self {
        let bound = |value: &str| Some(vec![ColumnBound { key: PATH_FIELD_ID, value: value.as_bytes().to_vec() }]);
        Self {
            content: Content::Deletes,
            file_path: uri,
            file_format: "PARQUET".to_owned(),
            partition: partition_data(partition, spec),
            record_count: signed(file.rows),
            file_size_in_bytes: signed(file.bytes.len() as u64),
            null_value_counts: None,
            lower_bounds: bound(&file.first_path),
            upper_bounds: bound(&file.last_path),
        }
    }

    pub fn partition(&self) -> Option<i32> {
        self.partition.values().next().copied().flatten()
    }
}

fn partition_data(value: Option<i32>, spec: &PartitionSpec) -> BTreeMap<String, Option<i32>> {
    spec.fields.iter().map(|field| (avro_name(&field.name), value)).collect()
}

/// A name that Avro allows, made as Iceberg's other writers make it.
fn avro_name(name: &str) -> String {
    let mut allowed = String::with_capacity(name.len());
    for (index, letter) in name.chars().enumerate() {
        match letter {
            '0'..='9' if index == 0 => allowed.extend(['_', letter]),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => allowed.push(letter),
            _ => allowed.push_str(&format!("_x{:X}", u32::from(letter))),
        }
    }
    allowed
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).expect("files are smaller than 2^63 bytes")
}

impl Entry {
    pub fn added(snapshot_id: i64, data_file: DataFile) -> Self {
        let snapshot_id = Some(snapshot_id);
        Self { status: Status::Added, snapshot_id, sequence_number: None, file_sequence_number: None, data_file }
    }

    /// The entry in a later manifest.
    pub fn kept(self) -> Self {
        Self { status: Status::Existing, ..self }
    }

    /// The entry that says that the file is gone.
    pub fn deleted_by(self, snapshot_id: i64) -> Self {
        Self { status: Status::Deleted, snapshot_id: Some(snapshot_id), ..self }
    }

    /// The number of the snapshot that added the file.
    #[cfg(test)]
    pub fn sequence(&self) -> Option<i64> {
        self.sequence_number
    }

    /// The entry with what it leaves to its manifest.
    pub fn inherit(self, manifest: &ManifestFile) -> Self {
        Self {
            snapshot_id: self.snapshot_id.or(Some(manifest.added_snapshot_id)),
            sequence_number: self.sequence_number.or(Some(manifest.sequence_number)),
            file_sequence_number: self.file_sequence_number.or(Some(manifest.sequence_number)),
            ..self
        }
    }
}

impl ManifestFile {
    pub fn of(
        entries: &[Entry],
        content: Content,
        manifest_path: String,
        manifest_length: i64,
        snapshot_id: i64,
        sequence_number: i64,
    ) -> Self {
        let files = |status| entries.iter().filter(move |entry| entry.status == status);
        let count = |status| i32::try_from(files(status).count()).expect("files are fewer than 2^31");
        let rows = |status| files(status).map(|entry| entry.data_file.record_count).sum();
        let live = entries.iter().filter(|entry| entry.status != Status::Deleted);
        let least = live.map(|entry| entry.sequence_number.unwrap_or(sequence_number)).min();
        let partition = entries.first().and_then(|entry| entry.data_file.partition.values().next().copied());
        let bytes = |value: Option<i32>| value.map(|value| value.to_le_bytes().to_vec());
        let summary = partition.map(|value| FieldSummary {
            contains_null: value.is_none(),
            lower_bound: bytes(value),
            upper_bound: bytes(value),
        });
        Self {
            manifest_path,
            manifest_length,
            partition_spec_id: 0,
            content,
            sequence_number,
            min_sequence_number: least.unwrap_or(sequence_number),
            added_snapshot_id: snapshot_id,
            added_files_count: count(Status::Added),
            existing_files_count: count(Status::Existing),
            deleted_files_count: count(Status::Deleted),
            added_rows_count: rows(Status::Added),
            existing_rows_count: rows(Status::Existing),
            deleted_rows_count: rows(Status::Deleted),
            partitions: Some(summary.into_iter().collect()),
        }
    }
}

fn field(name: &str, id: i32, data_type: impl Into<Value>) -> Value {
    json!({"name": name, "type": data_type.into(), "field-id": id})
}

fn optional(name: &str, id: i32, data_type: impl Into<Value>) -> Value {
    json!({"name": name, "type": ["null", data_type.into()], "default": null, "field-id": id})
}

/// A map from ids to something: Avro's own maps have text as keys.
fn map(name: &str, id: i32, (key_id, value_id): (i32, i32), value_type: &str) -> Value {
    let fields = json!([field("key", key_id, "int"), field("value", value_id, value_type)]);
    let item = json!({"type": "record", "name": format!("k{key_id}_v{value_id}"), "fields": fields});
    optional(name, id, json!({"type": "array", "items": item, "logicalType": "map"}))
}

fn entry_schema(spec: &PartitionSpec) -> Value {
    let partition: Vec<Value> = spec
        .fields
        .iter()
        .map(|field| optional(&avro_name(&field.name), field.field_id, partition_avro_type(field)))
        .collect();
    let data_file = json!({"type": "record", "name": "r2", "fields": [
        field("content", 134, "int"),
        field("file_path", 100, "string"),
        field("file_format", 101, "string"),
        field("partition", 102, json!({"type": "record", "name": "r102", "fields": partition})),
        field("record_count", 103, "long"),
        field("file_size_in_bytes", 104, "long"),
        map("null_value_counts", 110, (121, 122), "long"),
        map("lower_bounds", 125, (126, 127), "bytes"),
        map("upper_bounds", 128, (129, 130), "bytes"),
    ]});
    json!({"type": "record", "name": "manifest_entry", "fields": [
        field("status", 0, "int"),
        optional("snapshot_id", 1, "long"),
        optional("sequence_number", 3, "long"),
        optional("file_sequence_number", 4, "long"),
        field("data_file", 2, data_file),
    ]})
}

fn list_schema() -> Value {
    let summary = json!({"type": "record", "name": "r508", "fields": [
        field("contains_null", 509, "boolean"),
        optional("lower_bound", 510, "bytes"),
        optional("upper_bound", 511, "bytes"),
    ]});
    json!({"type": "record", "name": "manifest_file", "fields": [
        field("manifest_path", 500, "string"),
        field("manifest_length", 501, "long"),
        field("partition_spec_id", 502, "int"),
        field("content", 517, "int"),
        field("sequence_number", 515, "long"),
        field("min_sequence_number", 516, "long"),
        field("added_snapshot_id", 503, "long"),
        field("added_files_count", 504, "int"),
        field("existing_files_count", 505, "int"),
        field("deleted_files_count", 506, "int"),
        field("added_rows_count", 512, "long"),
        field("existing_rows_count", 513, "long"),
        field("deleted_rows_count", 514, "long"),
        optional("partitions", 507, json!({"type": "array", "items": summary, "element-id": 508})),
    ]})
}

/// An Avro file of `records`, with `metadata` in its header.
fn write_avro<T: Serialize>(
    schema: &Value,
    records: &[T],
    metadata: &[(&str, String)],
) -> Result<Vec<u8>, StorageError> {
    let schema = AvroSchema::parse(schema).map_err(broken)?;
    let mut writer = Writer::new(&schema, Vec::new());
    for (key, value) in metadata {
        writer.add_user_metadata((*key).to_owned(), value).map_err(broken)?;
    }
    for record in records {
        let value = to_value(record).and_then(|value| value.resolve(&schema)).map_err(broken)?;
        writer.append(value).map_err(broken)?;
    }
    writer.into_inner().map_err(broken)
}

fn read_avro<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<Vec<T>, StorageError> {
    let records = Reader::new(bytes).map_err(broken)?;
    records.map(|record| from_value(&record.map_err(broken)?).map_err(broken)).collect()
}

pub(super) fn write_entries(
    entries: &[Entry],
    content: Content,
    table: &TableMetadata,
) -> Result<Vec<u8>, StorageError> {
    let (Some(schema), Some(spec)) = (table.schema(), table.spec()) else {
        return Err(broken("its schema is missing"));
    };
    let text = |value: serde_json::Result<String>| value.map_err(broken);
    let metadata = [
        ("schema", text(serde_json::to_string(schema))?),
        ("schema-id", schema.schema_id.to_string()),
        ("partition-spec", text(serde_json::to_string(&spec.fields))?),
        ("partition-spec-id", spec.spec_id.to_string()),
        ("format-version", "2".to_owned()),
        ("content", if content == Content::Data { "data".to_owned() } else { "deletes".to_owned() }),
    ];
    write_avro(&entry_schema(spec), entries, &metadata)
}

pub(super) fn read_entries(bytes: &[u8]) -> Result<Vec<Entry>, StorageError> {
    read_avro(bytes)
}

pub(super) fn write_list(
    manifests: &[ManifestFile],
    snapshot_id: i64,
    table: &TableMetadata,
) -> Result<Vec<u8>, StorageError> {
    let metadata = [
        ("snapshot-id", snapshot_id.to_string()),
        ("sequence-number", (table.last_sequence_number + 1).to_string()),
        ("format-version", "2".to_owned()),
    ];
    write_avro(&list_schema(), manifests, &metadata)
}

pub(super) fn read_list(bytes: &[u8]) -> Result<Vec<ManifestFile>, StorageError> {
    read_avro(bytes)
}
