//! The connectors there are. A new one is a file or folder, and one line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use freshet_types::{Clock, SqlError, SqlState};

use crate::definition::{IncludeKind, SourceDefinition};
use crate::options::suggest;
use crate::sink::{Sink, SinkDefinition};
use crate::source::Source;

const CONNECTORS: &[Connector] = &[crate::kafka::CONNECTOR, crate::nexmark::CONNECTOR, crate::datagen::CONNECTOR];

/// The connectors that sinks may have.
const SINKS: &[SinkConnector] = &[("kafka", crate::kafka::sink::open)];

type SinkConnector = (&'static str, fn(SinkDefinition) -> Result<Arc<dyn Sink>, SqlError>);

/// Those that are yet to come.
const SINKS_TO_COME: &[&str] = &["postgres", "iceberg", "file", "s3", "gcs", "azblob", "webhook"];

type WithOptions = BTreeMap<String, String>;

/// What the registry needs to know of a connector.
pub(crate) struct Connector {
    pub name: &'static str,
    /// The INCLUDE columns it can fill.
    pub includes: &'static [IncludeKind],
    pub open: fn(SourceDefinition, Clock) -> Result<Arc<dyn Source>, SqlError>,
    /// The columns of a source declared without a column list, if the connector knows them.
    pub columns: fn(&WithOptions) -> Result<Option<Schema>, SqlError>,
}

/// Checks a definition and makes it a source. Connects to nothing yet.
pub fn open(definition: SourceDefinition) -> Result<Arc<dyn Source>, SqlError> {
    open_with_clock(definition, Clock::System)
}

/// [`open`], with the time taken from `clock`.
pub fn open_with_clock(definition: SourceDefinition, clock: Clock) -> Result<Arc<dyn Source>, SqlError> {
    let connector = connector(&definition.options)?;
    check_includes(connector, &definition)?;
    (connector.open)(definition, clock)
}

/// Checks a definition and makes it a sink. Connects to nothing yet.
pub fn open_sink(definition: SinkDefinition) -> Result<Arc<dyn Sink>, SqlError> {
    let names: Vec<&str> = SINKS.iter().map(|(name, _)| *name).collect();
    let Some(given) = definition.options.get("connector").map(|name| name.trim().to_ascii_lowercase()) else {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "a sink needs the option \"connector\"")
            .with_hint(format!("add connector = '…' to WITH (…): {}", names.join(", "))));
    };
    if let Some((_, open)) = SINKS.iter().find(|(name, _)| *name == given) {
        return open(definition);
    }
    let known = |name: &str| SINKS_TO_COME.contains(&name) || connector_names().any(|known| known == name);
    if known(&given) {
        return Err(SqlError::unsupported(format!("a sink with connector \"{given}\" is not supported yet"))
            .with_hint(format!("the connectors of sinks are {}", names.join(", "))));
    }
    Err(SqlError::new(SqlState::InvalidParameterValue, format!("there is no connector \"{given}\""))
        .with_hint(suggest(&given, &names, "connectors of sinks")))
}

/// The columns of a source that is declared with these WITH options and no column list; `None` if the
/// connector cannot know them.
pub fn columns_without_list(options: &BTreeMap<String, String>) -> Result<Option<Schema>, SqlError> {
    (connector(options)?.columns)(options)
}

/// The names that `connector = '…'` accepts.
pub fn connector_names() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|connector| connector.name)
}

fn connector(options: &BTreeMap<String, String>) -> Result<&'static Connector, SqlError> {
    let names: Vec<&str> = connector_names().collect();
    let Some(name) = options.get("connector") else {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "a source needs the option \"connector\"")
            .with_hint(format!("add connector = '…' to WITH (…): {}", names.join(", "))));
    };
    CONNECTORS.iter().find(|connector| connector.name.eq_ignore_ascii_case(name.trim())).ok_or_else(|| {
        SqlError::new(SqlState::InvalidParameterValue, format!("there is no connector \"{name}\"")).with_hint(suggest(
            name,
            &names,
            "connectors",
        ))
    })
}

fn check_includes(connector: &Connector, definition: &SourceDefinition) -> Result<(), SqlError> {
    let Some(include) = definition.includes.iter().find(|include| !connector.includes.contains(&include.kind)) else {
        return Ok(());
    };
    let message = format!("connector \"{}\" cannot INCLUDE {}", connector.name, include.kind.keyword());
    let offered: Vec<&str> = connector.includes.iter().map(|kind| kind.keyword()).collect();
    let hint = match offered.is_empty() {
        true => "it has no INCLUDE columns".to_owned(),
        false => format!("it can include {}", offered.join(", ")),
    };
    Err(SqlError::unsupported(message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Include;

    fn definition(connector: Option<&str>) -> SourceDefinition {
        let options = connector.map(|name| ("connector".to_owned(), name.to_owned()));
        SourceDefinition {
            name: "s".into(),
            columns: vec![],
            checks: vec![],
            includes: vec![],
            options: options.into_iter().collect(),
            format: None,
        }
    }

    #[test]
    fn an_unknown_connector_is_refused_with_a_suggestion() {
        let error = open(definition(Some("kafak"))).err().unwrap();
        assert_eq!(error.message, "there is no connector \"kafak\"");
        assert_eq!(error.hint.as_deref(), Some("did you mean \"kafka\"?"));
        let error = open(definition(Some("carrier pigeon"))).err().unwrap();
        assert_eq!(error.hint.as_deref(), Some("the connectors are datagen, kafka, nexmark"));
        assert!(open(definition(None)).err().unwrap().hint.unwrap().contains("nexmark"));
    }

    #[test]
    fn an_include_that_the_connector_lacks_is_refused() {
        let mut definition = definition(Some("datagen"));
        definition.includes.push(Include { kind: IncludeKind::Key, name: "_key".into() });
        let error = open(definition).err().unwrap();
        assert_eq!(error.message, "connector \"datagen\" cannot INCLUDE key");
    }
}
