//! JSON objects, one a payload, straight into Arrow columns.
//!
//! Two passes over a few hundred payloads at a time. First each payload is cut into its fields ([`skim`]), and the
//! texts of those that have a column are filed by column, uncopied. Then each column parses its texts in one
//! loop made for its type ([`cells`]). Columns that nobody reads are parsed too, but not built: whether a record is a
//! row must not depend on who reads. Fields without a column cost a scan for their end and no more, and a
//! text that does not fit its column is known by record and column at once: a bad record costs nothing but itself.
//! (A general reader such as `arrow-json` keeps every field, fails by batch, cuts 3.7 to 3 for a BIGINT, and has
//! no say in what a number means for a TIMESTAMP.)
//!
//! - A field belongs to the column of the same name; if there is none, to the column whose name is the field's in
//!   lower case, as unquoted names in SQL are folded (`userId BIGINT` finds `"userId"`).
//! - A missing field and `null` are NULL. Of fields that appear twice the last one counts.
//! - What the types accept is told in [`cells`].

mod cells;
mod nested;
mod skim;

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use freshet_types::SqlError;

use self::cells::CellColumn;
use super::{Decoder, OnError, Rejects};

/// How many payloads are cut before their columns are parsed: the texts in flight stay in the processor's cache.
const CHUNK_ROWS: usize = 512;

/// Decodes JSON objects into the columns it was made for.
pub struct JsonDecoder {
    columns: Vec<JsonColumn>,
    names: Names,
}

struct JsonColumn {
    name: String,
    cells: Box<dyn CellColumn>,
    /// Its values are wanted; otherwise they are only looked at.
    kept: bool,
    /// A text that does not fit becomes NULL instead of a reject.
    lenient: bool,
}

impl JsonDecoder {
    /// Gives the columns of those `fields` (by their index) that `keeps` says; of the others it only looks whether
    /// their values fit.
    ///
    /// Refuses fields of types that no JSON value can be read as.
    pub fn new(fields: &[Field], keeps: &dyn Fn(usize) -> bool, on_error: OnError) -> Result<Self, SqlError> {
        let column = |(index, field): (usize, &Field)| {
            Ok(JsonColumn {
                name: field.name().clone(),
                cells: cells::column(field)?,
                kept: keeps(index),
                lenient: on_error == OnError::Null && field.is_nullable(),
            })
        };
        let columns = fields.iter().enumerate().map(column).collect::<Result<_, SqlError>>()?;
        Ok(Self { columns, names: Names::new(fields) })
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, payloads: &[Option<&[u8]>], rejects: &mut Rejects) -> Vec<ArrayRef> {
        let mut texts = vec![None; CHUNK_ROWS * self.columns.len()];
        for (chunk, payloads) in payloads.chunks(CHUNK_ROWS).enumerate() {
            let first_row = chunk * CHUNK_ROWS;
            texts.fill(None);
            for (row, payload) in payloads.iter().enumerate() {
                if let Err(reason) = self.names.file(*payload, row, &mut texts) {
                    texts.iter_mut().skip(row).step_by(CHUNK_ROWS).for_each(|text| *text = None);
                    rejects.add(first_row + row, None, reason);
                }
            }
            for (column, texts) in self.columns.iter_mut().zip(texts.chunks(CHUNK_ROWS)) {
                let (name, lenient) = (&column.name, column.lenient);
                let mut bad = |row, reason| {
                    if !lenient {
                        rejects.add(first_row + row, Some(name), reason);
                    }
                };
                match column.kept {
                    true => column.cells.append(&texts[..payloads.len()], &mut bad),
                    false => column.cells.check(&texts[..payloads.len()], &mut bad),
                }
            }
        }
        self.columns.iter_mut().filter(|column| column.kept).map(|column| column.cells.finish()).collect()
    }
}

/// Which column a field belongs to. Most payloads of a source have the same fields in the same order, so the names of
/// the payload before are tried first.
struct Names {
    columns: HashMap<String, usize>,
    /// The fields of recent payloads, by their position: name as written, and where it belongs.
    recent: Vec<(String, Option<Place>)>,
}

#[derive(Clone, Copy)]
struct Place {
    column: usize,
    /// The field's name is the column's, without folding.
    exact: bool,
}

impl Names {
    fn new(fields: &[Field]) -> Self {
        let columns = fields.iter().enumerate().map(|(column, field)| (field.name().clone(), column)).collect();
        Self { columns, recent: vec![] }
    }

    /// Files the texts of one payload under its `row` in `texts`, which holds `CHUNK_ROWS` a column.
    fn file<'a>(&mut self, payload: Option<&'a [u8]>, row: usize, texts: &mut [Option<&'a str>]) -> Result<(), String> {
        let payload = payload.ok_or("the record has no payload (a tombstone)")?;
        let text = std::str::from_utf8(payload)
            .map_err(|error| format!("the payload is not valid UTF-8 at byte {}", error.valid_up_to()))?;
        let mut position = 0;
        let mut each = |name: &'a str, value: &'a str| {
            if let Some(place) = self.place(position, name) {
                let text = &mut texts[place.column * CHUNK_ROWS + row];
                if place.exact || text.is_none() {
                    *text = (value != "null").then_some(value);
                }
            }
            position += 1;
        };
        skim::fields(text, &mut each).map_err(|error| error.to_string())
    }

    #[inline]
    fn place(&mut self, position: usize, name: &str) -> Option<Place> {
        match self.recent.get(position) {
            Some((recent, place)) if recent == name => *place,
            _ => self.find(position, name),
        }
    }

    fn find(&mut self, position: usize, name: &str) -> Option<Place> {
        let place = match name.contains('\\') {
            // A name that does not unescape belongs to no column.
            true => serde_json::from_str::<String>(&format!("\"{name}\"")).ok().and_then(|name| self.look_up(&name)),
            false => self.look_up(name),
        };
        // Position by position, so that a payload with a thousand fields is not remembered beyond reason.
        const REMEMBERED_MAX: usize = 256;
        if let Some(recent) = self.recent.get_mut(position) {
            recent.0.clear();
            recent.0.push_str(name);
            recent.1 = place;
        } else if position == self.recent.len() && position < REMEMBERED_MAX {
            self.recent.push((name.to_owned(), place));
        }
        place
    }

    fn look_up(&self, name: &str) -> Option<Place> {
        if let Some(column) = self.columns.get(name) {
            return Some(Place { column: *column, exact: true });
        }
        let column = self.columns.get(&name.to_ascii_lowercase())?;
        Some(Place { column: *column, exact: false })
    }
}

#[cfg(test)]
mod tests;
