//! The server's side of the files of a run: they lie where tasks of the server's own machine find them, too.
//!
//! ```text
//! runs/RUN/workspace, artifacts, records     the files
//! runs/RUN/files.json                        their digests, as far as they were read
//! runs/RUN/incoming/SHA256                   bytes that came, until a change says what they are
//! ```
//!
//! All calls wait for a disk: not for the threads that answer. Of one run, only one at a time.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::scan::Index;
use super::tree::{Root, copy, unfinished};
use super::{check, check_all, check_digest};
use crate::worker::protocol::{Changes, File, Manifest};

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// What was said cannot be done, ever.
    #[error("{0}")]
    Refused(String),
    /// Bytes that were not brought, or are gone: by their digest.
    #[error("the bytes of `{0}` are not here")]
    Missing(String),
    #[error("cannot keep the files of the run: {0}")]
    Io(#[from] io::Error),
}

/// Why a path cannot be changed: a disk that is full or broken is one day another, what a task forbade is not.
fn stays(path: &str, error: io::Error) -> KeptError {
    use io::ErrorKind::{
        DirectoryNotEmpty, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, PermissionDenied,
    };
    let words = format!("the server cannot change `{path}`: {error}");
    match error.kind() {
        PermissionDenied | NotADirectory | IsADirectory | DirectoryNotEmpty | InvalidFilename | InvalidInput => {
            KeptError::Refused(words)
        }
        kind => KeptError::Io(io::Error::new(kind, words)),
    }
}

/// What a run has.
pub fn manifest(run: &Path, now: Timestamp) -> Result<Manifest, KeptError> {
    let before = Index::read(run)?;
    let mut index = before.clone();
    let found = index.scan(run, now)?;
    index.write(run, &before)?;
    Ok(found.manifest)
}

/// The bytes of a file that the last manifest named, and how many they are. Whoever gets them compares the digest. They are
/// most likely at `path`; to look for them takes as long as the run has files.
pub fn blob(run: &Path, sha256: &str, path: Option<&str>) -> Result<(std::fs::File, u64), KeptError> {
    check_digest(sha256).map_err(KeptError::Refused)?;
    let open = |path: &str| {
        let file = Root::open(run)?.read(path)?;
        let size = file.metadata()?.len();
        io::Result::Ok((file, size))
    };
    if let Some(found) = path.and_then(|path| open(path).ok()) {
        return Ok(found);
    }
    let missing = || KeptError::Missing(sha256.to_owned());
    let index = Index::read(run)?;
    let by_digest = index.by_digest();
    let path = by_digest.get(sha256).ok_or_else(missing)?;
    open(path).map_err(|_| missing())
}

/// The run is over: bytes of which nobody said what they are will not be used.
pub fn clear_incoming(run: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(run.join("incoming")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes that come; they are kept by their digest, which is compared.
pub fn stage(run: &Path, sha256: &str, from: &mut dyn Read) -> Result<(), KeptError> {
    check_digest(sha256).map_err(KeptError::Refused)?;
    let dir = run.join("incoming");
    std::fs::create_dir_all(&dir)?;
    let temporary = dir.join(unfinished());
    let staged = (|| {
        let mut file = std::fs::File::create_new(&temporary)?;
        let digest = copy(from, &mut file)?;
        file.flush()?;
        if digest != sha256 {
            let words =
                format!("what came has the digest {digest}, and was announced as {sha256}: it changed on its way");
            return Err(KeptError::Refused(words));
        }
        Ok(std::fs::rename(&temporary, dir.join(sha256))?)
    })();
    if staged.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    staged
}

/// Changes the files of a run. All that is said is checked before anything is done; done twice, it is done once.
pub fn apply(run: &Path, changes: &Changes, now: Timestamp) -> Result<(), KeptError> {
    check_all(&changes.put).map_err(KeptError::Refused)?;
    for path in &changes.removed {
        check(path).map_err(KeptError::Refused)?;
    }
    let mut index = Index::read(run)?;
    let here = index.scan(run, now)?.manifest;
    let by_digest = index.by_digest();
    let root = Root::open(run)?;
    let staged = |sha256: &str| run.join("incoming").join(sha256);
    let put: Vec<(&String, &File)> =
        changes.put.iter().filter(|(path, file)| here.files.get(*path) != Some(file)).collect();
    for (_, file) in &put {
        if let File::File { sha256, .. } = file
            && !staged(sha256).exists()
            && !by_digest.contains_key(sha256.as_str())
        {
            return Err(KeptError::Missing(sha256.clone()));
        }
    }
    // Before anything takes its place, what has the bytes that go elsewhere is kept.
    let mut used: Vec<PathBuf> = Vec::new();
    for (_, file) in &put {
        if let File::File { sha256, .. } = file {
            let staged = staged(sha256);
            if !staged.exists()
                && let Some(path) = by_digest.get(sha256.as_str())
            {
                stage(run, sha256, &mut root.read(path)?)?;
            }
            used.push(staged);
        }
    }
    for path in &changes.removed {
        if !changes.put.contains_key(path) {
            root.remove(path).map_err(|error| stays(path, error))?;
        }
    }
    for (path, file) in put {
        let placed = match file {
            File::File { sha256, mode, .. } => {
                let kept = staged(sha256);
                let placed = root.write(path, &mut std::fs::File::open(&kept)?, sha256, *mode);
                if placed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
                    // A loss of power tore it: it has to come again.
                    std::fs::remove_file(kept)?;
                    return Err(KeptError::Missing(sha256.clone()));
                }
                placed
            }
            File::Link { to } => root.link(path, to),
            File::Dir => root.make_dir(path),
        };
        placed.map_err(|error| stays(path, error))?;
    }
    index.scan(run, now)?;
    index.write(run, &Index::default())?;
    for staged in used {
        let _ = std::fs::remove_file(staged);
    }
    Ok(())
}
