//! Finds rows in files by what identifies them: the key, or the whole row.
//!
//! A row group is asked in the order of what it costs: statistics of the key's columns (in the footer), bloom filters,
//! and only then the hashes of its keys, for which the key's columns are read. Hashes are cached, so that a row group that
//! is asked often is read once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp;
use arrow::datatypes::DataType;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use super::TierError;
use super::bloom::may_contain;
use super::chunk::{ReadStats, StoredChunk};

/// Row groups that are asked at once.
const FINDS_MAX: usize = 8;

/// The hashes of the keys of a row group's rows, and where the rows are, by hash.
#[derive(Debug)]
pub(super) struct RowHashes(Vec<(u64, u32)>);

/// The hashes of rows that consist of the columns of the key.
pub(crate) type HashRows = Arc<dyn Fn(&RecordBatch) -> Result<Vec<u64>, arrow::error::ArrowError> + Send + Sync>;

/// Rows to be found.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// The columns of the schema by which they are found, in the order of the key.
    pub columns: Arc<[usize]>,
    /// Their values.
    pub values: Arc<[ArrayRef]>,
    pub hashes: Arc<[u64]>,
    pub hash_rows: HashRows,
}

impl RowHashes {
    fn new(hashes: Vec<u64>) -> Self {
        let mut sorted: Vec<(u64, u32)> = hashes.into_iter().zip(0..).collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    pub fn memory_bytes(&self) -> usize {
        self.0.len() * size_of::<(u64, u32)>()
    }

    fn rows(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let first = self.0.partition_point(|(other, _)| *other < hash);
        self.0[first..].iter().take_while(move |(other, _)| *other == hash).map(|(_, row)| *row)
    }
}

impl StoredChunk {
    /// For each of `chunks` the wanted rows, by their numbers, and the rows there with their hashes.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub(crate) fn find_blocking(chunks: Vec<Arc<Self>>, wanted: &Wanted) -> Result<Vec<Vec<(usize, u32)>>, TierError> {
        let Some(first) = chunks.first().cloned() else { return Ok(Vec::new()) };
        let wanted = Arc::new(wanted.clone());
        let finds = chunks.into_iter().map(move |chunk| {
            let wanted = wanted.clone();
            async move { chunk.find(&wanted).await }.boxed()
        });
        // Listed first: the compiler does not see of a lazy list that its futures may move between threads.
        let finds: Vec<_> = finds.collect();
        let all = async move { futures::stream::iter(finds).buffered(FINDS_MAX).try_collect().await };
        first.tiers.wait(&first.file, all)
    }

    async fn find(&self, wanted: &Wanted) -> Result<Vec<(usize, u32)>, TierError> {
        let stats = Arc::new(ReadStats::default());
        let mut candidates = BooleanBuffer::new_set(wanted.hashes.len());
        // Without a column, all rows are equal.
        if !wanted.columns.is_empty() {
            let metadata = self.metadata(&stats).await?;
            for (column, values) in wanted.columns.iter().zip(wanted.values.iter()) {
                if let Some(possible) = self.within_bounds(&metadata, *column, values) {
                    candidates = &candidates & &possible;
                }
            }
            for (column, values) in wanted.columns.iter().zip(wanted.values.iter()) {
                if candidates.count_set_bits() == 0 {
                    return Ok(Vec::new());
                }
                if let Some(filter) = self.bloom_filter(&metadata, *column, &stats).await?.as_ref()
                    && let Some(possible) = may_contain(filter, values)
                {
                    candidates = &candidates & &possible;
                }
            }
        }
        if candidates.count_set_bits() == 0 {
            return Ok(Vec::new());
        }
        let hashes = self.hashes(wanted, &stats).await?;
        let found = candidates.set_indices().flat_map(|number| {
            let hash = wanted.hashes[number];
            hashes.rows(hash).map(move |row| (number, row))
        });
        Ok(found.collect())
    }

    /// Which of `values` lie between the least and the greatest of the column; `None` if nothing is known.
    fn within_bounds(&self, metadata: &ArrowReaderMetadata, column: usize, values: &ArrayRef) -> Option<BooleanBuffer> {
        // NaN is in no statistics, and zero has two signs.
        if values.data_type().is_nested() || matches!(values.data_type(), DataType::Float32 | DataType::Float64) {
            return None;
        }
        let group = metadata.metadata().row_groups().get(self.row_group)?;
        let name = self.schema.field(column).name();
        let converter = StatisticsConverter::try_new(name, &self.schema, metadata.parquet_schema()).ok()?;
        let least = converter.row_group_mins([group]).ok()?;
        let greatest = converter.row_group_maxes([group]).ok()?;
        if least.is_null(0) || greatest.is_null(0) {
            return None;
        }
        let above = cmp::gt_eq(values, &Scalar::new(least)).ok()?;
        let below = cmp::lt_eq(values, &Scalar::new(greatest)).ok()?;
        let both = arrow::compute::and(&above, &below).ok()?;
        // NULL is compared with nothing, and may be there.
        Some(true_or_null(&both))
    }

    async fn hashes(&self, wanted: &Wanted, stats: &Arc<ReadStats>) -> Result<Arc<RowHashes>, TierError> {
        let key = (self.file.number, self.row_group);
        let cache = self.tiers.caches().hashes;
        if let Some(hashes) = cache.get(&key).await {
            return Ok(hashes);
        }
        let rows = self.read_here(Some(&wanted.columns), None, stats).await?;
        let hashes = (wanted.hash_rows)(&rows).map_err(|error| self.file.error(error.to_string()))?;
        let hashes = Arc::new(RowHashes::new(hashes));
        cache.insert(key, hashes.clone()).await;
        Ok(hashes)
    }
}

fn true_or_null(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        None => mask.values().clone(),
        Some(nulls) => mask.values() | &!nulls.inner(),
    }
}
