//! The Nexmark benchmark's auction house: persons, auctions and bids, generated.
//!
//! | option      | meaning                                                       | default                     |
//! |-------------|---------------------------------------------------------------|-----------------------------|
//! | `type`      | `person`, `auction` or `bid`: the events that become rows     | needed                      |
//! | `rate`      | events a second over all types, or `max`                      | 10000                       |
//! | `events`    | number of events over all types (1 in 50 is a person, 3 are auctions, 46 bids) | no end     |
//! | `base_time` | RFC 3339 time of the first event                              | when the source is created  |
//! | `on_error`  | `quarantine`, `fail` or `null`                                | `quarantine`                |
//!
//! Sources of the three types that share `rate` and `base_time` tell one story: ids match, and event `n` is at
//! `base_time + n / rate`, in milliseconds. Event content is that of the `nexmark` crate; its times are computed here,
//! since it counts in 32-bit floats. Without a column list, a source has all columns of its type.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_types::{Clock, SqlError, SqlState};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::{Auction, Bid, Event, EventType, Person};

use crate::decode::OnError;
use crate::definition::SourceDefinition;
use crate::generated::{Generated, GeneratedSource, Generator, Pace, refuse_format};
use crate::options::{Options, suggest};
use crate::registry::Connector;
use crate::source::Source;

const OPTIONS: &[&str] = &["type", "rate", "events", "base_time", "on_error"];
const DEFAULT_RATE: u32 = 10_000;
/// Events repeat in rounds: a person, then auctions, then bids.
const ROUND: i64 = 50;

pub(crate) const CONNECTOR: Connector =
    Connector { name: "nexmark", includes: &[], open, columns: |options| columns(options).map(Some) };

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Person,
    Auction,
    Bid,
}

impl EventKind {
    const CHOICES: [(&'static str, Self); 3] =
        [("person", Self::Person), ("auction", Self::Auction), ("bid", Self::Bid)];

    /// The columns of its rows.
    pub fn schema(self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), true);
        Arc::new(Schema::new(match self {
            Self::Person => vec![
                number("id"),
                text("name"),
                text("email_address"),
                text("credit_card"),
                text("city"),
                text("state"),
                time("date_time"),
                text("extra"),
            ],
            Self::Auction => vec![
                number("id"),
                text("item_name"),
                text("description"),
                number("initial_bid"),
                number("reserve"),
                time("date_time"),
                time("expires"),
                number("seller"),
                number("category"),
                text("extra"),
            ],
            Self::Bid => vec![
                number("auction"),
                number("bidder"),
                number("price"),
                text("channel"),
                text("url"),
                time("date_time"),
                text("extra"),
            ],
        }))
    }

    fn event_type(self) -> EventType {
        match self {
            Self::Person => EventType::Person,
            Self::Auction => EventType::Auction,
            Self::Bid => EventType::Bid,
        }
    }

    /// Which places of a round are of this kind.
    fn places(self) -> Range<i64> {
        match self {
            Self::Person => 0..1,
            Self::Auction => 1..4,
            Self::Bid => 4..ROUND,
        }
    }

    /// How many events of this kind there are below number `event`.
    fn count_below(self, event: i64) -> i64 {
        let places = self.places();
        let in_round = (event % ROUND - places.start).clamp(0, places.end - places.start);
        event / ROUND * (places.end - places.start) + in_round
    }

    /// The number of the `nth` event of this kind.
    fn event_number(self, nth: i64) -> i64 {
        let places = self.places();
        let a_round = places.end - places.start;
        nth / a_round * ROUND + places.start + nth % a_round
    }
}

/// When events happen.
#[derive(Debug, Clone, Copy)]
struct Times {
    base_ms: i64,
    rate: i64,
}

impl Times {
    fn event_ms(self, event: i64) -> i64 {
        self.base_ms + event * 1000 / self.rate
    }
}

/// The rows of kind `kind` among the events numbered `events`, in batches of at most `batch_rows` rows, for benchmarks.
pub fn batches(
    kind: EventKind,
    events: Range<i64>,
    batch_rows: usize,
    rate: u32,
    base_time_ms: i64,
) -> impl Iterator<Item = RecordBatch> {
    let makers = Nexmark::new(kind, &kind.schema(), rate);
    let mut nth = kind.count_below(events.start)..kind.count_below(events.end);
    std::iter::from_fn(move || {
        let until = nth.end.min(nth.start + i64::try_from(batch_rows).expect("a batch fits in memory"));
        let rows = std::mem::replace(&mut nth.start, until)..until;
        (!rows.is_empty()).then(|| {
            let columns = makers.rows(base_time_ms, rows, &|_| true).into_iter();
            let columns = columns.map(|column| column.expect("every column was asked for"));
            RecordBatch::try_new(kind.schema(), columns.collect()).expect("columns are made for the schema")
        })
    })
}

fn options(given: &BTreeMap<String, String>) -> Result<(Options<'_>, EventKind), SqlError> {
    let options = Options::new(CONNECTOR.name, given, OPTIONS, |_| false)?;
    options.required("type", "bid")?;
    let kind = options.choice("type", &EventKind::CHOICES)?.expect("it is there");
    Ok((options, kind))
}

fn columns(given: &BTreeMap<String, String>) -> Result<Schema, SqlError> {
    let (_, kind) = options(given)?;
    Ok(Schema::clone(&kind.schema()))
}

fn open(definition: SourceDefinition, clock: Clock) -> Result<Arc<dyn Source>, SqlError> {
    let (options, kind) = options(&definition.options)?;
    let pace = Pace::from_options(&options, "rate", "events", f64::from(DEFAULT_RATE))?;
    let on_error = OnError::from_options(&options)?;
    refuse_format(&definition)?;
    check_columns(&definition, kind)?;
    let rate = pace.rate.map_or(DEFAULT_RATE, |rate| rate as u32);
    let generator = Nexmark::new(kind, &definition.schema(), rate);
    Ok(Arc::new(GeneratedSource::new(definition, generator, pace, on_error, clock)?))
}

fn check_columns(definition: &SourceDefinition, kind: EventKind) -> Result<(), SqlError> {
    let schema = kind.schema();
    for column in definition.columns.iter().filter(|column| column.computed.is_none()) {
        let Ok(field) = schema.field_with_name(&column.name) else {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let message = format!("nexmark events of this type have no column \"{}\"", column.name);
            return Err(SqlError::new(SqlState::UndefinedColumn, message).with_hint(suggest(
                &column.name,
                &names,
                "columns",
            )));
        };
        if !interchangeable(field.data_type(), &column.data_type) {
            let message = format!("nexmark column \"{}\" is of another type than declared", column.name);
            let hint = "leave out the column list to get the right types";
            return Err(SqlError::new(SqlState::DatatypeMismatch, message).with_hint(hint));
        }
    }
    Ok(())
}

/// Types that differ in their representation only.
fn interchangeable(ours: &DataType, declared: &DataType) -> bool {
    let text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, _));
    ours == declared || (text(ours) && text(declared)) || (time(ours) && time(declared))
}

struct Nexmark {
    kind: EventKind,
    columns: Vec<(String, DataType)>,
    rate: i64,
    generator: EventGenerator,
}

impl Nexmark {
    fn new(kind: EventKind, schema: &Schema, rate: u32) -> Self {
        let rate_of_crate = usize::try_from(rate).expect("32 bits fit");
        let config = NexmarkConfig {
            base_time: 0,
            first_rate: rate_of_crate,
            next_rate: rate_of_crate,
            ..NexmarkConfig::default()
        };
        let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
        Self {
            kind,
            columns: columns.collect(),
            rate: i64::from(rate),
            generator: EventGenerator::new(config).with_type_filter(kind.event_type()),
        }
    }

    /// The `nth` events of the kind.
    fn rows(&self, base_ms: i64, nth: Range<i64>, needed: &dyn Fn(usize) -> bool) -> Vec<Option<ArrayRef>> {
        let times = Times { base_ms, rate: self.rate };
        let numbers: Vec<i64> = nth.clone().map(|nth| self.kind.event_number(nth)).collect();
        let first = u64::try_from(nth.start).expect("events count from 0");
        let events = self.generator.clone().with_offset(first).take(numbers.len());
        let mut rows = Rows { numbers: &numbers, times, persons: vec![], auctions: vec![], bids: vec![] };
        for event in events {
            match event {
                Event::Person(person) => rows.persons.push(person),
                Event::Auction(auction) => rows.auctions.push(auction),
                Event::Bid(bid) => rows.bids.push(bid),
            }
        }
        let column = |(index, (name, data_type)): (usize, &(String, DataType))| {
            let values = needed(index).then(|| rows.column(self.kind, name)).flatten()?;
            Some(cast(&values, data_type).expect("the declared type was found interchangeable"))
        };
        self.columns.iter().enumerate().map(column).collect()
    }
}

impl Generator for Nexmark {
    fn generate(&self, base_time_ms: i64, events: Range<i64>, needed: &dyn Fn(usize) -> bool) -> Generated {
        let nth = self.kind.count_below(events.start)..self.kind.count_below(events.end);
        let columns = self.rows(base_time_ms, nth.clone(), needed);
        Generated { events: nth.map(|nth| self.kind.event_number(nth)).collect(), columns }
    }
}

/// Events of one kind, and their numbers.
struct Rows<'a> {
    numbers: &'a [i64],
    times: Times,
    persons: Vec<Person>,
    auctions: Vec<Auction>,
    bids: Vec<Bid>,
}

impl Rows<'_> {
    /// The column of that name; `None` if there is no such.
    fn column(&self, kind: EventKind, name: &str) -> Option<ArrayRef> {
        if name == "date_time" {
            return Some(timestamps(self.numbers.iter().map(|number| self.times.event_ms(*number))));
        }
        match kind {
            EventKind::Person => self.person_column(name),
            EventKind::Auction => self.auction_column(name),
            EventKind::Bid => self.bid_column(name),
        }
    }

    fn person_column(&self, name: &str) -> Option<ArrayRef> {
        let rows = self.persons.iter();
        Some(match name {
            "id" => numbers(rows.map(|row| row.id)),
            "name" => texts(rows.map(|row| &row.name)),
            "email_address" => texts(rows.map(|row| &row.email_address)),
            "credit_card" => texts(rows.map(|row| &row.credit_card)),
            "city" => texts(rows.map(|row| &row.city)),
            "state" => texts(rows.map(|row| &row.state)),
            "extra" => texts(rows.map(|row| &row.extra)),
            _ => return None,
        })
    }

    fn auction_column(&self, name: &str) -> Option<ArrayRef> {
        let rows = self.auctions.iter();
        Some(match name {
            "id" => numbers(rows.map(|row| row.id)),
            "item_name" => texts(rows.map(|row| &row.item_name)),
            "description" => texts(rows.map(|row| &row.description)),
            "initial_bid" => numbers(rows.map(|row| row.initial_bid)),
            "reserve" => numbers(rows.map(|row| row.reserve)),
            "expires" => timestamps(rows.zip(self.numbers).map(|(row, number)| {
                let open_ms = i64::try_from(row.expires - row.date_time).expect("an auction ends some day");
                self.times.event_ms(*number) + open_ms
            })),
            "seller" => numbers(rows.map(|row| row.seller)),
            "category" => numbers(rows.map(|row| row.category)),
            "extra" => texts(rows.map(|row| &row.extra)),
            _ => return None,
        })
    }

    fn bid_column(&self, name: &str) -> Option<ArrayRef> {
        let rows = self.bids.iter();
        Some(match name {
            "auction" => numbers(rows.map(|row| row.auction)),
            "bidder" => numbers(rows.map(|row| row.bidder)),
            "price" => numbers(rows.map(|row| row.price)),
            "channel" => texts(rows.map(|row| &row.channel)),
            "url" => texts(rows.map(|row| &row.url)),
            "extra" => texts(rows.map(|row| &row.extra)),
            _ => return None,
        })
    }
}

fn numbers(values: impl Iterator<Item = usize>) -> ArrayRef {
    let values = values.map(|value| i64::try_from(value).expect("ids and prices are small"));
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts<'a>(values: impl Iterator<Item = &'a String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn timestamps(values_ms: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values_ms.map(|ms| ms * 1000)))
}

#[cfg(test)]
mod tests;
