//! The settings of a server: from flags, `FRESHET_*` variables, `freshet.toml`, and defaults, in this order.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use freshet_storage::{DiskCache, Location};

/// What a server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A folder, or a prefix in a bucket.
    pub data: Location,
    /// Where copies of what is in a bucket lie.
    pub cache: DiskCache,
    /// `host:port` for Postgres clients.
    pub listen: String,
    /// `host:port` for HTTP.
    pub http: String,
    /// Dataflow worker threads.
    pub workers: usize,
    /// What the server may use, for collections, queues and queries together.
    pub memory_bytes: u64,
    pub log: String,
    pub log_format: LogFormat,
    /// Whether clients from other machines are let in, without a password.
    pub trust_network: bool,
    /// How often what changed is made quick to come back to.
    pub checkpoint_interval: Duration,
}

/// The percentages of the memory that ad-hoc queries may use together, and that the state of all views may.
const QUERY_MEMORY_PERCENT: u64 = 25;
const STATE_MEMORY_PERCENT: u64 = 40;

/// The share of the memory that the past of all relations may take together.
const HISTORY_MEMORY_SHARE: u64 = 8;

impl Config {
    /// What the past of all relations may take together. At the bound: each lets go of its oldest versions, in proportion
    /// to what it has.
    pub fn history_bytes_max(&self) -> usize {
        usize::try_from(self.memory_bytes / HISTORY_MEMORY_SHARE).unwrap_or(usize::MAX)
    }

    /// Where files are made that nobody needs after a restart: in the data folder, or beside the copies of a bucket.
    pub fn local_folder(&self) -> &Path {
        self.data.folder().unwrap_or(&self.cache.folder)
    }

    /// What ad-hoc queries may use together.
    pub fn query_memory_bytes(&self) -> usize {
        usize::try_from(self.memory_bytes / 100 * QUERY_MEMORY_PERCENT).unwrap_or(usize::MAX)
    }

    /// What the state of all views may hold in memory; more goes to the disk.
    pub fn state_memory_bytes(&self) -> u64 {
        self.memory_bytes / 100 * STATE_MEMORY_PERCENT
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// One place that settings come from; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub data: Option<String>,
    pub cache: Option<PathBuf>,
    pub cache_size: Option<Memory>,
    pub listen: Option<String>,
    pub http: Option<String>,
    pub workers: Option<usize>,
    pub memory: Option<Memory>,
    pub log: Option<String>,
    pub log_format: Option<LogFormat>,
    pub trust_network: Option<bool>,
    pub checkpoint_interval: Option<Duration>,
}

/// An amount of memory, or a share of the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Bytes(u64),
    Percent(u64),
}

/// What is wrong with the settings, in words for the person who wrote them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("{path}: {reason}")]
    Malformed { path: String, reason: String },
    #[error("{path}: unknown setting \"{key}\"{}", suggestion(.near))]
    Unknown { path: String, key: String, near: Option<&'static str> },
    #[error("{setting}: {reason}")]
    Invalid { setting: &'static str, reason: String },
}

fn suggestion(near: &Option<&'static str>) -> String {
    near.map_or_else(|| format!("; there are {}", KEYS.join(", ")), |near| format!("; did you mean \"{near}\"?"))
}

const KEYS: &[&str] = &[
    "data",
    "cache",
    "cache_size",
    "listen",
    "http",
    "workers",
    "memory",
    "log",
    "log_format",
    "trust_network",
    "checkpoint_interval",
];
const DEFAULT_FILE: &str = "freshet.toml";
const DEFAULT_MEMORY: Memory = Memory::Percent(60);
const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Where each checkpoint costs requests that are paid for.
const DEFAULT_CHECKPOINT_INTERVAL_REMOTE: Duration = Duration::from_secs(5);
const DEFAULT_CACHE: &str = "./freshet-cache";
const DEFAULT_CACHE_BYTES: u64 = 1 << 30;

impl Config {
    /// Puts together what the flags and variables say with the file and the defaults.
    ///
    /// # Errors
    /// If the file cannot be read or says nonsense, or a setting has no sense.
    pub fn load(given: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let settings = given.or(Settings::from_file(file)?);
        let workers = match settings.workers {
            Some(0) => {
                return Err(ConfigError::Invalid { setting: "workers", reason: "must be at least 1".to_owned() });
            }
            Some(workers) => workers,
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        let data = Location::parse(settings.data.as_deref().unwrap_or("./freshet-data"))
            .map_err(|error| ConfigError::Invalid { setting: "data", reason: error.to_string() })?;
        let cache_bytes = match settings.cache_size {
            None => DEFAULT_CACHE_BYTES,
            Some(Memory::Bytes(bytes)) => bytes,
            Some(Memory::Percent(_)) => {
                let reason = "must be an amount like 2GiB, not a share".to_owned();
                return Err(ConfigError::Invalid { setting: "cache_size", reason });
            }
        };
        let interval = if data.is_remote() { DEFAULT_CHECKPOINT_INTERVAL_REMOTE } else { DEFAULT_CHECKPOINT_INTERVAL };
        Ok(Self {
            data,
            cache: DiskCache { folder: settings.cache.unwrap_or_else(|| DEFAULT_CACHE.into()), bytes_max: cache_bytes },
            listen: address("listen", settings.listen, "127.0.0.1:7432")?,
            http: address("http", settings.http, "127.0.0.1:7480")?,
            workers,
            memory_bytes: settings.memory.unwrap_or(DEFAULT_MEMORY).bytes(machine_memory_bytes()),
            log: settings.log.unwrap_or_else(|| "info".to_owned()),
            log_format: settings.log_format.unwrap_or_default(),
            trust_network: settings.trust_network.unwrap_or(false),
            checkpoint_interval: settings.checkpoint_interval.unwrap_or(interval),
        })
    }
}

/// An address that can be listened on, IPv4 first: `localhost` is 127.0.0.1.
fn address(setting: &'static str, given: Option<String>, default: &str) -> Result<String, ConfigError> {
    let text = given.unwrap_or_else(|| default.to_owned());
    let invalid = |reason: String| ConfigError::Invalid { setting, reason };
    let found: Vec<SocketAddr> = match text.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return Err(invalid(format!("\"{text}\" is not an address like {default} ({error})"))),
    };
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
    best.map(ToString::to_string).ok_or_else(|| invalid(format!("\"{text}\" has no address")))
}

impl Settings {
    /// What is missing here, taken from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            data: self.data.or(other.data),
            cache: self.cache.or(other.cache),
            cache_size: self.cache_size.or(other.cache_size),
            listen: self.listen.or(other.listen),
            http: self.http.or(other.http),
            workers: self.workers.or(other.workers),
            memory: self.memory.or(other.memory),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            trust_network: self.trust_network.or(other.trust_network),
            checkpoint_interval: self.checkpoint_interval.or(other.checkpoint_interval),
        }
    }

    /// The file that was named, or `freshet.toml` if there is one.
    fn from_file(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_path_buf);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::from_toml(&path.display().to_string(), &text),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::Unreadable { path: path.display().to_string(), reason: error.to_string() }),
        }
    }

    fn from_toml(path: &str, text: &str) -> Result<Self, ConfigError> {
        let malformed = |reason: String| ConfigError::Malformed { path: path.to_owned(), reason };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| malformed(error.to_string()))?;
        let mut settings = Self::default();
        for (key, value) in &table {
            let wrong = |expected: &str| {
                malformed(format!("\"{key}\" must be {expected}, not a value of type {}", value.type_str()))
            };
            let string = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string"));
            match key.as_str() {
                "data" => settings.data = Some(string()?),
                "cache" => settings.cache = Some(string()?.into()),
                "cache_size" => {
                    let size =
                        string()?.parse().map_err(|reason: String| malformed(format!("\"cache_size\": {reason}")))?;
                    settings.cache_size = Some(size);
                }
                "listen" => settings.listen = Some(string()?),
                "http" => settings.http = Some(string()?),
                "workers" => {
                    let workers = value.as_integer().and_then(|workers| usize::try_from(workers).ok());
                    settings.workers = Some(workers.ok_or_else(|| wrong("a number"))?);
                }
                "memory" => {
                    let memory =
                        string()?.parse().map_err(|reason: String| malformed(format!("\"memory\": {reason}")))?;
                    settings.memory = Some(memory);
                }
                "log" => settings.log = Some(string()?),
                "log_format" => {
                    let format = LogFormat::from_str(&string()?, true).map_err(|_| wrong("\"text\" or \"json\""))?;
                    settings.log_format = Some(format);
                }
                "trust_network" => {
                    settings.trust_network = Some(value.as_bool().ok_or_else(|| wrong("true or false"))?);
                }
                "checkpoint_interval" => {
                    let interval = parse_interval(&string()?)
                        .map_err(|reason| malformed(format!("\"checkpoint_interval\": {reason}")))?;
                    settings.checkpoint_interval = Some(interval);
                }
                _ => {
                    return Err(ConfigError::Unknown { path: path.to_owned(), key: key.clone(), near: nearest(key) });
                }
            }
        }
        Ok(settings)
    }
}

/// A time like `1s`, `500ms` or `2 min`.
///
/// # Errors
/// If it is no such time, or shorter than 10 ms.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| format!("\"{text}\" is not a time: {error}"))?;
    if interval < INTERVAL_MIN {
        return Err(format!("\"{text}\" is too short: at least 10ms are needed"));
    }
    Ok(interval)
}

const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The setting that was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    let scored = KEYS.iter().map(|known| (strsim::jaro_winkler(known, &key.replace('-', "_")), *known));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

impl Memory {
    pub fn bytes(self, machine_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => machine_bytes / 100 * percent,
        }
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let memory: Self = Self::parse(text)?;
        match memory {
            Self::Bytes(..MEMORY_BYTES_MIN) => {
                Err(format!("\"{}\" is too little: at least 64MiB are needed", text.trim()))
            }
            memory => Ok(memory),
        }
    }
}

impl Memory {
    /// An amount like `2GiB` or `60%`, however small.
    ///
    /// # Errors
    /// If it is no such amount; says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("\"{text}\" is not an amount of memory like 2GiB, 512MB or 60%");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if unit.trim() == "%" {
            if !(1.0..=100.0).contains(&number) {
                return Err(format!("\"{text}\" is not between 1% and 100%"));
            }
            return Ok(Self::Percent(number as u64));
        }
        let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "b" | "" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "tib" | "t" => 1 << 40,
            _ => return Err(wrong()),
        };
        Ok(Self::Bytes((number * scale as f64) as u64))
    }
}

const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// Taken where the operating system does not say.
const MACHINE_MEMORY_BYTES_UNKNOWN: u64 = 4 << 30;

/// The machine's memory, or the container's if that is less.
fn machine_memory_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let machine = total.map_or(MACHINE_MEMORY_BYTES_UNKNOWN, |kib: u64| kib << 10);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    container.map_or(machine, |limit| limit.min(machine))
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}B"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.toml");
        std::fs::write(&path, "data = '/d'\nworkers = 3\nmemory = '1GiB'\nlog_format = 'json'\n").unwrap();
        let given = Settings { workers: Some(5), ..Settings::default() };
        let config = Config::load(given, Some(&path)).unwrap();
        assert_eq!((config.data.to_string().as_str(), config.workers, config.memory_bytes), ("/d", 5, 1 << 30));
        assert_eq!((config.log_format, config.listen.as_str()), (LogFormat::Json, "127.0.0.1:7432"));
    }

    #[test]
    fn an_unknown_setting_is_told_with_the_nearest() {
        let error = Settings::from_toml("f.toml", "lisen = 'x'").unwrap_err();
        assert_eq!(error.to_string(), "f.toml: unknown setting \"lisen\"; did you mean \"listen\"?");
        assert!(
            Settings::from_toml("f.toml", "zzz = 1")
                .unwrap_err()
                .to_string()
                .contains("there are data, cache, cache_size, listen")
        );
        let error = Settings::from_toml("f.toml", "workers = 'many'").unwrap_err();
        assert_eq!(error.to_string(), "f.toml: \"workers\" must be a number, not a value of type string");
    }

    #[test]
    fn memory_in_all_units() {
        assert_eq!("2GiB".parse(), Ok(Memory::Bytes(2 << 30)));
        assert_eq!("512MB".parse(), Ok(Memory::Bytes(512_000_000)));
        assert_eq!("1.5g".parse(), Ok(Memory::Bytes(3 << 29)));
        assert_eq!("60%".parse::<Memory>().map(|memory| memory.bytes(1000)), Ok(600));
        for wrong in ["", "x", "0%", "101%", "1MiB", "2 parsecs"] {
            assert!(wrong.parse::<Memory>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_place_of_the_data_is_checked_early_and_decides_on_defaults() {
        let load = |data: &str| Config::load(Settings { data: Some(data.to_owned()), ..Settings::default() }, None);
        assert_eq!(load("/d").unwrap().checkpoint_interval, Duration::from_secs(1));
        let remote = load("s3://bucket/prefix").unwrap();
        assert_eq!((remote.checkpoint_interval, remote.cache.bytes_max), (Duration::from_secs(5), 1 << 30));
        let error = load("s4://bucket").unwrap_err().to_string();
        assert!(error.starts_with("data: ") && error.contains("did you mean \"s3://bucket\"?"), "{error}");
        let share = Settings { cache_size: Some(Memory::Percent(5)), ..Settings::default() };
        assert!(Config::load(share, None).unwrap_err().to_string().starts_with("cache_size: must be an amount"));
    }

    #[test]
    fn addresses_are_checked_early() {
        assert_eq!(address("listen", Some("localhost:1".to_owned()), "").as_deref(), Ok("127.0.0.1:1"));
        assert!(address("listen", Some("7432".to_owned()), "127.0.0.1:7432").is_err());
    }
}
