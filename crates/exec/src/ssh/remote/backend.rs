//! The contract of [`Backend`], over SSH.
//!
//! What is written down here decides first: without `sent.json` nothing began, and with `exit.json` it is over; only
//! about what lies between is the host asked. Who makes the claim on the host (`ln`) decides whether it ever begins: its
//! keeper, or somebody who cancels it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use pitcrew_core::state::Exit;
use tokio::time::Instant;

use super::follow::{self, Follow};
use super::host::Hosts;
use super::lent::Lent;
use super::marks::{Cancel, Seal, Sent};
use super::removals::{Kind, Removals};
use super::script;
use super::servant::{Seen, State};
use super::watch::Watch;
use crate::backend::{Backend, BackendError, Ended, EventSender, Handle, Observation};
use crate::capabilities::Capabilities;
use crate::local::{blocking, clean, read_log};
use crate::log::LogChunk;
use crate::place::{Place, SshPlace};
use crate::spec::AttemptSpec;
use crate::ssh::transfer::{Begun, Transfers};
use crate::{attempt_dir, clock};

const NAME: &str = "ssh";
/// How long somebody who asks waits for an end that the host knows already and that is being fetched.
const FETCH: Duration = Duration::from_secs(2);

/// What the backend needs of the server.
#[derive(Clone)]
pub struct SshConfig {
    /// Tells the attempts of this store from those of others on the same host. Must never change.
    pub instance: String,
    /// For what outlives attempts; made when missing.
    pub state_dir: PathBuf,
    /// For what must be known of an attempt after a restart, and nobody may read.
    pub seal: Arc<dyn Seal>,
}

/// See the module.
pub struct SshBackend {
    pub(super) config: SshConfig,
    pub(super) hosts: Arc<dyn Hosts>,
    pub(super) events: EventSender,
    watches: Mutex<HashMap<SshPlace, Arc<Watch>>>,
    /// Starts that are under way.
    pub(super) starting: Mutex<HashSet<AttemptId>>,
    /// Since when a start could not reach its host.
    pub(super) waiting: Mutex<HashMap<AttemptId, Instant>>,
    /// Attempts that move files.
    pub(super) transfers: Transfers,
    /// Held while `sent.json` and `cancel.json` are weighed against each other.
    pub(super) marks: tokio::sync::Mutex<()>,
}

impl SshBackend {
    /// Connects to nothing yet, but for hosts from which something is to be removed.
    pub fn new(config: SshConfig, hosts: Arc<dyn Hosts>, events: EventSender) -> SshBackend {
        let transfers = Transfers::new(config.state_dir.join("parts"), hosts.clone(), events.clone());
        let backend = SshBackend {
            config,
            hosts,
            events,
            transfers,
            watches: Mutex::default(),
            starting: Mutex::default(),
            waiting: Mutex::default(),
            marks: tokio::sync::Mutex::default(),
        };
        for place in Removals::places(&backend.config.state_dir) {
            backend.watch(&place).tidy();
        }
        backend
    }

    pub(super) fn watch(&self, place: &SshPlace) -> Arc<Watch> {
        // One for all who sign in alike, wherever they work there.
        let place = SshPlace { workdir: None, ..place.clone() };
        let mut watches = lock(&self.watches);
        let watch = watches.entry(place.clone()).or_insert_with(|| {
            let removals = Removals::of(&self.config.state_dir, &place);
            Arc::new(Watch::new(place, Arc::clone(&self.hosts), self.events.clone(), removals))
        });
        Arc::clone(watch)
    }

    pub(super) fn name_of(&self, id: &AttemptId) -> String {
        script::name_of(&self.config.instance, id)
    }

    fn remove(&self, place: &SshPlace, kind: Kind, name: &str) -> Result<(), BackendError> {
        let watch = self.watch(place);
        watch.removals().add(watch.place(), kind, name).map_err(|source| self.unwritten(source))?;
        watch.tidy();
        Ok(())
    }

    /// Writes down what will be removed, by this process or by the next.
    pub(super) fn note(&self, place: &SshPlace, kind: Kind, name: &str) -> Result<(), BackendError> {
        let watch = self.watch(place);
        watch.removals().note(watch.place(), kind, name).map_err(|source| self.unwritten(source))
    }

    pub(super) fn unwritten(&self, source: std::io::Error) -> BackendError {
        BackendError::Io { what: format!("cannot write in `{}`", self.config.state_dir.display()), source }
    }

    /// The directories that the runs of these attempts have on hosts; one that was named is not ours.
    fn workspaces(&self, handles: &[Handle]) -> Vec<(Arc<Watch>, String)> {
        let of = |handle| {
            let place = place_of(handle).filter(|place| place.workdir.is_none())?;
            Some((place, script::workspace_of(&self.config.instance, handle.id.run)))
        };
        let all: HashSet<_> = handles.iter().filter_map(of).collect();
        all.into_iter().map(|(place, name)| (self.watch(place), name)).collect()
    }

    pub(super) async fn follow(
        &self,
        handle: &Handle,
        place: &SshPlace,
    ) -> Result<Option<(Arc<Watch>, Arc<Follow>)>, BackendError> {
        match self.known(handle, place).await? {
            Known::Ask(watch, follow) => Ok(Some((watch, follow))),
            Known::Is(_) => Ok(None),
        }
    }

    /// What is known without asking the host, of an attempt that is not over. One that is to be asked for is followed
    /// from now on, and a transfer goes on.
    async fn open(&self, handle: &Handle, place: &SshPlace) -> Result<Known, BackendError> {
        let watch = self.watch(place);
        if let Some(follow) = watch.followed(&handle.id) {
            return Ok(Known::Ask(watch, follow));
        }
        if let Some(started_at) = self.transfers.begun(&handle.id) {
            return Ok(Known::Is(Observation::Running { started_at }));
        }
        let dir = handle.dir.clone();
        let seal = Arc::clone(&self.config.seal);
        let read = blocking(move || {
            let over = attempt_dir::recorded_end(&dir)?;
            let Some(sent) = Sent::read(&dir)?.filter(|_| over.is_none()) else { return Ok(Err(over)) };
            // Rather no log than one that shows a secret.
            let masker = sent.masker(&*seal)?;
            let lent = sent.agent(&*seal)?.map(Lent::new);
            Ok(Ok((sent, masker, lent, Cancel::read(&dir)?)))
        });
        let (mut sent, masker, lent, cancel) = match read.await.map_err(|source| io_error(handle, source))? {
            Ok(read) => read,
            Err(over) => return Ok(Known::Is(over.map_or(Observation::NeverBegan, attempt_dir::observed))),
        };
        if let Some(order) = sent.order.take() {
            let started_at = order.begun;
            let names = (self.name_of(&handle.id), script::workspace_of(&self.config.instance, handle.id.run));
            let place = place.clone();
            self.transfers.go_on(Begun { handle: handle.clone(), place, names, sent, order, masker });
            return Ok(Known::Is(Observation::Running { started_at }));
        }
        let follow = watch.follow(|| Follow::new(handle.clone(), self.name_of(&handle.id), sent, masker, lent, cancel));
        Ok(Known::Ask(watch, follow))
    }

    async fn recorded(&self, handle: &Handle) -> Result<Option<Ended>, BackendError> {
        let dir = handle.dir.clone();
        blocking(move || attempt_dir::recorded_end(&dir)).await.map_err(|source| io_error(handle, source))
    }

    /// What is true of attempts of one host.
    async fn observe(&self, place: &SshPlace, handles: &[&Handle]) -> Vec<Observation> {
        let mut answers: Vec<Option<Observation>> = vec![None; handles.len()];
        let mut open = Vec::new();
        for (at, handle) in handles.iter().enumerate() {
            match self.known(handle, place).await {
                Ok(Known::Is(observation)) => answers[at] = Some(observation),
                Ok(Known::Ask(watch, follow)) => open.push((at, watch, follow)),
                Err(e) => answers[at] = Some(Observation::Unreachable { reason: e.to_string() }),
            }
        }
        if let Some((_, watch, _)) = open.first() {
            let names: Vec<String> = open.iter().map(|(_, _, follow)| follow.name.clone()).collect();
            match watch.states(&names).await {
                Ok(seen) => {
                    let each = open.iter().zip(seen).map(|((at, watch, follow), seen)| async move {
                        (*at, self.observed(handles[*at], watch, follow, seen).await)
                    });
                    for (at, observation) in futures::future::join_all(each).await {
                        answers[at] = Some(observation);
                    }
                }
                Err(e) => {
                    for (at, _, _) in &open {
                        answers[*at] = Some(Observation::Unreachable { reason: e.words.clone() });
                    }
                }
            }
        }
        let unknown = || Observation::Unreachable { reason: "it was not answered".to_owned() };
        answers.into_iter().map(|answer| answer.unwrap_or_else(unknown)).collect()
    }

    /// What is known without asking the host.
    async fn known(&self, handle: &Handle, place: &SshPlace) -> Result<Known, BackendError> {
        match self.recorded(handle).await? {
            Some(ended) => Ok(Known::Is(attempt_dir::observed(ended))),
            None => self.open(handle, place).await,
        }
    }

    async fn observed(&self, handle: &Handle, watch: &Watch, follow: &Follow, seen: Seen) -> Observation {
        match seen.state {
            State::Never if lock(&self.starting).contains(&handle.id) => {
                Observation::Unreachable { reason: "its start is under way".to_owned() }
            }
            State::Never => {
                watch.forget(&handle.id);
                self.recorded(handle).await.ok().flatten().map_or(Observation::NeverBegan, attempt_dir::observed)
            }
            State::Running(begun) => Observation::Running { started_at: begun.unwrap_or_else(clock::now) },
            State::Ended | State::Kept(_) | State::Rebooted | State::Gone(_) => {
                // Not over for us before all of it is here, which usually is a moment.
                let over = follow.over.notified();
                let mut over = std::pin::pin!(over);
                over.as_mut().enable();
                watch.look(follow);
                if !attempt_dir::exit(&handle.dir).exists() {
                    let _ = tokio::time::timeout(FETCH, over).await;
                }
                match self.recorded(handle).await {
                    Ok(Some(ended)) => attempt_dir::observed(ended),
                    Ok(None) => Observation::Running { started_at: clock::now() },
                    Err(e) => Observation::Unreachable { reason: e.to_string() },
                }
            }
        }
    }
}

enum Known {
    Is(Observation),
    Ask(Arc<Watch>, Arc<Follow>),
}

#[async_trait]
impl Backend for SshBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        Handle::of(spec)
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        debug_assert_eq!((&handle.id, &handle.dir), (&spec.id, &spec.dir));
        if let Some(ended) = self.recorded(handle).await? {
            let _ = self.events.send(follow::told(handle, ended));
            return Ok(());
        }
        self.start_attempt(handle, spec).await
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        self.poll(std::slice::from_ref(handle)).await.pop().unwrap_or(Observation::NeverBegan)
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        let mut hosts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut answers: Vec<Option<Observation>> = vec![None; handles.len()];
        for (at, handle) in handles.iter().enumerate() {
            match place_of(handle).map(|place| serde_json::to_string(&SshPlace { workdir: None, ..place.clone() })) {
                Some(Ok(key)) => hosts.entry(key).or_default().push(at),
                _ => answers[at] = self.recorded(handle).await.ok().flatten().map(attempt_dir::observed),
            }
        }
        let each = hosts.values().map(|at| async move {
            let asked: Vec<&Handle> = at.iter().map(|at| &handles[*at]).collect();
            match asked.first().and_then(|handle| place_of(handle)) {
                Some(place) => at.iter().copied().zip(self.observe(place, &asked).await).collect(),
                None => Vec::new(),
            }
        });
        for (at, observation) in futures::future::join_all(each).await.into_iter().flatten() {
            answers[at] = Some(observation);
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Observation::NeverBegan)).collect()
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        read_log(&handle.dir, offset, max_bytes).await
    }

    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError> {
        let weighing = self.marks.lock().await;
        let dir = handle.dir.clone();
        let grace = grace.clamp(SignedDuration::ZERO, SignedDuration::from_hours(24 * 365));
        let decided = blocking(move || {
            if attempt_dir::exit(&dir).exists() {
                return Ok(None);
            }
            let sent = Sent::read(&dir)?;
            let mut cancel = Cancel { until: clock::now() + grace };
            if let Some(before) = Cancel::read(&dir)? {
                cancel.until = cancel.until.min(before.until);
            }
            std::fs::create_dir_all(&dir)?;
            cancel.write(&dir)?;
            Ok(Some((sent, cancel)))
        });
        let decided = decided.await.map_err(|source| io_error(handle, source))?;
        let Some((sent, cancel)) = decided else { return Ok(()) };
        let (Some(_), Some(place)) = (sent, place_of(handle)) else {
            // The host knows nothing of it, and will not: see `may_send`.
            return self.end_here(handle, &Sent::default(), Exit::Cancelled).await;
        };
        drop(weighing);
        self.transfers.cancel(&handle.id);
        let Some((watch, follow)) = self.follow(handle, place).await? else { return Ok(()) };
        follow.set_cancel(cancel);
        watch.cancel(&follow).await.map_err(|e| unreachable(e.words))
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        if !attempt_dir::exit(&handle.dir).exists() {
            return Ok(());
        }
        let dir = handle.dir.clone();
        let sent = blocking(move || Sent::read(&dir)).await.map_err(|source| io_error(handle, source))?;
        if let (Some(place), Some(_)) = (place_of(handle), sent.filter(|sent| sent.order.is_none())) {
            self.remove(place, Kind::Attempt, &self.name_of(&handle.id))?;
        }
        clean(&handle.dir).await
    }

    async fn leaving(&self, handles: &[Handle]) -> Result<(), BackendError> {
        for (watch, name) in self.workspaces(handles) {
            watch.removals().leaving(&name).map_err(|source| self.unwritten(source))?;
        }
        Ok(())
    }

    async fn leave(&self, handles: &[Handle]) -> Result<(), BackendError> {
        for (watch, name) in self.workspaces(handles) {
            watch.removals().leave(&name).map_err(|source| self.unwritten(source))?;
            watch.tidy();
        }
        Ok(())
    }

    async fn capabilities(&self) -> Capabilities {
        let remark = "limits on memory and CPU are not enforced on hosts over SSH".to_owned();
        Capabilities { remarks: vec![remark], ..Capabilities::default() }
    }
}

pub(super) fn place_of(handle: &Handle) -> Option<&SshPlace> {
    match &handle.place {
        Some(Place::Ssh(place)) => Some(place),
        Some(Place::Worker(_) | Place::Ecs(_) | Place::Kubernetes(_)) | None => None,
    }
}

pub(super) fn unreachable(reason: String) -> BackendError {
    BackendError::Unreachable { backend: NAME, reason }
}

pub(super) fn io_error(handle: &Handle, source: std::io::Error) -> BackendError {
    BackendError::Io { what: format!("cannot use `{}`", handle.dir.display()), source }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
