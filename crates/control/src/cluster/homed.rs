//! The `local` backend of a server that is one of several: it tells its own attempts from those on the machines of
//! others, and asks those servers about theirs.
//!
//! Invariant: an attempt is begun only under the data directory that its handle names. One of another directory is
//! never told as [`Observation::NeverBegan`], so nobody begins it here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pitcrew_core::{RunKey, SignedDuration};
use pitcrew_exec::local::LocalBackend;
use pitcrew_exec::{
    AttemptSpec, Backend, BackendError, Capabilities, EventSender, Handle, LogChunk, Observation, since_boot,
};
use pitcrew_store::StoreError;

use super::away::Away;
use super::files::Files;
use super::peers::Peers;
use crate::paths::DataDir;

pub struct Homed {
    inner: LocalBackend,
    home: String,
    data: DataDir,
    away: Arc<Away>,
    lost_after: Duration,
    /// There are other data directories: what runs here ends when nobody has been heard of for too long.
    is_leased: AtomicBool,
}

impl Homed {
    pub fn new(
        data: &DataDir,
        home: String,
        peers: Peers,
        files: Files,
        lost_after: Duration,
        events: EventSender,
        inner: LocalBackend,
    ) -> Homed {
        let away = Away::new(peers, files, events, lost_after);
        Homed { inner, home, data: data.clone(), away, lost_after, is_leased: AtomicBool::new(false) }
    }

    pub fn home(&self) -> &str {
        &self.home
    }

    pub fn peers(&self) -> &Peers {
        &self.away.peers
    }

    pub fn files(&self) -> &Files {
        &self.away.files
    }

    /// These runs are deleted: what other data directories have of them goes, too.
    pub async fn deleted(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.peers().note_deleted(&self.home, runs).await
    }

    /// The data directory of another server that has the attempt.
    fn elsewhere<'h>(&self, handle: &'h Handle) -> Option<&'h str> {
        handle.home.as_deref().filter(|home| *home != self.home)
    }

    /// The handle of an attempt of this data directory; where another server says that it lies is not believed.
    pub fn own(&self, handle: &Handle) -> Handle {
        Handle { id: handle.id.clone(), dir: self.data.attempt(&handle.id), place: None, home: Some(self.home.clone()) }
    }

    /// Other servers could begin anew what runs here. Returns whether that is news.
    pub fn is_not_alone(&self) -> bool {
        !self.is_leased.swap(true, Ordering::Relaxed)
    }

    /// At that moment, a time since the machine started, others knew of this server.
    pub fn heard(&self, at: Duration) {
        if self.is_leased.load(Ordering::Relaxed) {
            self.inner.lease(at + self.lost_after);
        }
    }

    /// What the server that leads asks.
    pub async fn tell(&self, handles: &[Handle]) -> Vec<Observation> {
        self.heard(since_boot());
        let handles: Vec<Handle> = handles.iter().map(|handle| self.own(handle)).collect();
        self.inner.poll(&handles).await
    }

    pub async fn lose(&self, handle: &Handle, grace: SignedDuration, reason: &str) -> Result<(), BackendError> {
        self.inner.lose(handle, grace, reason).await
    }

    /// Ends what somebody else may begin anew; an error while that is not over.
    pub async fn end(&self, handles: &[Handle], reason: &str) -> Result<(), String> {
        let handles: Vec<Handle> = handles.iter().map(|handle| self.own(handle)).collect();
        for handle in &handles {
            self.lose(handle, SignedDuration::ZERO, reason).await.map_err(|error| error.to_string())?;
        }
        for (handle, observation) in handles.iter().zip(self.inner.poll(&handles).await) {
            match observation {
                Observation::Ended(_) | Observation::Lost { .. } => {}
                Observation::NeverBegan | Observation::Waiting | Observation::Running { .. } => {
                    return Err(format!("{} has not ended yet", handle.id));
                }
                Observation::Unreachable { reason } => return Err(reason),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Homed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        Handle { home: Some(self.home.clone()), ..self.inner.prepare(spec) }
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        match self.elsewhere(handle) {
            Some(home) => Err(unreachable(format!("it belongs to the data directory {home} of another server"))),
            None => self.inner.start(handle, spec).await,
        }
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        match self.elsewhere(handle) {
            Some(home) => self.away.follow(home, handle, None),
            None => self.inner.attach(handle).await,
        }
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        let here: Vec<Handle> = handles.iter().filter(|handle| self.elsewhere(handle).is_none()).cloned().collect();
        let mut seen = self.inner.poll(&here).await.into_iter();
        let one = |handle: &Handle| match self.elsewhere(handle) {
            Some(home) => self.away.follow(home, handle, None),
            None => seen.next().unwrap_or(Observation::Unreachable { reason: "it was not answered".to_owned() }),
        };
        handles.iter().map(one).collect()
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        match self.elsewhere(handle) {
            Some(home) => self.peers().log(home, handle, offset, max_bytes).await.map_err(unreachable),
            None => self.inner.logs(handle, offset, max_bytes).await,
        }
    }

    async fn log_size(&self, handle: &Handle) -> Result<u64, BackendError> {
        match self.elsewhere(handle) {
            Some(home) => self.peers().log_size(home, handle).await.map_err(unreachable),
            None => self.inner.log_size(handle).await,
        }
    }

    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError> {
        match self.elsewhere(handle) {
            // It is asked as soon as its server answers.
            Some(home) => {
                self.away.follow(home, handle, Some(grace));
                Ok(())
            }
            None => self.inner.cancel(handle, grace).await,
        }
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        match self.elsewhere(handle) {
            Some(home) => self.peers().cleanup(home, handle).await.map_err(unreachable),
            None => self.inner.cleanup(handle).await,
        }
    }

    async fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().await
    }
}

fn unreachable(reason: String) -> BackendError {
    BackendError::Unreachable { backend: "local", reason }
}
