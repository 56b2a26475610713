//! Arrow columns to the bytes of Postgres values, a column at a time.
//!
//! A result is rows on the wire and columns in memory. Each column is first written into one buffer
//! with the end of each value ([`Cells`]); then rows are put together by copying slices. So the match
//! on a type happens once a batch, and assembling rows is a loop over slices.
//!
//! Text forms are exactly those that PostgreSQL 15 prints with its default settings. Types that
//! Postgres does not have are shown in Arrow's own text form.

mod binary;
mod canonical;
mod copy;
mod float;
mod nested;
mod numeric;
mod temporal;
mod text;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use bytes::{BufMut, BytesMut};
use freshet_types::SqlError;

pub use copy::put_copy_rows;

/// How values are written, as in the format codes of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// The values of one column in wire form.
#[derive(Debug)]
pub struct Cells {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    nulls: Option<NullBuffer>,
}

impl Cells {
    /// Calls `write` for each row that is not null.
    fn each(array: &dyn Array, mut write: impl FnMut(usize, &mut Vec<u8>)) -> Self {
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let mut bytes = Vec::with_capacity(array.len() * 8);
        let mut ends = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                write(row, &mut bytes);
            }
            ends.push(bytes.len());
        }
        Self { bytes, ends, nulls }
    }

    /// The value of a row; `None` for NULL.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        Some(&self.bytes[start..self.ends[row]])
    }
}

/// Writes one column in wire form.
///
/// # Errors
/// If the binary format cannot hold a value, as with arrays whose rows differ in length.
pub fn encode(array: &ArrayRef, field: &Field, format: Format) -> Result<Cells, SqlError> {
    let array = &unpacked(array)?;
    match format {
        Format::Text => text::encode(array, field),
        Format::Binary => binary::encode(array, field),
    }
}

/// Dictionaries and runs are packings of plain columns.
fn unpacked(array: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let plain = match array.data_type() {
        DataType::Dictionary(_, value) => value.as_ref(),
        DataType::RunEndEncoded(_, values) => values.data_type(),
        _ => return Ok(array.clone()),
    };
    arrow::compute::cast(array, plain).map_err(|e| SqlError::internal(e.to_string()))
}

/// All columns of a batch in wire form; `formats` has one entry a column.
pub fn encode_batch(batch: &RecordBatch, formats: &[Format]) -> Result<Vec<Cells>, SqlError> {
    let schema = batch.schema_ref();
    let columns = batch.columns().iter().zip(schema.fields()).zip(formats);
    columns.map(|((array, field), format)| encode(array, field, *format)).collect()
}

/// Appends the DataRow message of one row.
pub fn put_data_row(out: &mut BytesMut, columns: &[Cells], row: usize) {
    out.put_u8(b'D');
    let start = out.len();
    out.put_i32(0);
    out.put_i16(i16::try_from(columns.len()).expect("a result has at most 1600 columns"));
    for column in columns {
        match column.get(row) {
            None => out.put_i32(-1),
            Some(value) => {
                out.put_i32(i32::try_from(value.len()).expect("a value is smaller than 2 GiB"));
                out.put_slice(value);
            }
        }
    }
    let length = i32::try_from(out.len() - start).expect("a row is smaller than 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The column's values as text, `None` for NULL.
    pub fn texts(array: ArrayRef) -> Vec<Option<String>> {
        let field = Field::new("c", array.data_type().clone(), true);
        let cells = encode(&array, &field, Format::Text).unwrap();
        (0..array.len()).map(|row| cells.get(row).map(|v| String::from_utf8(v.to_vec()).unwrap())).collect()
    }

    /// The first value in binary form, as hex.
    pub fn hex(array: ArrayRef) -> String {
        let field = Field::new("c", array.data_type().clone(), true);
        let cells = encode(&array, &field, Format::Binary).unwrap();
        cells.get(0).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_data_row_has_lengths_and_marks_null() {
        let array: ArrayRef = std::sync::Arc::new(arrow::array::Int32Array::from(vec![Some(42), None]));
        let field = Field::new("c", DataType::Int32, true);
        let cells = [encode(&array, &field, Format::Text).unwrap()];
        let mut out = BytesMut::new();
        put_data_row(&mut out, &cells, 0);
        assert_eq!(&out[..], b"D\0\0\0\x0c\0\x01\0\0\0\x0242");
        out.clear();
        put_data_row(&mut out, &cells, 1);
        assert_eq!(&out[..], b"D\0\0\0\x0a\0\x01\xff\xff\xff\xff");
    }
}
