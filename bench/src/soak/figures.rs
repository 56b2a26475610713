//! Figures of a long run, and what they come to: a straight line through each, by least squares.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

/// What was seen at one time.
#[derive(Debug, Clone)]
pub struct Sample {
    pub second: f64,
    pub events: u64,
    /// How old the last event in the view was.
    pub behind_ms: u64,
    pub resident_bytes: u64,
    pub rows: u64,
    pub updates: u64,
    pub files: Files,
}

/// Files of the data folder, by what they are of: bytes and number.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, (u64, u64)>);

impl Files {
    /// Looks at all files below a folder. The first folder below it says what they are, and in the store the second.
    pub fn below(folder: &Path) -> Result<Self> {
        let mut files = Self::default();
        for entry in std::fs::read_dir(folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "store" {
                for part in std::fs::read_dir(entry.path())?.flatten() {
                    files.add(&part.file_name().to_string_lossy(), &part);
                }
            } else {
                files.add(&name, &entry);
            }
        }
        Ok(files)
    }

    fn add(&mut self, kind: &str, entry: &std::fs::DirEntry) {
        // Files come and go meanwhile.
        let Ok(metadata) = entry.metadata() else { return };
        if metadata.is_dir() {
            for entry in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                self.add(kind, &entry);
            }
        } else {
            let (bytes, count) = self.0.entry(kind.to_owned()).or_default();
            *bytes += metadata.len();
            *count += 1;
        }
    }

    pub fn bytes(&self) -> u64 {
        self.0.values().map(|(bytes, _)| bytes).sum()
    }

    pub fn count(&self) -> u64 {
        self.0.values().map(|(_, count)| count).sum()
    }

    /// The number of files of each kind.
    pub fn kinds(&self) -> String {
        let kinds: Vec<String> = self.0.iter().map(|(kind, (_, count))| format!("{kind} {count}")).collect();
        kinds.join(", ")
    }
}

/// How much a figure grows in a unit of time: the slope of the line that fits best; 0 for less than two points.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    if points.len() < 2 || spread == 0.0 {
        return 0.0;
    }
    points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x))).collect();
        assert!((slope(&line) - 3.0).abs() < 1e-9);
        assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 1.0)])).abs() < 1e-9);
        assert_eq!(slope(&line[..1]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }

    #[test]
    fn files_are_counted_by_kind() {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in [("store/wal/1", 3), ("store/wal/2", 4), ("warm/public.t/1.parquet", 5), ("LOCK", 1)] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        }
        let files = Files::below(folder.path()).unwrap();
        assert_eq!((files.bytes(), files.count()), (13, 4));
        assert_eq!(files.kinds(), "LOCK 1, wal 2, warm 1");
    }
}
