//! Cold files as an [Apache Iceberg](https://iceberg.apache.org/spec/) table, format version 2, which Spark, Trino, pyiceberg
//! and others read without Freshet.
//!
//! A table is a folder in an object store:
//!
//! ```text
//! data/…                             Parquet files, written by whoever calls; and the rows deleted of them, written here
//! metadata/v<N>.metadata.json        versions of the table; the greatest N counts
//! metadata/version-hint.text         N, where readers without a catalog look first
//! metadata/…-m<n>.avro               manifests: the files of one partition each
//! metadata/snap-….avro               manifest lists: the manifests of one snapshot each
//! ```
//!
//! [`IcebergTable::publish`] is told what the table consists of, compares that with the last version, and adds a snapshot for
//! the difference. Manifests of partitions that have not changed are taken over. So nothing is remembered here:
//! all that is known of the last version is in its files.
//!
//! The last [`SNAPSHOTS_KEPT`] snapshots stay readable for as long as the caller keeps their data files.
//! It does not know what the rows are, why files come and go, or when.

mod cold;
mod deletes;
mod manifest;
mod metadata;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use self::manifest::{Content, Entry, ManifestFile, Status};
use self::metadata::{PartitionSpec, Snapshot, TableMetadata};
use crate::StorageError;

pub use self::cold::{ColdRows, folder_named};
pub use self::schema::{ColumnBounds, FIELD_ID_METADATA_KEY, check_schema, with_field_ids};

/// Snapshots that can still be read.
pub const SNAPSHOTS_KEPT: usize = 10;

/// A table in a folder of an object store.
pub struct IcebergTable {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// The folder as other programs name it: `s3://bucket/…`, `file:///…`; without a slash at the end.
    location: String,
}

/// What a table consists of.
#[derive(Debug, Clone)]
pub struct TableContent {
    pub schema: SchemaRef,
    pub partitioning: Option<Partitioning>,
    pub files: Vec<DataFile>,
}

/// How files are told apart by their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitioning {
    /// A column of type timestamp or, by day or month, date.
    pub column: usize,
    pub granularity: Granularity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    Hour,
    Day,
    Month,
}

/// A Parquet file.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Below the folder of the table; no two files ever have the same.
    pub path: String,
    /// Hours, days or months since 1970 of all its rows; `None`: their time is NULL, or there is no partitioning.
    pub partition: Option<i32>,
    pub rows: u64,
    pub bytes: u64,
    /// One for each column.
    pub columns: Vec<ColumnBounds>,
    /// Numbers of rows that are deleted, ascending.
    pub deleted: Vec<u64>,
}

/// What [`IcebergTable::publish`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The version that says what was published.
    pub version: u64,
    /// Whether it was there before.
    pub is_new: bool,
}

/// Manifests of the last snapshot, with what they list.
struct Previous {
    manifests: Vec<(ManifestFile, Vec<Entry>)>,
}

impl IcebergTable {
    pub fn new(store: Arc<dyn ObjectStore>, folder: Path, location: impl Into<String>) -> Self {
        Self { store, folder, location: location.into() }
    }

    /// Makes the table consist of `content`, at `now_ms` milliseconds since 1970, unless it does. Readers see all of it or nothing.
    ///
    /// # Errors
    /// If Iceberg has no type for a column, files cannot be read or written, or another program has published meanwhile.
    pub async fn publish(&self, content: &TableContent, now_ms: i64) -> Result<Published, StorageError> {
        let schema = schema::iceberg_schema(&content.schema)?;
        let spec = schema::partition_spec(content)?;
        let last = self.last_metadata().await?;
        let same_table = last.as_ref().filter(|(_, table)| {
            table.schema() == Some(&schema) && table.spec() == Some(&spec) && table.location == self.location
        });
        let version = last.as_ref().map_or(0, |(version, _)| *version);
        let mut table = match same_table {
            Some((_, table)) => table.clone(),
            None => TableMetadata::new(&self.location, schema, spec.clone(), now_ms),
        };
        let previous = self.previous(&table).await?;
        let snapshot_id = self.new_snapshot_id(&table, version, now_ms);
        let writing = Writing { table: self, metadata: &table, spec: &spec, snapshot_id };
        let Some(manifests) = writing.manifests(content, previous).await? else {
            if same_table.is_some() {
                return Ok(Published { version, is_new: false });
            }
            return self.commit(&mut table, None, version + 1, now_ms).await;
        };
        let list = writing.manifest_list(&manifests).await?;
        let snapshot = Snapshot::new(snapshot_id, &table, now_ms, list, &manifests);
        self.commit(&mut table, Some(snapshot), version + 1, now_ms).await
    }

    /// Takes the table away, but for its data files.
    ///
    /// # Errors
    /// If a file cannot be deleted.
    pub async fn remove(&self) -> Result<(), StorageError> {
        // What readers look for first goes first.
        let hint = self.metadata_path("version-hint.text");
        let mut paths = vec![hint];
        for (folder, ending) in [("metadata", ""), ("data", deletes::FILE_ENDING)] {
            let files: Vec<_> = self.store.list(Some(&self.folder.clone().join(folder))).try_collect().await?;
            let paths_of = files.into_iter().map(|file| file.location).filter(|path| path.as_ref().ends_with(ending));
            paths.extend(paths_of);
        }
        for path in paths {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes `snapshot` the last one of the table.
    async fn commit(
        &self,
        table: &mut TableMetadata,
        snapshot: Option<Snapshot>,
        version: u64,
        now_ms: i64,
    ) -> Result<Published, StorageError> {
        if let Some(snapshot) = snapshot {
            table.add(snapshot, SNAPSHOTS_KEPT);
        }
        table.last_updated_ms = table.last_updated_ms.max(now_ms);
        let text = serde_json::to_vec_pretty(&table).map_err(broken)?;
        // Whoever comes second fails: the versions of a table are one line.
        let options = PutOptions::from(PutMode::Create);
        self.store.put_opts(&self.metadata_path(&metadata_name(version)), text.into(), options).await?;
        self.store.put(&self.metadata_path("version-hint.text"), version.to_string().into()).await?;
        self.delete_unused(table, version).await?;
        Ok(Published { version, is_new: true })
    }

    fn metadata_path(&self, name: &str) -> Path {
        self.folder.clone().join("metadata").join(name)
    }

    /// Where a file lies that other programs call `uri`.
    fn path_of(&self, uri: &str) -> Result<Path, StorageError> {
        let below = uri.strip_prefix(&self.location).and_then(|path| path.strip_prefix('/'));
        let below = below.ok_or_else(|| broken(format!("\"{uri}\" is not in \"{}\"", self.location)))?;
        Path::parse(format!("{}/{below}", self.folder)).map_err(broken)
    }

    fn uri_of(&self, below: &str) -> String {
        format!("{}/{below}", self.location)
    }

    async fn read(&self, uri: &str) -> Result<Bytes, StorageError> {
        Ok(self.store.get(&self.path_of(uri)?).await?.bytes().await?)
    }

    /// Writes a file of metadata; gives its name for other programs, and its size.
    async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(String, i64), StorageError> {
        let size = i64::try_from(bytes.len()).expect("files are smaller than 2^63 bytes");
        self.store.put(&self.metadata_path(name), bytes.into()).await?;
        Ok((self.uri_of(&format!("metadata/{name}")), size))
    }

    async fn last_metadata(&self) -> Result<Option<(u64, TableMetadata)>, StorageError> {
        let folder = self.folder.clone().join("metadata");
        let found: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let Some(last) = found.iter().filter_map(|file| version_of(file.location.filename()?)).max() else {
            return Ok(None);
        };
        let bytes = self.store.get(&self.metadata_path(&metadata_name(last))).await?.bytes().await?;
        Ok(Some((last, serde_json::from_slice(&bytes).map_err(broken)?)))
    }

    async fn previous(&self, table: &TableMetadata) -> Result<Previous, StorageError> {
        let Some(snapshot) = table.current_snapshot() else {
            return Ok(Previous { manifests: Vec::new() });
        };
        let mut manifests = Vec::new();
        for file in manifest::read_list(&self.read(&snapshot.manifest_list).await?)? {
            let entries = manifest::read_entries(&self.read(&file.manifest_path).await?)?;
            let entries = entries.into_iter().map(|entry| entry.inherit(&file)).collect();
            manifests.push((file, entries));
        }
        Ok(Previous { manifests })
    }

    /// An id that no snapshot of the table has or had.
    fn new_snapshot_id(&self, table: &TableMetadata, version: u64, now_ms: i64) -> i64 {
        let seed = format!("{} {version} {now_ms}", table.table_uuid);
        i64::try_from(freshet_types::keys::hash_bytes(seed.as_bytes()) >> 1).expect("63 bits are positive")
    }

    /// Deletes metadata that no kept snapshot needs. Should this fail, the next version tries again.
    async fn delete_unused(&self, table: &TableMetadata, version: u64) -> Result<(), StorageError> {
        let mut used = BTreeSet::new();
        for snapshot in &table.snapshots {
            used.insert(self.path_of(&snapshot.manifest_list)?);
            for file in manifest::read_list(&self.read(&snapshot.manifest_list).await?)? {
                let path = self.path_of(&file.manifest_path)?;
                if used.insert(path) && file.content == Content::Deletes {
                    let entries = manifest::read_entries(&self.read(&file.manifest_path).await?)?;
                    let live = entries.iter().filter(|entry| entry.status != Status::Deleted);
                    used.extend(
                        live.map(|entry| self.path_of(&entry.data_file.file_path)).collect::<Result<Vec<_>, _>>()?,
                    );
                }
            }
        }
        let oldest = version.saturating_sub(SNAPSHOTS_KEPT as u64 - 1);
        for (folder, ending) in [("metadata", ".avro"), ("metadata", ".json"), ("data", deletes::FILE_ENDING)] {
            let files: Vec<_> = self.store.list(Some(&self.folder.clone().join(folder))).try_collect().await?;
            for file in files {
                let Some(name) = file.location.filename().filter(|name| name.ends_with(ending)) else { continue };
                let is_used = match version_of(name) {
                    Some(version) => version >= oldest,
                    None => used.contains(&file.location),
                };
                if !is_used {
                    self.store.delete(&file.location).await?;
                }
            }
        }
        Ok(())
    }
}

fn metadata_name(version: u64) -> String {
    format!("v{version}.metadata.json")
}

fn version_of(name: &str) -> Option<u64> {
    name.strip_prefix('v')?.strip_suffix(".metadata.json")?.parse().ok()
}

/// The error that metadata is not what it should be.
fn broken(reason: impl std::fmt::Display) -> StorageError {
    StorageError::Damaged { name: "the metadata of an Iceberg table".to_owned(), reason: reason.to_string() }
}

/// A snapshot on its way.
struct Writing<'a> {
    table: &'a IcebergTable,
    metadata: &'a TableMetadata,
    spec: &'a PartitionSpec,
    snapshot_id: i64,
}

impl Writing<'_> {
    /// The manifests of the snapshot, or `None` if the last one says the same.
    async fn manifests(
        &self,
        content: &TableContent,
        previous: Previous,
    ) -> Result<Option<Vec<ManifestFile>>, StorageError> {
        let mut partitions: BTreeMap<Option<i32>, Vec<&DataFile>> = BTreeMap::new();
        for file in &content.files {
            partitions.entry(file.partition).or_default().push(file);
        }
        let mut known: BTreeMap<(Content, Option<i32>), (ManifestFile, Vec<Entry>)> = BTreeMap::new();
        let mut is_changed = false;
        for (file, entries) in previous.manifests {
            let Some(partition) = entries.first().map(|entry| entry.data_file.partition()) else { continue };
            // A manifest in which all is deleted says so in one snapshot only.
            if entries.iter().all(|entry| entry.status == Status::Deleted) {
                is_changed = true;
                continue;
            }
            known.insert((file.content, partition), (file, entries));
        }
        for partition in known.keys().map(|(_, partition)| *partition).collect::<Vec<_>>() {
            partitions.entry(partition).or_default();
        }
        let mut manifests = Vec::new();
        for (value, files) in &partitions {
            let mut data = Vec::with_capacity(files.len());
            for file in files {
                data.push(manifest::DataFile::data(self.table.uri_of(&file.path), file, self.spec));
            }
            let deletes = self.deletes(*value, files).await?;
            for (kind, wanted) in [(Content::Data, data), (Content::Deletes, deletes.into_iter().collect())] {
                let last = known.remove(&(kind, *value));
                if wanted.is_empty() && last.is_none() {
                    continue;
                }
                let (manifest, is_new) = self.manifest(kind, manifests.len(), wanted, last).await?;
                is_changed |= is_new;
                manifests.push(manifest);
            }
        }
        Ok(is_changed.then_some(manifests))
    }

    /// The file with the deleted rows of a partition. It is named by what it says, and so is written once.
    async fn deletes(
        &self,
        partition: Option<i32>,
        files: &[&DataFile],
    ) -> Result<Option<manifest::DataFile>, StorageError> {
        let deleted: Vec<(String, &[u64])> = files
            .iter()
            .filter(|file| !file.deleted.is_empty())
            .map(|file| (self.table.uri_of(&file.path), file.deleted.as_slice()))
            .collect();
        if deleted.is_empty() {
            return Ok(None);
        }
        let file = deletes::DeleteFile::new(deleted)?;
        let below = format!("data/{}", file.name);
        let path = self.table.path_of(&self.table.uri_of(&below))?;
        if self.table.store.head(&path).await.is_err() {
            self.table.store.put(&path, file.bytes.clone().into()).await?;
        }
        Ok(Some(manifest::DataFile::deletes(self.table.uri_of(&below), &file, partition, self.spec)))
    }

    /// A manifest of the files `wanted`, which may be the `last` one; and whether it is another.
    async fn manifest(
        &self,
        content: Content,
        number: usize,
        wanted: Vec<manifest::DataFile>,
        last: Option<(ManifestFile, Vec<Entry>)>,
    ) -> Result<(ManifestFile, bool), StorageError> {
        let (last_file, last_entries) = last.unzip();
        let mut before: BTreeMap<String, Entry> = BTreeMap::new();
        for entry in last_entries.into_iter().flatten().filter(|entry| entry.status != Status::Deleted) {
            before.insert(entry.data_file.file_path.clone(), entry);
        }
        let is_same = before.len() == wanted.len() && wanted.iter().all(|file| before.contains_key(&file.file_path));
        if let Some(file) = last_file.filter(|_| is_same) {
            return Ok((file, false));
        }
        let mut entries: Vec<Entry> = wanted
            .into_iter()
            .map(|file| match before.remove(&file.file_path) {
                Some(entry) => entry.kept(),
                None => Entry::added(self.snapshot_id, file),
            })
            .collect();
        entries.extend(before.into_values().map(|gone| gone.deleted_by(self.snapshot_id)));
        let bytes = manifest::write_entries(&entries, content, self.metadata)?;
        let name = format!("{:016x}-m{number}.avro", self.snapshot_id);
        let (path, length) = self.table.write(&name, bytes).await?;
        let sequence_number = self.metadata.last_sequence_number + 1;
        Ok((ManifestFile::of(&entries, content, path, length, self.snapshot_id, sequence_number), true))
    }

    /// Writes the list of the manifests; gives its name.
    async fn manifest_list(&self, manifests: &[ManifestFile]) -> Result<String, StorageError> {
        let bytes = manifest::write_list(manifests, self.snapshot_id, self.metadata)?;
        let (uri, _) = self.table.write(&format!("snap-{:016x}.avro", self.snapshot_id), bytes).await?;
        Ok(uri)
    }
}
