//! A session's settings: `SET`, `SHOW`, and what is told to the client at start-up.

use std::collections::BTreeMap;

use freshet_types::{SqlError, SqlState};

/// A setting that Freshet knows.
struct Known {
    name: &'static str,
    default: &'static str,
    about: &'static str,
    /// Told to the client whenever it changes.
    reported: bool,
    kind: Kind,
}

enum Kind {
    /// Cannot be changed.
    Fixed,
    /// Taken as it is; clients set it, and Freshet needs nothing of it.
    Accepted,
    /// Only these values.
    OneOf(&'static [&'static str]),
}

/// All settings. Names as users spell them; looked up in lower case.
const KNOWN: &[Known] = &[
    known("application_name", "", "what the client calls itself", true, Kind::Accepted),
    known(
        "client_encoding",
        "UTF8",
        "text is always UTF-8",
        true,
        Kind::OneOf(&["utf8", "utf-8", "unicode", "sql_ascii"]),
    ),
    known("client_min_messages", "notice", "accepted and not used", false, Kind::Accepted),
    known("DateStyle", "ISO, MDY", "dates are always ISO", true, Kind::Accepted),
    known("default_transaction_isolation", "serializable", "accepted and not used", false, Kind::Accepted),
    known("default_transaction_read_only", "off", "accepted and not used", true, Kind::Accepted),
    known("extra_float_digits", "1", "floats are always shown in full", false, Kind::Accepted),
    known("idle_in_transaction_session_timeout", "0", "accepted and not used", false, Kind::Accepted),
    known("in_hot_standby", "off", "this server takes writes", true, Kind::Fixed),
    known("integer_datetimes", "on", "times are integers in binary results", true, Kind::Fixed),
    known("IntervalStyle", "postgres", "how intervals are shown", true, Kind::OneOf(&["postgres"])),
    known("is_superuser", "on", "every user is", true, Kind::Fixed),
    known("jit", "off", "accepted and not used", false, Kind::Accepted),
    known("lock_timeout", "0", "accepted and not used", false, Kind::Accepted),
    known("max_identifier_length", "63", "as in Postgres", false, Kind::Fixed),
    known("search_path", "\"$user\", public", "user objects live in public", true, Kind::Accepted),
    known("server_encoding", "UTF8", "text is always UTF-8", true, Kind::Fixed),
    known("server_version", SERVER_VERSION, "the Postgres version that clients may assume", true, Kind::Fixed),
    known("server_version_num", "150000", "the same as a number", false, Kind::Fixed),
    known("standard_conforming_strings", "on", "a backslash in a string is a backslash", true, Kind::OneOf(&["on"])),
    known("statement_timeout", "0", "accepted and not used", false, Kind::Accepted),
    known("synchronous_commit", "on", "what was acknowledged is durable, always", false, Kind::Accepted),
    known(
        "TimeZone",
        "UTC",
        "timestamps with time zone are shown in UTC",
        true,
        Kind::OneOf(&["utc", "etc/utc", "gmt", "z", "0"]),
    ),
    known("transaction_isolation", "serializable", "a statement reads one epoch", false, Kind::Accepted),
    known("transaction_read_only", "off", "accepted and not used", false, Kind::Accepted),
];

const SERVER_VERSION: &str = concat!("15.0 (Freshet ", env!("CARGO_PKG_VERSION"), ")");

const fn known(name: &'static str, default: &'static str, about: &'static str, reported: bool, kind: Kind) -> Known {
    Known { name, default, about, reported, kind }
}

/// The settings that were changed, by lower-case name.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    changed: BTreeMap<String, String>,
}

impl Settings {
    /// Settings from a start-up packet. What is not known is not a setting (`user`, `database`, `options` …).
    pub fn from_startup<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in parameters {
            // A client that asks for another time zone at start-up is told by ParameterStatus what it got.
            let _ = settings.set(name, value);
        }
        settings
    }

    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let known = find(name)?;
        let allowed = match known.kind {
            Kind::Accepted => true,
            Kind::Fixed => false,
            Kind::OneOf(values) => values.contains(&value.to_lowercase().as_str()),
        };
        if !allowed {
            let message = match known.kind {
                Kind::Fixed => format!("parameter \"{}\" cannot be changed", known.name),
                _ => format!("invalid value for parameter \"{}\": \"{value}\"", known.name),
            };
            let error = SqlError::new(SqlState::InvalidParameterValue, message);
            return Err(error.with_hint(format!("it is {}: {}", known.default, known.about)));
        }
        // A setting with one meaning keeps its canonical spelling.
        let kept = if matches!(known.kind, Kind::OneOf(_)) { known.default } else { value };
        self.changed.insert(known.name.to_lowercase(), kept.to_owned());
        Ok(())
    }

    pub fn reset(&mut self, name: &str) -> Result<(), SqlError> {
        self.changed.remove(&find(name)?.name.to_lowercase());
        Ok(())
    }

    pub fn reset_all(&mut self) {
        self.changed.clear();
    }

    /// The setting's name as it is spelled, and its value.
    pub fn get(&self, name: &str) -> Result<(&'static str, &str), SqlError> {
        let known = find(name)?;
        Ok((known.name, self.value(known)))
    }

    /// (name, value, what it is about) of all settings.
    pub fn all(&self) -> Vec<(&'static str, &str, &'static str)> {
        KNOWN.iter().map(|known| (known.name, self.value(known), known.about)).collect()
    }

    pub fn reported(&self) -> Vec<(String, String)> {
        let reported = KNOWN.iter().filter(|known| known.reported);
        reported.map(|known| (known.name.to_owned(), self.value(known).to_owned())).collect()
    }

    fn value(&self, known: &Known) -> &str {
        self.changed.get(&known.name.to_lowercase()).map_or(known.default, String::as_str)
    }
}

fn find(name: &str) -> Result<&'static Known, SqlError> {
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let message = format!("unrecognized configuration parameter \"{name}\"");
        SqlError::new(SqlState::UndefinedObject, message).with_hint("SHOW ALL lists the parameters")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_any_case_and_come_back_to_their_defaults() {
        let mut settings = Settings::default();
        settings.set("DATESTYLE", "German").unwrap();
        assert_eq!(settings.get("datestyle").unwrap(), ("DateStyle", "German"));
        settings.reset("DateStyle").unwrap();
        assert_eq!(settings.get("datestyle").unwrap().1, "ISO, MDY");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("client_encoding", "latin1").unwrap_err().state, SqlState::InvalidParameterValue);
        assert_eq!(settings.set("server_version", "9").unwrap_err().state, SqlState::InvalidParameterValue);
        assert_eq!(settings.set("no_such", "1").unwrap_err().state, SqlState::UndefinedObject);
        settings.set("client_encoding", "UTF-8").unwrap();
        assert_eq!(settings.get("client_encoding").unwrap().1, "UTF8");
    }
}
