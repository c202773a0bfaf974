//! The worker's side of the files of its runs: brought before a task begins, sent back when it is over.
//!
//! What counts of each path is in [`merge`]. So tasks of one run that run here at the same time see each other's files, as
//! on one machine, and none undoes what another did elsewhere.
//!
//! Bytes go before anything is changed, on either side, and while they do nobody is kept from anything but doing the same
//! for that run; the tree itself is held for as long as it takes to look at it and to change it.
//!
//! ```text
//! runs/RUN/workspace, artifacts, records     the files
//! runs/RUN/files.json                        the memory of `merge`, and their digests
//! runs/RUN/lost                              an attempt here was lost, and the memory does not say so yet
//! blobs/                                     bytes that came, by their digest
//! ```

mod cache;
mod merge;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use pitcrew_core::{AttemptId, RunKey};

use super::pipe::{STILL, lively};
use super::scan::{Found, Index};
use super::tree::{Root, unfinished};
use crate::clock;
use crate::local::blocking;
use crate::worker::protocol::{Changes, File};
use crate::worker::wire::{Wire, WireError};
use cache::{Cache, Came};
pub use merge::Memory;
use merge::Steps;

/// Bytes that are kept at most for later runs.
pub const LARGEST: u64 = 20 << 30;
/// How often something that changes while it is read is tried.
const TRIES: u32 = 20;
/// Files that are on their way at the same time.
const AT_ONCE: usize = 6;
const LOST: &str = "lost";
/// How the directory of a run is named while it is removed.
const GONE: &str = ".gone-";

/// See the module.
pub struct Depot {
    cache: Cache,
    runs: Mutex<HashMap<RunKey, Arc<Run>>>,
    /// Counts what is asked and what is begun.
    order: AtomicU64,
}

/// When the last bringing and the last sending began that came to an end: what was asked before is done by it. So many
/// small tasks of one run that begin or end together ask the server once.
#[derive(Default)]
struct Run {
    brought: tokio::sync::Mutex<u64>,
    sent: tokio::sync::Mutex<u64>,
    /// The files here and what is remembered of them.
    tree: tokio::sync::Mutex<()>,
    /// How often the server was told of changes.
    told: AtomicU64,
    /// Whether the directory is being removed.
    leaving: tokio::sync::watch::Sender<u32>,
    /// Attempts that may have made something here that the server does not have.
    live: Mutex<BTreeSet<AttemptId>>,
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
            refused @ (WireError::Refused(..) | WireError::ShutOut(..)) => DepotError::Never(refused.to_string()),
        }
    }
}

impl From<io::Error> for DepotError {
    fn from(error: io::Error) -> Self {
        DepotError::Never(error.to_string())
    }
}

impl Run {
    fn live(&self) -> std::sync::MutexGuard<'_, BTreeSet<AttemptId>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Depot {
    /// `blobs` is the directory of what is kept.
    pub fn new(blobs: PathBuf, limit: u64) -> Depot {
        Depot { cache: Cache::new(blobs, limit), runs: Mutex::default(), order: AtomicU64::new(1) }
    }

    fn next(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    fn run(&self, run: RunKey) -> Arc<Run> {
        Arc::clone(self.runs.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_default())
    }

    /// From now on this attempt may change files, until they were sent or it is lost.
    pub fn begun(&self, attempt: &AttemptId) {
        self.run(attempt.run).live().insert(attempt.clone());
    }

    /// Nothing that this attempt changed will be sent: it was lost, or the server does not want it. `dir` is the directory
    /// of its run. Nothing, if its files were sent.
    pub fn lost(&self, dir: &Path, attempt: &AttemptId) {
        if !self.run(attempt.run).live().remove(attempt) {
            return;
        }
        match std::fs::write(dir.join(LOST), "") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot write `{}`: {error}", dir.join(LOST).display());
            }
            _ => {}
        }
    }

    /// Notes what is here and not at the server, if nobody works with the files of the run just now; who does notes it
    /// later. The sooner, the less is in doubt that others make here afterwards.
    pub async fn note_loss(&self, dir: &Path, run: RunKey) {
        let run = self.run(run);
        if run.live().is_empty() || !dir.join(LOST).exists() {
            return;
        }
        let Ok(_tree) = run.tree.try_lock() else { return };
        let noted = async { Here::look(dir).await?.keep().await };
        if let Err(error) = noted.await {
            tracing::warn!("cannot look at `{}`: {error}", dir.display());
        }
    }

    /// The run is over: its directory goes, whole and at once, and what comes for the run afterwards waits until it is gone.
    pub fn leave(self: &Arc<Self>, key: RunKey, dir: PathBuf) -> impl Future<Output = ()> + Send + use<> {
        let (depot, run) = (Arc::clone(self), self.run(key));
        run.leaving.send_modify(|count| *count += 1);
        async move {
            let brought = run.brought.lock().await;
            let sent = run.sent.lock().await;
            let tree = run.tree.lock().await;
            // Nobody finds half of it, with a memory that says that the other half was there.
            let gone = dir.with_file_name(format!("{GONE}{key}{}", unfinished()));
            let (from, to) = (dir.clone(), gone.clone());
            let moved = blocking(move || std::fs::rename(from, to)).await;
            run.leaving.send_modify(|count| *count -= 1);
            drop((brought, sent, tree));
            {
                let mut runs = depot.runs.lock().unwrap_or_else(PoisonError::into_inner);
                // The map and this: nobody else has it, and nobody gets it just now.
                if Arc::strong_count(&run) == 2 {
                    runs.remove(&key);
                }
            }
            let removed = match moved {
                Ok(()) => blocking(move || std::fs::remove_dir_all(gone)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("cannot remove `{}`: {error}", dir.display());
            }
        }
    }

    /// Removes what a worker that was killed left of runs that were over. `runs` is where their directories lie.
    pub async fn clear(runs: &Path) -> io::Result<()> {
        let runs = runs.to_owned();
        blocking(move || {
            let entries = match std::fs::read_dir(&runs) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
                    std::fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Brings the files of the run of an attempt into `dir`, the directory of the run here.
    pub async fn bring(&self, wire: &Wire, dir: &Path, attempt: &AttemptId) -> Result<(), DepotError> {
        let asked = self.next();
        let run = self.run(attempt.run);
        // It fails only without a sender, and `run` has that.
        let _ = run.leaving.subscribe().wait_for(|count| *count == 0).await;
        let mut brought = run.brought.lock().await;
        if *brought > asked {
            return Ok(());
        }
        let using = self.cache.using();
        let mut has_fetched = false;
        for _ in 0..TRIES {
            let begun = self.next();
            match self.pass(wire, dir, attempt, &run).await {
                Ok(lacking) if lacking.is_empty() => {
                    *brought = begun;
                    drop(using);
                    if has_fetched {
                        self.cache.trim(false).await;
                    }
                    return Ok(());
                }
                Ok(lacking) => {
                    has_fetched = true;
                    let each = lacking.into_iter().map(|(path, sha256)| self.fetch(wire, attempt, path, sha256));
                    match futures::stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<()>().await {
                        // It changed since the manifest was made: on the server somebody else works on it, too.
                        Ok(()) | Err(DepotError::Changed) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(DepotError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(DepotError::Never("the files of the run change at the server faster than they can be brought".to_owned()))
    }

    /// Does what is to be done, if the bytes are here; else gives the digests of those that are not, and a path of each.
    async fn pass(
        &self,
        wire: &Wire,
        dir: &Path,
        attempt: &AttemptId,
        run: &Run,
    ) -> Result<Vec<(String, String)>, DepotError> {
        let told = run.told.load(Ordering::Acquire);
        let mut there = wire.manifest(attempt).await?;
        let _tree = run.tree.lock().await;
        if run.told.load(Ordering::Acquire) != told {
            // It may be older than what was sent from here since, and nobody sends now.
            there = wire.manifest(attempt).await?;
        }
        let there = there.checked().map_err(DepotError::Never)?;
        let mut here = Here::look(dir).await?;
        // After the look: whatever it saw was made by nobody who lives.
        let is_alone = run.live().is_empty();
        let steps = here.index.memory.steps(&here.found, &there, is_alone);
        let wanted: BTreeMap<&str, &str> =
            steps.take.iter().filter_map(|(path, file)| Some((file.digest()?, path.as_str()))).collect();
        let lacking = self.cache.lacking(wanted.keys().map(|sha256| (*sha256).to_owned()).collect()).await?;
        if !lacking.is_empty() {
            let path = |sha256: &str| wanted.get(sha256).copied().unwrap_or_default().to_owned();
            return Ok(lacking.into_iter().map(|sha256| (path(&sha256), sha256)).collect());
        }
        if steps != Steps::default() {
            here.index.memory.begin(&steps);
            here = here.keep().await?;
            self.take(dir, steps).await?;
        }
        here.index.memory.brought(there, is_alone);
        here.keep().await?;
        Ok(Vec::new())
    }

    async fn take(&self, dir: &Path, steps: Steps) -> Result<(), DepotError> {
        let dir = dir.to_owned();
        let take: Vec<(String, File, Option<PathBuf>)> = steps
            .take
            .into_iter()
            .map(|(path, file)| {
                let bytes = file.digest().map(|sha256| self.cache.path(sha256));
                (path, file, bytes)
            })
            .collect();
        let done = blocking(move || {
            let root = Root::open(&dir)?;
            steps.remove.iter().try_for_each(|path| root.remove(path))?;
            for (path, file, bytes) in take {
                let placed = match (&file, &bytes) {
                    (File::File { sha256, mode, .. }, Some(bytes)) => {
                        std::fs::File::open(bytes).and_then(|mut from| root.write(&path, &mut from, sha256, *mode))
                    }
                    (File::Link { to }, _) => root.link(&path, to),
                    (File::Dir, _) => root.make_dir(&path),
                    (File::File { .. }, None) => Err(io::ErrorKind::NotFound.into()),
                };
                match (placed, bytes) {
                    // What is kept is not what it was, or somebody made room: it comes anew.
                    (Err(error), Some(bytes)) if error.kind() == io::ErrorKind::InvalidData || !bytes.exists() => {
                        tracing::warn!("`{}` is damaged or gone, and is brought again", bytes.display());
                        let _ = std::fs::remove_file(bytes);
                        return Ok(Err(DepotError::Changed));
                    }
                    (Err(error), _) => {
                        let text = format!("cannot write `{path}` in `{}`: {error}", dir.display());
                        return Err(io::Error::new(error.kind(), text));
                    }
                    (Ok(()), _) => {}
                }
            }
            Ok(Ok(()))
        });
        match done.await {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.cache.trim(true).await;
                Err(error.into())
            }
            other => other?,
        }
    }

    /// Brings bytes into the cache.
    async fn fetch(&self, wire: &Wire, attempt: &AttemptId, path: String, sha256: String) -> Result<(), DepotError> {
        let mut may_make_room = true;
        loop {
            let response = match wire.blob(attempt, &sha256, &path).await {
                Err(WireError::Refused(404, _)) => return Err(DepotError::Changed),
                other => other?,
            };
            match self.cache.keep(&sha256, lively(response.bytes_stream(), STILL)).await {
                Came::Whole => return Ok(()),
                // It was written to while it was sent, or bytes were lost: its digest says so.
                Came::Other => return Err(DepotError::Changed),
                Came::Broken(why) => return Err(DepotError::Later(format!("the bytes of a file did not come: {why}"))),
                Came::Unkept(error) if error.kind() == io::ErrorKind::StorageFull && may_make_room => {
                    tracing::warn!("the disk is full, and what was kept for later goes: {error}");
                    may_make_room = false;
                    self.cache.trim(true).await;
                }
                Came::Unkept(error) => {
                    return Err(DepotError::Never(format!("this worker cannot keep files: {error}")));
                }
            }
        }
    }

    /// Tells the server what is other here than it was; gives what does not travel, for people.
    pub async fn send(&self, wire: &Wire, dir: &Path, attempt: &AttemptId) -> Result<Vec<String>, DepotError> {
        let asked = self.next();
        let run = self.run(attempt.run);
        let mut sent = run.sent.lock().await;
        if *sent > asked {
            run.live().remove(attempt);
            return Ok(Vec::new());
        }
        let mut there: BTreeSet<String> = BTreeSet::new();
        let mut trusts_base = true;
        for _ in 0..TRIES {
            let begun = self.next();
            let tree = run.tree.lock().await;
            let here = Here::look(dir).await?;
            let changes = here.index.memory.changes(&here.found);
            if trusts_base {
                there.extend(here.index.memory.digests().map(str::to_owned));
            }
            let left_out = here.found.left_out.clone();
            let lacking: BTreeMap<String, (String, u64)> = changes
                .put
                .iter()
                .filter_map(|(path, file)| match file {
                    File::File { sha256, size, .. } if !there.contains(sha256) => {
                        Some((sha256.clone(), (path.clone(), *size)))
                    }
                    File::File { .. } | File::Link { .. } | File::Dir => None,
                })
                .collect();
            let told = if lacking.is_empty() {
                self.tell(wire, attempt, &run, here, changes).await
            } else {
                here.keep().await?;
                drop(tree);
                match self.upload(wire, dir, attempt, lacking, &mut there).await {
                    Ok(()) => {
                        let _tree = run.tree.lock().await;
                        let here = Here::remembered(dir).await?;
                        self.tell(wire, attempt, &run, here, changes).await
                    }
                    Err(error) => Err(error),
                }
            };
            match told {
                Ok(()) => {
                    run.live().remove(attempt);
                    *sent = begun;
                    return Ok(left_out);
                }
                Err(DepotError::Changed) => {}
                Err(DepotError::Missing) => (trusts_base, there) = (false, BTreeSet::new()),
                Err(error) => return Err(error),
            }
        }
        Err(DepotError::Never("its files change faster than they can be read".to_owned()))
    }

    /// Brings bytes to the server, which then has those of `there`, too.
    async fn upload(
        &self,
        wire: &Wire,
        dir: &Path,
        attempt: &AttemptId,
        lacking: BTreeMap<String, (String, u64)>,
        there: &mut BTreeSet<String>,
    ) -> Result<(), DepotError> {
        let one = |(sha256, (path, size)): (String, (String, u64))| {
            let run = dir.to_owned();
            async move {
                let opened = blocking(move || Root::open(&run)?.read(&path)).await;
                let open = opened.map_err(|_| DepotError::Changed)?;
                match wire.put_blob(attempt, &sha256, open, size).await {
                    Ok(()) => Ok(sha256),
                    Err(WireError::Refused(422, _)) => Err(DepotError::Changed),
                    Err(error) => Err(error.into()),
                }
            }
        };
        let mut uploads = futures::stream::iter(lacking.into_iter().map(one)).buffer_unordered(AT_ONCE);
        while let Some(sha256) = uploads.try_next().await? {
            there.insert(sha256);
        }
        Ok(())
    }

    /// Tells of changes whose bytes the server has. The caller holds the tree.
    async fn tell(
        &self,
        wire: &Wire,
        attempt: &AttemptId,
        run: &Run,
        mut here: Here,
        mut changes: Changes,
    ) -> Result<(), DepotError> {
        if here.index.memory.has_doubt() {
            let there = wire.manifest(attempt).await?.checked().map_err(DepotError::Never)?;
            here.index.memory.give_way(&mut changes, &there);
        }
        if !(changes.put.is_empty() && changes.removed.is_empty()) {
            let answer = wire.changes(attempt, &changes).await;
            run.told.fetch_add(1, Ordering::AcqRel);
            match answer {
                Ok(()) => {}
                Err(WireError::Refused(424, _)) => return Err(DepotError::Missing),
                Err(error) => return Err(error.into()),
            }
            here.index.memory.sent(&changes);
        }
        here.keep().await?;
        Ok(())
    }
}

/// What lies in the directory of a run, and what is remembered of it.
struct Here {
    dir: PathBuf,
    before: Index,
    index: Index,
    found: Found,
    /// The memory says of the loss that was noted beside it.
    has_loss: bool,
}

impl Here {
    /// Whoever calls this holds the tree.
    async fn look(dir: &Path) -> io::Result<Here> {
        let dir = dir.to_owned();
        blocking(move || {
            let before = Index::read(&dir)?;
            let mut index = before.clone();
            let has_loss = dir.join(LOST).exists();
            let found = index.scan(&dir, clock::now())?;
            index.memory.settle(&found);
            if has_loss {
                index.memory.lose(&found);
            }
            Ok(Here { dir, before, index, found, has_loss })
        })
        .await
    }

    /// Without looking.
    async fn remembered(dir: &Path) -> io::Result<Here> {
        let dir = dir.to_owned();
        blocking(move || {
            let before = Index::read(&dir)?;
            Ok(Here { dir, index: before.clone(), before, found: Found::default(), has_loss: false })
        })
        .await
    }

    async fn keep(mut self) -> io::Result<Here> {
        // Most often there is nothing to keep, and with few files that is seen in less time than a thread takes to begin.
        if !self.has_loss && self.index.is_small() && self.index == self.before {
            return Ok(self);
        }
        blocking(move || {
            self.index.write(&self.dir, &self.before)?;
            if std::mem::take(&mut self.has_loss) {
                std::fs::remove_file(self.dir.join(LOST))?;
            }
            self.before = self.index.clone();
            Ok(self)
        })
        .await
    }
}
