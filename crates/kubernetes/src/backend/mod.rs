//! The `kubernetes` backend: attempts are pods of a cluster, made, watched and deleted by calls of its API server, with their
//! logs copied here.
//!
//! ```text
//! start ─ sent.json ─► follow ─ Secret, pod ─► made.json ─ watch, log ─► log ─► exit.json ─► pod and Secret deleted
//! ```
//!
//! What is written down here decides first: without `sent.json` nothing began, with `exit.json` it is over, and about what lies
//! between the API server is asked. A pod is named after its attempt, so an attempt has one pod for ever, whoever asks for it.
//! What a pod is made of may hold secrets and is therefore in memory alone: an attempt whose pod was never made, and whose
//! server died, has not begun, and is started once more.

mod ends;
mod follow;
mod make;
mod manifest;
mod marks;
mod mirror;
mod probe;
mod results;
mod seen;
mod watch;
mod wrap;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use pitcrew_core::pod::{Pod, PodEnded, PodFailure};
use pitcrew_core::state::Exit;
use pitcrew_exec::{
    AttemptSpec, Backend, BackendError, Capabilities, Ended, EventSender, Handle, KubernetesPlace, LogChunk,
    Observation, Place, attempt_dir, log,
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::watch::Namespace;
use follow::{Follow, Known};
use manifest::{Names, Objects};
use marks::{Cancel, Made, Mark, Sent};

use crate::client::Client;
use crate::clock;

const NAME: &str = "kubernetes";
/// How long somebody who asks waits for an end that is being written down.
const FETCH: Duration = Duration::from_secs(2);
/// How long a clean-up waits for whoever is about to remove what is in the cluster.
const REMOVAL: Duration = Duration::from_secs(30);

/// What finds a variable of this process's environment.
pub type Lookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// See the module.
pub struct KubernetesBackend {
    /// Tells the attempts of this store from those of others in the same cluster. Must never change.
    instance: String,
    env: Lookup,
    events: EventSender,
    namespaces: Mutex<HashMap<Where, Arc<Namespace>>>,
    follows: Arc<Mutex<HashMap<AttemptId, (Arc<Follow>, AbortHandle)>>>,
    /// Held while `sent.json` and `cancel.json` are weighed against each other.
    marks: tokio::sync::Mutex<()>,
}

type Where = (Option<PathBuf>, Option<String>, String);

impl Drop for KubernetesBackend {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is known of an attempt without asking anybody.
enum Here {
    Is(Observation),
    Followed(Arc<Follow>),
    /// It was sent, and nobody looks after it yet.
    Sent(Sent),
}

impl KubernetesBackend {
    /// Asks nobody yet. `instance`: a word for this store.
    pub fn new(instance: &str, env: Lookup, events: EventSender) -> KubernetesBackend {
        KubernetesBackend {
            instance: hash(&[instance]),
            env,
            events,
            namespaces: Mutex::default(),
            follows: Arc::default(),
            marks: tokio::sync::Mutex::default(),
        }
    }

    /// Whoever comes next looks after all attempts, and writes their logs alone.
    fn stop(&self) {
        lock(&self.follows).drain().for_each(|(_, (_, task))| task.abort());
    }

    fn namespace(&self, place: &KubernetesPlace, name: &str) -> Result<Arc<Namespace>, String> {
        let key = (place.kubeconfig.clone(), place.context.clone(), name.to_owned());
        let mut all = lock(&self.namespaces);
        if let Some(found) = all.get(&key) {
            return Ok(found.clone());
        }
        let known = all.iter().find(|((kubeconfig, context, _), _)| (kubeconfig, context) == (&key.0, &key.1));
        let client = match known {
            Some((_, of)) => of.client.clone(),
            None => Client::find(place.kubeconfig.as_deref(), place.context.as_deref(), &*self.env)?,
        };
        let made = Namespace::new(client, name.to_owned(), self.instance_of(place).to_owned());
        all.insert(key, made.clone());
        Ok(made)
    }

    fn instance_of<'a>(&'a self, place: &'a KubernetesPlace) -> &'a str {
        if place.instance.is_empty() { &self.instance } else { &place.instance }
    }

    fn objects(
        &self,
        handle: &Handle,
        place: &KubernetesPlace,
        spec: &AttemptSpec,
        pod: &Pod,
    ) -> Result<Objects, String> {
        let instance = self.instance_of(place);
        let (shown, run) = (handle.id.to_string(), handle.id.run.to_string());
        let names = Names {
            instance,
            attempt: &hash(&[instance, &shown]),
            run: &hash(&[instance, &run]),
            shown: &shown,
            grace_s: spec.grace.as_secs().max(1),
            at: clock::now(),
            deadline_s: spec.pod.as_ref().and_then(|run| run.deadline).map(|limit| limit.as_secs().max(1)),
        };
        manifest::objects(pod, &names, space(place, pod), &spec.masks, spec.log_limit)
    }

    /// What is written down.
    async fn here(&self, handle: &Handle) -> Result<Here, BackendError> {
        if let Some((found, _)) = lock(&self.follows).get(&handle.id) {
            return Ok(Here::Followed(found.clone()));
        }
        let dir = handle.dir.clone();
        let read = blocking(move || {
            if let Some(ended) = attempt_dir::recorded_end(&dir)? {
                return Ok(Here::Is(attempt_dir::observed(ended)));
            }
            Ok(Sent::read(&dir)?.map_or(Here::Is(Observation::NeverBegan), Here::Sent))
        });
        read.await.map_err(|source| io_error(handle, source))
    }

    /// From now on somebody looks after it.
    fn follow(
        &self,
        handle: &Handle,
        sent: Sent,
        namespace: Arc<Namespace>,
        cancel: Option<Cancel>,
        made: Option<(Objects, Vec<String>)>,
    ) -> Arc<Follow> {
        let mut follows = lock(&self.follows);
        if let Some((found, _)) = follows.get(&handle.id) {
            return found.clone();
        }
        let follow = Arc::new(Follow {
            handle: handle.clone(),
            sent,
            namespace,
            known: tokio::sync::watch::Sender::new(Known::Waiting),
            cancel: tokio::sync::watch::Sender::new(cancel),
            over: Notify::new(),
            events: self.events.clone(),
        });
        let (all, own) = (Arc::downgrade(&self.follows), follow.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = own.run(made).await {
                // Asked about again, it is looked after anew.
                tracing::error!(attempt = %own.handle.id, "cannot use `{}`: {error}", own.handle.dir.display());
            }
            if let Some(all) = all.upgrade() {
                lock(&all).remove(&own.handle.id);
            }
        });
        follows.insert(handle.id.clone(), (follow.clone(), task.abort_handle()));
        follow
    }

    /// Goes on with an attempt of an earlier process, if its pod was made.
    async fn resume(&self, handle: &Handle, place: &KubernetesPlace, sent: Sent) -> Result<Observation, String> {
        let namespace = self.namespace(place, &sent.namespace)?;
        let dir = handle.dir.clone();
        let read = blocking(move || Ok((Made::read(&dir)?, Cancel::read(&dir)?)));
        let (made, cancel) = read.await.map_err(|error| format!("cannot use `{}`: {error}", handle.dir.display()))?;
        let found =
            make::find(&namespace.client, &sent.namespace, &sent.name).await.map_err(|fault| fault.to_string())?;
        if found.is_none() && made.is_none() {
            return Ok(Observation::NeverBegan);
        }
        let began = found.as_ref().and_then(|pod| ends::started_at(&sent, pod));
        let follow = self.follow(handle, sent, namespace, cancel, None);
        Ok(self.observe(&follow, began).await)
    }

    /// How an attempt stands that somebody looks after.
    async fn observe(&self, follow: &Follow, began: Option<jiff::Timestamp>) -> Observation {
        let known = *follow.known.borrow();
        match (known, began) {
            (Known::Running(started_at), _) | (Known::Waiting, Some(started_at)) => Observation::Running { started_at },
            (Known::Waiting, None) => Observation::Waiting,
            (Known::Over | Known::Gone, _) => {
                let over = tokio::time::timeout(FETCH, follow.over.notified());
                let recorded = || attempt_dir::recorded_end(&follow.handle.dir).ok().flatten();
                if recorded().is_none() {
                    let _ = over.await;
                }
                recorded().map_or(Observation::Waiting, attempt_dir::observed)
            }
        }
    }

    async fn observation(&self, handle: &Handle) -> Observation {
        let unreachable = |reason: String| Observation::Unreachable { reason };
        match self.here(handle).await {
            Ok(Here::Is(observation)) => observation,
            Ok(Here::Followed(follow)) => self.observe(&follow, None).await,
            Ok(Here::Sent(sent)) => match place_of(handle) {
                Some(place) => self.resume(handle, place, sent).await.unwrap_or_else(unreachable),
                None => Observation::NeverBegan,
            },
            Err(error) => unreachable(error.to_string()),
        }
    }

    async fn end_here(&self, handle: &Handle, exit: Exit, failure: Option<PodFailure>) -> Result<(), BackendError> {
        let kept = handle.clone();
        let ended = blocking(move || {
            let mut ended = Ended::bare(exit, clock::now());
            ended.pod = failure.map(|failure| Box::new(PodEnded { failure: Some(failure), ..PodEnded::default() }));
            std::fs::create_dir_all(&kept.dir)?;
            let path = attempt_dir::log(&kept.dir);
            if let (false, Some(notice), false) = (ended.exit == Exit::Cancelled, ended.notice(), path.exists()) {
                let mut writer = log::LogWriter::create(&path, pitcrew_exec::spec::DEFAULT_LOG_LIMIT)?;
                writer.say(clock::now(), 0, &notice);
                writer.flush();
            }
            follow::record(&kept.dir, ended)
        });
        let ended = ended.await.map_err(|source| io_error(handle, source))?;
        let _ = self.events.send(follow::told(handle, ended));
        Ok(())
    }
}

#[async_trait]
impl Backend for KubernetesBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        let mut handle = Handle::of(spec);
        if let Some(Place::Kubernetes(place)) = &mut handle.place
            && place.instance.is_empty()
        {
            place.instance.clone_from(&self.instance);
        }
        handle
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        let refused = |message: String| (Exit::cannot_start(message.clone()), Some(PodFailure::Refused { message }));
        let (place, run) = match (place_of(handle), &spec.pod) {
            (Some(place), Some(run)) => (place, run),
            (None, _) => {
                let (exit, failure) = refused("it does not say in which cluster of Kubernetes it is to run".to_owned());
                return self.end_here(handle, exit, failure).await;
            }
            (Some(_), None) => {
                let message = "only tasks that are pods, such as Tekton's, run on Kubernetes";
                let (exit, failure) = refused(message.to_owned());
                return self.end_here(handle, exit, failure).await;
            }
        };
        match self.observation(handle).await {
            Observation::NeverBegan => {}
            Observation::Ended(_) | Observation::Lost { .. } => {
                // The end is told again to whoever may have missed it.
                if let Some(ended) = attempt_dir::recorded_end(&handle.dir).map_err(|e| io_error(handle, e))? {
                    let _ = self.events.send(follow::told(handle, ended));
                }
                return Ok(());
            }
            Observation::Waiting | Observation::Running { .. } => return Ok(()),
            Observation::Unreachable { reason } => return Err(BackendError::Unreachable { backend: NAME, reason }),
        }
        let namespace = match self.namespace(place, space(place, &run.pod)) {
            Ok(namespace) => namespace,
            Err(why) => {
                let (exit, failure) = refused(why);
                return self.end_here(handle, exit, failure).await;
            }
        };
        let objects = match self.objects(handle, place, &spec, &run.pod) {
            Ok(objects) => objects,
            Err(why) => {
                let (exit, failure) = refused(why);
                return self.end_here(handle, exit, failure).await;
            }
        };
        let weighing = self.marks.lock().await;
        let (dir, sent) = (handle.dir.clone(), objects.sent.clone());
        let decided = blocking(move || {
            if attempt_dir::exit(&dir).exists() || Cancel::read(&dir)?.is_some() {
                return Ok(false);
            }
            std::fs::create_dir_all(&dir)?;
            sent.write(&dir).map(|()| true)
        });
        if decided.await.map_err(|source| io_error(handle, source))? {
            let sent = objects.sent.clone();
            self.follow(handle, sent, namespace, None, Some((objects, spec.masks)));
        }
        drop(weighing);
        Ok(())
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        self.observation(handle).await
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        futures::future::join_all(handles.iter().map(|handle| self.observation(handle))).await
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

    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError> {
        let grace_s = u32::try_from(grace.as_secs().max(0)).unwrap_or(u32::MAX);
        let wanted = Cancel { at: clock::now(), grace_s };
        let weighing = self.marks.lock().await;
        let (dir, own) = (handle.dir.clone(), wanted);
        let written = blocking(move || {
            if attempt_dir::exit(&dir).exists() {
                return Ok(None);
            }
            std::fs::create_dir_all(&dir)?;
            let earlier = Cancel::read(&dir)?.filter(|earlier| earlier.grace_s <= own.grace_s);
            if earlier.is_none() {
                own.write(&dir)?;
            }
            Ok(Some((earlier.unwrap_or(own), Sent::read(&dir)?)))
        });
        let written = written.await.map_err(|source| io_error(handle, source))?;
        drop(weighing);
        let Some((cancel, sent)) = written else { return Ok(()) };
        if sent.is_none() {
            return self.end_here(handle, Exit::Cancelled, None).await;
        }
        let is_followed = |follow: &Follow| {
            follow.cancel.send_if_modified(|known| {
                let is_new = *known != Some(cancel);
                *known = Some(cancel);
                is_new
            })
        };
        match self.here(handle).await? {
            Here::Followed(follow) => drop(is_followed(&follow)),
            Here::Is(_) => {}
            Here::Sent(_) => match self.observation(handle).await {
                // Its pod was never made, and will not be.
                Observation::NeverBegan => return self.end_here(handle, Exit::Cancelled, None).await,
                Observation::Unreachable { reason } => return Err(BackendError::Unreachable { backend: NAME, reason }),
                Observation::Waiting
                | Observation::Running { .. }
                | Observation::Ended(_)
                | Observation::Lost { .. } => {}
            },
        }
        Ok(())
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        let dir = handle.dir.clone();
        let read = blocking(move || Ok((attempt_dir::exit(&dir).exists(), Sent::read(&dir)?, Made::read(&dir)?)));
        let (is_over, sent, made) = read.await.map_err(|source| io_error(handle, source))?;
        if !is_over {
            return Ok(());
        }
        // Whoever looked after it is about to remove it.
        let follow = lock(&self.follows).get(&handle.id).map(|(follow, _)| follow.clone());
        if let Some(follow) = follow {
            let mut known = follow.known.subscribe();
            let _ = tokio::time::timeout(REMOVAL, known.wait_for(|known| *known == Known::Gone)).await;
        }
        if let (Some(sent), Some(_), Some(place)) = (sent, made, place_of(handle))
            && let Ok(namespace) = self.namespace(place, &sent.namespace)
        {
            follow::remove(&namespace, &sent, &handle.dir).await;
        }
        let dir = handle.dir.clone();
        match blocking(move || attempt_dir::clean(&dir)).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(handle, e)),
            _ => Ok(()),
        }
    }

    async fn leave(&self, handles: &[Handle]) -> Result<(), BackendError> {
        let mut done = Vec::new();
        for handle in handles {
            let Some(place) = place_of(handle) else { continue };
            let Some(space) = &place.namespace else { continue };
            let run = handle.id.run.to_string();
            let Ok(namespace) = self.namespace(place, space) else { continue };
            let key = (space.clone(), run.clone(), Arc::as_ptr(&namespace) as usize);
            if done.contains(&key) {
                continue;
            }
            done.push(key);
            let instance = self.instance_of(place);
            let run = hash(&[instance, &run]);
            if let Err(fault) = make::remove_claims(&namespace.client, space, instance, &run).await {
                return Err(BackendError::Unreachable { backend: NAME, reason: fault.to_string() });
            }
        }
        Ok(())
    }

    fn stand_down(&self) {
        self.stop();
    }

    async fn capabilities(&self) -> Capabilities {
        let remark = "what a pod may use, and which GPUs it gets, is up to its cluster";
        Capabilities { memory_limit: true, remarks: vec![remark.to_owned()], ..Capabilities::default() }
    }
}

/// The namespace of its pod: what the place says, else that of the pod.
fn space<'a>(place: &'a KubernetesPlace, pod: &'a Pod) -> &'a str {
    place.namespace.as_deref().unwrap_or(&pod.namespace)
}

fn place_of(handle: &Handle) -> Option<&KubernetesPlace> {
    match &handle.place {
        Some(Place::Kubernetes(place)) => Some(place),
        Some(Place::Ssh(_) | Place::Worker(_) | Place::Ecs(_)) | None => None,
    }
}

/// Ten bytes that stand for some words, as text that may be in a name.
fn hash(words: &[&str]) -> String {
    let digest = Sha256::digest(words.join("\n"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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
