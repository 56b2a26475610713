//! The rules of style that can be checked by looking at the text of a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Lines that no source file may exceed.
const FILE_LINES_MAX: usize = 1_000;
/// `server/src/main.rs` starts the program and knows nothing.
const MAIN_LINES_MAX: usize = 80;
/// Names that say nothing about what is in a file.
const EMPTY_NAMES: &[&str] = &["common", "helpers", "manager", "misc", "util", "utils", "v2"];

/// A Rust file of the workspace.
#[derive(Debug)]
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
}

/// Checks every Rust file.
pub fn check(root: &Path) -> Result<()> {
    let wrong: Vec<String> = sources(root)?.iter().flat_map(|source| faults(&source.path, &source.text)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{} fault(s) of style:\n  {}", wrong.len(), wrong.join("\n  "))
}

/// All Rust files in the folders of the workspace's crates.
pub fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let folder = entry?.path();
        if folder.join("Cargo.toml").is_file() {
            walk(&folder, &mut files)?;
        }
    }
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let path = file.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            Ok(Source { path, text })
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn faults(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("{path} has {lines} lines, more than {FILE_LINES_MAX}"));
    }
    if path == "server/src/main.rs" && lines >= MAIN_LINES_MAX {
        wrong.push(format!("{path} has {lines} lines, not fewer than {MAIN_LINES_MAX}"));
    }
    if !text.starts_with("//!") {
        wrong.push(format!("{path} does not open with `//!`, saying what it is"));
    }
    let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if path.split('/').any(|part| EMPTY_NAMES.contains(&part)) || EMPTY_NAMES.contains(&name) {
        wrong.push(format!("{path}: its name does not say what it is"));
    }
    if !path.starts_with("xtask/") {
        wrong.extend(faulty_lines(path, text));
    }
    wrong
}

fn faulty_lines(path: &str, text: &str) -> Vec<String> {
    let is_test = path.starts_with("sql-tests/") || path.contains("/tests/");
    let faults_of = |line: &str| {
        let code = line.trim_start();
        if code.starts_with("//") {
            None
        } else if code.contains("todo!(") {
            Some("todo! has no place in finished code")
        } else if code.starts_with("#[ignore") {
            Some("a test that is ignored tests nothing")
        } else if is_test && code.contains("sleep(") && !code.contains("fn sleep(") {
            Some("tests wait on an epoch, a frontier or a notification, not on a clock")
        } else {
            None
        }
    };
    text.lines()
        .enumerate()
        .filter_map(|(number, line)| Some(format!("{path}:{}: {}", number + 1, faults_of(line)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_has_no_fault() {
        assert_eq!(faults("storage/src/segment.rs", "//! Segments.\n\nfn f() {}\n"), [""; 0]);
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let long = format!("//! Long.\n{}", "\n".repeat(FILE_LINES_MAX));
        for (path, text) in [
            ("storage/src/segment.rs", long.as_str()),
            ("storage/src/segment.rs", "use std::fmt;\n"),
            ("storage/src/utils.rs", "//! Things.\n"),
            ("storage/src/helpers/mod.rs", "//! Things.\n"),
            ("storage/src/segment.rs", "//! S.\nfn f() { todo!() }\n"),
            ("storage/src/segment.rs", "//! S.\n#[ignore]\n"),
            ("sql-tests/tests/all.rs", "//! S.\ntokio::time::sleep(second).await;\n"),
            ("server/src/main.rs", &format!("//! M.\n{}", "\n".repeat(MAIN_LINES_MAX - 1))),
        ] {
            assert_eq!(faults(path, text).len(), 1, "{path}: {}", text.len());
        }
    }
}
