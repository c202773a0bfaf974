//! The hub as a backend: how a server begins, looks at, reads and ends an attempt that a worker has.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::SignedDuration;
use pitcrew_core::state::Exit;

use super::super::files::clear_incoming;
use super::super::ledger::Known;
use super::super::mirror;
use super::super::protocol::{Cancel, Order};
use super::{Home, Hub, State, over, word};
use crate::backend::{Backend, BackendError, BackendEvent, Ended, Handle, Observation};
use crate::capabilities::Capabilities;
use crate::log::LogChunk;
use crate::place::{Place, WorkerPlace};
use crate::spec::AttemptSpec;
use crate::{attempt_dir, clock, local};

const NAME: &str = "worker";

impl Hub {
    /// Where its log and its end are kept here; the handle may be of a server with another data directory.
    fn dir(&self, handle: &Handle) -> PathBuf {
        self.0.root.join(below(handle))
    }

    fn size_here(&self, handle: &Handle) -> u64 {
        std::fs::metadata(attempt_dir::log(&self.dir(handle))).map_or(0, |meta| meta.len())
    }

    /// Whether its worker brings the log of the attempt here.
    fn follows(&self, handle: &Handle) -> bool {
        worker_of(handle).is_some_and(|place| self.0.state().desk(&place.worker).ledger.takes_log(&handle.id))
    }

    /// The data directory that is asked for the log of an attempt from there. What any of them has is the beginning of the
    /// same log, so it does not matter who gives which part: this one, as soon as the worker began to bring it, or all is here.
    fn elsewhere<'h>(&'h self, handle: &'h Handle, offset: u64) -> Option<(&'h Home, &'h str)> {
        let home = self.0.home.as_ref()?;
        let there = handle.home.as_deref().filter(|there| *there != home.id)?;
        let here = self.size_here(handle);
        let is_here = here > offset || (here > 0 && self.follows(handle));
        (!is_here && !attempt_dir::exit(&self.dir(handle)).exists()).then_some((home, there))
    }

    /// Looks an attempt up: in its directory, else with its worker.
    async fn observe(&self, handle: &Handle) -> Observation {
        let Some(place) = worker_of(handle) else {
            return Observation::Unreachable { reason: "its handle names no worker".to_owned() };
        };
        let dir = self.dir(handle);
        match local::blocking(move || attempt_dir::recorded_end(&dir)).await {
            Ok(Some(ended)) => return attempt_dir::observed(ended),
            Ok(None) => {}
            Err(error) => return unreadable(handle, &error),
        }
        let known = {
            let mut state = self.0.state();
            let now = state.now();
            let desk = state.desk(&place.worker);
            desk.claim(now, &handle.id, self.dir(handle));
            desk.ledger.observe(now, &handle.id, self.patience())
        };
        match (known, self.take_end(&place.worker, &handle.id, self.dir(handle)).await) {
            (_, Ok(Some(BackendEvent::Ended { ended, .. }))) => Observation::Ended(ended),
            (_, Ok(Some(BackendEvent::Lost { reason, .. }))) => Observation::Lost { reason },
            (_, Ok(Some(BackendEvent::Started { at, .. }))) => Observation::Running { started_at: at },
            (_, Ok(Some(BackendEvent::NeverBegan { .. }))) => Observation::NeverBegan,
            // What the ledger has of a worker's attempt is where it is already.
            (
                Known::Observed(observation),
                Ok(None | Some(BackendEvent::Placed { .. } | BackendEvent::Named { .. })),
            ) => observation,
            // It was being written a moment ago.
            (Known::Over, Ok(None | Some(BackendEvent::Placed { .. } | BackendEvent::Named { .. }))) => {
                match attempt_dir::recorded_end(&self.dir(handle)) {
                    Ok(Some(ended)) => attempt_dir::observed(ended),
                    Ok(None) => Observation::Unreachable { reason: "its end is being written".to_owned() },
                    Err(error) => unreadable(handle, &error),
                }
            }
            (_, Err(error)) => unreadable(handle, &error),
        }
    }
}

#[async_trait]
impl Backend for Hub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        self.kept_here(Handle::of(spec))
    }

    fn lead(&self) {
        let mut state = self.0.state();
        state.workers.values().for_each(|desk| desk.bell.notify_waiters());
        *state = State { server: word(), leads_since: clock::instant(), workers: HashMap::new() };
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        let place = worker_of(handle).ok_or_else(|| io_error("start", handle, nowhere()))?;
        match attempt_dir::recorded_end(&self.dir(handle)) {
            Ok(None) => {}
            Ok(Some(ended)) => {
                self.0.tell(over(handle.id.clone(), ended));
                return Ok(());
            }
            Err(error) => return Err(io_error("start", handle, error)),
        }
        let mut state = self.0.state();
        let now = state.now();
        let desk = state.desk(&place.worker);
        desk.claim(now, &handle.id, self.dir(handle));
        let there = Handle { id: handle.id.clone(), dir: spec.dir.clone(), place: None, home: None };
        let spec = AttemptSpec { place: None, ..spec };
        desk.ledger.order(now, Order { handle: there, spec, files: true });
        desk.ring();
        Ok(())
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        self.observe(handle).await
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        let mut observations = Vec::with_capacity(handles.len());
        for handle in handles {
            observations.push(self.observe(handle).await);
        }
        observations
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        if let Some((home, there)) = self.elsewhere(handle, offset) {
            match home.others.log(there, handle, offset, max_bytes).await {
                Ok(chunk) => return Ok(chunk),
                // Its worker brings it.
                Err(_) if self.follows(handle) => {}
                Err(reason) => return Err(BackendError::Unreachable { backend: NAME, reason }),
            }
        }
        local::read_log(&self.dir(handle), offset, max_bytes).await
    }

    async fn log_size(&self, handle: &Handle) -> Result<u64, BackendError> {
        let here = self.size_here(handle);
        let Some((home, there)) = self.elsewhere(handle, here) else { return Ok(here) };
        match home.others.log_size(there, handle).await {
            Ok(size) => Ok(size.max(here)),
            Err(_) if self.follows(handle) => Ok(here),
            Err(reason) => Err(BackendError::Unreachable { backend: NAME, reason }),
        }
    }

    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError> {
        let place = worker_of(handle).ok_or_else(|| io_error("cancel", handle, nowhere()))?;
        if matches!(attempt_dir::recorded_end(&self.dir(handle)), Ok(Some(_))) {
            return Ok(());
        }
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or_default();
        let there = Handle {
            id: handle.id.clone(),
            dir: Path::new(&place.data_dir).join(below(handle)),
            place: None,
            home: None,
        };
        let is_there = {
            let mut state = self.0.state();
            let now = state.now();
            let desk = state.desk(&place.worker);
            desk.claim(now, &handle.id, self.dir(handle));
            let is_there = desk.ledger.cancel(now, Cancel { handle: there, grace_ms });
            desk.ring();
            is_there
        };
        if !is_there {
            let _alone = self.0.writing(&handle.id).lock().await;
            let (dir, ended) = (self.dir(handle), Ended::bare(Exit::Cancelled, clock::now()));
            let written = local::blocking(move || mirror::end(&dir, ended, None, false)).await;
            if let Some(ended) = written.map_err(|error| io_error("cancel", handle, error))? {
                self.0.tell(over(handle.id.clone(), ended));
            }
        }
        Ok(())
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        if let Some(place) = worker_of(handle) {
            self.forget(&place.worker, std::slice::from_ref(&handle.id));
            self.0.state().desk(&place.worker).dirs.remove(&handle.id);
        }
        // Nothing but its log and its end is ever here; its scripts and outputs lie on the worker.
        Ok(())
    }

    async fn leave(&self, handles: &[Handle]) -> Result<(), BackendError> {
        let mut runs = BTreeSet::new();
        for handle in handles {
            let Some(place) = worker_of(handle) else { continue };
            let mut state = self.0.state();
            let now = state.now();
            let desk = state.desk(&place.worker);
            desk.ledger.leave(now, handle.id.run);
            desk.ring();
            runs.extend(self.dir(handle).ancestors().nth(2).map(Path::to_owned));
        }
        let cleared = local::blocking(move || runs.iter().try_for_each(|run| clear_incoming(run)));
        if let Err(error) = cleared.await {
            tracing::warn!("cannot remove what came from workers and was not used: {error}");
        }
        Ok(())
    }

    async fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

fn worker_of(handle: &Handle) -> Option<&WorkerPlace> {
    match &handle.place {
        Some(Place::Worker(place)) => Some(place),
        Some(Place::Ssh(_) | Place::Ecs(_) | Place::Kubernetes(_)) | None => None,
    }
}

/// The place of an attempt's directory below any data directory: `runs/RUN/attempts/NAME`.
pub(super) fn below(handle: &Handle) -> PathBuf {
    let parts: Vec<_> = handle.dir.components().collect();
    parts[parts.len().saturating_sub(4)..].iter().collect()
}

fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "its handle names no worker")
}

fn unreadable(handle: &Handle, error: &io::Error) -> Observation {
    Observation::Unreachable { reason: format!("cannot use `{}`: {error}", handle.dir.display()) }
}

fn io_error(what: &str, handle: &Handle, source: io::Error) -> BackendError {
    BackendError::Io { what: format!("cannot {what} the attempt in `{}`", handle.dir.display()), source }
}
