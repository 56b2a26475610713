//! Logs go to standard error, as text for people or as JSON for machines.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;

/// Starts logging. `filter` is a level, or levels a module: `info,freshet_server::pg=debug`.
///
/// # Errors
/// If the filter does not parse.
pub fn start(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    // Each single repetition of a request is told at `info`; `freshet_storage` tells when that goes on.
    let filter =
        if filter.contains("object_store") { filter.to_owned() } else { format!("object_store=warn,{filter}") };
    let filter = EnvFilter::builder().parse(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).with_target(false).init();
        }
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
