//! Which rows of a file a condition cannot be true of, by what the file's statistics, page index and bloom filters say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::bloom_filter::Sbbf;

use super::TierError;
use super::bloom::may_contain;
use super::chunk::{ReadStats, StoredChunk};

/// A condition on rows, in the form in which files are asked.
#[derive(Debug)]
pub struct Predicate {
    whole: Arc<PruningPredicate>,
    /// Its parts, which must all be true, that look at one column: what pages are asked.
    by_column: Vec<(usize, Arc<PruningPredicate>)>,
    /// The columns of which a value is asked for: those whose bloom filters may help.
    equal: Vec<usize>,
    schema: SchemaRef,
}

impl Predicate {
    /// `None` if no file can be skipped for the condition.
    pub fn new(condition: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Option<Self> {
        let pruning = |part: &Arc<dyn PhysicalExpr>| {
            PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(part.clone())
        };
        let whole = pruning(condition)?;
        let index = |name: &str| schema.index_of(name).ok();
        let by_column = split_conjunction(condition).into_iter().filter_map(|part| {
            let part = pruning(part)?;
            Some((index(part.required_columns().single_column()?.name())?, part))
        });
        let by_column = by_column.collect();
        let guarantees = whole.literal_guarantees();
        let equal: HashSet<usize> = guarantees.iter().filter_map(|one| index(&one.column.name)).collect();
        Some(Self { by_column, equal: equal.into_iter().collect(), schema: schema.clone(), whole })
    }
}

impl StoredChunk {
    /// The rows of which `predicate` may be true, in ranges of whole pages; `None` if there are none.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub async fn prune(
        &self,
        predicate: Arc<Predicate>,
        stats: Arc<ReadStats>,
    ) -> Result<Option<BooleanBuffer>, TierError> {
        let chunk = self.clone();
        self.tiers.run(&self.file, async move { chunk.prune_here(&predicate, &stats).await }).await
    }

    async fn prune_here(
        &self,
        predicate: &Predicate,
        stats: &Arc<ReadStats>,
    ) -> Result<Option<BooleanBuffer>, TierError> {
        let metadata = self.metadata(stats).await?;
        let known = |filters| GroupStatistics { chunk: self, metadata: &metadata, filters };
        let is_out = |statistics: &GroupStatistics<'_>| {
            predicate.whole.prune(statistics).is_ok_and(|kept| kept.first() == Some(&false))
        };
        if is_out(&known(HashMap::new())) {
            return Ok(None);
        }
        let mut filters = HashMap::new();
        for column in &predicate.equal {
            let filter = self.bloom_filter(&metadata, *column, stats).await?;
            if filter.is_some() {
                filters.insert(predicate.schema.field(*column).name().clone(), filter);
            }
        }
        if !filters.is_empty() && is_out(&known(filters)) {
            return Ok(None);
        }
        let mut kept = BooleanBuffer::new_set(self.rows);
        for (column, part) in &predicate.by_column {
            if let Some(possible) = self.pages(&metadata, *column, part) {
                kept = &kept & &possible;
            }
        }
        Ok((kept.count_set_bits() > 0).then_some(kept))
    }

    /// The rows of the pages of one column that may satisfy `part`; `None` if nothing is known.
    fn pages(&self, metadata: &ArrowReaderMetadata, column: usize, part: &PruningPredicate) -> Option<BooleanBuffer> {
        if is_float(self.schema.field(column).data_type()) {
            return None;
        }
        let leaf = self.leaf_of(metadata, column)?;
        let offsets = metadata.metadata().offset_index()?.get(self.row_group)?.get(leaf)?;
        let starts: Vec<usize> = offsets
            .page_locations()
            .iter()
            .map(|page| usize::try_from(page.first_row_index).ok())
            .collect::<Option<_>>()?;
        let statistics = PageStatistics { chunk: self, metadata, column, pages: starts.len() };
        let kept = part.prune(&statistics).ok()?;
        let ends = starts.iter().copied().skip(1).chain([self.rows]);
        let mut rows = Vec::with_capacity(self.rows);
        for ((start, end), kept) in starts.iter().zip(ends).zip(kept) {
            rows.extend(std::iter::repeat_n(kept, end.checked_sub(*start)?));
        }
        (rows.len() == self.rows).then(|| BooleanBuffer::from(rows))
    }

    fn converter<'a>(&'a self, metadata: &'a ArrowReaderMetadata, name: &str) -> Option<StatisticsConverter<'a>> {
        StatisticsConverter::try_new(name, &self.schema, metadata.parquet_schema()).ok()
    }
}

/// NaN is in no statistics, and greater than all that is.
fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// What is known of a row group.
struct GroupStatistics<'a> {
    chunk: &'a StoredChunk,
    metadata: &'a ArrowReaderMetadata,
    filters: HashMap<String, Arc<Option<Sbbf>>>,
}

impl GroupStatistics<'_> {
    fn converter(&self, column: &Column) -> Option<StatisticsConverter<'_>> {
        let field = self.chunk.schema.field_with_name(&column.name).ok()?;
        if is_float(field.data_type()) {
            return None;
        }
        self.chunk.converter(self.metadata, &column.name)
    }

    fn group(&self) -> impl Iterator<Item = &parquet::file::metadata::RowGroupMetaData> {
        self.metadata.metadata().row_groups().get(self.chunk.row_group).into_iter()
    }
}

impl PruningStatistics for GroupStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.converter(column)?.row_group_mins(self.group()).ok()
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.converter(column)?.row_group_maxes(self.group()).ok()
    }

    fn num_containers(&self) -> usize {
        1
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let counts = self.chunk.converter(self.metadata, &column.name)?.row_group_null_counts(self.group()).ok()?;
        Some(Arc::new(counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(arrow::array::UInt64Array::from(vec![self.chunk.rows as u64])))
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let filter = self.filters.get(&column.name)?.as_ref().as_ref()?;
        let data_type = self.chunk.schema.field_with_name(&column.name).ok()?.data_type().clone();
        let mut is_possible = false;
        for value in values {
            let value = value.cast_to(&data_type).ok()?.to_array().ok()?;
            is_possible |= value.is_null(0) || may_contain(filter, &value)?.value(0);
        }
        // The filter knows what is not there; of the rest it knows nothing.
        Some(BooleanArray::from(vec![(!is_possible).then_some(false)]))
    }
}

/// What is known of the pages of one column.
struct PageStatistics<'a> {
    chunk: &'a StoredChunk,
    metadata: &'a ArrowReaderMetadata,
    column: usize,
    pages: usize,
}

impl PageStatistics<'_> {
    fn of<T>(
        &self,
        column: &Column,
        get: impl FnOnce(StatisticsConverter<'_>, &parquet::file::metadata::ParquetMetaData) -> Option<T>,
    ) -> Option<T> {
        if *self.chunk.schema.field(self.column).name() != column.name {
            return None;
        }
        get(self.chunk.converter(self.metadata, &column.name)?, self.metadata.metadata())
    }
}

impl PruningStatistics for PageStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        let group = &self.chunk.row_group;
        self.of(column, |converter, file| {
            converter.data_page_mins(file.column_index()?, file.offset_index()?, [group]).ok()
        })
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let group = &self.chunk.row_group;
        self.of(column, |converter, file| {
            converter.data_page_maxes(file.column_index()?, file.offset_index()?, [group]).ok()
        })
    }

    fn num_containers(&self) -> usize {
        self.pages
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let group = &self.chunk.row_group;
        self.of(column, |converter, file| {
            let counts = converter.data_page_null_counts(file.column_index()?, file.offset_index()?, [group]).ok()?;
            Some(Arc::new(counts) as ArrayRef)
        })
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
