//! What a process has used, from Linux' `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

/// Linux counts CPU time in ticks of 1/100 s on every platform that Freshet runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process to look at: `None` is this one.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub Option<u32>);

impl Process {
    /// CPU time of all its threads so far, in user and kernel mode.
    pub fn cpu_time(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The second field is the program's name in parentheses and may have spaces in it.
        let (_, fields) = stat.rsplit_once(") ").context("stat names the program")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("stat has CPU times")?.parse()?) };
        Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND))
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory since the start, or since [`reset_peak`].
    pub fn peak_resident_bytes(self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(self, name: &str) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find(|line| line.starts_with(name)).context("status tells memory")?;
        let kilobytes: u64 = line.split_whitespace().nth(1).context("with a number")?.parse()?;
        Ok(kilobytes * 1024)
    }

    fn read(self, file: &str) -> Result<String> {
        let process = self.0.map_or("self".to_owned(), |id| id.to_string());
        let path = format!("/proc/{process}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

/// Lets the peak of this process begin anew.
pub fn reset_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of resident memory")
}

/// Bytes as people read them.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
