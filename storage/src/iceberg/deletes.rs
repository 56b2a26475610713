//! Files of deleted rows: <https://iceberg.apache.org/spec/#position-delete-files>.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use freshet_types::keys::hash_bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::schema::FIELD_ID_METADATA_KEY;
use crate::StorageError;

/// The ids that Iceberg reserves for the columns of such files.
pub(super) const PATH_FIELD_ID: i32 = 2_147_483_546;
const POSITION_FIELD_ID: i32 = 2_147_483_545;

pub(super) const FILE_ENDING: &str = "-deletes.parquet";

/// The rows of some data files that are deleted.
pub(super) struct DeleteFile {
    /// Says what is in it: files with the same name are the same.
    pub name: String,
    pub bytes: Vec<u8>,
    pub rows: u64,
    pub first_path: String,
    pub last_path: String,
}

impl DeleteFile {
    /// The file for the deleted rows of each data file; there is at least one.
    pub fn new(mut deleted: Vec<(String, &[u64])>) -> Result<Self, StorageError> {
        deleted.sort_unstable();
        let paths = deleted.iter().flat_map(|(path, rows)| std::iter::repeat_n(path.as_str(), rows.len()));
        let numbers = deleted.iter().flat_map(|(_, rows)| rows.iter());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(paths.map(Some).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(numbers.map(|row| i64::try_from(*row).expect("files are small")))),
        ];
        let field = |name: &str, data_type, id: i32| {
            let metadata = HashMap::from([(FIELD_ID_METADATA_KEY.to_owned(), id.to_string())]);
            Field::new(name, data_type, false).with_metadata(metadata)
        };
        let path = field("file_path", DataType::Utf8, PATH_FIELD_ID);
        let schema = Schema::new(vec![path, field("pos", DataType::Int64, POSITION_FIELD_ID)]);
        let rows = RecordBatch::try_new(Arc::new(schema), columns)?;
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(failed)?;
        writer.write(&rows).map_err(failed)?;
        let bytes = writer.into_inner().map_err(failed)?;
        let (first, last) = (&deleted[0], &deleted[deleted.len() - 1]);
        Ok(Self {
            name: format!("{:016x}{FILE_ENDING}", hash_bytes(&bytes)),
            rows: rows.num_rows() as u64,
            bytes,
            first_path: first.0.clone(),
            last_path: last.0.clone(),
        })
    }
}

fn failed(error: parquet::errors::ParquetError) -> StorageError {
    StorageError::Io { reason: error.to_string() }
}
