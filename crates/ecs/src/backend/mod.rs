//! The `ecs` backend: attempts are tasks of a cluster, started, watched and stopped by calls of ECS, with their logs
//! copied from CloudWatch.
//!
//! ```text
//! start ─ sent.json ─► watcher ─ RunTask ─► task.json ─ DescribeTasks, GetLogEvents ─► log ─► exit.json
//! ```
//!
//! What is written down here decides first: without `sent.json` nothing began, with `exit.json` it is over, and about
//! what lies between ECS is asked. Everything that a start needs is in `sent.json`, so an attempt that was accepted is
//! started by this process or by the next. It is started once: by its token, and by the word that it is started by,
//! which is looked for before each try.

mod ends;
mod follow;
mod gang;
mod gate;
mod marks;
mod mirror;
mod plan;
mod progress;
mod seats;
mod watch;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_exec::aws::Aws;
use pitcrew_exec::{
    AttemptSpec, Backend, BackendError, Capabilities, EcsPlace, Ended, EventSender, Handle, LogChunk, Observation,
    Place, attempt_dir, log,
};
use tokio::task::AbortHandle;

pub use ends::{Cause, End, Intent, end, main_container};
pub use gate::{Gate, Gates};
pub use plan::{STARTED_BY, TAG_ATTEMPT, TAG_JOB, TAG_RANK, TAG_RUN, TAG_TYPE, TRAINING, started_by};

use follow::Follow;
use marks::{Cancel, Known, Mark, Sent};
use watch::Watch;

use crate::client::{Client, Fault};
use crate::clock;
use crate::events::{Listener, Wake, Warning, Word};

const NAME: &str = "ecs";
/// How long somebody who asks waits for an end that ECS knows already and that is being written down.
const FETCH: Duration = Duration::from_secs(2);
/// How long a start waits for the first answer of ECS.
const ACCEPT: Duration = Duration::from_secs(20);

/// How often ECS is asked, and how long is waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks at a young attempt, and at an old one.
    pub soonest: Duration,
    pub poll: Duration,
    /// How long a start waits for room: for GPUs that are not free yet, for an instance that comes.
    pub capacity: Duration,
    /// How long a member of a gang waits for the machine that was chosen for it, while its mates have theirs.
    pub seated: Duration,
    /// How long a log must be silent after its task ended, where nothing says that it is whole.
    pub settle: Duration,
    /// How long it is waited for the end of a log that cannot be read just now.
    pub patience: Duration,
    /// How long ECS may not mention a task that it started, before it counts as forgotten.
    pub unmentioned: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            soonest: Duration::from_millis(500),
            poll: Duration::from_secs(10),
            capacity: Duration::from_secs(600),
            seated: Duration::from_secs(60),
            settle: Duration::from_secs(5),
            patience: Duration::from_secs(120),
            unmentioned: Duration::from_secs(60),
        }
    }
}

/// What the backend needs of the server.
#[derive(Clone)]
pub struct EcsConfig {
    /// Tells the attempts of this store from those of others in the same cluster. Must never change.
    pub instance: String,
    /// Where a place names no region.
    pub region: String,
    pub aws: Aws,
    /// The queue with events of ECS, by its name or URL; without it, polling is all there is.
    pub events: Option<String>,
    /// Where whatever is heard of the queue is passed on to.
    pub wakes: tokio::sync::broadcast::Sender<Wake>,
    /// Who writes down that a machine will be taken away; `None`: nobody does.
    pub warnings: Option<tokio::sync::mpsc::UnboundedSender<Warning>>,
    pub gates: Gates,
    pub timing: Timing,
}

/// See the module.
pub struct EcsBackend {
    config: EcsConfig,
    events: EventSender,
    /// By region, role and cluster.
    watches: Arc<Watches>,
    /// Hears of changes, in the process that works on runs.
    listener: Mutex<Option<AbortHandle>>,
    /// Held while `sent.json` and `cancel.json` are weighed against each other.
    marks: tokio::sync::Mutex<()>,
}

type Watches = Mutex<HashMap<(String, Option<String>, String), Arc<Watch>>>;

impl Drop for EcsBackend {
    fn drop(&mut self) {
        self.stand_down();
    }
}

/// What is known of an attempt without asking ECS.
enum Here {
    Is(Observation),
    Ask(Arc<Watch>, Arc<Follow>),
}

impl EcsBackend {
    /// Asks nobody yet.
    pub fn new(config: EcsConfig, events: EventSender) -> EcsBackend {
        let (watches, listener) = (Arc::default(), Mutex::default());
        EcsBackend { config, events, watches, listener, marks: tokio::sync::Mutex::default() }
    }

    /// Something happened to this task, by its ARN: it is looked at now. Says whether it is one of ours.
    pub fn wake(&self, task: &str) -> bool {
        wake(&self.watches, task)
    }

    fn watch(&self, place: &EcsPlace) -> Result<Arc<Watch>, BackendError> {
        let key = (place.region.clone(), place.role.clone(), place.cluster.clone());
        let mut watches = lock(&self.watches);
        if let Some(watch) = watches.get(&key) {
            return Ok(watch.clone());
        }
        let client = Client::new(self.config.aws.clone(), &place.region).map_err(|fault| unreachable(&fault))?;
        let client = client.as_role(place.role.as_deref());
        let watch = Watch::new(
            client,
            place.cluster.clone(),
            self.config.timing,
            self.events.clone(),
            self.config.gates.of(&place.region, &place.cluster),
        );
        let watch = Arc::new(watch);
        watches.insert(key, watch.clone());
        Ok(watch)
    }

    /// What is written down of an attempt. One that is not over is looked after from now on.
    async fn here(&self, handle: &Handle, place: &EcsPlace) -> Result<Here, BackendError> {
        let dir = handle.dir.clone();
        let read = blocking(move || {
            if let Some(ended) = attempt_dir::recorded_end(&dir)? {
                return Ok(Err(attempt_dir::observed(ended)));
            }
            Ok(match Sent::read(&dir)? {
                Some(sent) => Ok((sent, Known::read(&dir)?, Cancel::read(&dir)?)),
                None => Err(Observation::NeverBegan),
            })
        });
        match read.await.map_err(|source| io_error(handle, source))? {
            Err(observation) => Ok(Here::Is(observation)),
            Ok((sent, known, cancel)) => {
                let watch = self.watch(place)?;
                let follow = match watch.followed(&handle.id) {
                    Some(follow) => follow,
                    None => watch.follow(Follow::new(handle.clone(), place.clone(), sent, known, cancel, false)),
                };
                Ok(Here::Ask(watch, follow))
            }
        }
    }

    async fn end_here(&self, handle: &Handle, exit: Exit, about: Option<String>) -> Result<(), BackendError> {
        let kept = handle.clone();
        let ended = blocking(move || {
            let mut ended = Ended::bare(exit, clock::now());
            ended.failed_step = about;
            std::fs::create_dir_all(&kept.dir)?;
            if let (false, Some(notice)) = (ended.exit == Exit::Cancelled, ended.notice()) {
                let path = attempt_dir::log(&kept.dir);
                if !path.exists() {
                    let mut writer = log::LogWriter::create(&path, pitcrew_exec::spec::DEFAULT_LOG_LIMIT)?;
                    writer.say(clock::now(), 0, &notice);
                    writer.flush();
                }
            }
            follow::record(&kept, &ended)?;
            Ok(attempt_dir::recorded_end(&kept.dir)?.unwrap_or(ended))
        });
        let ended = ended.await.map_err(|source| io_error(handle, source))?;
        let _ = self.events.send(follow::told(handle, ended));
        Ok(())
    }

    /// What ECS says now of attempts of one cluster.
    async fn ask(&self, watch: &Watch, open: &[(usize, &Handle, Arc<Follow>)]) -> Vec<(usize, Observation)> {
        let named: Vec<String> = open.iter().filter_map(|(_, _, follow)| follow.task()).collect();
        let known = match watch.shared.client.tasks(&watch.shared.cluster, &named).await {
            Ok(known) => known,
            Err(fault) => {
                let reason = fault.to_string();
                return open
                    .iter()
                    .map(|(at, ..)| (*at, Observation::Unreachable { reason: reason.clone() }))
                    .collect();
            }
        };
        let each = open.iter().map(|(at, handle, follow)| {
            let arn = follow.task().unwrap_or_default();
            let task = known.tasks.iter().find(|task| task.task_arn == arn);
            let untold = known.untold.iter().find(|(of, _)| *of == arn);
            async move {
                if let Some((_, fault)) = untold {
                    return (*at, Observation::Unreachable { reason: fault.to_string() });
                }
                let Some(task) = task else {
                    // It is about to be started, or ECS does not tell of it yet; the watcher finds out which.
                    return (*at, Observation::Waiting);
                };
                if task.last_status.is_over() {
                    let over = follow.over.notified();
                    let mut over = std::pin::pin!(over);
                    over.as_mut().enable();
                    watch.look(follow);
                    if !attempt_dir::exit(&handle.dir).exists() {
                        let _ = tokio::time::timeout(FETCH, over).await;
                    }
                    if let Ok(Some(ended)) = attempt_dir::recorded_end(&handle.dir) {
                        return (*at, attempt_dir::observed(ended));
                    }
                }
                match task.started_at {
                    Some(started_at) => (*at, Observation::Running { started_at }),
                    None if task.last_status.is_before_running() => (*at, Observation::Waiting),
                    None => (*at, Observation::Running { started_at: clock::now() }),
                }
            }
        });
        futures::future::join_all(each).await
    }
}

#[async_trait]
impl Backend for EcsBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        let mut handle = Handle::of(spec);
        if let Some(Place::Ecs(place)) = &mut handle.place {
            if place.instance.is_empty() {
                place.instance.clone_from(&self.config.instance);
            }
            if place.region.is_empty() {
                place.region.clone_from(&self.config.region);
            }
        }
        handle
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        let about = spec.steps.first().map(|step| step.name.clone());
        let Some(place) = place_of(handle) else {
            let exit = Exit::cannot_start("it does not say in which cluster of ECS it is to run");
            return self.end_here(handle, exit, about).await;
        };
        match self.here(handle, place).await? {
            Here::Is(Observation::NeverBegan) => {}
            Here::Is(_) => {
                // The end is told again to whoever may have missed it.
                if let Some(ended) = attempt_dir::recorded_end(&handle.dir).map_err(|e| io_error(handle, e))? {
                    let _ = self.events.send(follow::told(handle, ended));
                }
                return Ok(());
            }
            Here::Ask(watch, follow) => {
                watch.look(&follow);
                return Ok(());
            }
        }
        let sent = match plan::sent(&spec, place, clock::now()) {
            Ok(sent) => sent,
            Err(reason) => return self.end_here(handle, Exit::cannot_start(reason), about).await,
        };
        drop(spec);
        let watch = self.watch(place)?;
        let weighing = self.marks.lock().await;
        let (dir, written) = (handle.dir.clone(), sent.clone());
        let decided = blocking(move || {
            if attempt_dir::exit(&dir).exists() || Cancel::read(&dir)?.is_some() || Sent::read(&dir)?.is_some() {
                return Ok(false);
            }
            std::fs::create_dir_all(&dir)?;
            written.write(&dir).map(|()| true)
        });
        let may = decided.await.map_err(|source| io_error(handle, source))?;
        drop(weighing);
        if may {
            let follow = watch.follow(Follow::new(handle.clone(), place.clone(), sent, None, None, true));
            let mut tried = follow.tried.subscribe();
            // It is accepted whatever comes of that; but who asks next should find it where it is.
            let _ = tokio::time::timeout(ACCEPT, tried.wait_for(|tried| *tried)).await;
        }
        Ok(())
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        self.poll(std::slice::from_ref(handle)).await.pop().unwrap_or(Observation::NeverBegan)
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        let mut answers: Vec<Option<Observation>> = vec![None; handles.len()];
        let mut open: Vec<(Arc<Watch>, Vec<(usize, &Handle, Arc<Follow>)>)> = Vec::new();
        for (at, handle) in handles.iter().enumerate() {
            let here = match place_of(handle) {
                Some(place) => self.here(handle, place).await,
                None => {
                    let ended = attempt_dir::recorded_end(&handle.dir).ok().flatten();
                    Ok(Here::Is(ended.map_or(Observation::NeverBegan, attempt_dir::observed)))
                }
            };
            match here {
                Ok(Here::Is(observation)) => answers[at] = Some(observation),
                Ok(Here::Ask(watch, follow)) => match open.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &watch)) {
                    Some((_, all)) => all.push((at, handle, follow)),
                    None => open.push((watch, vec![(at, handle, follow)])),
                },
                Err(error) => answers[at] = Some(Observation::Unreachable { reason: error.to_string() }),
            }
        }
        let each = open.iter().map(|(watch, all)| self.ask(watch, all));
        for (at, observation) in futures::future::join_all(each).await.into_iter().flatten() {
            answers[at] = Some(observation);
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Observation::NeverBegan)).collect()
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        let dir = handle.dir.clone();
        let read = blocking(move || {
            // Found out first: what is written after an end is found by the next question.
            let over = attempt_dir::exit(&dir).exists();
            log::read(&attempt_dir::log(&dir), offset, max_bytes, over)
        });
        read.await.map_err(|source| io_error(handle, source))
    }

    /// ECS gives the grace that the task definition says (`stopTimeout`, 30 s unless it does): `grace` is not asked for.
    async fn cancel(&self, handle: &Handle, _grace: SignedDuration) -> Result<(), BackendError> {
        let weighing = self.marks.lock().await;
        let dir = handle.dir.clone();
        let cancel = Cancel { intent: Intent::Cancelled, at: clock::now() };
        let decided = blocking(move || {
            if attempt_dir::exit(&dir).exists() {
                return Ok(None);
            }
            std::fs::create_dir_all(&dir)?;
            if Cancel::read(&dir)?.is_none() {
                cancel.write(&dir)?;
            }
            Ok(Some(Sent::read(&dir)?.is_some()))
        });
        let decided = decided.await.map_err(|source| io_error(handle, source))?;
        drop(weighing);
        let place = place_of(handle);
        match (decided, place) {
            (None, _) => Ok(()),
            (Some(false), _) | (_, None) => self.end_here(handle, Exit::Cancelled, None).await,
            (Some(true), Some(place)) => {
                let Here::Ask(watch, follow) = self.here(handle, place).await? else { return Ok(()) };
                follow.set_cancel(cancel);
                let asked = follow.stop(&watch.shared.client).await;
                watch.look(&follow);
                asked.map_err(|fault| unreachable(&fault))
            }
        }
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        let dir = handle.dir.clone();
        blocking(move || attempt_dir::clean(&dir)).await.map_err(|source| io_error(handle, source))
    }

    /// Only one process may take events from the queue: each is given out once.
    fn lead(&self) {
        let Some(queue) = &self.config.events else { return };
        let mut listener = lock(&self.listener);
        if listener.is_some() {
            return;
        }
        match Client::new(self.config.aws.clone(), &self.config.region) {
            Ok(client) => {
                let watches = Arc::clone(&self.watches);
                let others = self.config.wakes.clone();
                let warnings = self.config.warnings.clone();
                let heard = move |event: Wake| {
                    // Polling finds out what the others tell of, but an interruption nobody tells again: it stays in the queue
                    // until it is written down.
                    let word = match (&event, &warnings) {
                        (Wake::Task { arn, .. }, _) => {
                            wake(&watches, arn);
                            Word::Heard
                        }
                        (Wake::Interruption { id, action }, Some(warnings)) => {
                            let (taken, told) = tokio::sync::oneshot::channel();
                            let warning =
                                Warning { id: id.clone(), action: action.clone(), heard: clock::instant(), taken };
                            warnings.send(warning).map_or(Word::Nobody, |()| Word::Awaited(told))
                        }
                        (Wake::Instance { .. } | Wake::Machine { .. } | Wake::Interruption { .. }, _) => Word::Heard,
                    };
                    // Nobody listens where no machines are known.
                    let _ = others.send(event);
                    word
                };
                let task = tokio::spawn(Listener::new(client, queue, Vec::new()).run(heard));
                *listener = Some(task.abort_handle());
            }
            Err(fault) => tracing::error!("cannot listen to events of ECS: {fault}"),
        }
    }

    fn stand_down(&self) {
        if let Some(listener) = lock(&self.listener).take() {
            listener.abort();
        }
    }

    async fn capabilities(&self) -> Capabilities {
        let remark = "which GPUs a task gets, and how long it may take to end, is up to ECS and the task definition";
        Capabilities { memory_limit: true, remarks: vec![remark.to_owned()], ..Capabilities::default() }
    }
}

fn wake(watches: &Watches, task: &str) -> bool {
    let all: Vec<_> = lock(watches).values().cloned().collect();
    all.iter().any(|watch| watch.wake(task))
}

fn place_of(handle: &Handle) -> Option<&EcsPlace> {
    match &handle.place {
        Some(Place::Ecs(place)) => Some(place),
        Some(Place::Ssh(_) | Place::Worker(_) | Place::Kubernetes(_)) | None => None,
    }
}

fn unreachable(fault: &Fault) -> BackendError {
    BackendError::Unreachable { backend: NAME, reason: fault.to_string() }
}

fn io_error(handle: &Handle, source: io::Error) -> BackendError {
    BackendError::Io { what: format!("cannot use `{}`", handle.dir.display()), source }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
