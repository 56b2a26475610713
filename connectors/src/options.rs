//! WITH options: looked up by name, parsed, and complained about in the words of a Postgres error.

use std::collections::BTreeMap;
use std::str::FromStr;

use freshet_types::{SqlError, SqlState};

/// The options of one source. Unknown ones have been refused before any is read.
pub struct Options<'a> {
    connector: &'static str,
    given: &'a BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    /// Refuses options that are not in `known` (besides `connector`) and that `pattern` does not accept either.
    pub fn new(
        connector: &'static str,
        given: &'a BTreeMap<String, String>,
        known: &[&str],
        pattern: impl Fn(&str) -> bool,
    ) -> Result<Self, SqlError> {
        for name in given.keys() {
            if name != "connector" && !known.contains(&name.as_str()) && !pattern(name) {
                let message = format!("unknown option \"{name}\" for connector \"{connector}\"");
                let mut all: Vec<&str> = known.to_vec();
                all.push("connector");
                return Err(
                    SqlError::new(SqlState::InvalidParameterValue, message).with_hint(suggest(name, &all, "options"))
                );
            }
        }
        Ok(Self { connector, given })
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.given.get(name).map(String::as_str)
    }

    pub fn required(&self, name: &str, example: &str) -> Result<&'a str, SqlError> {
        match self.text(name) {
            Some(value) if !value.trim().is_empty() => Ok(value),
            _ => {
                let message = format!("connector \"{}\" needs the option \"{name}\"", self.connector);
                Err(SqlError::new(SqlState::InvalidParameterValue, message)
                    .with_hint(format!("add {name} = '{example}' to WITH (…)")))
            }
        }
    }

    /// The value parsed as `T`; `what` says what it should be, as in "a whole number".
    pub fn parsed<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, SqlError> {
        let parse = |value: &str| value.trim().parse().map_err(|_| invalid(name, value, what));
        self.text(name).map(parse).transpose()
    }

    /// The value as one of `choices`, each with its meaning.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, SqlError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(value.trim())) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
                Err(SqlError::new(SqlState::InvalidParameterValue, bad_value(name, value))
                    .with_hint(suggest(value, &names, "values")))
            }
        }
    }
}

/// The error for a value of the wrong kind.
pub fn invalid(name: &str, value: &str, what: &str) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, bad_value(name, value)).with_hint(format!("it must be {what}"))
}

fn bad_value(name: &str, value: &str) -> String {
    format!("invalid value for option \"{name}\": \"{value}\"")
}

/// "did you mean …?", or else the list of what there is.
pub fn suggest(given: &str, known: &[&str], what: &str) -> String {
    let given = given.to_ascii_lowercase();
    let nearest =
        known.iter().map(|name| (strsim::damerau_levenshtein(&given, &name.to_ascii_lowercase()), *name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 3 => format!("did you mean \"{name}\"?"),
        _ => {
            let mut known = known.to_vec();
            known.sort_unstable();
            format!("the {what} are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_unknown_option_gets_a_suggestion() {
        let map = given(&[("connector", "kafka"), ("bootstrap_server", "x")]);
        let error = Options::new("kafka", &map, &["topic", "bootstrap_servers"], |_| false).err().unwrap();
        assert_eq!(error.message, "unknown option \"bootstrap_server\" for connector \"kafka\"");
        assert_eq!(error.hint.as_deref(), Some("did you mean \"bootstrap_servers\"?"));
    }

    #[test]
    fn a_suggestion_does_not_care_for_case() {
        assert_eq!(suggest("plane", &["PLAIN", "UPSERT"], "formats"), "did you mean \"PLAIN\"?");
        assert_eq!(suggest("Topic", &["topic", "start"], "options"), "did you mean \"topic\"?");
    }

    #[test]
    fn an_option_like_no_other_gets_the_list() {
        let map = given(&[("xyzzy_plugh", "x")]);
        let error = Options::new("kafka", &map, &["topic", "start"], |_| false).err().unwrap();
        assert_eq!(error.hint.as_deref(), Some("the options are connector, start, topic"));
    }

    #[test]
    fn a_missing_and_a_wrong_value_are_told_apart() {
        let map = given(&[("rate", "fast"), ("topic", " ")]);
        let options = Options::new("kafka", &map, &["topic", "rate"], |_| false).unwrap();
        let error = options.required("topic", "orders").unwrap_err();
        assert_eq!(error.message, "connector \"kafka\" needs the option \"topic\"");
        let error = options.parsed::<u64>("rate", "a whole number").unwrap_err();
        assert_eq!(error.message, "invalid value for option \"rate\": \"fast\"");
        assert_eq!(error.hint.as_deref(), Some("it must be a whole number"));
        assert_eq!(options.parsed::<u64>("absent", "a whole number").unwrap(), None);
    }

    #[test]
    fn a_choice_is_case_insensitive_and_suggests() {
        let map = given(&[("a", "FAIL"), ("b", "fial")]);
        let options = Options::new("kafka", &map, &["a", "b"], |_| false).unwrap();
        assert_eq!(options.choice("a", &[("fail", 1), ("null", 2)]).unwrap(), Some(1));
        let error = options.choice("b", &[("fail", 1), ("null", 2)]).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean \"fail\"?"));
    }
}
