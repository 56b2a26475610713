//! Bytes to columns, and what becomes of records that do not fit.
//!
//! A [`Decoder`] knows one format. [`records::RecordDecoder`] puts it to work for one source: decoded fields,
//! INCLUDE columns, then the declaration's [`rules`]. All of it is pure: no IO, no clock.
//!
//! Rows stay aligned with records until the very end: a record that cannot be decoded leaves a row of NULLs and an
//! entry in [`Rejects`], and all rejected rows are filtered out in one pass.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::Field;
use freshet_types::{SqlError, SqlState};

use crate::definition::{Format, SourceDefinition};
use crate::options::{Options, suggest};

pub mod json;
pub mod records;
pub mod rules;

/// Decodes payloads of one format into the columns it was made for.
pub trait Decoder: Send {
    /// One array a column, each with one value a payload. A payload that is not a record of the format, or whose
    /// fields do not fit the columns that are given or checked, is added to `rejects` under its position, and leaves
    /// NULLs.
    fn decode(&mut self, payloads: &[Option<&[u8]>], rejects: &mut Rejects) -> Vec<ArrayRef>;
}

/// What to do with a record that cannot become a row: the option `on_error`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnError {
    /// Set it aside, with the reason.
    #[default]
    Quarantine,
    /// Stop the source.
    Fail,
    /// Put NULL where a single field or computed column is at fault and may be NULL; otherwise quarantine.
    Null,
}

impl OnError {
    pub(crate) fn from_options(options: &Options<'_>) -> Result<Self, SqlError> {
        let choices = [("quarantine", Self::Quarantine), ("fail", Self::Fail), ("null", Self::Null)];
        Ok(options.choice("on_error", &choices)?.unwrap_or_default())
    }
}

/// The records of a batch that cannot become rows, by position, each with the first reason found.
#[derive(Debug, Default)]
pub struct Rejects(BTreeMap<usize, Reject>);

/// Why a record cannot become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub reason: String,
    /// The column at fault, where it is known.
    pub column: Option<String>,
}

impl Rejects {
    pub fn add(&mut self, record: usize, column: Option<&str>, reason: String) {
        self.0.entry(record).or_insert_with(|| Reject { reason, column: column.map(str::to_owned) });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn contains(&self, record: usize) -> bool {
        self.0.contains_key(&record)
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Reject)> {
        self.0.iter().map(|(record, reject)| (*record, reject))
    }

    /// True for each of `records` records that is not rejected.
    pub(crate) fn accepted(&self, records: usize) -> BooleanArray {
        let mut accepted = vec![true; records];
        for record in self.0.keys() {
            accepted[*record] = false;
        }
        accepted.into()
    }
}

/// The decoder that a source's FORMAT … ENCODE … asks for, giving those of `fields` that `keeps` says.
pub(crate) fn decoder(
    definition: &SourceDefinition,
    fields: &[Field],
    keeps: &dyn Fn(usize) -> bool,
    on_error: OnError,
) -> Result<Box<dyn Decoder>, SqlError> {
    let Some(Format { format, encode, options }) = &definition.format else {
        let message = format!("source \"{}\" does not say how its records are encoded", definition.name);
        return Err(SqlError::syntax(message).with_hint("add FORMAT PLAIN ENCODE JSON"));
    };
    if !format.eq_ignore_ascii_case("plain") {
        let message = format!("FORMAT {} is not supported", format.to_ascii_uppercase());
        return Err(SqlError::unsupported(message).with_hint(suggest(format, &["PLAIN"], "formats")));
    }
    if !encode.eq_ignore_ascii_case("json") {
        let message = format!("ENCODE {} is not supported", encode.to_ascii_uppercase());
        return Err(SqlError::unsupported(message).with_hint(suggest(encode, &["JSON"], "encodings")));
    }
    if let Some(name) = options.keys().next() {
        let message = format!("unknown option \"{name}\" for ENCODE JSON");
        return Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint("ENCODE JSON has no options"));
    }
    Ok(Box::new(json::JsonDecoder::new(fields, keeps, on_error)?))
}
