//! Files that are there with all their content, or not at all.
//!
//! Invariant: whoever writes the same file at the same time, in this process or another, has a temporary file of
//! its own beside it; the last to finish wins.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes `content` to `file`, synced.
pub(crate) fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    fill(file, |open| open.write_all(content))
}

/// Lets `fill` write what becomes `file`, which is synced; when it fails, nothing is left.
pub(crate) fn fill<T>(file: &Path, fill: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let dir = file.parent().unwrap_or(Path::new("."));
    // The mode of any new file: what the mask of the process leaves of it.
    let mode = Permissions::from_mode(0o666);
    let mut temporary = tempfile::Builder::new().prefix(".pitcrew-").permissions(mode).tempfile_in(dir)?;
    let result = fill(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_writers_of_one_file_leave_one_whole_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kept.json");
        std::thread::scope(|scope| {
            for text in ["one", "three", "fifteen"] {
                let file = &file;
                scope.spawn(move || (0..50).for_each(|_| write(file, text.as_bytes()).unwrap()));
            }
        });
        assert!(["one", "three", "fifteen"].contains(&std::fs::read_to_string(&file).unwrap().as_str()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_half_way_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kept.json");
        write(&file, b"old").unwrap();
        let failed = fill(&file, |open| open.write_all(b"ne").and(Err::<(), _>(io::Error::other("no space"))));
        assert_eq!(failed.unwrap_err().to_string(), "no space");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
