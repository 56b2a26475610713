//! Arrays and structs: read by `arrow-json`, value by value where one of a batch does not fit.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_empty_array, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use freshet_types::SqlError;

use super::cells::CellColumn;

/// A column of arrays or structs.
pub struct NestedColumn {
    field: FieldRef,
    done: Vec<ArrayRef>,
}

impl NestedColumn {
    pub fn new(field: &Field) -> Result<Self, SqlError> {
        let nested = matches!(field.data_type(), DataType::List(_) | DataType::Struct(_) | DataType::Map(_, _));
        let field = Arc::new(field.clone().with_nullable(true));
        if !nested || ReaderBuilder::new_with_field(Arc::clone(&field)).with_batch_size(1).build_decoder().is_err() {
            let message = format!("column \"{}\" has a type that cannot be read from JSON", field.name());
            return Err(SqlError::unsupported(message).with_hint("declare it as TEXT, which takes any JSON value"));
        }
        Ok(Self { field, done: vec![] })
    }

    fn decode(&self, texts: &[Option<&str>]) -> Result<ArrayRef, ArrowError> {
        let mut decoder = ReaderBuilder::new_with_field(Arc::clone(&self.field))
            .with_batch_size(texts.len() + 1)
            .with_coerce_primitive(true)
            .build_decoder()?;
        for text in texts {
            decoder.decode(text.unwrap_or("null").as_bytes())?;
            decoder.decode(b" ")?;
        }
        let batch = decoder.flush()?.unwrap_or_else(|| {
            RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::new(vec![Arc::clone(&self.field)])))
        });
        match batch.num_rows() == texts.len() {
            true => Ok(Arc::clone(batch.column(0))),
            false => Err(ArrowError::JsonError("not one JSON value".into())),
        }
    }
}

impl CellColumn for NestedColumn {
    fn append(&mut self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String)) {
        if let Ok(values) = self.decode(texts) {
            self.done.push(values);
            return;
        }
        for (row, text) in texts.iter().enumerate() {
            self.done.push(self.decode(&[*text]).unwrap_or_else(|error| {
                bad(row, reason(&error));
                new_null_array(self.field.data_type(), 1)
            }));
        }
    }

    fn check(&self, texts: &[Option<&str>], bad: &mut dyn FnMut(usize, String)) {
        if self.decode(texts).is_ok() {
            return;
        }
        for (row, text) in texts.iter().enumerate() {
            if let Err(error) = self.decode(&[*text]) {
                bad(row, reason(&error));
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        let done = std::mem::take(&mut self.done);
        let arrays: Vec<_> = done.iter().map(AsRef::as_ref).collect();
        match arrays.is_empty() {
            true => new_empty_array(self.field.data_type()),
            false => arrow::compute::concat(&arrays).expect("all are of the field's type"),
        }
    }
}

/// The error in our words, cut to a readable length.
fn reason(error: &ArrowError) -> String {
    const SHOWN_MAX: usize = 200;
    let message = match error {
        ArrowError::JsonError(message) | ArrowError::ParseError(message) => message.clone(),
        other => other.to_string(),
    };
    format!("invalid value: {}", message.chars().take(SHOWN_MAX).collect::<String>())
}
