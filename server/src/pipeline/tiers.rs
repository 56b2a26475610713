//! Tiers of tables and materialized views: what their options say, and the task that does it.
//!
//! `WITH (hot = '1h', warm = '7 days', cold = '365 days', retain = '2 years')` says up to which age rows stay in a tier. Once
//! older, they go to the next tier that there is: past `hot` to the warm one, or to the cold one if only that is
//! named; past `warm` to the cold one. They stay in the last; only `retain` deletes.
//!
//! A row's age is that of its time column: the one that `time_column` names, or that has the watermark, or else the time
//! at which it was written.

mod pressure;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Schema};
use freshet_planner::Options;
use freshet_storage::collection::{Collection, Moved, Retention, TierPolicy, horizon_us};
use freshet_storage::tiers::can_be_stored;
use freshet_types::{Delta, RelationId, SqlError, SqlState};
use tracing::{debug, info, warn};

use crate::catalog::{Object, PUBLIC, TableObject};
use crate::coordinator::{Cause, Command};
use crate::execute::write::write_table;
use crate::limits::{EXPIRED_ROWS_MAX, TIERS_INTERVAL_MS};
use crate::server::Server;
use crate::server::objects::{collection_error, storage_error};

/// How long the end of the past of a view is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The options that this is about.
pub const OPTIONS: [&str; 5] = ["hot", "warm", "cold", "retain", "time_column"];

/// Up to which age rows are where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSettings {
    hot: Option<Duration>,
    warm: Option<Duration>,
    cold: Option<Duration>,
    retain: Option<Duration>,
    /// By whose time rows age; by that of their writing without one.
    pub time_column: Option<usize>,
}

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, message)
}

impl TierSettings {
    /// What the options of a relation say; `None` if nothing. `watermark` is the column that has one.
    ///
    /// # Errors
    /// If they make no sense, or the rows cannot lie in files.
    pub fn new(options: &Options, schema: &Schema, watermark: Option<usize>) -> Result<Option<Self>, SqlError> {
        if OPTIONS.iter().all(|name| options.get(name).is_none()) {
            return Ok(None);
        }
        let (hot, warm) = (age(options, "hot")?, age(options, "warm")?);
        let (cold, retain) = (age(options, "cold")?, age(options, "retain")?);
        let bounds = [("hot", hot), ("warm", warm), ("cold", cold), ("retain", retain)];
        let given: Vec<(&str, Duration)> = bounds.into_iter().filter_map(|(name, age)| Some((name, age?))).collect();
        if given.is_empty() {
            return Err(invalid("option \"time_column\" needs a tier".to_owned())
                .with_hint("say hot, warm, cold or retain as well"));
        }
        if let Some(pair) = given.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            let (one, other) = (pair[0].0, pair[1].0);
            return Err(invalid(format!("option \"{one}\" is longer than \"{other}\""))
                .with_detail("each is the age up to which rows stay, counted from their time"));
        }
        if cold.is_some() && hot.is_none() && warm.is_none() {
            return Err(invalid("option \"cold\" needs \"hot\" or \"warm\"".to_owned())
                .with_hint("say from which age on rows are cold: hot = '7 days', cold = '365 days'"));
        }
        let named = options.get("time_column").map(|name| time_column(schema, name)).transpose()?;
        let watermark = watermark.filter(|column| is_time(schema.field(*column).data_type()));
        if hot.is_some() || warm.is_some() {
            if let Err(column) = can_be_stored(schema) {
                let message = format!("rows with column \"{column}\" cannot lie in files");
                return Err(SqlError::new(SqlState::FeatureNotSupported, message)
                    .with_detail("Parquet has no such type")
                    .with_hint("leave out hot, warm and cold"));
            }
            if schema.fields().is_empty() {
                return Err(invalid("rows without columns have no tiers".to_owned()));
            }
        }
        Ok(Some(Self { hot, warm, cold, retain, time_column: named.or(watermark) }))
    }

    /// What moves where at a time in milliseconds since 1970.
    pub fn policy(&self, name: &str, now_ms: u64) -> TierPolicy {
        let before = |age: Option<Duration>| age.map(|age| cutoff_us(now_ms, age));
        let (warm_before, cold_before) = match (self.hot, self.warm, self.cold) {
            (hot, Some(warm), _) => (before(hot), before(Some(warm))),
            (hot, None, Some(_)) => (None, before(hot)),
            (hot, None, None) => (before(hot), None),
        };
        TierPolicy { time_column: self.time_column, warm_before, cold_before, folder: folder(name) }
    }

    /// Until when rows are kept, if that goes by the time in a column. Whoever writes them sees to it.
    pub fn retention(&self) -> Option<Retention> {
        Some(Retention { time_column: self.time_column?, keep_ms: self.keep_ms()? })
    }

    /// Rows that were written before this, in microseconds since 1970, are to be deleted, if that is how they age.
    fn expired_before(&self, now_ms: u64) -> Option<i64> {
        if self.time_column.is_some() {
            return None;
        }
        Some(horizon_us(self.keep_ms()?, now_ms))
    }

    /// How long rows are kept, if not for ever.
    pub fn keep_ms(&self) -> Option<u64> {
        Some(u64::try_from(self.retain?.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Below which the files of a relation lie in each tier.
pub fn folder(name: &str) -> String {
    format!("{PUBLIC}.{name}")
}

fn cutoff_us(now_ms: u64, age: Duration) -> i64 {
    let now_us = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
    now_us.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}

fn age(options: &Options, name: &str) -> Result<Option<Duration>, SqlError> {
    let Some(text) = options.get(name) else { return Ok(None) };
    let age = humantime::parse_duration(text).map_err(|_| {
        invalid(format!("invalid value for option \"{name}\": \"{text}\""))
            .with_hint("an age is a time such as '0s', '90 min', '7 days' or '2 years'")
    });
    age.map(Some)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32)
}

fn time_column(schema: &Schema, name: &str) -> Result<usize, SqlError> {
    let Ok(column) = schema.index_of(name) else {
        let message = format!("column \"{name}\" named in option \"time_column\" does not exist");
        return Err(SqlError::new(SqlState::UndefinedColumn, message));
    };
    if !is_time(schema.field(column).data_type()) {
        return Err(SqlError::new(SqlState::DatatypeMismatch, format!("column \"{name}\" is not a time"))
            .with_hint("rows age by a column of type timestamp, timestamptz or date"));
    }
    Ok(column)
}

/// The rows and the settings of an object that has tiers.
pub fn of(object: &Object) -> Option<(&Arc<Collection>, &TierSettings)> {
    match object {
        Object::Table(table) => Some((&table.collection, table.tiers.as_ref()?)),
        Object::MaterializedView(view) => Some((&view.collection, view.tiers.as_ref()?)),
        Object::Source(_) | Object::View(_) | Object::Sink(_) => None,
    }
}

/// Moves rows and deletes what has expired, for as long as the server runs.
pub async fn run(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(TIERS_INTERVAL_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = pressure::relieve(&server).await {
            let detail = error.detail.as_deref().unwrap_or_default();
            warn!("cannot move rows out of memory: {error}: {detail}");
        }
        let catalog = server.catalog.state();
        for entry in catalog.entries() {
            let Some((collection, settings)) = of(&entry.object) else { continue };
            let name = entry.name();
            if let Err(error) = expire(&server, entry.id(), &entry.object, settings).await {
                warn!(relation = name, "cannot delete what has expired: {error}");
            }
            let _moving = server.tiers_lock.lock().await;
            // Nothing moves twice, so this comes to an end; but others are to have their turn.
            for _ in 0..TURNS_MAX {
                match move_once(&server, name, collection, settings).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        let detail = error.detail.as_deref().unwrap_or_default();
                        warn!(relation = name, "cannot move rows between tiers: {error}: {detail}");
                        break;
                    }
                }
            }
        }
    }
}

/// Moves of one relation in a row, at most.
const TURNS_MAX: usize = 16;

/// Moves some rows, and lets go of segments that nobody can read any more; gives how many of both. Under the lock of the tiers.
pub async fn move_once(
    server: &Server,
    name: &str,
    collection: &Collection,
    settings: &TierSettings,
) -> Result<usize, SqlError> {
    move_by(server, name, collection, &settings.policy(name, server.clock.now_ms())).await
}

async fn move_by(server: &Server, name: &str, collection: &Collection, policy: &TierPolicy) -> Result<usize, SqlError> {
    let moved = collection.move_tiers(server.store.tiers(), policy).await;
    let moved = moved.map_err(|error| storage_error("cannot move rows between tiers", &error))?;
    if moved != Moved::default() {
        debug!(
            relation = name,
            rows = moved.rows,
            dropped = moved.dropped,
            files = moved.files,
            bytes = moved.bytes,
            "moved rows to files"
        );
        metrics::counter!("freshet_tier_rows_moved_total").increment(moved.rows as u64);
        metrics::counter!("freshet_tier_bytes_written_total").increment(moved.bytes);
        // The next checkpoint refers to the files.
        server.coordinator.send(Command::TiersChanged).await?;
    }
    Ok(moved.rows + moved.dropped)
}

/// Deletes the rows of a table that were written longer ago than it keeps them, as a DELETE would: when they were is not known
/// of rows that come back from the log, so it has to be there that they left.
pub async fn expire(server: &Server, id: RelationId, object: &Object, settings: &TierSettings) -> Result<(), SqlError> {
    let (Object::Table(table), Some(before)) = (object, settings.expired_before(server.clock.now_ms())) else {
        return Ok(());
    };
    loop {
        let deleted = expire_some(server, id, table, before).await?;
        if deleted > 0 {
            info!(table = %id, rows = deleted, "deleted rows that have expired");
            metrics::counter!("freshet_expired_rows_total").increment(deleted as u64);
        }
        if deleted < EXPIRED_ROWS_MAX {
            return Ok(());
        }
    }
}

async fn expire_some(server: &Server, id: RelationId, table: &TableObject, before: i64) -> Result<usize, SqlError> {
    let _lock = table.write_lock.clone().lock_owned().await;
    let snapshot = table.collection.snapshot(table.collection.upper()).map_err(collection_error)?;
    let found = tokio::task::spawn_blocking(move || snapshot.written_before(before, EXPIRED_ROWS_MAX)).await;
    let rows = found.map_err(|error| SqlError::internal(error.to_string()))?.map_err(collection_error)?;
    if rows.num_rows() == 0 {
        return Ok(0);
    }
    let (count, delta) = (rows.num_rows(), Delta::deletes(rows));
    write_table(server, id, delta, Cause::Expired).await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn settings(options: &[(&str, &str)]) -> Result<TierSettings, String> {
        let fields = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ];
        let options = Options(options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        let settings = TierSettings::new(&options, &Schema::new(fields), None);
        settings.map(|settings| settings.expect("there are some")).map_err(|error| error.message)
    }

    #[test]
    fn rows_go_to_the_next_tier_that_there_is() {
        let hour_us = 3_600_000_000;
        let now_ms = 100 * 3_600_000;
        let bounds = |options: &[(&str, &str)]| {
            let policy = settings(options).unwrap().policy("t", now_ms);
            let age = |bound: Option<i64>| bound.map(|bound| 100 - bound / hour_us);
            (age(policy.warm_before), age(policy.cold_before))
        };
        assert_eq!(bounds(&[("hot", "1h")]), (Some(1), None));
        assert_eq!(bounds(&[("hot", "1h"), ("warm", "2h")]), (Some(1), Some(2)));
        assert_eq!(bounds(&[("hot", "1h"), ("warm", "2h"), ("cold", "9h")]), (Some(1), Some(2)));
        assert_eq!(bounds(&[("warm", "2h")]), (None, Some(2)));
        assert_eq!(bounds(&[("hot", "1h"), ("cold", "9h")]), (None, Some(1)));
        assert_eq!(bounds(&[("retain", "9h")]), (None, None));
    }

    #[test]
    fn rows_expire_by_their_time_or_by_that_of_their_writing() {
        let by_time = settings(&[("retain", "100s"), ("time_column", "ts")]).unwrap();
        assert_eq!(by_time.retention(), Some(Retention { time_column: 1, keep_ms: 100_000 }));
        assert_eq!(by_time.expired_before(200_999), None);
        let by_writing = settings(&[("retain", "100s")]).unwrap();
        assert_eq!((by_writing.retention(), by_writing.expired_before(200_999)), (None, Some(100_000_000)));
    }

    #[test]
    fn nonsense_is_refused() {
        for (options, message) in [
            (vec![("hot", "soon")], "invalid value for option \"hot\": \"soon\""),
            (vec![("hot", "2h"), ("warm", "1h")], "option \"hot\" is longer than \"warm\""),
            (vec![("cold", "1h")], "option \"cold\" needs \"hot\" or \"warm\""),
            (vec![("time_column", "ts")], "option \"time_column\" needs a tier"),
            (vec![("hot", "1h"), ("time_column", "id")], "column \"id\" is not a time"),
            (vec![("hot", "1h"), ("time_column", "x")], "column \"x\" named in option \"time_column\" does not exist"),
        ] {
            assert_eq!(settings(&options).unwrap_err(), message);
        }
    }
}
