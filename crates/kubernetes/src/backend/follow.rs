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

use super::ends::{self, Stage, Why};
use super::make::{self, Not};
use super::manifest::{Objects, READY};
use super::marks::{Cancel, Ending, Made, Mark, Sent};
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
/// How long the rest of a log may take whose pod is gone.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a pod that was deleted may stay beyond its own time to end, before its node counts as dead.
const DEAD: Duration = Duration::from_secs(60);

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
        let why = Why::of(self.cancel.borrow().is_some(), Ending::read(&self.handle.dir)?);
        let pod = pod.as_deref();
        let ended = match stage {
            Stage::Lost(reason) => {
                self.removed(&mut mirror).await?;
                Ended::bare(Exit::Lost { reason }, clock::now())
            }
            Stage::Stuck(failure) => ends::end(&self.sent, pod, &mirror, Why::GivenUp(failure), clock::now()),
            Stage::Over | Stage::Done | Stage::Ready | Stage::Running | Stage::Waiting(_) => {
                ends::end(&self.sent, pod, &mirror, why, clock::now())
            }
        };
        self.finish(mirror, ended, masker.as_deref()).await
    }

    /// Whatever of it still runs must not run beside the next attempt: until its pod is removed, which a node that is dead
    /// never tells.
    async fn removed(&self, mirror: &mut Mirror) -> std::io::Result<()> {
        let Sent { name, namespace, grace_s, .. } = &self.sent;
        let mut dead = None;
        loop {
            match self.find().await {
                Ok(None) => return Ok(()),
                Ok(Some(pod)) => {
                    let limit = Duration::from_secs((*grace_s).into()) + DEAD;
                    if clock::instant() >= *dead.get_or_insert_with(|| clock::instant() + limit) {
                        let why = "its pod is deleted and still there, as of a node that is dead: it counts as ended";
                        return mirror.say(clock::now(), 0, why);
                    }
                    if pod.metadata.deletion_timestamp.is_none()
                        && let Err(fault) = make::delete(&self.namespace.client, namespace, name, *grace_s).await
                    {
                        tracing::debug!(attempt = %self.handle.id, "its pod cannot be deleted: {fault}");
                    }
                }
                Err(fault) => tracing::debug!(attempt = %self.handle.id, "its pod cannot be asked for: {fault}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn is_late(&self) -> bool {
        self.sent.due().is_some_and(|due| clock::now() >= due)
    }

    /// Makes the objects, however long that takes; an end, if there never will be a pod.
    async fn make(&self, objects: &Objects, mirror: &mut Mirror) -> std::io::Result<Option<Ended>> {
        let mut cancel = self.cancel.subscribe();
        loop {
            if cancel.borrow_and_update().is_some() {
                let _ = make::remove(&self.namespace.client, &self.sent.namespace, &self.sent.name).await;
                return Ok(Some(Ended::bare(Exit::Cancelled, clock::now())));
            }
            if self.is_late() {
                let _ = make::remove(&self.namespace.client, &self.sent.namespace, &self.sent.name).await;
                return Ok(Some(ends::end(&self.sent, None, mirror, Why::Late, clock::now())));
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
                    let told = ends::end(&self.sent, None, mirror, Why::GivenUp(failure), ended.at);
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
        let mut ending = Ending::read(&self.handle.dir)?;
        let mut pod = self.find().await.ok().flatten().map(Arc::new);
        let mut copying: Vec<Copying> = Vec::new();
        // Nothing is asked of its log before this.
        let mut pause: Option<tokio::time::Instant> = None;
        let mut patience: Option<tokio::time::Instant> = None;
        // How its pod is to be deleted, and whether it was.
        let mut delete = cancel.borrow_and_update().map(|cancel| cancel.grace_s);
        delete = delete.or(ending.map(|_| self.sent.grace_s));
        let mut stopped = false;
        loop {
            if let Some(grace_s) = delete {
                match make::delete(&self.namespace.client, &self.sent.namespace, &self.sent.name, grace_s).await {
                    Ok(()) => (delete, stopped) = (None, true),
                    Err(fault) => {
                        tracing::warn!(attempt = %self.handle.id, "its pod cannot be deleted: {fault}");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
            let asked = self.cancel.borrow().is_some() || ending.is_some();
            let stage = pod.as_deref().map_or(Stage::Waiting(None), |pod| ends::stage(&self.sent, pod, asked));
            self.tell(&stage, pod.as_deref(), mirror)?;
            if let Some(pod) = &pod
                && pause.is_none_or(|at| at <= clock::instant())
                && let Err(fault) = self.open(pod, mirror, &mut copying).await
            {
                tracing::debug!(attempt = %self.handle.id, "its log cannot be read: {fault}");
                pause = Some(clock::instant() + AGAIN);
            }
            if stage == Stage::Ready
                && let Err(fault) = self.let_begin().await
            {
                tracing::warn!(attempt = %self.handle.id, "its steps cannot be told to begin: {fault}");
                if matches!(fault.kind, Kind::Denied | Kind::Invalid) {
                    let message = format!("its steps cannot be told that its sidecars are ready: {fault}");
                    return Ok((pod, Stage::Stuck(PodFailure::Refused { message })));
                }
            }
            let is_final = matches!(stage, Stage::Over | Stage::Lost(_) | Stage::Stuck(_));
            let is_due = !is_final && !asked && self.is_late();
            let is_done = stage == Stage::Done && !asked;
            if is_final || is_done || is_due {
                let until = *patience.get_or_insert_with(|| clock::instant() + PATIENCE);
                let is_here = copying.iter().all(|of| is_done && of.container >= self.sent.steps.len())
                    && pause.is_none_or(|at| at <= clock::instant());
                let late = clock::instant() >= until;
                if late && !is_due {
                    mirror.say(clock::now(), 0, "the end of its log could not be read before its pod had to go")?;
                }
                if is_final && (is_here || late) {
                    return Ok((pod, stage));
                }
                if is_due || is_done && (is_here || late) {
                    let why = if is_due { Ending::Deadline } else { Ending::Done };
                    why.write(&self.handle.dir)?;
                    (ending, delete, patience) = (Some(why), Some(self.sent.grace_s), None);
                    continue;
                }
            }
            let soon = is_final || is_done || pause.is_some() || delete.is_some() || stage == Stage::Ready;
            let look = clock::instant() + if soon { AGAIN } else { self.look_in(asked) };
            let wait = pause.map_or(look, |at| at.min(look));
            tokio::select! {
                told = hint.changed() => {
                    if told.is_err() {
                        hint = self.namespace.follow(&self.sent.name);
                    }
                    let told = hint.borrow_and_update().clone();
                    if let Some(seen) = told.pod {
                        pod = Some(seen);
                    }
                    if !told.is_there && let Some(gone) = self.look(&mut pod, asked).await {
                        drain(&mut copying, mirror).await?;
                        return Ok((pod, gone));
                    }
                    // What a stream did not tell any more, the next one does.
                    pause = None;
                }
                (at, lines) = next(&mut copying) => {
                    let of = &copying[at];
                    match lines {
                        Ok(lines) if lines.is_empty() => {
                            if of.is_last || stopped {
                                mirror.whole(of.container)?;
                            } else {
                                pause = Some(clock::instant() + AGAIN);
                            }
                            copying.remove(at);
                        }
                        Ok(lines) => mirror.take(of.container, &lines)?,
                        Err(_) => {
                            pause = Some(clock::instant() + AGAIN);
                            copying.remove(at);
                        }
                    }
                }
                _ = cancel.changed() => delete = cancel.borrow_and_update().map(|cancel| cancel.grace_s).or(delete),
                () = tokio::time::sleep_until(wait) => {
                    if pause.take().is_none() && let Some(gone) = self.look(&mut pod, asked).await {
                        drain(&mut copying, mirror).await?;
                        return Ok((pod, gone));
                    }
                }
            }
        }
    }

    /// How long nothing needs to be looked at.
    fn look_in(&self, asked: bool) -> Duration {
        let due = self.sent.due().filter(|_| !asked);
        let left = due.and_then(|due| Duration::try_from(due.duration_since(clock::now())).ok());
        left.map_or(LOOK, |left| left.min(LOOK))
    }

    /// Its sidecars are ready: the first step reads that where it waits.
    async fn let_begin(&self) -> Result<(), Fault> {
        let what = json!({ "metadata": { "annotations": { READY: "1" } } });
        self.namespace.client.tell(Call::patch(PODS, Some(&self.sent.namespace), &self.sent.name, what)).await
    }

    /// Asks for the pod itself; how it stands, if it is gone. `asked`: we asked for its end.
    async fn look(&self, pod: &mut Option<Arc<Seen>>, asked: bool) -> Option<Stage> {
        match self.find().await {
            Ok(Some(seen)) => *pod = Some(Arc::new(seen)),
            Ok(None) if asked || self.cancel.borrow().is_some() => return Some(Stage::Over),
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

    /// Asks for the logs that are not whole here: of the steps one after the other, of sidecars beside them.
    async fn open(&self, pod: &Seen, mirror: &mut Mirror, copying: &mut Vec<Copying>) -> Result<(), Fault> {
        let steps = self.sent.steps.len();
        let mut is_turn = true;
        for (container, part) in self.sent.parts().enumerate() {
            let is_step = container < steps;
            if mirror.is_whole(container) || is_step && !is_turn {
                continue;
            }
            // The next step's follows this one's.
            is_turn = false;
            if copying.iter().any(|of| of.container == container) {
                continue;
            }
            let Some(seen) = pod.container(&part.name) else { continue };
            let is_last = seen.state.terminated.is_some();
            if !is_last && seen.state.running.is_none() {
                continue;
            }
            let mut call = Call::get(PODS, Some(&self.sent.namespace), &self.sent.name).below("log");
            call = call.query("container", &part.name).query("follow", "true").query("timestamps", "true");
            if let Some(since) = mirror.begin(container) {
                call = call.query("sinceTime", since.to_string());
            }
            match self.namespace.client.lines(call).await {
                Ok(lines) => copying.push(Copying { container, lines, is_last }),
                // Its pod is gone, or it never had one: nothing more will come.
                Err(fault) if is_last && matches!(fault.kind, Kind::NotFound | Kind::Invalid) => {
                    let _ = mirror.whole(container);
                    is_turn = is_step;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
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

/// The next lines of any log, and whose. Waits for ever where nothing is copied.
async fn next(copying: &mut [Copying]) -> (usize, Result<Vec<Vec<u8>>, Fault>) {
    if copying.is_empty() {
        return std::future::pending().await;
    }
    let all = copying.iter_mut().map(|of| Box::pin(of.lines.next()));
    let (lines, at, _) = futures::future::select_all(all).await;
    (at, lines)
}

/// Takes what is on its way although the pod is gone.
async fn drain(copying: &mut Vec<Copying>, mirror: &mut Mirror) -> std::io::Result<()> {
    let until = clock::instant() + LAST_WORDS;
    while let (false, Ok((at, lines))) = (copying.is_empty(), tokio::time::timeout_at(until, next(copying)).await) {
        match lines {
            Ok(lines) if !lines.is_empty() => mirror.take(copying[at].container, &lines)?,
            Ok(_) | Err(_) => drop(copying.remove(at)),
        }
    }
    Ok(())
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
