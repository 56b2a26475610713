//! Rows in the order in which they came, in columnar chunks, under consecutive numbers.
//!
//! Full chunks have exactly 2^16 rows, so that a row's number says where it is. Behind them lies a short tail of smaller
//! batches, each less than half as long as the one before: a row is copied a logarithmic number of times.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use freshet_types::delta::batch_bytes;

const CHUNK_BITS: u32 = 16;
const CHUNK_ROWS: usize = 1 << CHUNK_BITS;

pub struct RowLog {
    schema: SchemaRef,
    full: Vec<RecordBatch>,
    tail: Vec<RecordBatch>,
    /// The number of the first row of each batch of the tail.
    tail_starts: Vec<usize>,
    len: usize,
    /// Bytes of the full chunks.
    full_bytes: usize,
}

impl RowLog {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, full: Vec::new(), tail: Vec::new(), tail_starts: Vec::new(), len: 0, full_bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes held, for budgets.
    pub fn memory_bytes(&self) -> usize {
        self.full_bytes + self.tail.iter().map(batch_bytes).sum::<usize>()
    }

    pub fn append(&mut self, rows: RecordBatch) -> Result<(), ArrowError> {
        self.tail_starts.push(self.len);
        self.len += rows.num_rows();
        self.tail.push(rows);
        while let [.., before, last] = self.tail.as_slice()
            && before.num_rows() < 2 * last.num_rows()
        {
            let both = concat_batches(&self.schema, [before, last])?;
            self.tail.truncate(self.tail.len() - 2);
            self.tail_starts.pop();
            self.tail.push(both);
        }
        if self.len - self.full.len() * CHUNK_ROWS >= CHUNK_ROWS {
            self.cut_full_chunks()?;
        }
        Ok(())
    }

    fn cut_full_chunks(&mut self) -> Result<(), ArrowError> {
        let mut rest = match self.tail.as_slice() {
            [only] => only.clone(),
            tail => concat_batches(&self.schema, tail)?,
        };
        while rest.num_rows() >= CHUNK_ROWS {
            let chunk = rest.slice(0, CHUNK_ROWS);
            self.full_bytes += batch_bytes(&chunk);
            self.full.push(chunk);
            rest = rest.slice(CHUNK_ROWS, rest.num_rows() - CHUNK_ROWS);
        }
        self.tail_starts = vec![self.full.len() * CHUNK_ROWS];
        self.tail = vec![rest];
        Ok(())
    }

    fn chunk(&self, chunk: usize) -> &RecordBatch {
        self.full.get(chunk).unwrap_or_else(|| &self.tail[chunk - self.full.len()])
    }

    /// The chunk of a row and its place there.
    #[inline]
    fn locate(&self, row: u32) -> (usize, usize) {
        let row = row as usize;
        let chunk = row >> CHUNK_BITS;
        if chunk < self.full.len() {
            return (chunk, row & (CHUNK_ROWS - 1));
        }
        let batch = self.tail_starts.partition_point(|start| *start <= row) - 1;
        (self.full.len() + batch, row - self.tail_starts[batch])
    }

    /// The chunk in which a row is, and its place there.
    pub fn find(&self, row: u32) -> (&RecordBatch, usize) {
        let (chunk, place) = self.locate(row);
        (self.chunk(chunk), place)
    }

    /// The chunk's number of a row; it holds until the next append.
    pub fn chunk_number(&self, row: u32) -> usize {
        self.locate(row).0
    }

    /// The columns of `rows`, in that order.
    pub fn gather(&self, rows: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        self.gather_columns(rows, &all)
    }

    /// Some columns of `rows`, in that order.
    pub fn gather_columns(&self, rows: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut used: Vec<usize> = Vec::new();
        let mut number_of_chunk = vec![usize::MAX; self.full.len() + self.tail.len()];
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let (chunk, place) = self.locate(*row);
            let number = &mut number_of_chunk[chunk];
            if *number == usize::MAX {
                *number = used.len();
                used.push(chunk);
            }
            places.push((*number, place));
        }
        if let [only] = used.as_slice() {
            let narrow = |place: usize| u32::try_from(place).expect("a chunk has at most 2^17 rows");
            let places: UInt32Array = places.into_iter().map(|(_, place)| narrow(place)).collect();
            let chunk = self.chunk(*only);
            return columns.iter().map(|column| take(chunk.column(*column), &places, None)).collect();
        }
        let gathered = |index: &usize| {
            let index = *index;
            let chunks: Vec<&dyn Array> = used.iter().map(|chunk| self.chunk(*chunk).column(index).as_ref()).collect();
            if chunks.is_empty() {
                return Ok(arrow::array::new_empty_array(self.schema.field(index).data_type()));
            }
            interleave(&chunks, &places)
        };
        columns.iter().map(gathered).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn rows_keep_their_numbers() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let mut log = RowLog::new(schema.clone());
        let mut next = 0_i64;
        for length in (1..400).chain([60_000, 3, 200_000]).chain(1..100) {
            let column = Int64Array::from_iter_values(next..next + length);
            log.append(RecordBatch::try_new(schema.clone(), vec![Arc::new(column)]).unwrap()).unwrap();
            next += length;
        }
        assert_eq!(log.len() as i64, next);
        let rows: Vec<u32> = (0..u32::try_from(next).unwrap()).rev().step_by(7).collect();
        let gathered = log.gather(&rows).unwrap();
        let values = gathered[0].as_primitive::<Int64Type>().values();
        assert!(values.iter().zip(&rows).all(|(value, row)| *value == i64::from(*row)));
        assert!(log.tail.len() <= 17);
        assert_eq!(log.gather(&[70_000]).unwrap()[0].as_primitive::<Int64Type>().value(0), 70_000);
    }
}
