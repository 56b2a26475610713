//! Rows to Parquet: zstd, statistics a page, a bloom filter a key column, a row group a chunk.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::collection::limits::CHUNK_ROWS;
use crate::iceberg::with_field_ids;

/// Rows that become one row group.
pub(crate) struct RowGroup {
    pub rows: RecordBatch,
}

/// Whether rows of this schema can be stored and come back as they were; else, the column that cannot.
pub fn can_be_stored(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        let alone = Schema::new(vec![field.clone()]);
        let is_known = ArrowSchemaConverter::new().convert(&alone).is_ok();
        if !is_known || matches!(field.data_type(), DataType::Interval(_) | DataType::Null) {
            return Err(field.name().clone());
        }
    }
    Ok(())
}

/// A file with these row groups, and the bytes that each takes. `key` are the columns to find rows by.
///
/// # Errors
/// If the rows have types that Parquet does not.
pub(crate) fn encode(
    schema: &SchemaRef,
    key: Option<&[usize]>,
    groups: &[RowGroup],
) -> Result<(Vec<u8>, Vec<u64>), ArrowError> {
    let rows_max = groups.iter().map(|group| group.rows.num_rows()).max().unwrap_or(0);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(rows_max.max(1)))
        .set_data_page_row_count_limit(CHUNK_ROWS)
        .set_created_by(concat!("freshet ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in key.unwrap_or_default() {
        let path = ColumnPath::from(schema.field(*column).name().as_str());
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, rows_max as u64);
    }
    let mut contents = Vec::new();
    let schema = with_field_ids(schema);
    let mut writer = ArrowWriter::try_new(&mut contents, schema.clone(), Some(properties.build()))?;
    for group in groups {
        writer.write(&with_schema(&group.rows, &schema)?)?;
        writer.flush()?;
    }
    let metadata = writer.close()?;
    let bytes = metadata.row_groups().iter().map(|group| group.compressed_size().unsigned_abs()).collect();
    Ok((contents, bytes))
}

/// The same rows under a schema that differs in metadata only.
fn with_schema(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(column.clone()),
        false => cast(column, field.data_type()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
}
