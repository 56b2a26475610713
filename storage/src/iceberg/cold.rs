//! What the cold tier has of a relation at a checkpoint, as the content of a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{SortOptions, sort_limit};
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::RowGroupMetaData;

use super::schema::ColumnBounds;
use super::{DataFile, Granularity, Partitioning, TableContent, broken};
use crate::StorageError;
use crate::collection::restore::{SegmentAt, ShardAt};
use crate::tiers::{StoredChunk, Tier, TierFile};

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// The folder of the cold tier that has the name `name`.
pub fn folder_named(name: &str) -> String {
    [name].into_iter().collect::<Path>().to_string()
}

/// The rows of a relation that lie in the cold tier. While it is there, so are their files.
pub struct ColdRows {
    schema: SchemaRef,
    segments: Vec<SegmentAt>,
}

/// The row groups of a file that are referred to.
struct ColdFile {
    /// Any of them.
    chunk: Arc<StoredChunk>,
    /// For each, by its number: the rows that do not live, by their place in it.
    groups: BTreeMap<usize, Vec<u64>>,
}

impl ColdRows {
    /// Those of the shards of a collection.
    pub(crate) fn new(schema: SchemaRef, shards: &[ShardAt]) -> Self {
        let is_cold = |(segment, _): &&SegmentAt| segment.tier() == Tier::Cold;
        Self { schema, segments: shards.iter().flat_map(|shard| &shard.segments).filter(is_cold).cloned().collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The files, which exist as long as somebody has these.
    pub fn files(&self) -> Vec<Arc<TierFile>> {
        let chunks = self.segments.iter().flat_map(|(segment, _)| segment.stored());
        let by_path: BTreeMap<&Path, &Arc<TierFile>> = chunks.map(|chunk| (&chunk.file.path, &chunk.file)).collect();
        by_path.into_values().cloned().collect()
    }

    /// Which files there are, and how many rows of them are deleted: what has not changed if this has not.
    pub fn summary(&self) -> (BTreeSet<u64>, usize) {
        let files = self.segments.iter().flat_map(|(segment, _)| segment.stored().map(|chunk| chunk.file.number));
        (files.collect(), self.segments.iter().map(|(segment, _)| segment.dead()).sum())
    }

    /// The content of the table whose folder in the cold tier is `folder`. `time_column` is that by whose days files are cut.
    /// Reads the footers of files.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub async fn content(&self, folder: &str, time_column: Option<usize>) -> Result<TableContent, StorageError> {
        let mut files = BTreeMap::<Path, ColdFile>::new();
        for (segment, end) in &self.segments {
            let mut start = 0;
            for chunk in segment.stored() {
                let is_dead = |row: &usize| start + row >= *end || !segment.is_live(start + row);
                let dead = (0..chunk.rows).filter(is_dead).map(|row| row as u64).collect();
                let file = files.entry(chunk.file.path.clone());
                let file = file.or_insert_with(|| ColdFile { chunk: chunk.clone(), groups: BTreeMap::new() });
                file.groups.insert(chunk.row_group, dead);
                start += chunk.rows;
            }
        }
        let mut told = Vec::with_capacity(files.len());
        for (path, file) in files {
            let below = path.as_ref().strip_prefix(folder).and_then(|path| path.strip_prefix('/'));
            let below = below.ok_or_else(|| broken(format!("\"{path}\" is not in \"{folder}\"")))?;
            told.push(file.describe(below, &self.schema, time_column.is_some()).await?);
        }
        let partitioning = time_column.map(|column| Partitioning { column, granularity: Granularity::Day });
        Ok(TableContent { schema: self.schema.clone(), partitioning, files: told })
    }
}

impl ColdFile {
    async fn describe(&self, path: &str, schema: &SchemaRef, by_day: bool) -> Result<DataFile, StorageError> {
        let file = &self.chunk.file;
        let footer = self.chunk.footer().await.map_err(|error| broken(error.to_string()))?;
        let groups = footer.metadata().row_groups();
        let mut deleted = Vec::new();
        let mut first = 0;
        for (number, group) in groups.iter().enumerate() {
            let rows = u64::try_from(group.num_rows()).map_err(broken)?;
            match self.groups.get(&number) {
                Some(dead) => deleted.extend(dead.iter().map(|row| first + row)),
                // Its rows have moved to another file.
                None => deleted.extend(first..first + rows),
            }
            first += rows;
        }
        let day = self.chunk.times.map(|(least, _)| least.div_euclid(DAY_US)).filter(|_| by_day);
        let columns = schema.fields().iter().map(|field| bounds(&footer, groups, schema, field.name()));
        Ok(DataFile {
            path: path.to_owned(),
            partition: day.map(i32::try_from).transpose().map_err(broken)?,
            rows: first,
            bytes: file.bytes,
            columns: columns.map(Option::unwrap_or_default).collect(),
            deleted,
        })
    }
}

/// What the statistics of all row groups say of a column.
fn bounds(
    footer: &ArrowReaderMetadata,
    groups: &[RowGroupMetaData],
    schema: &SchemaRef,
    column: &str,
) -> Option<ColumnBounds> {
    let converter = StatisticsConverter::try_new(column, schema, footer.parquet_schema()).ok()?;
    let nulls = converter.row_group_null_counts(groups).ok()?;
    let rows = converter.row_group_row_counts(groups).ok()??;
    let (least, greatest) = (converter.row_group_mins(groups).ok()?, converter.row_group_maxes(groups).ok()?);
    let all_nulls = (nulls.null_count() == 0).then(|| nulls.values().iter().sum());
    // A row group of which nothing is known, though it has values, makes the others' bounds worth nothing.
    let is_known = |index: usize| {
        let has_values = nulls.is_null(index) || nulls.value(index) < rows.value(index);
        !has_values || (least.is_valid(index) && greatest.is_valid(index))
    };
    if !(0..groups.len()).all(is_known) {
        return Some(ColumnBounds { nulls: all_nulls, ..ColumnBounds::default() });
    }
    let first = |values: &ArrayRef, descending| {
        sort_limit(values, Some(SortOptions { descending, nulls_first: false }), Some(1)).ok()
    };
    Some(ColumnBounds::new(all_nulls, &first(&least, false)?, &first(&greatest, true)?))
}
