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

/// What a run has.
pub fn manifest(run: &Path, now: Timestamp) -> Result<Manifest, KeptError> {
    let before = Index::read(run)?;
    let mut index = before.clone();
    let found = index.scan(run, now)?;
    index.write(run, &before)?;
    Ok(found.manifest)
}

/// The bytes of a file that the last manifest named, and how many they are. Whoever gets them compares the digest.
pub fn blob(run: &Path, sha256: &str) -> Result<(std::fs::File, u64), KeptError> {
    check_digest(sha256).map_err(KeptError::Refused)?;
    let missing = || KeptError::Missing(sha256.to_owned());
    let index = Index::read(run)?;
    let path = index.with_digest(sha256).ok_or_else(missing)?;
    let file = Root::open(run)?.read(path).map_err(|_| missing())?;
    let size = file.metadata()?.len();
    Ok((file, size))
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
    let root = Root::open(run)?;
    let staged = |sha256: &str| run.join("incoming").join(sha256);
    let put: Vec<(&String, &File)> =
        changes.put.iter().filter(|(path, file)| here.files.get(*path) != Some(file)).collect();
    for (_, file) in &put {
        if let File::File { sha256, .. } = file
            && !staged(sha256).exists()
            && index.with_digest(sha256).is_none()
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
                && let Some(path) = index.with_digest(sha256)
            {
                stage(run, sha256, &mut root.read(path)?)?;
            }
            used.push(staged);
        }
    }
    for path in &changes.removed {
        if !changes.put.contains_key(path) {
            root.remove(path)?;
        }
    }
    for (path, file) in put {
        match file {
            File::File { sha256, mode, .. } => {
                let mut bytes = std::fs::File::open(staged(sha256))?;
                root.write(path, &mut bytes, sha256, *mode)?;
            }
            File::Link { to } => root.link(path, to)?,
            File::Dir => root.make_dir(path)?,
        }
    }
    index.scan(run, now)?;
    index.write(run, &Index::default())?;
    for staged in used {
        let _ = std::fs::remove_file(staged);
    }
    Ok(())
}
