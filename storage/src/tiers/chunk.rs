//! A chunk of rows in a file: one row group.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::{TierError, TierFile, Tiers};

/// The footer with its page index is mostly not longer, and is then read at once.
const FOOTER_BYTES_GUESS: usize = 32 * 1024;

/// The rows of one row group. A clone is another handle to them.
#[derive(Debug, Clone)]
pub struct StoredChunk {
    pub tiers: Arc<Tiers>,
    pub file: Arc<TierFile>,
    pub row_group: usize,
    pub rows: usize,
    /// Bytes of the row group in the file.
    pub bytes: u64,
    /// The least and the greatest time of its rows by which they age, in microseconds; `None` if no row has one.
    pub times: Option<(i64, i64)>,
    /// Whether a row has no time.
    pub has_timeless: bool,
    pub schema: SchemaRef,
}

/// How much was read of files.
#[derive(Debug, Default)]
pub struct ReadStats {
    /// Bytes that were fetched, footers and filters among them.
    pub bytes: AtomicU64,
}

impl StoredChunk {
    /// Columns `projection` (all if `None`) of the rows in `selection` (all if `None`).
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub async fn read(
        &self,
        projection: Option<Vec<usize>>,
        selection: Option<RowSelection>,
        stats: Arc<ReadStats>,
    ) -> Result<RecordBatch, TierError> {
        let chunk = self.clone();
        let work = async move { chunk.read_here(projection.as_deref(), selection, &stats).await };
        self.tiers.run(&self.file, work).await
    }

    /// [`StoredChunk::read`], keeping the thread.
    ///
    /// # Errors
    /// As there.
    pub fn read_blocking(
        &self,
        projection: Option<Vec<usize>>,
        selection: Option<RowSelection>,
    ) -> Result<RecordBatch, TierError> {
        let chunk = self.clone();
        let work = async move { chunk.read_here(projection.as_deref(), selection, &Arc::default()).await };
        self.tiers.wait(&self.file, work)
    }

    /// On the threads of the tiers.
    pub(super) async fn read_here(
        &self,
        projection: Option<&[usize]>,
        selection: Option<RowSelection>,
        stats: &Arc<ReadStats>,
    ) -> Result<RecordBatch, TierError> {
        let damaged = |error: &dyn std::fmt::Display| self.file.error(error.to_string());
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let schema = Arc::new(self.schema.project(wanted).map_err(|error| damaged(&error))?);
        let count = selection.as_ref().map_or(self.rows, RowSelection::row_count);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        if wanted.is_empty() || count == 0 {
            let empty =
                wanted.iter().map(|column| arrow::array::new_empty_array(self.schema.field(*column).data_type()));
            let rows = RecordBatch::try_new_with_options(schema, empty.collect(), &options);
            return rows.map_err(|error| damaged(&error));
        }
        let metadata = self.metadata(stats).await?;
        if metadata.metadata().num_row_groups() <= self.row_group || metadata.schema().fields().len() != all.len() {
            return Err(self.file.error("it is not the file that was written"));
        }
        let mut read_columns = wanted.to_vec();
        read_columns.sort_unstable();
        read_columns.dedup();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), read_columns.iter().copied());
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(stats), metadata)
            .with_row_groups(vec![self.row_group])
            .with_batch_size(self.rows)
            .with_projection(mask);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().map_err(|error| damaged(&error))?;
        let read_schema = stream.schema().clone();
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| damaged(&error))?;
        let rows = concat_batches(&read_schema, &batches).map_err(|error| damaged(&error))?;
        let columns: Vec<ArrayRef> = wanted
            .iter()
            .map(|column| (rows.column(read_columns.partition_point(|read| read < column)), self.schema.field(*column)))
            .map(|(read, field)| match read.data_type() == field.data_type() {
                true => Ok(read.clone()),
                // Fields within it have ids in the file.
                false => cast(read, field.data_type()).map_err(|error| damaged(&error)),
            })
            .collect::<Result<_, _>>()?;
        // Also checks the number of rows and their types.
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| damaged(&error))
    }

    pub(super) fn reader(&self, stats: &Arc<ReadStats>) -> FileReader {
        FileReader { tiers: self.tiers.clone(), file: self.file.clone(), stats: stats.clone() }
    }

    /// What the file says of itself.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub(crate) async fn footer(&self) -> Result<ArrowReaderMetadata, TierError> {
        let chunk = self.clone();
        self.tiers.run(&self.file, async move { chunk.metadata(&Arc::default()).await }).await
    }

    /// What the file says of itself. On the threads of the tiers.
    pub(super) async fn metadata(&self, stats: &Arc<ReadStats>) -> Result<ArrowReaderMetadata, TierError> {
        let footers = self.tiers.caches().footers;
        if let Some(footer) = footers.get(&self.file.number).await {
            return Ok(footer);
        }
        let mut reader = self.reader(stats);
        let footer = reader.get_metadata(None).await.map_err(|error| self.file.error(error.to_string()))?;
        let footer = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new());
        let footer = footer.map_err(|error| self.file.error(error.to_string()))?;
        footers.insert(self.file.number, footer.clone()).await;
        Ok(footer)
    }

    /// The bloom filter of a column of the row group. On the threads of the tiers.
    pub(super) async fn bloom_filter(
        &self,
        metadata: &ArrowReaderMetadata,
        column: usize,
        stats: &Arc<ReadStats>,
    ) -> Result<Arc<Option<Sbbf>>, TierError> {
        let Some(leaf) = self.leaf_of(metadata, column) else { return Ok(Arc::new(None)) };
        let (filters, key) = (self.tiers.caches().filters, (self.file.number, self.row_group, leaf));
        if let Some(filter) = filters.get(&key).await {
            return Ok(filter);
        }
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(stats), metadata.clone());
        let filter = builder.get_row_group_column_bloom_filter(self.row_group, leaf).await;
        let filter = Arc::new(filter.map_err(|error| self.file.error(error.to_string()))?);
        filters.insert(key, filter.clone()).await;
        Ok(filter)
    }

    /// The column of the file that is `column` of the schema, if it is one column there too.
    pub(super) fn leaf_of(&self, metadata: &ArrowReaderMetadata, column: usize) -> Option<usize> {
        let schema = metadata.parquet_schema();
        let mut leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == column);
        let leaf = leaves.next()?;
        leaves.next().is_none().then_some(leaf)
    }
}

/// Reads a file through the caches.
pub(super) struct FileReader {
    tiers: Arc<Tiers>,
    file: Arc<TierFile>,
    stats: Arc<ReadStats>,
}

fn outside(error: TierError) -> ParquetError {
    ParquetError::External(Box::new(std::io::Error::other(error.reason)))
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let mut read = self.get_byte_ranges(vec![range]).await?;
            read.pop().ok_or_else(|| ParquetError::EOF("nothing was read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.tiers.ranges(&self.file, &ranges, &self.stats.bytes).await.map_err(outside) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.file.bytes;
            let reader = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .with_prefetch_hint(Some(FOOTER_BYTES_GUESS));
            Ok(Arc::new(reader.load_and_finish(&mut *self, bytes).await?))
        }
        .boxed()
    }
}

impl ReadStats {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
