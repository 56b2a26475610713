//! Sources whose rows are a function of their number: how they are paced, bounded and replayed.
//!
//! Offsets     partition 0 holds the number of the next event; partition -1 the time of event 0 in milliseconds since
//!             1970, fixed when the source is created. Both are in the offsets of every batch.
//! Pace        a reading with an end goes at full speed. One without goes at the declared rate, counted from when it
//!             started: at `t` seconds it has yielded the events below `from + rate × t`.
//! Replay      event `n` is the same row whenever it is read.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use freshet_types::{Clock, SqlError, SqlState};
use tokio::time::Instant;

use crate::decode::rules::Rules;
use crate::decode::{OnError, Rejects};
use crate::definition::SourceDefinition;
use crate::options::{Options, invalid};
use crate::source::{DeadLetter, Offsets, Range, Source, SourceBatch, SourceError, SourceReader};
use crate::status::{LiveStatus, SourceState, SourceStatus};

/// Events in one batch at most.
const BATCH_EVENTS_MAX: i64 = 8192;
/// A live reading yields no more often than this, so that a fast source makes batches and not single rows.
const TICK: Duration = Duration::from_millis(5);
const PARTITION: i32 = 0;
const BASE_TIME_PARTITION: i32 = -1;

/// Makes rows out of event numbers.
pub trait Generator: Send + Sync + 'static {
    /// The rows of `events`: the columns of the schema for which `needed` says yes.
    fn generate(&self, base_time_ms: i64, events: std::ops::Range<i64>, needed: &dyn Fn(usize) -> bool) -> Generated;
}

/// Rows, and the number of the event that each comes from.
pub struct Generated {
    pub events: Vec<i64>,
    /// One a column of the schema; `None` where not needed.
    pub columns: Vec<Option<ArrayRef>>,
}

/// How fast and how far events are generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Events a second; `None`: as fast as they are taken.
    pub rate: Option<f64>,
    /// The number of events there are.
    pub events: Option<i64>,
    /// The time of event 0; `None`: when the source is created.
    pub base_time_ms: Option<i64>,
}

impl Pace {
    /// Reads the options `rate` ("max" for no limit) and `events` under the given names, and `base_time`.
    pub fn from_options(options: &Options<'_>, rate: &str, events: &str, default_rate: f64) -> Result<Self, SqlError> {
        let count: Option<u32> = match options.text(rate) {
            Some(text) if text.eq_ignore_ascii_case("max") => None,
            _ => Some(options.parsed(rate, "a number of events a second, or 'max'")?.unwrap_or(default_rate as u32)),
        };
        if count == Some(0) {
            return Err(invalid(rate, "0", "at least 1"));
        }
        let bound: Option<u32> = options.parsed(events, "a whole number")?;
        let base_time = options.text("base_time").map(|text| {
            let parsed = DateTime::parse_from_rfc3339(text.trim());
            parsed.map_err(|_| invalid("base_time", text, "a time like 2026-01-31T00:00:00Z"))
        });
        Ok(Self {
            rate: count.map(f64::from),
            events: bound.map(i64::from),
            base_time_ms: base_time.transpose()?.map(|time| time.timestamp_millis()),
        })
    }
}

/// Generated rows have no encoding.
pub fn refuse_format(definition: &SourceDefinition) -> Result<(), SqlError> {
    match &definition.format {
        None => Ok(()),
        Some(_) => {
            let connector = definition.options.get("connector").map_or("", String::as_str);
            let message = format!("connector \"{connector}\" takes no FORMAT … ENCODE …");
            Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint("leave it out: rows are generated"))
        }
    }
}

/// A source that generates its rows.
pub struct GeneratedSource<G> {
    definition: SourceDefinition,
    schema: SchemaRef,
    generator: Arc<G>,
    pace: Pace,
    on_error: OnError,
    clock: Clock,
    status: Arc<SourceStatus>,
}

impl<G: Generator> GeneratedSource<G> {
    pub fn new(
        definition: SourceDefinition,
        generator: G,
        pace: Pace,
        on_error: OnError,
        clock: Clock,
    ) -> Result<Self, SqlError> {
        let schema = definition.schema();
        Rules::new(&definition, &[], on_error)?;
        let status = Arc::new(SourceStatus::new(clock.clone()));
        Ok(Self { definition, schema, generator: Arc::new(generator), pace, on_error, clock, status })
    }
}

#[async_trait]
impl<G: Generator> Source for GeneratedSource<G> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn resolve_start(&self) -> Result<Offsets, SourceError> {
        let now_ms = || i64::try_from(self.clock.now_ms()).expect("the year is below 292 million");
        let base_time_ms = self.pace.base_time_ms.unwrap_or_else(now_ms);
        Ok(Offsets([(BASE_TIME_PARTITION, base_time_ms), (PARTITION, 0)].into()))
    }

    async fn end(&self) -> Result<Option<Offsets>, SourceError> {
        Ok(self.pace.events.map(|events| Offsets([(PARTITION, events)].into())))
    }

    async fn read(&self, range: Range, columns: &[usize]) -> Result<Box<dyn SourceReader>, SourceError> {
        let Some(base_time_ms) = range.from.0.get(&BASE_TIME_PARTITION).copied() else {
            let message = format!("offsets of source \"{}\" lack the time of its first row", self.definition.name);
            return Err(SourceError::Internal(message));
        };
        let next = range.from.0.get(&PARTITION).copied().unwrap_or(0);
        let bounded = range.until.is_some();
        let until = range.until.map(|until| until.0.get(&PARTITION).copied().unwrap_or(next));
        let end = [until, self.pace.events].into_iter().flatten().min();
        let live = (!bounded).then(|| self.status.begin());
        if let Some(live) = &live {
            live.set_state(SourceState::Running);
            live.add_partition(PARTITION, next);
            if let Some(events) = self.pace.events {
                live.set_high_watermark(PARTITION, events);
            }
        }
        Ok(Box::new(GeneratedReader {
            rules: Rules::new(&self.definition, columns, self.on_error)?,
            generator: Arc::clone(&self.generator),
            base_time_ms,
            from: next,
            next,
            end,
            rate: self.pace.rate.filter(|_| !bounded),
            started: Instant::now(),
            on_error: self.on_error,
            live,
        }))
    }

    fn status(&self) -> Arc<SourceStatus> {
        Arc::clone(&self.status)
    }
}

struct GeneratedReader<G> {
    rules: Rules,
    generator: Arc<G>,
    base_time_ms: i64,
    /// Where this reading started.
    from: i64,
    /// The next event.
    next: i64,
    end: Option<i64>,
    /// Events a second, if paced.
    rate: Option<f64>,
    started: Instant,
    on_error: OnError,
    /// There for a reading without end, which speaks for the source in its status.
    live: Option<LiveStatus>,
}

#[async_trait]
impl<G: Generator> SourceReader for GeneratedReader<G> {
    async fn next(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            if self.end.is_some_and(|end| self.next >= end) {
                self.tell(|live| live.set_state(SourceState::Ended));
                return Ok(None);
            }
            let due = self.due().await;
            let batch = self.generate(due)?;
            // Events that are not of this source's type make no row; there is nothing to tell until one does.
            let told = batch.rows.num_rows() > 0 || !batch.dead_letters.is_empty();
            if told || Some(self.next) == self.end {
                return Ok(Some(batch));
            }
        }
    }
}

impl<G: Generator> GeneratedReader<G> {
    fn tell(&self, what: impl FnOnce(&LiveStatus)) {
        if let Some(live) = &self.live {
            what(live);
        }
    }

    /// Waits until an event is due; gives the end of the events that are.
    async fn due(&self) -> i64 {
        let end = self.end.unwrap_or(i64::MAX).min(self.next.saturating_add(BATCH_EVENTS_MAX));
        let Some(rate) = self.rate else {
            // Generating is all computation: let others have their turn.
            tokio::task::yield_now().await;
            return end;
        };
        let due_at = |event: i64| self.started + Duration::from_secs_f64((event - self.from) as f64 / rate);
        let now = Instant::now();
        if due_at(self.next) > now {
            tokio::time::sleep_until(due_at(self.next).max(now + TICK)).await;
        }
        let due = self.from + (self.started.elapsed().as_secs_f64() * rate) as i64;
        due.clamp(self.next + 1, end)
    }

    fn generate(&mut self, until: i64) -> Result<SourceBatch, SourceError> {
        let needed = |column| self.rules.needs(column);
        let Generated { events, columns } = self.generator.generate(self.base_time_ms, self.next..until, &needed);
        let mut rejects = Rejects::default();
        let rows = self.rules.apply(columns, events.len(), &mut rejects)?;
        let dead_letters = rejects.iter().map(|(row, reject)| DeadLetter {
            payload: None,
            error: reject.reason.clone(),
            column: reject.column.clone(),
            partition: PARTITION,
            offset: events[row],
            timestamp_ms: None,
        });
        let dead_letters: Vec<_> = dead_letters.collect();
        if let (OnError::Fail, Some(first)) = (self.on_error, dead_letters.first()) {
            let message = format!("source stopped at a bad record: {}", first.error);
            self.tell(|live| live.set_error(SourceState::Failed, message.clone()));
            return Err(SourceError::Record { message, partition: PARTITION, offset: first.offset });
        }
        self.next = until;
        let offsets = Offsets([(BASE_TIME_PARTITION, self.base_time_ms), (PARTITION, until)].into());
        Ok(SourceBatch { bytes: rows.get_array_memory_size(), rows, dead_letters, offsets })
    }
}
