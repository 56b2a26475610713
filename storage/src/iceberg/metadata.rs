//! The metadata of a table as it is written: <https://iceberg.apache.org/spec/#table-metadata-and-snapshots>.

use std::collections::BTreeMap;

use freshet_types::keys::hash_bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::manifest::{Content, ManifestFile};

const MAIN: &str = "main";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TableMetadata {
    format_version: u32,
    pub table_uuid: String,
    pub location: String,
    pub last_sequence_number: i64,
    pub last_updated_ms: i64,
    last_column_id: i32,
    current_schema_id: i32,
    schemas: Vec<IcebergSchema>,
    default_spec_id: i32,
    partition_specs: Vec<PartitionSpec>,
    last_partition_id: i32,
    default_sort_order_id: i32,
    sort_orders: Vec<Value>,
    properties: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_snapshot_id: Option<i64>,
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    #[serde(default)]
    snapshot_log: Vec<Value>,
    #[serde(default)]
    refs: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct IcebergSchema {
    #[serde(rename = "type")]
    pub kind: String,
    pub schema_id: i32,
    pub fields: Vec<IcebergField>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct IcebergField {
    pub id: i32,
    pub name: String,
    pub required: bool,
    #[serde(rename = "type")]
    pub data_type: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PartitionSpec {
    pub spec_id: i32,
    pub fields: Vec<PartitionField>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PartitionField {
    pub source_id: i32,
    pub field_id: i32,
    pub name: String,
    pub transform: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Snapshot {
    snapshot_id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent_snapshot_id: Option<i64>,
    sequence_number: i64,
    timestamp_ms: i64,
    pub manifest_list: String,
    summary: BTreeMap<String, String>,
    schema_id: i32,
}

impl TableMetadata {
    pub fn new(location: &str, schema: IcebergSchema, spec: PartitionSpec, now_ms: i64) -> Self {
        let last_column_id = greatest_id(&serde_json::to_value(&schema).unwrap_or_default());
        Self {
            format_version: 2,
            table_uuid: uuid(&format!("{location} {now_ms}")),
            location: location.to_owned(),
            last_sequence_number: 0,
            last_updated_ms: now_ms,
            last_column_id,
            current_schema_id: 0,
            schemas: vec![schema],
            default_spec_id: 0,
            last_partition_id: spec.fields.iter().map(|field| field.field_id).max().unwrap_or(999),
            partition_specs: vec![spec],
            default_sort_order_id: 0,
            sort_orders: vec![json!({"order-id": 0, "fields": []})],
            properties: BTreeMap::new(),
            current_snapshot_id: None,
            snapshots: Vec::new(),
            snapshot_log: Vec::new(),
            refs: BTreeMap::new(),
        }
    }

    pub fn schema(&self) -> Option<&IcebergSchema> {
        self.schemas.iter().find(|schema| schema.schema_id == self.current_schema_id)
    }

    pub fn spec(&self) -> Option<&PartitionSpec> {
        self.partition_specs.iter().find(|spec| spec.spec_id == self.default_spec_id)
    }

    pub fn current_snapshot(&self) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| Some(snapshot.snapshot_id) == self.current_snapshot_id)
    }

    /// Makes `snapshot` the current one, and forgets all but the last `kept`.
    pub fn add(&mut self, snapshot: Snapshot, kept: usize) {
        let Snapshot { snapshot_id, timestamp_ms, sequence_number, .. } = snapshot;
        self.last_sequence_number = sequence_number;
        self.current_snapshot_id = Some(snapshot_id);
        self.refs.insert(MAIN.to_owned(), json!({"snapshot-id": snapshot_id, "type": "branch"}));
        self.snapshots.push(snapshot);
        self.snapshot_log.push(json!({"snapshot-id": snapshot_id, "timestamp-ms": timestamp_ms}));
        self.snapshots.drain(..self.snapshots.len().saturating_sub(kept));
        self.snapshot_log.drain(..self.snapshot_log.len().saturating_sub(kept));
        // A parent that is forgotten is none.
        if let Some(oldest) = self.snapshots.first_mut() {
            oldest.parent_snapshot_id = None;
        }
    }
}

impl Snapshot {
    /// The snapshot after the current one of `table`.
    pub fn new(
        snapshot_id: i64,
        table: &TableMetadata,
        now_ms: i64,
        manifest_list: String,
        manifests: &[ManifestFile],
    ) -> Self {
        let own = || manifests.iter().filter(|manifest| manifest.added_snapshot_id == snapshot_id);
        let data = || own().filter(|manifest| manifest.content == Content::Data);
        let removes_data = data().any(|manifest| manifest.deleted_files_count > 0);
        let deletes_rows = own().any(|manifest| manifest.content == Content::Deletes);
        let operation = match (removes_data, deletes_rows) {
            (false, false) => "append",
            (true, false) if data().all(|manifest| manifest.added_files_count == 0) => "delete",
            _ => "overwrite",
        };
        let sum = |count: fn(&ManifestFile) -> i64| data().map(count).sum::<i64>().to_string();
        let summary = BTreeMap::from([
            ("operation".to_owned(), operation.to_owned()),
            ("added-data-files".to_owned(), sum(|manifest| i64::from(manifest.added_files_count))),
            ("added-records".to_owned(), sum(|manifest| manifest.added_rows_count)),
            ("deleted-data-files".to_owned(), sum(|manifest| i64::from(manifest.deleted_files_count))),
            ("deleted-records".to_owned(), sum(|manifest| manifest.deleted_rows_count)),
        ]);
        // Readers expect snapshots in the order of their times; clocks jump back.
        let last = table.current_snapshot();
        Self {
            snapshot_id,
            parent_snapshot_id: last.map(|snapshot| snapshot.snapshot_id),
            sequence_number: table.last_sequence_number + 1,
            timestamp_ms: last.map_or(now_ms, |snapshot| now_ms.max(snapshot.timestamp_ms)),
            manifest_list,
            summary,
            schema_id: 0,
        }
    }
}

/// The greatest id of a field, nested ones included.
fn greatest_id(schema: &Value) -> i32 {
    let own = |(key, value): (&String, &Value)| match key.as_str() {
        "id" | "element-id" => value.as_i64().and_then(|id| i32::try_from(id).ok()).unwrap_or(0),
        _ => greatest_id(value),
    };
    match schema {
        Value::Object(fields) => fields.iter().map(own).max().unwrap_or(0),
        Value::Array(items) => items.iter().map(greatest_id).max().unwrap_or(0),
        _ => 0,
    }
}

/// A name for a table that no other has: one in the form of a random UUID, made of a hash.
fn uuid(seed: &str) -> String {
    let high = hash_bytes(seed.as_bytes());
    let low = hash_bytes(format!("{seed} {high}").as_bytes());
    let (high, low) = (high & !0xf000 | 0x4000, low & !(0b11 << 62) | 0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
