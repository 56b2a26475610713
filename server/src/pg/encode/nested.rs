//! Arrays and records, in text (`{1,NULL,"a b"}`, `(1,"a b",)`) and in binary.
//!
//! The elements are encoded as a column of their own; each row then joins a run of its cells. Nested
//! lists are arrays of several dimensions, whose rows must be of equal length in the binary format.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use bytes::BufMut;
use freshet_types::SqlError;

use super::{Cells, Format, encode};
use crate::pg::types::{Oid, oid_of_field};

/// The elements of a list column, and each row's run of them.
struct Lists<'a> {
    item: &'a Field,
    elements: &'a ArrayRef,
    runs: Vec<Range<usize>>,
}

fn lists(array: &ArrayRef) -> Lists<'_> {
    match array.data_type() {
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let runs = list.value_offsets().windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect();
            Lists { item, elements: list.values(), runs }
        }
        DataType::LargeList(item) => {
            let list = array.as_list::<i64>();
            let runs = list.value_offsets().windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect();
            Lists { item, elements: list.values(), runs }
        }
        DataType::FixedSizeList(item, _) => {
            let list = array.as_fixed_size_list();
            let length = list.value_length().unsigned_abs() as usize;
            let runs = (0..list.len()).map(|row| row * length..(row + 1) * length).collect();
            Lists { item, elements: list.values(), runs }
        }
        other => unreachable!("{other} is not a list"),
    }
}

impl Lists<'_> {
    /// Encodes only the elements that some row uses, and moves the runs to where these are.
    fn encode(&mut self, format: Format) -> Result<Cells, SqlError> {
        let start = self.runs.iter().map(|run| run.start).min().unwrap_or(0);
        let end = self.runs.iter().map(|run| run.end).max().unwrap_or(0);
        for run in &mut self.runs {
            *run = run.start - start..run.end - start;
        }
        encode(&self.elements.slice(start, end - start), self.item, format)
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

pub fn array_text(array: &ArrayRef) -> Result<Cells, SqlError> {
    let mut lists = lists(array);
    let elements = lists.encode(Format::Text)?;
    let nested = is_list(lists.item.data_type());
    Ok(Cells::each(array, |row, out| {
        out.push(b'{');
        for (index, element) in lists.runs[row].clone().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match elements.get(element) {
                None => out.extend_from_slice(b"NULL"),
                Some(text) if nested || !needs_quotes_in_array(text) => out.extend_from_slice(text),
                Some(text) => put_quoted(out, text, b'\\'),
            }
        }
        out.push(b'}');
    }))
}

fn needs_quotes_in_array(text: &[u8]) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case(b"null")
        || text.iter().any(|byte| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || is_space(*byte))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Arrays escape a quote by a backslash, records by doubling it.
fn put_quoted(out: &mut Vec<u8>, text: &[u8], quote_escape: u8) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.push(quote_escape),
            b'\\' => out.push(b'\\'),
            _ => {}
        }
        out.push(*byte);
    }
    out.push(b'"');
}

pub fn record_text(array: &ArrayRef) -> Result<Cells, SqlError> {
    let columns = record_columns(array, Format::Text)?;
    Ok(Cells::each(array, |row, out| {
        out.push(b'(');
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match column.get(row) {
                None => {}
                Some(text) if needs_quotes_in_record(text) => put_quoted(out, text, b'"'),
                Some(text) => out.extend_from_slice(text),
            }
        }
        out.push(b')');
    }))
}

fn needs_quotes_in_record(text: &[u8]) -> bool {
    text.is_empty() || text.iter().any(|byte| matches!(byte, b'(' | b')' | b',' | b'"' | b'\\') || is_space(*byte))
}

fn record_columns(array: &ArrayRef, format: Format) -> Result<Vec<Cells>, SqlError> {
    let record = array.as_struct();
    record.columns().iter().zip(record.fields()).map(|(column, field)| encode(column, field, format)).collect()
}

pub fn record_binary(array: &ArrayRef) -> Result<Cells, SqlError> {
    let columns = record_columns(array, Format::Binary)?;
    let oids: Vec<Oid> = array.as_struct().fields().iter().map(|field| oid_of_field(field)).collect();
    Ok(Cells::each(array, |row, out| {
        out.put_u32(oids.len() as u32);
        for (column, oid) in columns.iter().zip(&oids) {
            out.put_u32(*oid);
            put_value(out, column.get(row));
        }
    }))
}

fn put_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).expect("a value is smaller than 2 GiB"));
            out.put_slice(value);
        }
    }
}

/// One dimension: number of dimensions, whether there are NULLs, element type, length, lower bound, elements.
pub fn array_binary(array: &ArrayRef) -> Result<Cells, SqlError> {
    let mut lists = lists(array);
    if is_list(lists.item.data_type()) {
        return matrix_binary(array);
    }
    let elements = lists.encode(Format::Binary)?;
    let oid = oid_of_field(lists.item);
    Ok(Cells::each(array, |row, out| {
        let run = lists.runs[row].clone();
        let has_null = run.clone().any(|element| elements.get(element).is_none());
        let dimensions = if run.is_empty() { vec![] } else { vec![run.len()] };
        put_array_head(out, &dimensions, has_null, oid);
        for element in run {
            put_value(out, elements.get(element));
        }
    }))
}

fn put_array_head(out: &mut Vec<u8>, dimensions: &[usize], has_null: bool, element: Oid) {
    out.put_u32(dimensions.len() as u32);
    out.put_u32(u32::from(has_null));
    out.put_u32(element);
    for length in dimensions {
        out.put_u32(*length as u32);
        out.put_u32(1);
    }
}

/// Several dimensions: rows are few and small, so each is walked by itself.
fn matrix_binary(array: &ArrayRef) -> Result<Cells, SqlError> {
    let mut rows = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        rows.push(if array.is_null(row) { Vec::new() } else { matrix_row(&array.slice(row, 1))? });
    }
    Ok(Cells::each(array, |row, out| out.extend_from_slice(&rows[row])))
}

fn matrix_row(row: &ArrayRef) -> Result<Vec<u8>, SqlError> {
    let mut dimensions = Vec::new();
    let mut level = row.clone();
    let mut item = Field::new_list_field(row.data_type().clone(), true);
    while is_list(level.data_type()) {
        let lists = lists(&level);
        let length = lists.runs.first().map_or(0, ExactSizeIterator::len);
        if level.null_count() > 0 || lists.runs.iter().any(|run| run.len() != length) {
            return Err(SqlError::unsupported("arrays whose rows differ in length have no binary format")
                .with_hint("ask for the result in text format"));
        }
        let start = lists.runs.first().map_or(0, |run| run.start);
        let end = lists.runs.last().map_or(0, |run| run.end);
        dimensions.push(length);
        let (elements, next) = (lists.elements.slice(start, end - start), lists.item.clone());
        (level, item) = (elements, next);
    }
    if dimensions.contains(&0) {
        dimensions.clear();
    }
    let cells = encode(&level, &item, Format::Binary)?;
    let mut out = Vec::new();
    put_array_head(&mut out, &dimensions, level.logical_null_count() > 0, oid_of_field(&item));
    for element in 0..level.len() {
        put_value(&mut out, cells.get(element));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Int32Type;

    use super::super::tests::{hex, texts};
    use super::*;

    fn matrix(inner_lengths: [usize; 2]) -> ArrayRef {
        let total = inner_lengths.iter().sum::<usize>() as i32;
        let values: ArrayRef = Arc::new(Int32Array::from_iter_values(0..total));
        let item = Arc::new(Field::new_list_field(DataType::Int32, true));
        let inner = ListArray::new(item, OffsetBuffer::from_lengths(inner_lengths), values, None);
        let outer = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
        Arc::new(ListArray::new(outer, OffsetBuffer::from_lengths([2]), Arc::new(inner), None))
    }

    #[test]
    fn a_matrix_has_two_dimensions() {
        assert_eq!(texts(matrix([2, 2])), [Some("{{0,1},{2,3}}".to_owned())]);
        let head = "00000002".to_owned() + "00000000" + "00000017" + "0000000200000001" + "0000000200000001";
        let values: String = (0..4).map(|value| format!("00000004{value:08x}")).collect();
        assert_eq!(hex(matrix([2, 2])), head + &values);
    }

    #[test]
    fn a_ragged_matrix_has_text_only() {
        assert_eq!(texts(matrix([1, 2])), [Some("{{0},{1,2}}".to_owned())]);
        let array = matrix([1, 2]);
        let field = Field::new("c", array.data_type().clone(), true);
        assert!(encode(&array, &field, Format::Binary).is_err());
    }

    #[test]
    fn binary_arrays_mark_nulls() {
        let array = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(7), None])]);
        assert_eq!(
            hex(Arc::new(array)),
            "000000010000000100000017000000020000000100000004".to_owned() + "00000007ffffffff"
        );
        let empty = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(Vec::<Option<i32>>::new())]);
        assert_eq!(hex(Arc::new(empty)), "000000000000000000000017");
    }

    #[test]
    fn a_sliced_array_encodes_only_its_rows() {
        let rows = vec![Some(vec![Some(1)]), Some(vec![Some(2), Some(3)]), Some(vec![Some(4)])];
        let array = ListArray::from_iter_primitive::<Int32Type, _, _>(rows).slice(1, 1);
        assert_eq!(texts(Arc::new(array)), [Some("{2,3}".to_owned())]);
    }

    #[test]
    fn records_double_quotes_and_leave_nulls_empty() {
        let fields = vec![
            (Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![None])) as ArrayRef),
            (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec!["x \"y\\"])) as ArrayRef),
        ];
        let record: ArrayRef = Arc::new(StructArray::from(fields));
        assert_eq!(texts(record.clone()), [Some(r#"(,"x ""y\\")"#.to_owned())]);
        assert_eq!(hex(record), "0000000200000017ffffffff000000190000000578202279".to_owned() + "5c");
    }
}
