//! The command line: `freshet`, `freshet serve`, `freshet demo`, `freshet backup`, `freshet restore`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, LogFormat, Memory, Settings, parse_interval};

const EXAMPLES: &str = "\
Examples:
  freshet                                  a server with its data in ./freshet-data
  freshet demo                             a server with a live auction to play with
  freshet serve --data /var/lib/freshet --memory 8GiB --workers 4
  freshet serve --data s3://bucket/prefix  all that is durable in a bucket; AWS_ACCESS_KEY_ID and the like are read
  freshet backup --to s3://bucket/monday   a copy of what the running server has
  freshet restore --from s3://bucket/monday --data ./new
  psql -h 127.0.0.1 -p 7432 -d freshet     connect to it

In psql:
  CREATE TABLE t (id BIGINT PRIMARY KEY, x INT);
  CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(x) AS x FROM t;
  INSERT INTO t VALUES (1, 10), (2, 20);
  SELECT * FROM total;
  SUBSCRIBE total WITH (SNAPSHOT = true);

Each option is also a variable (FRESHET_DATA for --data) and a line in freshet.toml (data = \"...\").
A flag wins over the variable, the variable over the file.";

/// A streaming SQL database: materialized views that are always up to date, over the Postgres protocol.
#[derive(Debug, Parser)]
#[command(name = "freshet", version, after_help = EXAMPLES, subcommand_help_heading = "Commands (default: serve)")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Subcommand)]
pub enum Command {
    /// Run the server
    #[default]
    Serve,
    /// Run the server with a generator of auction events and a few views over it
    Demo,
    /// Copy what a running server has at this instant: tables, views, sources' offsets
    Backup {
        /// Where to, as the server sees it; there may be nothing yet: a folder, or s3://, gs:// or az://bucket/prefix
        #[arg(long, value_name = "DIR|URL")]
        to: String,
        /// The server
        #[arg(long, env = "FRESHET_SERVER", value_name = "HOST:PORT", default_value = "127.0.0.1:7432")]
        server: String,
    },
    /// Make the data of a server from a backup, at --data, where nothing may be yet
    Restore {
        /// The backup
        #[arg(long, value_name = "DIR|URL")]
        from: String,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// Where to keep the data: a folder, or s3://, gs:// or az://bucket/prefix [default: ./freshet-data]
    #[arg(long, global = true, env = "FRESHET_DATA", value_name = "DIR|URL")]
    data: Option<String>,
    /// A local folder for copies of what is in a bucket [default: ./freshet-cache]
    #[arg(long, global = true, env = "FRESHET_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How large that folder may become [default: 1GiB]
    #[arg(long, global = true, env = "FRESHET_CACHE_SIZE", value_name = "SIZE")]
    cache_size: Option<Memory>,
    /// Address for Postgres clients [default: 127.0.0.1:7432]
    #[arg(long, global = true, env = "FRESHET_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address for HTTP: /metrics, /healthz, /readyz [default: 127.0.0.1:7480]
    #[arg(long, global = true, env = "FRESHET_HTTP", value_name = "HOST:PORT")]
    http: Option<String>,
    /// Dataflow worker threads [default: one a core]
    #[arg(long, global = true, env = "FRESHET_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Memory that the server may use: 2GiB, 512MB, 60% of the machine's [default: 60%]
    #[arg(long, global = true, env = "FRESHET_MEMORY", value_name = "SIZE")]
    memory: Option<Memory>,
    /// Settings file [default: freshet.toml in the working directory, if there]
    #[arg(long, global = true, env = "FRESHET_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: a level, or levels a module, as in info,freshet_server::pg=debug [default: info]
    #[arg(long, global = true, env = "FRESHET_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log [default: text]
    #[arg(long, global = true, env = "FRESHET_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Let clients from other machines in, without a password
    #[arg(long, global = true, env = "FRESHET_TRUST_NETWORK", num_args = 0..=1, default_missing_value = "true")]
    trust_network: Option<bool>,
    /// How often to make what changed quick to come back to after a crash: 1s, 500ms [default: 1s, 5s in a bucket]
    #[arg(long, global = true, env = "FRESHET_CHECKPOINT_INTERVAL", value_name = "TIME", value_parser = parse_interval)]
    checkpoint_interval: Option<Duration>,
}

impl Cli {
    /// What to do, and with which settings.
    ///
    /// # Errors
    /// If the settings make no sense.
    pub fn resolve(self) -> Result<(Command, Config), ConfigError> {
        let options = self.options;
        let given = Settings {
            data: options.data,
            cache: options.cache,
            cache_size: options.cache_size,
            listen: options.listen,
            http: options.http,
            workers: options.workers,
            memory: options.memory,
            log: options.log,
            log_format: options.log_format,
            trust_network: options.trust_network,
            checkpoint_interval: options.checkpoint_interval,
        };
        let config = Config::load(given, options.config.as_deref())?;
        Ok((self.command.unwrap_or_default(), config))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_options_may_stand_on_either_side() {
        let bare = Cli::parse_from(["freshet", "--workers", "2"]).resolve().unwrap();
        let after = Cli::parse_from(["freshet", "serve", "--workers", "2"]).resolve().unwrap();
        assert_eq!(bare, after);
        assert_eq!((bare.0, bare.1.workers, bare.1.trust_network), (Command::Serve, 2, false));
        let (command, config) = Cli::parse_from(["freshet", "demo", "--trust-network"]).resolve().unwrap();
        assert_eq!((command, config.trust_network), (Command::Demo, true));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        assert!(Cli::try_parse_from(["freshet", "backup"]).unwrap_err().to_string().contains("--to <DIR|URL>"));
        let error = Cli::try_parse_from(["freshet", "--memory", "lots"]).unwrap_err();
        assert!(error.to_string().contains("is not an amount of memory like 2GiB"));
        assert!(Cli::parse_from(["freshet", "--workers", "0"]).resolve().is_err());
    }
}
