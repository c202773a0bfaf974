//! The backends of this process, by name.
//!
//! An attempt belongs to the backend that its row names. A name that is not known here, such as of a newer version, is
//! [`Absent`]: it cannot be reached, which says nothing about the attempt.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::homed::Homed;
use async_trait::async_trait;
use pitcrew_core::SignedDuration;
use pitcrew_core::ir::BackendKind;
use pitcrew_exec::signed::Gate;
use pitcrew_exec::worker::Hub;
use pitcrew_exec::{AttemptSpec, Backend, BackendError, Capabilities, Handle, LogChunk, Observation};

/// The kinds that a workflow may name.
pub const KINDS: &[BackendKind] = &BackendKind::NAMED;

/// Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    all: Arc<BTreeMap<BackendKind, Arc<dyn Backend>>>,
    homed: Option<Arc<Homed>>,
    hub: Option<Hub>,
    gate: Option<Arc<Gate>>,
}

impl Backends {
    pub fn new(all: impl IntoIterator<Item = (BackendKind, Arc<dyn Backend>)>) -> Self {
        Backends { all: Arc::new(all.into_iter().collect()), homed: None, hub: None, gate: None }
    }

    /// With the `local` backend, as one of several servers has it.
    pub fn with_homed(mut self, homed: Arc<Homed>) -> Self {
        let mut all = BTreeMap::clone(&self.all);
        all.insert(BackendKind::Local, homed.clone());
        self.all = Arc::new(all);
        self.homed = Some(homed);
        self
    }

    pub fn homed(&self) -> Option<Arc<Homed>> {
        self.homed.clone()
    }

    /// Whether the attempt is one of the data directory of this process, as far as that is known.
    pub fn is_here(&self, handle: &Handle) -> bool {
        match (&handle.home, &self.homed) {
            (Some(home), Some(homed)) => home == homed.home(),
            (None, _) | (_, None) => true,
        }
    }

    /// With the server's side of workers.
    pub fn with_hub(mut self, hub: Hub) -> Self {
        let mut all = BTreeMap::clone(&self.all);
        all.insert(BackendKind::Worker, Arc::new(hub.clone()));
        self.all = Arc::new(all);
        self.hub = Some(hub);
        self
    }

    /// With what images come through, before a container is made of them.
    pub fn with_gate(mut self, gate: Option<Arc<Gate>>) -> Self {
        self.gate = gate;
        self
    }

    pub fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.clone()
    }

    pub fn hub(&self) -> Option<&Hub> {
        self.hub.as_ref()
    }

    /// From now on this process alone works on runs.
    pub fn lead(&self) {
        self.all.values().for_each(|backend| backend.lead());
    }

    /// Another process may work on runs from now on.
    pub fn stand_down(&self) {
        self.all.values().for_each(|backend| backend.stand_down());
    }

    /// The backend for tasks of that kind.
    pub fn of(&self, kind: BackendKind) -> Arc<dyn Backend> {
        self.all.get(&kind).cloned().unwrap_or_else(|| Arc::new(Absent(kind.name().to_owned())))
    }

    /// The backend that goes by that name in the rows of attempts.
    pub fn named(&self, name: &str) -> Arc<dyn Backend> {
        let found = self.all.values().find(|backend| backend.name() == name);
        found.cloned().unwrap_or_else(|| Arc::new(Absent(name.to_owned())))
    }
}

/// A backend that this process does not have.
struct Absent(String);

impl Absent {
    fn reason(&self) -> String {
        format!("this pitcrew has no backend `{}`", self.0)
    }

    fn error(&self) -> BackendError {
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, self.reason());
        BackendError::Io { what: "cannot find the attempt".to_owned(), source }
    }
}

#[async_trait]
impl Backend for Absent {
    fn name(&self) -> &'static str {
        "absent"
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        Handle::of(spec)
    }

    async fn start(&self, _: &Handle, _: AttemptSpec) -> Result<(), BackendError> {
        Err(self.error())
    }

    async fn attach(&self, _: &Handle) -> Observation {
        Observation::Unreachable { reason: self.reason() }
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        handles.iter().map(|_| Observation::Unreachable { reason: self.reason() }).collect()
    }

    async fn logs(&self, _: &Handle, _: u64, _: usize) -> Result<LogChunk, BackendError> {
        Err(self.error())
    }

    async fn cancel(&self, _: &Handle, _: SignedDuration) -> Result<(), BackendError> {
        Err(self.error())
    }

    async fn cleanup(&self, _: &Handle) -> Result<(), BackendError> {
        Ok(())
    }

    async fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
