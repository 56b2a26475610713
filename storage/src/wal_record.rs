//! One record of a table's log: a delta and its epoch, as bytes.
//!
//! ```text
//! version  1 byte    1
//! weights  1 byte    1 if the last column of the rows is the weights, 0 if each row is inserted once
//! epoch    8 bytes   big endian
//! checksum 8 bytes   XXH3 of the other bytes
//! rows               an Arrow IPC stream of one or more batches
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use freshet_types::keys::hash_bytes;
use freshet_types::{Delta, Epoch, Weights};

const VERSION: u8 = 1;
const EPOCH: std::ops::Range<usize> = 2..10;
const CHECKSUM: std::ops::Range<usize> = 10..18;
const WEIGHT_COLUMN: &str = "freshet_weight";

/// The record of `delta`.
pub(crate) fn encode(epoch: Epoch, delta: &Delta) -> Result<Vec<u8>, ArrowError> {
    match delta.weights() {
        Weights::Inserts => write(0, epoch, &delta.schema(), delta.rows()),
        Weights::Each(weights) => {
            let mut fields = delta.schema().fields().to_vec();
            fields.push(Arc::new(Field::new(WEIGHT_COLUMN, DataType::Int64, false)));
            let schema = Arc::new(Schema::new(fields));
            let mut columns = delta.columns().to_vec();
            columns.push(Arc::new(Int64Array::new(weights.clone(), None)) as ArrayRef);
            let rows = RecordBatch::try_new(schema.clone(), columns)?;
            write(1, epoch, &schema, &rows)
        }
    }
}

fn write(weights: u8, epoch: Epoch, schema: &SchemaRef, rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut record = vec![VERSION, weights];
    record.extend_from_slice(&epoch.0.to_be_bytes());
    record.resize(CHECKSUM.end, 0);
    let mut writer = StreamWriter::try_new(&mut record, schema)?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    let checksum = checksum(&record);
    record[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    Ok(record)
}

fn checksum(record: &[u8]) -> u64 {
    let head = hash_bytes(&record[..CHECKSUM.start]);
    hash_bytes(&record[CHECKSUM.end..]) ^ head.rotate_left(1)
}

/// The epoch of a record; the rest of it is not looked at.
fn epoch(record: &[u8]) -> Result<Epoch, String> {
    let bytes = record.get(EPOCH).ok_or("it is too short")?;
    Ok(Epoch(u64::from_be_bytes(bytes.try_into().expect("the range has eight bytes"))))
}

/// Reads a record. What comes from a disk may be anything: the error says what is wrong with it.
pub(crate) fn decode(record: &[u8]) -> Result<(Epoch, Delta), String> {
    let epoch = epoch(record)?;
    let stored = record.get(CHECKSUM).ok_or("it is too short")?;
    if stored != checksum(record).to_be_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    if record[0] != VERSION {
        return Err(format!("it has version {}, this server knows {VERSION}", record[0]));
    }
    let delta = decode_rows(&record[CHECKSUM.end..], record[1] == 1).map_err(|error| error.to_string())?;
    Ok((epoch, delta))
}

fn decode_rows(bytes: &[u8], has_weights: bool) -> Result<Delta, ArrowError> {
    let reader = StreamReader::try_new(bytes, None)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let rows = concat_batches(&schema, &batches)?;
    if !has_weights {
        return Ok(Delta::inserts(rows));
    }
    let Some((weights, columns)) = rows.columns().split_last() else {
        return Err(ArrowError::IpcError("the weights are missing".to_owned()));
    };
    let Some(weights) = weights.as_primitive_opt::<Int64Type>().filter(|weights| weights.null_count() == 0) else {
        return Err(ArrowError::IpcError("the weights are not numbers".to_owned()));
    };
    let schema = Arc::new(Schema::new(schema.fields()[..columns.len()].to_vec()));
    let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
    let rows = RecordBatch::try_new_with_options(schema, columns.to_vec(), &options)?;
    Ok(Delta::new(rows, weights.values().clone()))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn rows() -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, false),
            Field::new(WEIGHT_COLUMN, DataType::Utf8, true),
        ]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("a"), None]))];
        RecordBatch::try_new(schema, columns).unwrap()
    }

    #[test]
    fn deltas_come_back_as_they_were() {
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let no_columns = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        for delta in [
            Delta::inserts(rows()),
            Delta::new(rows(), vec![3, -1]),
            Delta::empty(rows().schema()),
            Delta::inserts(no_columns.clone()),
            Delta::deletes(no_columns),
        ] {
            assert_eq!(decode(&encode(Epoch(7), &delta).unwrap()).unwrap(), (Epoch(7), delta));
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let record = encode(Epoch(7), &Delta::new(rows(), vec![3, -1])).unwrap();
        for index in 0..record.len() {
            let mut damaged = record.clone();
            damaged[index] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {index}");
            assert!(decode(&record[..index]).is_err(), "cut at {index}");
        }
    }
}
