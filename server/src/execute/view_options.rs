//! `CREATE MATERIALIZED VIEW … WITH (…)`: what the options of a view mean.

use freshet_dataflow::{OnLimit, ViewBudget};
use freshet_planner::Options;
use freshet_types::{SqlError, SqlState};

use crate::config::Memory;
use crate::pipeline::tiers;

/// Below this, no batch would fit.
const MEMORY_BYTES_MIN: u64 = 64 << 10;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ViewOptions {
    /// Answer before the view is complete.
    pub background: bool,
    pub budget: ViewBudget,
}

impl ViewOptions {
    /// Options for what does not exist yet are refused rather than ignored. Those of [`tiers`] are looked at there.
    ///
    /// # Errors
    /// If there is no such option, or a value has no sense.
    pub fn parse(options: &Options) -> Result<Self, SqlError> {
        let mut parsed = Self::default();
        for (name, value) in options.iter() {
            match name {
                "background" => parsed.background = background(value)?,
                "memory" => parsed.budget.bytes_max = Some(memory(value)?),
                "on_limit" => parsed.budget.on_limit = on_limit(value)?,
                name if tiers::OPTIONS.contains(&name) => {}
                "history" => _ = options.duration("history")?,
                "on_error" => {
                    return Err(SqlError::unsupported(format!("option \"{name}\" of a view is not supported yet")));
                }
                other => {
                    let message = format!("unknown option \"{other}\" of a materialized view");
                    return Err(SqlError::new(SqlState::InvalidParameterValue, message).with_hint(format!(
                        "the options of a materialized view are background, history, memory, on_limit, {}",
                        tiers::OPTIONS.join(", ")
                    )));
                }
            }
        }
        if parsed.budget.bytes_max.is_none() && options.iter().any(|(name, _)| name == "on_limit") {
            let message = "option \"on_limit\" of a view without option \"memory\"";
            return Err(SqlError::new(SqlState::InvalidParameterValue, message)
                .with_hint("say how much its state may hold, as in WITH (memory = '2GiB', on_limit = 'pause')"));
        }
        Ok(parsed)
    }
}

fn invalid(name: &str, value: &str, hint: &str) -> SqlError {
    let message = format!("invalid value for option \"{name}\": \"{value}\"");
    SqlError::new(SqlState::InvalidParameterValue, message).with_hint(hint)
}

fn background(value: &str) -> Result<bool, SqlError> {
    match value {
        "true" | "on" | "" => Ok(true),
        "false" | "off" => Ok(false),
        other => Err(invalid("background", other, "use true or false")),
    }
}

fn memory(value: &str) -> Result<u64, SqlError> {
    match Memory::parse(value) {
        Ok(Memory::Bytes(bytes)) if bytes >= MEMORY_BYTES_MIN => Ok(bytes),
        Ok(Memory::Bytes(_)) => Err(invalid("memory", value, "at least 64KiB are needed")),
        Ok(Memory::Percent(_)) | Err(_) => Err(invalid("memory", value, "use an amount like 2GiB or 512MB")),
    }
}

fn on_limit(value: &str) -> Result<OnLimit, SqlError> {
    match value {
        "spill" => Ok(OnLimit::Spill),
        "pause" => Ok(OnLimit::Pause),
        other => Err(invalid("on_limit", other, "use 'spill' or 'pause'")),
    }
}
