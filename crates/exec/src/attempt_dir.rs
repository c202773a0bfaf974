//! The directory of an attempt: which files it has, and what they say about the attempt.
//!
//! | file | is there |
//! |---|---|
//! | `log` | from the moment an attempt began, for ever; made exclusively, so it is also the mark that it began |
//! | `step-0`, `step-1`, … | while a script needs it, until cleanup |
//! | `output`, `output.NAME` | what `$PITCREW_OUTPUT` names, when a step wrote it, until cleanup |
//! | `exit.json` | once the attempt is over, for ever; it appears whole or not at all |
//!
//! Invariant: an attempt with `log` and without `exit.json` runs, or was lost.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pitcrew_core::state::Exit;

use crate::backend::{Ended, Observation};

/// Where its log is.
pub fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Where its end is.
pub fn exit(dir: &Path) -> PathBuf {
    dir.join("exit.json")
}

/// What `$PITCREW_OUTPUT` names.
pub fn output(dir: &Path) -> PathBuf {
    dir.join("output")
}

/// The script of a step.
pub fn script(dir: &Path, step: u32) -> PathBuf {
    dir.join(format!("step-{step}"))
}

/// Did the attempt begin, whatever became of it?
pub fn began(dir: &Path) -> bool {
    log(dir).exists()
}

/// Records the end, whole or not at all. Not synced to the disk: a machine that loses power loses the attempt too, and
/// an empty record reads as none.
pub fn record_end(dir: &Path, ended: &Ended) -> io::Result<()> {
    let temporary = dir.join("exit.json.new");
    let bytes = serde_json::to_vec(ended)?;
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, exit(dir)));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// How the attempt ended, if that is recorded.
pub fn recorded_end(dir: &Path) -> io::Result<Option<Ended>> {
    match std::fs::read(exit(dir)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A recorded end, as it is observed.
pub fn observed(ended: Ended) -> Observation {
    match ended.exit {
        Exit::Lost { reason } => Observation::Lost { reason },
        _ => Observation::Ended(ended),
    }
}

/// Removes a directory with all that is in it, also where its owner may not look: a container may have closed its own.
fn remove_tree(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        other => return other,
    }
    open_all(dir)?;
    std::fs::remove_dir_all(dir)
}

/// Gives the owner all rights to it, and to every directory below.
fn open_all(dir: &Path) -> io::Result<()> {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes everything but the log and the end; of an attempt that is not over, nothing.
pub fn clean(dir: &Path) -> io::Result<()> {
    if !exit(dir).exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if matches!(entry.file_name().to_str(), Some("log" | "exit.json")) {
            continue;
        }
        let removed =
            if entry.file_type()?.is_dir() { remove_tree(&entry.path()) } else { std::fs::remove_file(entry.path()) };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
