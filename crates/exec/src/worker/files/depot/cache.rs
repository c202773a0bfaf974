//! Bytes that came, by their digest, for the next run that needs them.
//!
//! Invariant: what lies here is believed only where its digest is compared again, which is wherever it is used: so a file
//! that a loss of power tore does no harm, and is brought anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::Stream;

use crate::clock;
use crate::local::blocking;
use crate::worker::files::UNFINISHED;
use crate::worker::files::pipe::Pipe;
use crate::worker::files::tree::{copy, unfinished};

/// What is not whole after this long will never be.
const ABANDONED: Duration = Duration::from_secs(3600);

/// See the module.
pub struct Cache {
    dir: PathBuf,
    /// In bytes.
    limit: u64,
    users: AtomicUsize,
}

/// While one is there, nothing is removed.
pub struct Using<'a>(&'a Cache);

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What became of bytes that should come.
pub enum Came {
    Whole,
    /// Others came.
    Other,
    /// They did not come to their end.
    Broken(String),
    /// They cannot be kept here.
    Unkept(io::Error),
}

impl Cache {
    pub fn new(dir: PathBuf, limit: u64) -> Cache {
        Cache { dir, limit, users: AtomicUsize::new(0) }
    }

    pub fn using(&self) -> Using<'_> {
        self.users.fetch_add(1, Ordering::AcqRel);
        Using(self)
    }

    pub fn path(&self, sha256: &str) -> PathBuf {
        path(&self.dir, sha256)
    }

    /// Those that are not here; of the others it is noted that they were used.
    pub async fn lacking(&self, digests: Vec<String>) -> io::Result<Vec<String>> {
        if digests.is_empty() {
            return Ok(digests);
        }
        let dir = self.dir.clone();
        let look = move || {
            let mut lacking = Vec::new();
            for sha256 in digests {
                match std::fs::File::open(path(&dir, &sha256)) {
                    Ok(open) => open.set_modified(clock::now().into())?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => lacking.push(sha256),
                    Err(error) => return Err(named(&path(&dir, &sha256), error)),
                }
            }
            Ok(lacking)
        };
        blocking(look).await
    }

    /// Takes bytes as they come.
    pub async fn keep<E: std::fmt::Display>(
        &self,
        sha256: &str,
        bytes: impl Stream<Item = Result<bytes::Bytes, E>>,
    ) -> Came {
        let (target, wanted) = (self.path(sha256), sha256.to_owned());
        let kept = Pipe::through(bytes, move |bytes| {
            let dir = target.parent().unwrap_or(Path::new("."));
            let temporary = dir.join(unfinished());
            let written = std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::File::create_new(&temporary))
                .and_then(|mut open| copy(bytes, &mut open))
                .and_then(|digest| match digest == wanted {
                    true => std::fs::rename(&temporary, &target).map(|()| true),
                    false => Ok(false),
                });
            if !matches!(written, Ok(true)) {
                let _ = std::fs::remove_file(&temporary);
            }
            match (written, bytes.is_broken()) {
                (Ok(true), _) => Came::Whole,
                (Ok(false), _) => Came::Other,
                (Err(error), true) => Came::Broken(error.to_string()),
                (Err(error), false) => Came::Unkept(named(&target, error)),
            }
        });
        kept.await.unwrap_or_else(Came::Unkept)
    }

    /// Removes what was not used for the longest time, until the rest is within the limit; `all`: until nothing is left,
    /// since the disk is full.
    pub async fn trim(&self, all: bool) {
        // What somebody is about to use is not there for nothing.
        if !all && self.users.load(Ordering::Acquire) > 0 {
            return;
        }
        let (dir, limit) = (self.dir.clone(), if all { 0 } else { self.limit });
        match blocking(move || trim(&dir, limit)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("files that were kept for later cannot be removed: {error}");
            }
            _ => {}
        }
    }
}

fn path(dir: &Path, sha256: &str) -> PathBuf {
    dir.join(&sha256[..2]).join(sha256)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

fn trim(dir: &Path, limit: u64) -> io::Result<()> {
    let mut all = Vec::new();
    for shelf in std::fs::read_dir(dir)? {
        for entry in std::fs::read_dir(shelf?.path())? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let modified = meta.modified()?;
            // Somebody may write it just now; a crash may have left it, too.
            let is_part = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
            if !is_part || modified + ABANDONED < clock::now().into() {
                all.push((modified, meta.len(), entry.path()));
            }
        }
    }
    all.sort();
    let mut total: u64 = all.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in all {
        if total <= limit {
            break;
        }
        std::fs::remove_file(path)?;
        total -= size;
    }
    Ok(())
}
