//! Finding the file of a program, as a shell would.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The file that `name` means: itself when it has a `/` (relative to `workdir`), else the first executable in `path`.
pub fn find(name: &str, path: &str, workdir: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(workdir.join(name));
    }
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| workdir.join(dir).join(name))
        .find(|file| is_executable(file))
}

/// Is it a file that somebody may execute?
pub fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
