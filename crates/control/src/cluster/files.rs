//! The files of runs whose tasks ran where another server led: brought here before anything of the run begins here.
//!
//! Who has files that nobody else has is written down in the database before the end of the task that made them, so a
//! server that takes over knows whom to ask, also when that one is gone; and a run that left no file waits for nobody.
//! Invariant: no task begins on the files of a run as long as another data directory is known to have newer ones. When
//! its servers are silent for too long, the task fails and says so.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pitcrew_core::RunKey;
use pitcrew_exec::worker::files::{self, KeptError, Pipe};
use pitcrew_exec::worker::protocol::Manifest;
use pitcrew_store::{RunFiles, Store, StoreError};
use tokio::time::Instant;

use super::peers::Peers;
use crate::clock;
use crate::paths::DataDir;

/// How often files that change while they are brought are asked for anew.
const TRIES: u32 = 10;
/// Who has not been asked for so long is not known to be silent any more.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Runs that are remembered; beyond, all are asked about again.
const MANY: usize = 100_000;

/// Why the files of a run are not here. The words are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// Asking again may help.
    #[error("{0}")]
    Later(String),
    #[error("{0}")]
    Gone(String),
}

/// Those of one data directory.
pub struct Files {
    data: DataDir,
    home: String,
    peers: Peers,
    store: Store,
    lost_after: Duration,
    runs: Mutex<HashMap<RunKey, Known>>,
}

/// What is known of a run.
#[derive(Default, Clone)]
struct Known {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Counts what may have come on other machines.
    news: u64,
    /// Everything up to there is here.
    complete: Option<u64>,
    /// It is written down that there are files here.
    is_noted: bool,
    /// Since when somebody who has files does not answer, and when that was last tried.
    silent: Option<(Instant, Instant)>,
}

impl Files {
    pub fn new(data: &DataDir, home: &str, store: &Store, peers: Peers, lost_after: Duration) -> Files {
        let (data, home, store) = (data.clone(), home.to_owned(), store.clone());
        Files { data, home, peers, store, lost_after, runs: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunKey, Known>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, run: RunKey) -> Known {
        let mut runs = self.lock();
        if runs.len() >= MANY && !runs.contains_key(&run) {
            runs.clear();
        }
        runs.entry(run).or_default().clone()
    }

    fn change(&self, run: RunKey, how: impl FnOnce(&mut Known)) {
        how(self.lock().entry(run).or_default());
    }

    /// Nobody works on the run any more.
    pub fn forget(&self, run: RunKey) {
        self.lock().remove(&run);
    }

    /// Writes down that the run has files here, if it has.
    pub async fn note(&self, run: RunKey) -> Result<(), StoreError> {
        if !self.store.is_shared() || self.known(run).is_noted {
            return Ok(());
        }
        let dir = self.data.run(run);
        match on_disk(move || Ok(files::has_files(&dir)?)).await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            // What cannot be read now may be read later.
            Err(error) => tracing::warn!("{error}"),
        }
        self.store.put_run_files(run, &self.home).await?;
        self.change(run, |known| known.is_noted = true);
        Ok(())
    }

    /// Writes down that a task of the run ended in another data directory, and may have left something there.
    pub async fn note_at(&self, run: RunKey, home: &str) -> Result<(), StoreError> {
        self.store.put_run_files(run, home).await?;
        self.change(run, |known| known.news += 1);
        Ok(())
    }

    /// Returns when everything is here that other servers have of the run. For the server that leads.
    pub async fn here(&self, run: RunKey) -> Result<(), Elsewhere> {
        let is_complete = |known: &Known| known.complete == Some(known.news);
        let known = self.known(run);
        if !self.store.is_shared() || is_complete(&known) {
            return Ok(());
        }
        let _turn = known.turn.lock().await;
        let known = self.known(run);
        if is_complete(&known) {
            return Ok(());
        }
        let noted = self.store.run_files(run).await.map_err(|error| Elsewhere::Later(error.to_string()))?;
        for noted in noted.iter().filter(|noted| noted.home != self.home) {
            if let Err(why) = self.bring(run, noted).await {
                return Err(self.silent(run, &why));
            }
        }
        self.change(run, |now| (now.complete, now.silent) = (Some(known.news), None));
        Ok(())
    }

    fn silent(&self, run: RunKey, why: &str) -> Elsewhere {
        let mut runs = self.lock();
        let known = runs.entry(run).or_default();
        let fresh = known.silent.is_none_or(|(_, last)| last.elapsed() > FORGOTTEN);
        let since = known.silent.filter(|_| !fresh).map_or_else(Instant::now, |(since, _)| since);
        known.silent = Some((since, Instant::now()));
        if fresh {
            tracing::warn!(run = run.0, "files of run {run} are on the machine of another server: {why}");
        }
        let is_gone = since.elapsed() >= self.lost_after;
        let what = format!("files of run {run} are on the machine of another server, and cannot be had: {why}");
        match is_gone {
            true => Elsewhere::Gone(format!(
                "{what}; start that server again and clear the task, or begin a new run if it is gone for good"
            )),
            false => Elsewhere::Later(what),
        }
    }

    /// Brings what a data directory has.
    async fn bring(&self, run: RunKey, noted: &RunFiles) -> Result<(), String> {
        let home = noted.home.as_str();
        for _ in 0..TRIES {
            let there = self.peers.offer(home, run, &self.home).await?;
            let count = there.files.len();
            match self.take(run, home, there).await? {
                // It changed since; somebody still works on it there.
                None => continue,
                Some(digest) => {
                    self.peers.taken(home, run, &self.home, &digest).await?;
                    let taken = self.store.take_run_files(run, noted, &self.home).await;
                    taken.map_err(|error| error.to_string())?;
                    self.change(run, |known| known.is_noted = true);
                    tracing::info!(
                        run = run.0,
                        "the {count} files that run {run} had in data directory {home} are here"
                    );
                    return Ok(());
                }
            }
        }
        Err("they change faster than they can be brought".to_owned())
    }

    /// Gives the digest of what was taken; `None`: some of it is not there any more.
    async fn take(&self, run: RunKey, home: &str, there: Manifest) -> Result<Option<String>, String> {
        let dir = self.data.run(run);
        let (at, from, offered) = (dir.clone(), home.to_owned(), there.clone());
        let told = on_disk(move || {
            let changes = files::news(&at, &from, &offered, clock::now())?;
            let lacking = files::lacking(&at, &changes)?;
            Ok((changes, lacking))
        });
        let (changes, lacking) = told.await?;
        for sha256 in lacking {
            let answer = self.peers.bytes(home, run, &sha256).await?;
            let (at, digest) = (dir.clone(), sha256.clone());
            let staged = Pipe::through(answer.bytes_stream(), move |bytes| files::stage(&at, &digest, bytes)).await;
            match staged.map_err(|error| error.to_string())? {
                Ok(()) => {}
                // Written to while it was sent: its digest says so.
                Err(KeptError::Refused(_)) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
        let from = home.to_owned();
        on_disk(move || {
            match files::apply(&dir, &changes, clock::now()) {
                Err(KeptError::Missing(_)) => return Ok(None),
                applied => applied?,
            }
            let digest = files::digest_of(&there)?;
            files::took(&dir, &from, there)?;
            Ok(Some(digest))
        })
        .await
    }

    /// What the run has here, for another data directory.
    pub async fn offer(&self, run: RunKey, by: String) -> Result<Manifest, String> {
        let _turn = self.known(run).turn.lock_owned().await;
        let dir = self.data.run(run);
        on_disk(move || files::offer(&dir, &by, clock::now())).await
    }

    /// Another one has what was offered.
    pub async fn taken(&self, run: RunKey, by: String, digest: String) -> Result<(), String> {
        let _turn = self.known(run).turn.lock_owned().await;
        let dir = self.data.run(run);
        on_disk(move || files::taken(&dir, &by, &digest)).await?;
        self.change(run, |known| (known.is_noted, known.complete) = (false, None));
        Ok(())
    }

    /// The directory of a run here.
    pub fn dir(&self, run: RunKey) -> PathBuf {
        self.data.run(run)
    }

    /// Removes what is here of runs that were deleted while another server led. One that is still there, stays.
    pub async fn sweep(&self) -> anyhow::Result<()> {
        let deleted = self.peers.deleted(&self.home).await?;
        let mut removed = std::collections::BTreeSet::new();
        for run in deleted {
            if self.store.run(run).await?.is_some() {
                continue;
            }
            let data = self.data.clone();
            match tokio::task::spawn_blocking(move || data.remove_run(run)).await? {
                Ok(()) => drop(removed.insert(run)),
                Err(error) => tracing::warn!(%error, "cannot remove `{}`", self.data.run(run).display()),
            }
        }
        if !removed.is_empty() {
            self.peers.removed(&self.home, &removed).await?;
            tracing::info!("removed the files of {} runs that were deleted", removed.len());
        }
        Ok(())
    }
}

/// Work that waits for a disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, KeptError> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
