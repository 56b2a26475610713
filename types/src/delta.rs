//! A delta is what moves through Freshet: rows, and how often each appears or disappears.
//!
//! It is a multiset with signs. The delta `{a: +2, b: -1}` adds two copies of row `a` and takes away
//! one copy of row `b`. Applying the deltas of all epochs up to `e`, in any order, to an empty
//! multiset gives the relation at `e`; this is all that operators may rely on (I-2). In particular
//!
//! * a row may occur several times in one delta, with weights that add up or cancel out, until
//!   [`Delta::consolidate`] has been called;
//! * a weight of zero is allowed and means nothing;
//! * the order of rows carries no meaning.
//!
//! An append-only stream is the common case and pays for nothing: [`Weights::Inserts`] says "+1 for
//! each row" without a column. Weights add with overflow checks: a multiset whose counts do not fit
//! an `i64` is broken, and saying so beats a wrong answer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat_batches, filter, filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::keys::KeyEncoder;
use crate::row_table::RowTable;

/// How often each row of a [`Delta`] appears (+n) or disappears (-n).
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// Each row appears once: the append-only fast path, which carries no column.
    Inserts,
    /// One weight a row.
    Each(ScalarBuffer<i64>),
}

/// A change of a relation: a batch of rows with a weight each.
///
/// The rows are Arrow columns behind `Arc`s, so a clone is cheap and shares them.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    rows: RecordBatch,
    weights: Weights,
}

impl Delta {
    /// The delta that inserts each row once.
    pub fn inserts(rows: RecordBatch) -> Self {
        Self { rows, weights: Weights::Inserts }
    }

    /// The delta that deletes each row once.
    pub fn deletes(rows: RecordBatch) -> Self {
        let weights = Weights::Each(vec![-1; rows.num_rows()].into());
        Self { rows, weights }
    }

    /// Rows with a weight each; `weights` has one entry a row.
    ///
    /// # Panics
    /// If the lengths differ, which is a bug of the caller.
    pub fn new(rows: RecordBatch, weights: impl Into<ScalarBuffer<i64>>) -> Self {
        let weights = weights.into();
        assert_eq!(rows.num_rows(), weights.len(), "a delta has one weight a row");
        Self { rows, weights: Weights::Each(weights) }
    }

    /// A delta without rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Self::inserts(RecordBatch::new_empty(schema))
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn columns(&self) -> &[ArrayRef] {
        self.rows.columns()
    }

    /// The number of rows, counting each once whatever its weight.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether each row is inserted exactly once, and said so without a weight column.
    pub fn is_inserts(&self) -> bool {
        matches!(self.weights, Weights::Inserts)
    }

    /// The weight of one row. For loops over all rows, match on [`Delta::weights`] once instead.
    pub fn weight(&self, row: usize) -> i64 {
        match &self.weights {
            Weights::Inserts => 1,
            Weights::Each(weights) => weights[row],
        }
    }

    /// The weights as a column, made if they were implicit.
    pub fn weight_column(&self) -> ScalarBuffer<i64> {
        match &self.weights {
            Weights::Inserts => vec![1; self.len()].into(),
            Weights::Each(weights) => weights.clone(),
        }
    }

    /// The same rows under other columns: what a projection gives. `rows` must have as many rows.
    ///
    /// # Panics
    /// If the number of rows differs.
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        assert_eq!(rows.num_rows(), self.len(), "a projection keeps the number of rows");
        Self { rows, weights: self.weights.clone() }
    }

    /// The columns at `indices`, in that order.
    pub fn project(&self, indices: &[usize]) -> Result<Self, ArrowError> {
        Ok(Self { rows: self.rows.project(indices)?, weights: self.weights.clone() })
    }

    /// The rows where `mask` is true; null counts as false.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        let rows = filter_record_batch(&self.rows, mask)?;
        let weights = match &self.weights {
            Weights::Inserts => Weights::Inserts,
            Weights::Each(weights) => {
                let kept = filter(&Int64Array::new(weights.clone(), None), mask)?;
                Weights::Each(int64_values(&kept))
            }
        };
        Ok(Self { rows, weights })
    }

    /// The rows at `indices`, which may repeat.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self, ArrowError> {
        let rows = take_rows(&self.rows, indices)?;
        let weights = match &self.weights {
            Weights::Inserts => Weights::Inserts,
            Weights::Each(weights) => {
                let taken = take(&Int64Array::new(weights.clone(), None), indices, None)?;
                Weights::Each(int64_values(&taken))
            }
        };
        Ok(Self { rows, weights })
    }

    /// The rows `offset .. offset + length`, without a copy.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let weights = match &self.weights {
            Weights::Inserts => Weights::Inserts,
            Weights::Each(weights) => Weights::Each(weights.slice(offset, length)),
        };
        Self { rows: self.rows.slice(offset, length), weights }
    }

    /// The delta that undoes this one.
    pub fn negate(&self) -> Self {
        let weights = match &self.weights {
            Weights::Inserts => vec![-1; self.len()],
            Weights::Each(weights) => weights
                .iter()
                .map(|w| w.checked_neg().expect("a weight of i64::MIN cannot arise from counting rows"))
                .collect(),
        };
        Self::new(self.rows.clone(), weights)
    }

    /// All rows of `deltas`, one after the other. All must have the schema `schema`.
    pub fn concat(schema: &SchemaRef, deltas: &[Delta]) -> Result<Self, ArrowError> {
        if let [only] = deltas {
            return Ok(only.clone());
        }
        let rows = concat_batches(schema, deltas.iter().map(Delta::rows))?;
        if deltas.iter().all(Delta::is_inserts) {
            return Ok(Self::inserts(rows));
        }
        let mut weights = Vec::with_capacity(rows.num_rows());
        for delta in deltas {
            match &delta.weights {
                Weights::Inserts => weights.resize(weights.len() + delta.len(), 1),
                Weights::Each(each) => weights.extend_from_slice(each),
            }
        }
        Ok(Self::new(rows, weights))
    }

    /// The same change with each distinct row at most once and no zero weights.
    ///
    /// A delta of plain inserts is returned as it is: each of its rows has weight +1, so none can
    /// cancel another, and merging duplicates would gain nothing.
    ///
    /// # Errors
    /// If the columns cannot be compared as rows.
    pub fn consolidate(&self) -> Result<Self, ArrowError> {
        let Weights::Each(weights) = &self.weights else {
            return Ok(self.clone());
        };
        let encoder = KeyEncoder::for_schema(&self.schema())?;
        let keys = encoder.encode(self.columns(), self.len())?;
        let mut table = RowTable::with_capacity(self.len());
        let mut firsts: Vec<u32> = Vec::new();
        let mut sums: Vec<i64> = Vec::new();
        for (row, (hash, weight)) in keys.hashes().into_iter().zip(weights.iter()).enumerate() {
            let slot = table.find_or_insert(hash, firsts.len(), |slot| keys.equal(firsts[slot] as usize, &keys, row));
            if slot == firsts.len() {
                firsts.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
                sums.push(0);
            }
            sums[slot] = sums[slot].checked_add(*weight).expect("weights of one row add up within an i64");
        }
        let (kept, weights): (Vec<u32>, Vec<i64>) =
            firsts.into_iter().zip(sums).filter(|(_, weight)| *weight != 0).unzip();
        let rows = take_rows(&self.rows, &UInt32Array::from(kept))?;
        if weights.iter().all(|weight| *weight == 1) {
            return Ok(Self::inserts(rows));
        }
        Ok(Self::new(rows, weights))
    }

    /// Bytes of the rows and weights alone, whatever else lies in the buffers that they are a part of.
    pub fn slice_bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights::Inserts => 0,
            Weights::Each(weights) => std::mem::size_of_val::<[i64]>(weights),
        };
        batch_bytes(&self.rows) + weights
    }

    /// Bytes held by the columns and weights, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights::Inserts => 0,
            Weights::Each(weights) => std::mem::size_of_val::<[i64]>(weights),
        };
        self.rows.get_array_memory_size() + weights
    }

    /// The rows with a schema that differs only in names, nullability or metadata.
    pub fn with_schema(&self, schema: &SchemaRef) -> Result<Self, ArrowError> {
        if Arc::ptr_eq(schema, self.rows.schema_ref()) {
            return Ok(self.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), self.columns().to_vec(), &options)?;
        Ok(Self { rows, weights: self.weights.clone() })
    }
}

/// Bytes of the rows of a batch alone, whatever else lies in the buffers that they are a part of.
pub fn batch_bytes(rows: &RecordBatch) -> usize {
    // A column that cannot tell counts as a whole.
    let bytes =
        |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    rows.columns().iter().map(bytes).sum()
}

/// The rows of a batch at `indices`, which may repeat. Unlike Arrow's kernel it knows rows without columns.
///
/// # Errors
/// If an index is out of bounds.
pub fn take_rows(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().map(|column| take(column, indices, None)).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
}

fn int64_values(array: &dyn Array) -> ScalarBuffer<i64> {
    array.as_any().downcast_ref::<Int64Array>().expect("filter and take keep the type of a column").values().clone()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(keys: &[Option<i64>], names: &[&str]) -> RecordBatch {
        let schema =
            Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("n", DataType::Utf8, false)]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(keys.to_vec())), Arc::new(StringArray::from(names.to_vec()))];
        RecordBatch::try_new(schema, columns).unwrap()
    }

    #[test]
    fn consolidate_adds_equal_rows_and_drops_zeros() {
        let rows = batch(&[Some(1), None, Some(1), None, Some(2)], &["a", "b", "a", "b", "c"]);
        let delta = Delta::new(rows, vec![1, 2, -1, 1, -1]);
        let consolidated = delta.consolidate().unwrap();
        assert_eq!(consolidated, Delta::new(batch(&[None, Some(2)], &["b", "c"]), vec![3, -1]));
    }

    #[test]
    fn consolidate_returns_to_plain_inserts_when_it_can() {
        let delta = Delta::new(batch(&[Some(1), Some(2)], &["a", "b"]), vec![1, 0]);
        assert_eq!(delta.consolidate().unwrap(), Delta::inserts(batch(&[Some(1)], &["a"])));
    }

    #[test]
    fn consolidate_keeps_the_weights_of_rows_without_columns() {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        let consolidated = Delta::new(rows, vec![1, 1, 1]).consolidate().unwrap();
        assert_eq!((consolidated.len(), consolidated.weight(0)), (1, 3));
    }

    #[test]
    fn concat_mixes_inserts_and_weights() {
        let one = Delta::inserts(batch(&[Some(1)], &["a"]));
        let two = Delta::deletes(batch(&[Some(2)], &["b"]));
        let both = Delta::concat(&one.schema(), &[one.clone(), two]).unwrap();
        assert_eq!(both.weight_column().to_vec(), vec![1, -1]);
        assert_eq!(both.negate().weight_column().to_vec(), vec![-1, 1]);
    }

    #[test]
    fn filter_take_and_slice_move_weights_with_their_rows() {
        let delta = Delta::new(batch(&[Some(1), Some(2), Some(3)], &["a", "b", "c"]), vec![1, -2, 3]);
        let mask = BooleanArray::from(vec![Some(true), None, Some(true)]);
        assert_eq!(delta.filter(&mask).unwrap().weight_column().to_vec(), vec![1, 3]);
        assert_eq!(delta.take(&UInt32Array::from(vec![2, 1])).unwrap().weight_column().to_vec(), vec![3, -2]);
        assert_eq!(delta.slice(1, 2).weight_column().to_vec(), vec![-2, 3]);
    }
}
