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

use futures::{StreamExt as _, TryStreamExt as _};
use pitcrew_core::RunKey;
use pitcrew_exec::worker::files::{self, KeptError, Pipe, STILL, lively};
use pitcrew_exec::worker::protocol::Manifest;
use pitcrew_store::{RunFiles, Store, StoreError};
use tokio::time::Instant;

use super::peers::Peers;
use crate::clock;
use crate::paths::DataDir;

/// How often files that change while they are brought are asked for anew.
const TRIES: u32 = 10;
/// Files that are on their way at the same time.
const AT_ONCE: usize = 6;
/// A server that is asked what it has, reads it first: for so long at least, and at most. One that is ready later, is
/// asked again.
const READING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
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

/// Why files did not come.
enum Trouble {
    /// Nobody answers who has them.
    Silent(String),
    /// Whoever has them works with them.
    Busy,
}

impl From<String> for Trouble {
    fn from(why: String) -> Trouble {
        Trouble::Silent(why)
    }
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
        let begun = Instant::now();
        let noted = self.store.run_files(run).await.map_err(|error| Elsewhere::Later(error.to_string()))?;
        for noted in noted.iter().filter(|noted| noted.home != self.home) {
            match self.bring(run, noted).await {
                Ok(()) => {}
                Err(Trouble::Silent(why)) => return Err(self.silent(run, &why, begun, Instant::now())),
                Err(Trouble::Busy) => {
                    self.change(run, |now| now.silent = None);
                    let why = "the server that has them works with them";
                    return Err(Elsewhere::Later(format!("files of run {run} are on another machine: {why}")));
                }
            }
        }
        self.came(run, &known);
        Ok(())
    }

    /// Whether other servers have files of the run that are not here, as far as that is written down. Asks none of them.
    pub async fn lacks(&self, run: RunKey) -> Result<bool, StoreError> {
        let is_complete = self.lock().get(&run).is_some_and(|known| known.complete == Some(known.news));
        if is_complete || !self.store.is_shared() {
            return Ok(false);
        }
        Ok(self.store.run_files(run).await?.iter().any(|noted| noted.home != self.home))
    }

    /// All that was known of is here; unless the run was forgotten since, and may have been worked on elsewhere.
    fn came(&self, run: RunKey, known: &Known) {
        if let Some(now) = self.lock().get_mut(&run).filter(|now| Arc::ptr_eq(&now.turn, &known.turn)) {
            (now.complete, now.silent) = (Some(known.news), None);
        }
    }

    /// A try that began at `begun` came to nothing.
    fn silent(&self, run: RunKey, why: &str, begun: Instant, now: Instant) -> Elsewhere {
        let mut runs = self.lock();
        let known = runs.entry(run).or_default();
        // A try may take longer than anything is remembered.
        let fresh = known.silent.is_none_or(|(_, last)| begun.saturating_duration_since(last) > FORGOTTEN);
        let since = known.silent.filter(|_| !fresh).map_or(begun, |(since, _)| since);
        known.silent = Some((since, now));
        if fresh {
            tracing::warn!(run = run.0, "files of run {run} are on the machine of another server: {why}");
        }
        let is_gone = now.saturating_duration_since(since) >= self.lost_after;
        let what = format!("files of run {run} are on the machine of another server, and cannot be had: {why}");
        match is_gone {
            true => Elsewhere::Gone(format!(
                "{what}; start that server again and clear the task, or begin a new run if it is gone for good"
            )),
            false => Elsewhere::Later(what),
        }
    }

    /// Brings what a data directory has.
    async fn bring(&self, run: RunKey, noted: &RunFiles) -> Result<(), Trouble> {
        let home = noted.home.as_str();
        let patience = (self.lost_after / 4).clamp(READING.0, READING.1);
        for _ in 0..TRIES {
            let offered = self.peers.offer(home, run, &self.home, patience).await?;
            let (url, there) = offered.ok_or(Trouble::Busy)?;
            let count = there.files.len();
            match self.take(run, home, &url, there).await? {
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
        Err("they change faster than they can be brought".to_owned().into())
    }

    /// Gives the digest of what was taken; `None`: some of it is not there any more.
    async fn take(&self, run: RunKey, home: &str, url: &str, there: Manifest) -> Result<Option<String>, String> {
        let dir = self.data.run(run);
        let (at, from, offered) = (dir.clone(), home.to_owned(), there.clone());
        let told = on_disk(move || {
            let changes = files::news(&at, &from, &offered, clock::now())?;
            files::lacking(&at, &changes)
        });
        let each = told.await?.into_iter().map(|(sha256, path)| self.fetch(run, home, url, sha256, path));
        match futures::stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<()>().await {
            Ok(()) => {}
            Err(None) => return Ok(None),
            Err(Some(why)) => return Err(why),
        }
        let from = home.to_owned();
        on_disk(move || {
            let digest = files::digest_of(&there)?;
            match files::take(&dir, &from, there, clock::now()) {
                Err(KeptError::Missing(_)) => Ok(None),
                taken => taken.map(|()| Some(digest)),
            }
        })
        .await
    }

    /// Brings bytes of a file. `None`: they are others by now.
    async fn fetch(
        &self,
        run: RunKey,
        home: &str,
        url: &str,
        sha256: String,
        path: String,
    ) -> Result<(), Option<String>> {
        let answer = self.peers.bytes(url, home, run, &sha256, &path).await.map_err(Some)?;
        let dir = self.data.run(run);
        let bytes = lively(answer.bytes_stream(), STILL);
        match Pipe::through(bytes, move |bytes| files::stage(&dir, &sha256, bytes)).await {
            Ok(Ok(())) => Ok(()),
            // Written to while it was sent: its digest says so.
            Ok(Err(KeptError::Refused(_))) => Err(None),
            Ok(Err(error)) => Err(Some(error.to_string())),
            Err(error) => Err(Some(error.to_string())),
        }
    }

    /// Held by whoever works with the files of the run.
    pub fn turn(&self, run: RunKey) -> Arc<tokio::sync::Mutex<()>> {
        self.known(run).turn
    }

    /// What the run has here, for another data directory. `None`: somebody works with it, and may himself wait for whoever
    /// asks.
    pub async fn offer(&self, run: RunKey, by: String) -> Result<Option<Manifest>, String> {
        let Ok(turn) = self.turn(run).try_lock_owned() else { return Ok(None) };
        let dir = self.data.run(run);
        // It goes on when nobody waits for it any more, and is done when somebody asks again.
        on_disk(move || {
            let _turn = turn;
            files::offer(&dir, &by, clock::now()).map(Some)
        })
        .await
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

#[cfg(test)]
mod tests {
    use pitcrew_store::StoreUrl;

    use super::*;
    use crate::vault::Vault;

    async fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let vault = Vault::new(&data, &|_| None).unwrap();
        let files = Files::new(&data, "here", &store, Peers::new(store.clone(), vault), Duration::from_secs(300));
        (dir, files)
    }

    #[tokio::test]
    async fn a_run_that_was_forgotten_while_its_files_came_is_asked_about_again() {
        let (_dir, files) = files().await;
        let run = RunKey(7);
        let known = files.known(run);
        files.came(run, &known);
        assert_eq!(files.known(run).complete, Some(0));
        files.forget(run);
        files.came(run, &known);
        assert_eq!(files.known(run).complete, None);
        // Another server worked on it meanwhile, and this one has it again.
        files.came(run, &known);
        assert_eq!(files.known(run).complete, None);
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_silent_for_as_long_as_it_was_waited_for() {
        let (_dir, files) = files().await;
        let first = Instant::now();
        let try_between = |begun: u64, ended: u64| {
            let at = |seconds: u64| first + Duration::from_secs(seconds);
            files.silent(RunKey(7), "it does not answer", at(begun), at(ended))
        };
        // Each try takes longer than failures are remembered.
        assert!(matches!(try_between(0, 120), Elsewhere::Later(_)));
        assert!(matches!(try_between(122, 242), Elsewhere::Later(_)));
        assert!(matches!(try_between(244, 364), Elsewhere::Gone(_)));
        // Nobody asked for a while.
        assert!(matches!(try_between(425, 426), Elsewhere::Later(_)));
    }

    #[tokio::test]
    async fn what_somebody_works_with_is_not_offered_and_nobody_is_kept_waiting() {
        let (_dir, files) = files().await;
        let turn = files.turn(RunKey(7)).lock_owned().await;
        assert_eq!(files.offer(RunKey(7), "other".to_owned()).await, Ok(None));
        drop(turn);
        assert!(matches!(files.offer(RunKey(7), "other".to_owned()).await, Ok(Some(_))));
    }
}
