//! The worker's side of the files of its runs: brought before a task begins, sent back when it is over.
//!
//! Three versions of each path count: what the server had when it was asked last (the base), what it has now, and what is
//! here. Bringing takes what the server changed, unless a task that still runs here changed it too; sending tells what
//! is other here than the base. So tasks of one run that run here at the same time see each other's files, as on one
//! machine, and none undoes what another did elsewhere.
//!
//! Bytes that were brought are kept by their digest, for the next run that needs them, up to a limit.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_core::{AttemptId, RunKey};

use super::pipe::Pipe;
use super::scan::Index;
use super::tree::{Root, copy, unfinished};
use crate::clock;
use crate::local::blocking;
use crate::worker::protocol::{Changes, File, Manifest};
use crate::worker::wire::{Wire, WireError};

/// Bytes that are kept at most for later runs.
pub const LARGEST: u64 = 20 << 30;
/// How often something that changes while it is read is tried.
const TRIES: u32 = 10;

/// See the module.
pub struct Depot {
    blobs: PathBuf,
    limit: u64,
    runs: Mutex<HashMap<RunKey, Arc<tokio::sync::Mutex<Turn>>>>,
    /// Counts what is asked and what is begun.
    order: AtomicU64,
}

/// When the last bringing and the last sending began that came to an end: what was asked before is done by it. So many
/// small tasks of one run that begin or end together ask the server once.
#[derive(Default)]
struct Turn {
    brought: u64,
    sent: u64,
}

/// Why files did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// The server cannot be reached now.
    #[error("{0}")]
    Later(String),
    #[error("{0}")]
    Never(String),
    /// A file is another than it was when its digest was made.
    #[error("a file changed while it was on its way")]
    Changed,
    /// The server had bytes, and has them no more.
    #[error("the server lacks bytes that it had")]
    Missing,
}

impl From<WireError> for DepotError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Unreachable(reason) => DepotError::Later(reason),
            refused @ WireError::Refused(..) => DepotError::Never(refused.to_string()),
        }
    }
}

impl From<io::Error> for DepotError {
    fn from(error: io::Error) -> Self {
        DepotError::Never(error.to_string())
    }
}

/// What to do here to have what the server has.
#[derive(Debug, Default, PartialEq)]
struct Steps {
    remove: Vec<String>,
    take: Vec<(String, File)>,
}

fn steps(base: &Manifest, here: &Manifest, there: &Manifest) -> Steps {
    let is_unchanged = |path: &String| here.files.get(path) == base.files.get(path);
    let gone = base.files.keys().filter(|path| !there.files.contains_key(*path));
    let news = there.files.iter().filter(|(path, file)| here.files.get(*path) != Some(file));
    Steps {
        remove: gone.filter(|path| here.files.contains_key(*path) && is_unchanged(path)).cloned().collect(),
        take: news.filter(|(path, _)| is_unchanged(path)).map(|(path, file)| (path.clone(), file.clone())).collect(),
    }
}

fn changes(base: &Manifest, here: &Manifest) -> Changes {
    let put = here.files.iter().filter(|(path, file)| base.files.get(*path) != Some(file));
    Changes {
        put: put.map(|(path, file)| (path.clone(), file.clone())).collect(),
        removed: base.files.keys().filter(|path| !here.files.contains_key(*path)).cloned().collect(),
    }
}

impl Depot {
    /// `blobs` is the directory of what is kept.
    pub fn new(blobs: PathBuf, limit: u64) -> Depot {
        Depot { blobs, limit, runs: Mutex::default(), order: AtomicU64::new(1) }
    }

    fn next(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    fn turn(&self, run: RunKey) -> Arc<tokio::sync::Mutex<Turn>> {
        Arc::clone(self.runs.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_default())
    }

    /// The run is over.
    pub fn leave(&self, run: RunKey) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// Brings the files of the run of an attempt into `dir`, the directory of the run here.
    pub async fn bring(&self, wire: &Wire, dir: &Path, attempt: &AttemptId) -> Result<(), DepotError> {
        let asked = self.next();
        let turn = self.turn(attempt.run);
        let mut turn = turn.lock().await;
        if turn.brought > asked {
            return Ok(());
        }
        for _ in 0..TRIES {
            let begun = self.next();
            let there = wire.manifest(attempt).await?.checked().map_err(DepotError::Never)?;
            let (before, mut index, here, _) = scan(dir).await?;
            let base = Manifest { files: std::mem::take(&mut index.base) };
            let steps = steps(&base, &here, &there);
            let takes = !steps.take.is_empty();
            match self.take(wire, dir, attempt, steps).await {
                Ok(()) if takes => self.trim().await,
                Ok(()) => {}
                // It changed since the manifest was made: on the server somebody else works on it, too.
                Err(DepotError::Changed | DepotError::Missing) => continue,
                Err(error) => return Err(error),
            }
            index.base = there.files;
            let run = dir.to_owned();
            blocking(move || index.write(&run, &before)).await?;
            turn.brought = begun;
            return Ok(());
        }
        Err(DepotError::Never("the files of the run change at the server faster than they can be brought".to_owned()))
    }

    async fn take(&self, wire: &Wire, dir: &Path, attempt: &AttemptId, steps: Steps) -> Result<(), DepotError> {
        let run = dir.to_owned();
        let remove = steps.remove;
        blocking(move || {
            let root = Root::open(&run)?;
            remove.iter().try_for_each(|path| root.remove(path))
        })
        .await?;
        for (path, file) in steps.take {
            let bytes = match &file {
                File::File { sha256, .. } => Some(self.blob(wire, attempt, sha256).await?),
                File::Link { .. } | File::Dir => None,
            };
            let run = dir.to_owned();
            blocking(move || {
                let root = Root::open(&run)?;
                match (&file, bytes) {
                    (File::File { sha256, mode, .. }, Some(bytes)) => {
                        root.write(&path, &mut std::fs::File::open(bytes)?, sha256, *mode)
                    }
                    (File::Link { to }, _) => root.link(&path, to),
                    (File::Dir, _) => root.make_dir(&path),
                    (File::File { .. }, None) => Err(io::ErrorKind::NotFound.into()),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Where the bytes with this digest lie, once they do.
    async fn blob(&self, wire: &Wire, attempt: &AttemptId, sha256: &str) -> Result<PathBuf, DepotError> {
        let file = self.blobs.join(&sha256[..2]).join(sha256);
        let kept = file.clone();
        let is_here = blocking(move || match std::fs::File::open(&kept) {
            Ok(open) => open.set_modified(clock::now().into()).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        });
        if is_here.await? {
            return Ok(file);
        }
        let response = match wire.blob(attempt, sha256).await {
            Err(WireError::Refused(404, _)) => return Err(DepotError::Changed),
            other => other?,
        };
        let (target, wanted) = (file.clone(), sha256.to_owned());
        let kept = Pipe::through(response.bytes_stream(), move |bytes| -> io::Result<bool> {
            let dir = target.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(dir)?;
            let temporary = dir.join(unfinished());
            let written = std::fs::File::create_new(&temporary).and_then(|mut open| copy(bytes, &mut open));
            let is_same = written.as_ref().is_ok_and(|digest| *digest == wanted);
            if is_same {
                std::fs::rename(&temporary, &target)?;
            } else {
                let _ = std::fs::remove_file(&temporary);
            }
            written.map(|_| is_same)
        });
        match kept.await? {
            Ok(true) => Ok(file),
            // It was written to while it was sent, or bytes were lost: its digest says so.
            Ok(false) => Err(DepotError::Changed),
            Err(error) => Err(DepotError::Later(format!("the bytes of a file did not come: {error}"))),
        }
    }

    /// Tells the server what is other here than it was; gives what does not travel, for people.
    pub async fn send(&self, wire: &Wire, dir: &Path, attempt: &AttemptId) -> Result<Vec<String>, DepotError> {
        let asked = self.next();
        let turn = self.turn(attempt.run);
        let mut turn = turn.lock().await;
        if turn.sent > asked {
            return Ok(Vec::new());
        }
        let mut sent: BTreeSet<String> = BTreeSet::new();
        let mut trusts_base = true;
        for _ in 0..TRIES {
            let begun = self.next();
            let (before, mut index, here, left_out) = scan(dir).await?;
            let base = Manifest { files: index.base.clone() };
            let changes = changes(&base, &here);
            if changes.put.is_empty() && changes.removed.is_empty() {
                turn.sent = begun;
                return Ok(left_out);
            }
            if trusts_base {
                sent.extend(base.files.values().filter_map(digest));
            }
            match self.send_changes(wire, dir, attempt, &changes, &mut sent).await {
                Ok(()) => {}
                Err(DepotError::Changed) => continue,
                Err(DepotError::Missing) => {
                    (trusts_base, sent) = (false, BTreeSet::new());
                    continue;
                }
                Err(error) => return Err(error),
            }
            index.base = here.files;
            let run = dir.to_owned();
            blocking(move || index.write(&run, &before)).await?;
            turn.sent = begun;
            return Ok(left_out);
        }
        Err(DepotError::Never("its files change faster than they can be read".to_owned()))
    }

    async fn send_changes(
        &self,
        wire: &Wire,
        dir: &Path,
        attempt: &AttemptId,
        changes: &Changes,
        sent: &mut BTreeSet<String>,
    ) -> Result<(), DepotError> {
        for (path, file) in &changes.put {
            let File::File { sha256, size, .. } = file else { continue };
            if sent.contains(sha256) {
                continue;
            }
            let (run, path) = (dir.to_owned(), path.clone());
            let opened = blocking(move || Root::open(&run)?.read(&path)).await;
            let open = opened.map_err(|_| DepotError::Changed)?;
            match wire.put_blob(attempt, sha256, open, *size).await {
                Ok(()) => drop(sent.insert(sha256.clone())),
                Err(WireError::Refused(422, _)) => return Err(DepotError::Changed),
                Err(error) => return Err(error.into()),
            }
        }
        match wire.changes(attempt, changes).await {
            Ok(()) => Ok(()),
            Err(WireError::Refused(424, _)) => Err(DepotError::Missing),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what was not used for the longest time, until the rest is within the limit.
    async fn trim(&self) {
        let (blobs, limit) = (self.blobs.clone(), self.limit);
        let trimmed = blocking(move || {
            let mut all = Vec::new();
            for shelf in std::fs::read_dir(&blobs)? {
                for entry in std::fs::read_dir(shelf?.path())? {
                    let entry = entry?;
                    let meta = entry.metadata()?;
                    all.push((meta.modified()?, meta.len(), entry.path()));
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
        });
        match trimmed.await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("files that were kept for later cannot be removed: {error}");
            }
            _ => {}
        }
    }
}

fn digest(file: &File) -> Option<String> {
    match file {
        File::File { sha256, .. } => Some(sha256.clone()),
        File::Link { .. } | File::Dir => None,
    }
}

/// The index as it was and as it is, and what lies there.
async fn scan(dir: &Path) -> Result<(Index, Index, Manifest, Vec<String>), DepotError> {
    let dir = dir.to_owned();
    let scanned = blocking(move || {
        let before = Index::read(&dir)?;
        let mut index = before.clone();
        let found = index.scan(&dir, clock::now())?;
        Ok((before, index, found.manifest, found.left_out))
    });
    Ok(scanned.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(entries: &[(&str, &str)]) -> Manifest {
        let file = |to: &str| File::Link { to: to.to_owned() };
        Manifest { files: entries.iter().map(|(path, to)| ((*path).to_owned(), file(to))).collect() }
    }

    #[test]
    fn what_a_task_here_changed_is_kept_and_the_rest_follows_the_server() {
        let base =
            manifest(&[("same", "1"), ("theirs", "1"), ("ours", "1"), ("both", "1"), ("gone", "1"), ("kept", "1")]);
        let here = manifest(&[
            ("same", "1"),
            ("theirs", "1"),
            ("ours", "2"),
            ("both", "2"),
            ("gone", "1"),
            ("kept", "2"),
            ("new", "2"),
        ]);
        let there = manifest(&[("same", "1"), ("theirs", "3"), ("ours", "1"), ("both", "3"), ("fresh", "3")]);
        let found = steps(&base, &here, &there);
        assert_eq!(found.remove, ["gone"]);
        let taken: Vec<&str> = found.take.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(taken, ["fresh", "theirs"]);
        // What is told is what was done here, whoever is asked.
        let told = changes(&there, &here);
        assert!(told.put.keys().eq(["both", "gone", "kept", "new", "ours", "theirs"]) && told.removed == ["fresh"]);
        let told = changes(&base, &here);
        assert!(told.put.keys().eq(["both", "kept", "new", "ours"]) && told.removed.is_empty());
    }
}
