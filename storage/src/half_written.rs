//! Files that a process left which ended while it wrote them. On a local disk the object store writes to `<name>#<n>` and
//! renames; it never lists such a file, so they are looked for beside it.

use std::io;
use std::path::{Path, PathBuf};

/// Deletes what is half-written below `folder`, of which there may be nothing. Nobody writes there meanwhile.
///
/// # Errors
/// If a folder cannot be read, or a file not be deleted.
pub(crate) fn delete(folder: PathBuf) -> io::Result<()> {
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if is_half_written(&path) {
                tracing::info!(path = %path.display(), "deleting a file that was never written to its end");
                std::fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// The object store refuses such names for files of its own.
fn is_half_written(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    let ending = name.as_deref().and_then(|name| Some(name.rsplit_once('#')?.1));
    ending.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_half_written_goes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cold/public.t/ts_day=2026-11-21");
        std::fs::create_dir_all(&folder).unwrap();
        let names = ["1.parquet", "1.parquet#1", "2.parquet#12", "v1.metadata.json#3", "a#b.parquet", "notes#"];
        for name in names {
            std::fs::write(folder.join(name), name).unwrap();
        }
        delete(dir.path().join("cold")).unwrap();
        delete(dir.path().join("warm")).unwrap();
        let left = names.map(|name| folder.join(name).exists());
        assert_eq!(left, [true, false, false, false, true, true]);
    }
}
