//! Made-up rows for trying things out: sequences and random values, column by column.
//!
//! | option                  | meaning                                                    | default                    |
//! |-------------------------|------------------------------------------------------------|----------------------------|
//! | `rows_per_second`       | rows a second, or `max`                                    | 10                         |
//! | `rows`                  | number of rows                                             | no end                     |
//! | `seed`                  | another seed, other random values                          | 0                          |
//! | `base_time`             | RFC 3339 time of row 0                                     | when the source is created |
//! | `on_error`              | `quarantine`, `fail` or `null`                             | `quarantine`               |
//! | `fields.<col>.kind`     | `sequence` or `random`                                     | `random`; `sequence` for times |
//! | `fields.<col>.start`, `.end` | sequence: first and last number; after the last it starts over | 0, no end         |
//! | `fields.<col>.min`, `.max`   | random numbers: bounds, both included                 | 0, 1000 (DOUBLE: 0, 1)     |
//! | `fields.<col>.length`   | random TEXT and BYTEA: characters or bytes                 | 16                         |
//! | `fields.<col>.values`   | random: one of these, separated by commas                  |                            |
//! | `fields.<col>.max_past` | random times: at most this long before the row's own time  | `0 s`                      |
//! | `fields.<col>.null_rate`| share of NULLs, 0 to 1                                     | 0                          |
//! | `fields.<col>.seed`     | as `seed`, for one column                                  | `seed`                     |
//!
//! Row `n` is at `base_time + n / rows_per_second`: that is a time sequence's value, and DATE its day. A sequence
//! in a TEXT column is the number as text. Values are a function of seed, column and row number alone.

mod column;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use freshet_types::{Clock, SqlError, SqlState};

use self::column::ColumnMaker;
use crate::decode::OnError;
use crate::definition::SourceDefinition;
use crate::generated::{Generated, GeneratedSource, Generator, Pace, refuse_format};
use crate::options::{Options, suggest};
use crate::registry::Connector;
use crate::source::Source;

const OPTIONS: &[&str] = &["rows_per_second", "rows", "seed", "base_time", "on_error"];
const FIELD_OPTIONS: &[&str] =
    &["kind", "start", "end", "min", "max", "length", "values", "max_past", "null_rate", "seed"];
const DEFAULT_RATE: f64 = 10.0;

pub(crate) const CONNECTOR: Connector = Connector { name: "datagen", includes: &[], open, columns: |_| Ok(None) };

fn open(definition: SourceDefinition, clock: Clock) -> Result<Arc<dyn Source>, SqlError> {
    check_field_options(&definition)?;
    let options = Options::new(CONNECTOR.name, &definition.options, OPTIONS, |name| name.starts_with("fields."))?;
    refuse_format(&definition)?;
    if definition.columns.is_empty() {
        let error = SqlError::new(SqlState::InvalidTableDefinition, "a datagen source needs a column list");
        return Err(error.with_hint("write CREATE SOURCE s (id BIGINT, name TEXT, …) WITH (connector = 'datagen')"));
    }
    let pace = Pace::from_options(&options, "rows_per_second", "rows", DEFAULT_RATE)?;
    let on_error = OnError::from_options(&options)?;
    let seed: u64 = options.parsed("seed", "a whole number")?.unwrap_or(0);
    let rate = pace.rate.unwrap_or(DEFAULT_RATE);
    let maker = |(index, column): (usize, &crate::definition::Column)| match column.computed {
        Some(_) => Ok(None),
        None => ColumnMaker::new(&options, index, column, seed, rate).map(Some),
    };
    let makers = definition.columns.iter().enumerate().map(maker).collect::<Result<_, SqlError>>()?;
    Ok(Arc::new(GeneratedSource::new(definition, Datagen { makers }, pace, on_error, clock)?))
}

/// Refuses `fields.<column>.<option>` of a column or option that is not there.
fn check_field_options(definition: &SourceDefinition) -> Result<(), SqlError> {
    let stored = definition.columns.iter().filter(|column| column.computed.is_none());
    let columns: Vec<&str> = stored.map(|column| column.name.as_str()).collect();
    for name in definition.options.keys() {
        let Some(rest) = name.strip_prefix("fields.") else { continue };
        let Some((column, option)) = rest.rsplit_once('.') else {
            let message = format!("unknown option \"{name}\" for connector \"datagen\"");
            return Err(SqlError::new(SqlState::InvalidParameterValue, message)
                .with_hint("options of a column are written \"fields.<column>.<option>\""));
        };
        if !columns.contains(&column) {
            let message = format!("option \"{name}\" is for a column that the source does not have");
            return Err(
                SqlError::new(SqlState::UndefinedColumn, message).with_hint(suggest(column, &columns, "columns"))
            );
        }
        if !FIELD_OPTIONS.contains(&option) {
            let message = format!("unknown option \"{name}\" for connector \"datagen\"");
            return Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint(suggest(
                option,
                FIELD_OPTIONS,
                "options of a column",
            )));
        }
    }
    Ok(())
}

struct Datagen {
    /// One a declared column; `None` for computed ones.
    makers: Vec<Option<ColumnMaker>>,
}

impl Generator for Datagen {
    fn generate(&self, base_time_ms: i64, events: Range<i64>, needed: &dyn Fn(usize) -> bool) -> Generated {
        let columns = self.makers.iter().enumerate().map(|(index, maker)| {
            let maker = maker.as_ref().filter(|_| needed(index))?;
            Some(maker.make(base_time_ms, events.clone()))
        });
        Generated { columns: columns.collect(), events: events.collect() }
    }
}

/// All that is given for a column, by option name.
fn field_options<'a>(options: &Options<'a>, column: &str) -> BTreeMap<&'static str, &'a str> {
    let given = |option: &'static str| Some((option, options.text(&format!("fields.{column}.{option}"))?));
    FIELD_OPTIONS.iter().copied().filter_map(given).collect()
}

#[cfg(test)]
mod tests;
