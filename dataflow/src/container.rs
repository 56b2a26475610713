//! What flows along timely's edges: a delta at a time.
//!
//! Progress is accounted in rows, so a distributor may cut a delta in any way. Between the threads of a process a delta
//! moves by pointer. Between processes it travels as an Arrow IPC stream, whose last column holds the weights
//! unless each row is a plain insert:
//!
//! ```text
//! u64  bytes of the IPC stream, little endian
//! u64  1: with a column of weights; 0: plain inserts
//! ...  the stream, padded with zeros to a multiple of 8 bytes
//! ```

use std::cell::OnceCell;
use std::io::{Cursor, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use freshet_types::{Delta, Weights};
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

/// A delta, or nothing: timely leaves an empty container behind when it takes one.
#[derive(Debug, Clone, Default)]
pub struct DeltaContainer {
    delta: Option<Delta>,
    /// The network form, made when its length is asked for and used when it is written.
    encoded: OnceCell<Vec<u8>>,
}

impl From<Delta> for DeltaContainer {
    fn from(delta: Delta) -> Self {
        Self { delta: Some(delta), encoded: OnceCell::new() }
    }
}

impl DeltaContainer {
    /// Takes the delta out, if there is one.
    pub fn take(&mut self) -> Option<Delta> {
        self.delta.take()
    }

    fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| match &self.delta {
            Some(delta) => encode(delta).expect("writing columns to memory cannot fail"),
            None => Vec::new(),
        })
    }
}

impl Accountable for DeltaContainer {
    fn record_count(&self) -> i64 {
        let rows = self.delta.as_ref().map_or(0, Delta::len);
        i64::try_from(rows).expect("a batch has fewer than 2^63 rows")
    }
}

impl ContainerBytes for DeltaContainer {
    fn from_bytes(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        Self::from(decode(&bytes).expect("a peer sends what encode() wrote"))
    }

    fn length_in_bytes(&self) -> usize {
        self.encoded().len()
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        writer.write_all(self.encoded()).expect("timely reserves length_in_bytes() bytes");
    }
}

const HEADER_BYTES: usize = 16;

fn encode(delta: &Delta) -> Result<Vec<u8>, ArrowError> {
    let (batch, with_weights) = match delta.weights() {
        Weights::Inserts => (delta.rows().clone(), 0_u64),
        Weights::Each(weights) => {
            let mut fields = delta.schema().fields().to_vec();
            fields.push(Arc::new(Field::new("weight", DataType::Int64, false)));
            let mut columns = delta.columns().to_vec();
            columns.push(Arc::new(Int64Array::new(weights.clone(), None)) as ArrayRef);
            (RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, 1)
        }
    };
    let mut writer = StreamWriter::try_new(vec![0; HEADER_BYTES], batch.schema_ref())?;
    writer.write(&batch)?;
    let mut bytes = writer.into_inner()?;
    let stream_bytes = (bytes.len() - HEADER_BYTES) as u64;
    bytes[0..8].copy_from_slice(&stream_bytes.to_le_bytes());
    bytes[8..16].copy_from_slice(&with_weights.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Delta, ArrowError> {
    let damaged = || ArrowError::ParseError("a batch from the network is damaged".to_string());
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let (stream_bytes, with_weights) = word(0).zip(word(8)).ok_or_else(damaged)?;
    let stream_end =
        usize::try_from(stream_bytes).ok().and_then(|n| n.checked_add(HEADER_BYTES)).ok_or_else(damaged)?;
    let stream = bytes.get(HEADER_BYTES..stream_end).ok_or_else(damaged)?;
    let batch = StreamReader::try_new(Cursor::new(stream), None)?.next().ok_or_else(damaged)??;
    if with_weights == 0 {
        return Ok(Delta::inserts(batch));
    }
    let width = batch.num_columns().checked_sub(1).ok_or_else(damaged)?;
    let weights = batch.column(width).as_primitive_opt::<Int64Type>().ok_or_else(damaged)?.values().clone();
    let schema = Arc::new(Schema::new(batch.schema().fields()[..width].to_vec()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema, batch.columns()[..width].to_vec(), &options)?;
    Ok(Delta::new(rows, weights))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn there_and_back(delta: &Delta) -> Delta {
        let container = DeltaContainer::from(delta.clone());
        let mut bytes = Vec::new();
        container.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), container.length_in_bytes());
        assert_eq!(bytes.len() % 8, 0);
        decode(&bytes).unwrap()
    }

    fn rows() -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("name", DataType::Utf8, false)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec!["a", "", "ccc"])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn a_delta_survives_the_network() {
        for delta in [Delta::inserts(rows()), Delta::new(rows(), vec![1, -2, 7]), Delta::inserts(rows()).slice(1, 1)] {
            assert_eq!(there_and_back(&delta), delta);
        }
    }

    #[test]
    fn rows_without_columns_survive_the_network() {
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        for delta in [Delta::inserts(rows.clone()), Delta::new(rows, vec![1, 2, -3])] {
            assert_eq!(there_and_back(&delta), delta);
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let bytes = encode(&Delta::inserts(rows())).unwrap();
        assert!(decode(&bytes[..8]).is_err());
        assert!(decode(&bytes[..40]).is_err());
        assert!(decode(&[255; 64]).is_err());
    }
}
