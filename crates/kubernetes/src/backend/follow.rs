//! Looks after one attempt: makes its pod, copies its log, and writes down how it ended.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::pod::PodFailure;
use pitcrew_core::state::Exit;
use pitcrew_exec::log::{self, Masker};
use pitcrew_exec::{BackendEvent, Ended, EventSender, Handle, attempt_dir};
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::ends::{self, Stage};
use super::make::{self, Not};
use super::manifest::Objects;
use super::marks::{Cancel, Made, Mark, Sent};
use super::mirror::Mirror;
use super::seen::Seen;
use super::watch::Namespace;
use crate::client::{Call, Fault, Kind, Lines, PODS};
use crate::clock;

/// How often it is looked although nothing is told.
const LOOK: Duration = Duration::from_secs(10);
/// Between two tries of what did not succeed.
const AGAIN: Duration = Duration::from_secs(1);
/// How long it is waited for the end of a log that cannot be read just now.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of an attempt that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Waiting,
    Running(Timestamp),
    Over,
    /// And nothing of it is left in the cluster, or it could not be removed now.
    Gone,
}

/// One attempt.
pub struct Follow {
    pub handle: Handle,
    pub sent: Sent,
    pub namespace: Arc<Namespace>,
    pub known: watch::Sender<Known>,
    pub cancel: watch::Sender<Option<Cancel>>,
    /// It is followed no more.
    pub over: Notify,
    pub events: EventSender,
}

/// The log of one container, as it comes.
struct Copying {
    container: usize,
    lines: Lines,
    /// It was over before it was asked for: then the end of the answer is its end.
    is_last: bool,
}

impl Follow {
    /// To the end of the attempt; an error is one of this machine's disk. `made`: what is to be made first.
    pub async fn run(&self, made: Option<(Objects, Vec<String>)>) -> std::io::Result<()> {
        let mut mirror = Mirror::open(&self.handle.dir, &self.sent, clock::now())?;
        let masks = match made {
            Some((objects, masks)) => {
                if let Some(ended) = self.make(&objects, &mut mirror).await? {
                    return self.finish(mirror, ended, None).await;
                }
                masks
            }
            None => self.masks().await,
        };
        let masker = Masker::new(masks.iter().map(String::as_str)).map(Arc::new);
        mirror.mask(masker.clone());
        let (pod, stage) = self.watch(&mut mirror).await?;
        let asked = self.cancel.borrow().is_some();
        let now = clock::now();
        let ended = match stage {
            Stage::Lost(reason) => {
                // Whatever of it still runs must not run beside the next attempt.
                Ended::bare(Exit::Lost { reason }, now)
            }
            Stage::Stuck(failure) => ends::end(&self.sent, pod.as_deref(), &mirror, asked, Some(failure), now),
            Stage::Over | Stage::Running | Stage::Waiting(_) => {
                ends::end(&self.sent, pod.as_deref(), &mirror, asked, None, now)
            }
        };
        self.finish(mirror, ended, masker.as_deref()).await
    }

    /// Makes the objects, however long that takes; an end, if there never will be a pod.
    async fn make(&self, objects: &Objects, mirror: &mut Mirror) -> std::io::Result<Option<Ended>> {
        let mut cancel = self.cancel.subscribe();
        loop {
            if cancel.borrow_and_update().is_some() {
                let _ = make::remove(&self.namespace.client, &self.sent.namespace, &self.sent.name).await;
                return Ok(Some(Ended::bare(Exit::Cancelled, clock::now())));
            }
            match make::make(&self.namespace.client, objects).await {
                Ok(uid) => {
                    Made { uid }.write(&self.handle.dir)?;
                    return Ok(None);
                }
                Err(Not::Later(pause, why)) => {
                    mirror.say(clock::now(), 0, &why)?;
                    tokio::select! {
                        _ = cancel.changed() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                Err(Not::Never(message)) => {
                    let mut ended = Ended::bare(Exit::cannot_start(message.clone()), clock::now());
                    let failure = PodFailure::Refused { message };
                    let told = ends::end(&self.sent, None, mirror, false, Some(failure), ended.at);
                    ended.pod = told.pod;
                    let _ = make::remove(&self.namespace.client, &self.sent.namespace, &self.sent.name).await;
                    return Ok(Some(ended));
                }
            }
        }
    }

    /// After a restart; without them no line may be copied.
    async fn masks(&self) -> Vec<String> {
        loop {
            match make::masks(&self.namespace.client, &self.sent).await {
                Ok(masks) => return masks,
                Err(fault) => {
                    tracing::warn!(attempt = %self.handle.id, "what its log may not show cannot be read: {fault}");
                    tokio::time::sleep(fault.after.unwrap_or(AGAIN)).await;
                }
            }
        }
    }

    /// Until its steps are over and their logs are here.
    async fn watch(&self, mirror: &mut Mirror) -> std::io::Result<(Option<Arc<Seen>>, Stage)> {
        let mut hint = self.namespace.follow(&self.sent.name);
        let mut cancel = self.cancel.subscribe();
        cancel.mark_changed();
        let mut pod = self.find().await.ok().flatten().map(Arc::new);
        let mut copying: Option<Copying> = None;
        // Nothing is asked of its log before this.
        let mut pause: Option<tokio::time::Instant> = None;
        let mut patience: Option<tokio::time::Instant> = None;
        let mut stopped = false;
        loop {
            let asked = self.cancel.borrow().is_some();
            let stage = pod.as_deref().map_or(Stage::Waiting(None), |pod| ends::stage(&self.sent, pod, asked));
            self.tell(&stage, pod.as_deref(), mirror)?;
            if let Some(pod) = &pod
                && copying.is_none()
                && pause.is_none_or(|at| at <= clock::instant())
            {
                match self.open(pod, mirror).await {
                    Ok(opened) => copying = opened,
                    Err(fault) => {
                        tracing::debug!(attempt = %self.handle.id, "its log cannot be read: {fault}");
                        pause = Some(clock::instant() + AGAIN);
                    }
                }
            }
            let is_final = matches!(stage, Stage::Over | Stage::Lost(_) | Stage::Stuck(_));
            if is_final {
                let until = *patience.get_or_insert_with(|| clock::instant() + PATIENCE);
                let is_here = copying.is_none() && pause.is_none_or(|at| at <= clock::instant());
                let late = clock::instant() >= until;
                if late {
                    mirror.say(clock::now(), 0, "the end of its log could not be read before its pod had to go")?;
                }
                if is_here || late {
                    return Ok((pod, stage));
                }
            }
            let look = clock::instant() + if is_final || pause.is_some() { AGAIN } else { LOOK };
            let wait = pause.map_or(look, |at| at.min(look));
            tokio::select! {
                told = hint.changed() => {
                    if told.is_err() {
                        hint = self.namespace.follow(&self.sent.name);
                    }
                    let seen = hint.borrow_and_update().1.clone();
                    match seen {
                        Some(seen) => pod = Some(seen),
                        None => if let Some(gone) = self.look(&mut pod).await { return Ok((pod, gone)) },
                    }
                    // What a stream did not tell any more, the next one does.
                    pause = None;
                }
                lines = next(&mut copying) => {
                    let Some(of) = &copying else { continue };
                    match lines {
                        Ok(lines) if lines.is_empty() => {
                            let is_over = of.is_last || stopped;
                            if is_over {
                                mirror.whole(of.container)?;
                            } else {
                                pause = Some(clock::instant() + AGAIN);
                            }
                            copying = None;
                        }
                        Ok(lines) => mirror.take(of.container, &lines)?,
                        Err(_) => {
                            pause = Some(clock::instant() + AGAIN);
                            copying = None;
                        }
                    }
                }
                _ = cancel.changed() => {
                    let Some(Cancel { grace_s, .. }) = *cancel.borrow_and_update() else { continue };
                    let deleted = make::delete(&self.namespace.client, &self.sent.namespace, &self.sent.name, grace_s);
                    match deleted.await {
                        Ok(()) => stopped = true,
                        Err(fault) => {
                            tracing::warn!(attempt = %self.handle.id, "its pod cannot be deleted: {fault}");
                            tokio::time::sleep(AGAIN).await;
                            cancel.mark_changed();
                        }
                    }
                }
                () = tokio::time::sleep_until(wait) => {
                    if pause.take().is_none() && let Some(gone) = self.look(&mut pod).await {
                        return Ok((pod, gone));
                    }
                }
            }
        }
    }

    /// Asks for the pod itself; how it stands, if it is gone.
    async fn look(&self, pod: &mut Option<Arc<Seen>>) -> Option<Stage> {
        match self.find().await {
            Ok(Some(seen)) => *pod = Some(Arc::new(seen)),
            Ok(None) if self.cancel.borrow().is_some() => return Some(Stage::Over),
            Ok(None) => {
                let over = pod.as_deref().map(|pod| ends::stage(&self.sent, pod, false));
                return Some(match over {
                    Some(Stage::Over) => Stage::Over,
                    _ => Stage::Lost(format!("its pod `{}` is gone: somebody deleted it", self.sent.name)),
                });
            }
            Err(fault) => tracing::debug!(attempt = %self.handle.id, "its pod cannot be asked for: {fault}"),
        }
        None
    }

    async fn find(&self) -> Result<Option<Seen>, Fault> {
        make::find(&self.namespace.client, &self.sent.namespace, &self.sent.name).await
    }

    /// Says to others how it stands.
    fn tell(&self, stage: &Stage, pod: Option<&Seen>, mirror: &mut Mirror) -> std::io::Result<()> {
        if let Stage::Waiting(Some(why)) = stage {
            mirror.say(clock::now(), 0, &format!("its pod waits: {why}"))?;
        }
        let began = pod.and_then(|pod| ends::started_at(&self.sent, pod));
        let Some(at) = began.filter(|_| *self.known.borrow() == Known::Waiting) else { return Ok(()) };
        self.known.send_replace(Known::Running(at));
        let id = self.handle.id.clone();
        let mut names = serde_json::Map::new();
        names.insert("pod".to_owned(), json!(self.sent.name));
        names.insert("namespace".to_owned(), json!(self.sent.namespace));
        if let Some(pod) = pod.filter(|pod| !pod.spec.node_name.is_empty()) {
            names.insert("node".to_owned(), json!(pod.spec.node_name));
        }
        let _ = self.events.send(BackendEvent::Named { id: id.clone(), names });
        let _ = self.events.send(BackendEvent::Started { id, at });
        Ok(())
    }

    /// The log of the first container that has one, and that is not whole here.
    async fn open(&self, pod: &Seen, mirror: &mut Mirror) -> Result<Option<Copying>, Fault> {
        for (container, step) in self.sent.steps.iter().enumerate() {
            if mirror.is_whole(container) {
                continue;
            }
            let Some(seen) = pod.container(&step.name) else { return Ok(None) };
            let is_last = seen.state.terminated.is_some();
            if !is_last && seen.state.running.is_none() {
                return Ok(None);
            }
            let mut call = Call::get(PODS, Some(&self.sent.namespace), &self.sent.name).below("log");
            call = call.query("container", &step.name).query("follow", "true").query("timestamps", "true");
            if let Some(since) = mirror.begin(container) {
                call = call.query("sinceTime", since.to_string());
            }
            return match self.namespace.client.lines(call).await {
                Ok(lines) => Ok(Some(Copying { container, lines, is_last })),
                // Its pod is gone, or it never had one: nothing more will come.
                Err(fault) if is_last && matches!(fault.kind, Kind::NotFound | Kind::Invalid) => {
                    let _ = mirror.whole(container);
                    continue;
                }
                Err(fault) => Err(fault),
            };
        }
        Ok(None)
    }

    /// Writes the end down, tells it, and removes what is in the cluster.
    async fn finish(&self, mut mirror: Mirror, mut ended: Ended, masker: Option<&Masker>) -> std::io::Result<()> {
        for (index, remark) in ends::remarks(&self.sent, &ended) {
            mirror.say(clock::now(), index, &remark)?;
        }
        if let Some(notice) = ended.notice() {
            ended.tail = log::tail(&attempt_dir::log(&self.handle.dir), 10, 4 << 10);
            mirror.say(clock::now(), 0, &notice)?;
        }
        if let Some(masker) = masker {
            ended.mask(masker);
        }
        if let Some(started) = ended.started_at {
            ended.usage.wall_seconds = ended.at.duration_since(started).max(SignedDuration::ZERO).as_secs_f64();
        }
        let ended = record(&self.handle.dir, ended)?;
        self.known.send_replace(Known::Over);
        let _ = self.events.send(told(&self.handle, ended));
        self.over.notify_waiters();
        self.namespace.forget(&self.sent.name);
        remove(&self.namespace, &self.sent, &self.handle.dir).await;
        self.known.send_replace(Known::Gone);
        Ok(())
    }
}

/// Waits for ever where nothing is copied.
async fn next(copying: &mut Option<Copying>) -> Result<Vec<Vec<u8>>, Fault> {
    match copying {
        Some(copying) => copying.lines.next().await,
        None => std::future::pending().await,
    }
}

/// What the cluster still has of an attempt that is over; where that cannot be done now, it is done when the attempt is cleaned up.
pub async fn remove(namespace: &Namespace, sent: &Sent, dir: &Path) {
    match make::remove(&namespace.client, &sent.namespace, &sent.name).await {
        Ok(()) => drop(std::fs::remove_file(dir.join(Made::FILE))),
        Err(fault) => tracing::warn!("the pod `{}` of `{}` is left: {fault}", sent.name, sent.namespace),
    }
}

/// The first end that is recorded counts.
pub fn record(dir: &Path, ended: Ended) -> std::io::Result<Ended> {
    if let Some(earlier) = attempt_dir::recorded_end(dir)? {
        return Ok(earlier);
    }
    attempt_dir::record_end(dir, &ended)?;
    Ok(ended)
}

/// The end as an event.
pub fn told(handle: &Handle, ended: Ended) -> BackendEvent {
    let id = handle.id.clone();
    match ended.exit {
        Exit::Lost { reason } => BackendEvent::Lost { id, reason },
        _ => BackendEvent::Ended { id, ended },
    }
}
