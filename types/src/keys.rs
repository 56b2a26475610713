//! Row keys: which rows are the same row, and where a row lives.
//!
//! A key is the primitive itself when it is one integer column, and Arrow row-format bytes otherwise.
//! Two keys are equal if all their columns are, where NULL equals NULL (as in GROUP BY and DISTINCT;
//! a join drops NULL keys before it gets here).
//!
//! The hash of a key is the same on every machine, in every process and in every release: state is
//! filed under [`virtual_node`] of it, so that a checkpoint taken on N workers restores on M (I-5).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// The number of virtual nodes: what state and exchanges are split by.
pub const VIRTUAL_NODES: usize = 256;

/// The virtual node of a key: the top bits of its hash. Hash tables use the lower ones.
pub fn virtual_node(hash: u64) -> usize {
    (hash >> 56) as usize
}

/// Turns columns into [`Keys`]; made once for the types of the key columns.
#[derive(Debug, Clone)]
pub struct KeyEncoder {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// No columns: all rows are equal.
    Unit,
    /// One integer or timestamp column.
    Int64,
    Int32,
    /// Anything else.
    Rows(Arc<RowConverter>),
}

impl KeyEncoder {
    /// # Errors
    /// If a type has no row format.
    pub fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        let kind = match types {
            [] => Kind::Unit,
            [DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)] => Kind::Int64,
            [DataType::Int32] => Kind::Int32,
            _ => {
                let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
                Kind::Rows(Arc::new(RowConverter::new(fields)?))
            }
        };
        Ok(Self { kind })
    }

    /// An encoder whose key is the whole row.
    ///
    /// # Errors
    /// If a type has no row format.
    pub fn for_schema(schema: &Schema) -> Result<Self, ArrowError> {
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        Self::new(&types)
    }

    /// The keys of `row_count` rows, whose key columns are `columns`.
    ///
    /// # Errors
    /// If the columns are not of the encoder's types.
    pub fn encode(&self, columns: &[ArrayRef], row_count: usize) -> Result<Keys, ArrowError> {
        let keys = match &self.kind {
            Kind::Unit => KeysInner::Unit(row_count),
            Kind::Int64 => {
                let column = match columns[0].data_type() {
                    DataType::Int64 => columns[0].clone(),
                    // A timestamp's values are its i64s; the cast shares the buffer.
                    _ => arrow::compute::cast(&columns[0], &DataType::Int64)?,
                };
                let column = column.as_primitive::<Int64Type>();
                KeysInner::Int { values: column.values().clone(), nulls: nulls_of(column) }
            }
            Kind::Int32 => {
                let column = columns[0].as_primitive::<Int32Type>();
                let values = column.values().iter().map(|value| i64::from(*value)).collect();
                KeysInner::Int { values, nulls: nulls_of(column) }
            }
            Kind::Rows(converter) => KeysInner::Rows(converter.convert_columns(columns)?),
        };
        Ok(Keys(keys))
    }
}

fn nulls_of(array: &dyn Array) -> Option<NullBuffer> {
    array.nulls().filter(|nulls| nulls.null_count() > 0).cloned()
}

/// The keys of a batch of rows, ready to hash and compare.
///
/// Keys made by encoders of the same types may be compared with each other, no others.
#[derive(Debug)]
pub struct Keys(KeysInner);

#[derive(Debug)]
enum KeysInner {
    Unit(usize),
    Int { values: ScalarBuffer<i64>, nulls: Option<NullBuffer> },
    Rows(Rows),
}

/// A key that is one integer column: its values and which of them are NULL.
#[derive(Debug, Clone, Copy)]
pub struct IntKeys<'a> {
    pub values: &'a [i64],
    pub nulls: Option<&'a NullBuffer>,
}

impl Keys {
    pub fn len(&self) -> usize {
        match &self.0 {
            KeysInner::Unit(len) => *len,
            KeysInner::Int { values, .. } => values.len(),
            KeysInner::Rows(rows) => rows.num_rows(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The integers themselves, if that is what the keys are: the fast path of hash tables.
    pub fn as_ints(&self) -> Option<IntKeys<'_>> {
        match &self.0 {
            KeysInner::Int { values, nulls } => Some(IntKeys { values, nulls: nulls.as_ref() }),
            _ => None,
        }
    }

    /// The bytes of one key in Arrow's row format; `None` where the keys are integers or empty.
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        match &self.0 {
            KeysInner::Rows(rows) => Some(rows.row(row).data()),
            _ => None,
        }
    }

    /// Whether row `row` of these keys equals row `other_row` of `other`.
    #[inline]
    pub fn equal(&self, row: usize, other: &Keys, other_row: usize) -> bool {
        match (&self.0, &other.0) {
            (KeysInner::Unit(_), KeysInner::Unit(_)) => true,
            (KeysInner::Int { values: a, nulls: a_nulls }, KeysInner::Int { values: b, nulls: b_nulls }) => {
                match (is_null(a_nulls, row), is_null(b_nulls, other_row)) {
                    (false, false) => a[row] == b[other_row],
                    (a_null, b_null) => a_null == b_null,
                }
            }
            (KeysInner::Rows(a), KeysInner::Rows(b)) => a.row(row) == b.row(other_row),
            _ => false,
        }
    }

    /// The stable hash of each key.
    pub fn hashes(&self) -> Vec<u64> {
        match &self.0 {
            KeysInner::Unit(len) => vec![HASH_OF_UNIT; *len],
            KeysInner::Int { values, nulls: None } => values.iter().map(|value| hash_int(*value)).collect(),
            KeysInner::Int { values, nulls: Some(nulls) } => values
                .iter()
                .zip(nulls.iter())
                .map(|(value, valid)| if valid { hash_int(*value) } else { HASH_OF_NULL })
                .collect(),
            KeysInner::Rows(rows) => rows.iter().map(|row| hash_bytes(row.data())).collect(),
        }
    }
}

#[inline]
fn is_null(nulls: &Option<NullBuffer>, row: usize) -> bool {
    nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
}

pub const HASH_OF_NULL: u64 = 0x9ae1_6a3b_2f90_404f;
const HASH_OF_UNIT: u64 = 0x51_7c_c1_b7_27_22_0a_95;

/// The stable hash of an integer key: the finalizer of MurmurHash3, a bijection that mixes all bits.
#[inline]
pub fn hash_int(value: i64) -> u64 {
    let mut hash = value as u64;
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The stable hash of a key in row format: XXH3, 64 bits, seed 0.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn hashes_are_for_ever() {
        assert_eq!(hash_int(0), 0);
        assert_eq!(hash_int(1), 0xb456_bcfc_34c2_cb2c);
        assert_eq!(hash_int(-1), 0x64b5_720b_4b82_5f21);
        assert_eq!(hash_bytes(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash_bytes(b"freshet"), 0x1588_addc_6108_0af3);
        assert_eq!(virtual_node(hash_int(1)), 0xb4);
    }

    #[test]
    fn integers_and_timestamps_take_the_fast_path() {
        let encoder = KeyEncoder::new(&[DataType::Timestamp(TimeUnit::Microsecond, None)]).unwrap();
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(1)]));
        let keys = encoder.encode(&[column], 3).unwrap();
        assert_eq!(keys.as_ints().unwrap().values[0], 1);
        assert_eq!(keys.hashes(), vec![hash_int(1), HASH_OF_NULL, hash_int(1)]);
        assert!(keys.equal(0, &keys, 2));
        assert!(!keys.equal(0, &keys, 1));
        assert!(keys.equal(1, &keys, 1));
    }

    #[test]
    fn keys_of_several_columns_compare_as_rows_with_nulls_equal() {
        let encoder = KeyEncoder::new(&[DataType::Int64, DataType::Utf8]).unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1), None, None]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, None]));
        let keys = encoder.encode(&[ids, names], 4).unwrap();
        assert!(!keys.equal(0, &keys, 1));
        assert!(keys.equal(2, &keys, 3));
        let hashes = keys.hashes();
        assert_eq!((hashes[0] == hashes[1], hashes[2] == hashes[3]), (false, true));
    }
}
