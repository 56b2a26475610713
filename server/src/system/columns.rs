//! Small tables from columns: what the system relations are made of.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, new_null_array,
};
use arrow::datatypes::{DataType, Field, Int16Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion_pg_catalog::pg_catalog::oid_field::{kind, oid_field};

/// A table in the making; all columns have `rows` rows.
pub struct Columns {
    rows: usize,
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    pub fn new(rows: usize) -> Self {
        Self { rows, fields: Vec::new(), arrays: Vec::new() }
    }

    fn push(mut self, field: Field, array: ArrayRef) -> Self {
        self.fields.push(field);
        self.arrays.push(array);
        self
    }

    fn plain(self, name: &str, array: ArrayRef) -> Self {
        self.push(Field::new(name, array.data_type().clone(), true), array)
    }

    /// Object ids, marked as such for clients.
    pub fn oid(self, name: &str, values: impl IntoIterator<Item = i32>) -> Self {
        self.push(oid_field(name, kind::OID, true), Arc::new(Int32Array::from_iter_values(values)))
    }

    pub fn text<T: Into<Option<String>>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.plain(name, Arc::new(values.into_iter().map(Into::into).collect::<StringArray>()))
    }

    pub fn int2(self, name: &str, values: impl IntoIterator<Item = i16>) -> Self {
        self.plain(name, Arc::new(Int16Array::from_iter_values(values)))
    }

    pub fn int4<T: Into<Option<i32>>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.plain(name, Arc::new(values.into_iter().map(Into::into).collect::<Int32Array>()))
    }

    pub fn bool(self, name: &str, values: impl IntoIterator<Item = bool>) -> Self {
        self.plain(name, Arc::new(values.into_iter().map(Some).collect::<BooleanArray>()))
    }

    /// Arrays of column numbers, counted from 1.
    pub fn numbers(self, name: &str, values: impl IntoIterator<Item = Vec<i16>>) -> Self {
        let values = values.into_iter().map(|numbers| Some(numbers.into_iter().map(Some).collect::<Vec<_>>()));
        let array = arrow::array::ListArray::from_iter_primitive::<Int16Type, _, _>(values);
        self.plain(name, Arc::new(array))
    }

    /// The same object id in all rows.
    pub fn all_oid(self, name: &str, value: i32) -> Self {
        let rows = self.rows;
        self.oid(name, std::iter::repeat_n(value, rows))
    }

    pub fn all_text(self, name: &str, value: &str) -> Self {
        let rows = self.rows;
        self.text(name, std::iter::repeat_n(value.to_owned(), rows))
    }

    pub fn all_int2(self, name: &str, value: i16) -> Self {
        let rows = self.rows;
        self.int2(name, std::iter::repeat_n(value, rows))
    }

    pub fn all_int4(self, name: &str, value: i32) -> Self {
        let rows = self.rows;
        self.int4(name, std::iter::repeat_n(value, rows))
    }

    pub fn all_float4(self, name: &str, value: f32) -> Self {
        let array = Float32Array::from_value(value, self.rows);
        self.plain(name, Arc::new(array))
    }

    pub fn all_bool(self, name: &str, value: bool) -> Self {
        let rows = self.rows;
        self.bool(name, std::iter::repeat_n(value, rows))
    }

    pub fn null_text(self, name: &str) -> Self {
        let array = new_null_array(&DataType::Utf8, self.rows);
        self.plain(name, array)
    }

    /// NULL arrays of text: nobody was granted anything, no options.
    pub fn null_texts(self, name: &str) -> Self {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for _ in 0..self.rows {
            lists.append_null();
        }
        self.plain(name, Arc::new(lists.finish()))
    }

    pub fn into_table(self) -> Arc<dyn TableProvider> {
        let schema = Arc::new(Schema::new(self.fields));
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), self.arrays, &options)
            .expect("each column is made for the same number of rows");
        Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("the batch has the schema"))
    }
}
