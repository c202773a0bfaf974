//! One attempt on ECS: its start, what is seen of its task, its log, its end.
//!
//! Invariants: which task it is, is written down before anything else is done with it; why it is to stop, before ECS is
//! asked to stop it. The end is told after all of the log is here and the end is written down here.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::state::Exit;
use pitcrew_exec::{BackendEvent, EcsPlace, Ended, Handle, StepEnded, attempt_dir, log, outputs};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ends::{self, Intent};
use super::marks::{Cancel, Known, Mark, Sent};
use super::mirror::Mirror;
use super::watch::Shared;
use crate::client::ecs::{Definition, Listed, Task, TaskStatus};
use crate::client::{Client, Fault, Kind};
use crate::clock;

/// Pages of log that are read before the next attempt has its turn.
const TURN: usize = 8;
/// After an answer that may be different in a moment: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So long after its last words an attempt counts as one that writes.
const LOUD: Duration = Duration::from_secs(10);

/// See the module.
pub struct Follow {
    pub handle: Handle,
    pub place: EcsPlace,
    seen: Mutex<Seen>,
    work: tokio::sync::Mutex<Work>,
    /// Its end was told.
    pub over: Notify,
    /// ECS was asked to start it, or it turned out that it was.
    pub tried: tokio::sync::watch::Sender<bool>,
}

/// What others ask for while it is worked on.
struct Seen {
    due: Instant,
    task: Option<String>,
    cancel: Option<Cancel>,
}

struct Work {
    sent: Sent,
    /// A process before this one may have asked ECS to start it.
    perhaps_asked: bool,
    since: Instant,
    pause: Duration,
    /// What it waits for, as its log says.
    told_waiting: Option<String>,
    started: Option<Timestamp>,
    /// It was told which machine it is on, or nobody can tell.
    placed: bool,
    /// What was told of how it is called.
    named: Map<String, Value>,
    definition: Option<Arc<Definition>>,
    mirror: Option<Mirror>,
    /// Where its log cannot be read, for people.
    unread: Option<String>,
    last_words: Option<Instant>,
    missing: Option<Instant>,
    stopped: Option<Instant>,
}

/// What is to be done with an attempt next.
pub enum Next {
    Look,
    /// Its end was told.
    Over,
}

impl Follow {
    pub fn new(
        handle: Handle,
        place: EcsPlace,
        sent: Sent,
        known: Option<Known>,
        cancel: Option<Cancel>,
        is_new: bool,
    ) -> Follow {
        let now = clock::instant();
        Follow {
            handle,
            place,
            seen: Mutex::new(Seen { due: now, task: known.map(|known| known.arn), cancel }),
            work: tokio::sync::Mutex::new(Work {
                sent,
                perhaps_asked: !is_new,
                since: now,
                pause: FIRST_PAUSE,
                told_waiting: None,
                started: None,
                placed: false,
                named: Map::new(),
                definition: None,
                mirror: None,
                unread: None,
                last_words: None,
                missing: None,
                stopped: None,
            }),
            over: Notify::new(),
            tried: tokio::sync::watch::Sender::new(false),
        }
    }

    /// The ARN of its task, once it has one.
    pub fn task(&self) -> Option<String> {
        lock(&self.seen).task.clone()
    }

    pub fn due(&self) -> Instant {
        lock(&self.seen).due
    }

    /// Lets it be looked at now.
    pub fn hurry(&self) {
        lock(&self.seen).due = clock::instant();
    }

    pub fn put_off(&self, pause: Duration) {
        lock(&self.seen).due = clock::instant() + pause;
    }

    /// From now on ECS is asked to stop it, at each look. The first intent counts.
    pub fn set_cancel(&self, cancel: Cancel) {
        lock(&self.seen).cancel.get_or_insert(cancel);
    }

    fn cancel(&self) -> Option<Cancel> {
        lock(&self.seen).cancel
    }

    /// Asks ECS to stop its task, if that is wanted and there is one.
    pub async fn stop(&self, client: &Client) -> Result<(), Fault> {
        let (Some(cancel), Some(task)) = (self.cancel(), self.task()) else { return Ok(()) };
        let why = match cancel.intent {
            Intent::Cancelled => "pitcrew: asked to stop",
            Intent::TimedOut => "pitcrew: it ran too long",
        };
        client.stop_task(&self.place.cluster, &task, why).await
    }

    /// Starts it, or finds that it was started.
    pub async fn begin(&self, host: &Shared) -> io::Result<Next> {
        let begun = self.begin_now(host).await;
        self.tried.send_replace(true);
        begun
    }

    async fn begin_now(&self, host: &Shared) -> io::Result<Next> {
        let work = &mut *self.work.lock().await;
        match self.try_begin(host, work).await {
            Ok(Begun::Task(task)) => {
                Known { arn: task.clone() }.write(&self.handle.dir)?;
                lock(&self.seen).task = Some(task);
                work.since = clock::instant();
                self.hurry();
                if let Err(fault) = self.stop(&host.client).await {
                    tracing::warn!(attempt = %self.handle.id, "cannot stop it: {fault}");
                }
                Ok(Next::Look)
            }
            Ok(Begun::Over(exit)) => self.end_unstarted(host, work, exit),
            Ok(Begun::Waits(why)) => self.wait(work, &why),
            Err(fault) => match fault.kind {
                Kind::Throttled | Kind::Unreached => self.wait(work, &fault.to_string()),
                Kind::Capacity => {
                    let waited = work.sent.at.map_or(SignedDuration::ZERO, |at| clock::now().duration_since(at));
                    if waited.unsigned_abs() >= host.timing.capacity && waited.is_positive() {
                        let reason = format!("no room within {} s: {fault}", host.timing.capacity.as_secs());
                        return self.end_unstarted(host, work, Exit::start_failed(reason));
                    }
                    self.wait(work, &fault.to_string())
                }
                Kind::NotFound | Kind::Denied | Kind::Invalid | Kind::Conflict => {
                    self.end_unstarted(host, work, Exit::cannot_start(fault.to_string()))
                }
            },
        }
    }

    /// What it waits for is said once in its log, and the pauses grow.
    fn wait(&self, work: &mut Work, why: &str) -> io::Result<Next> {
        self.put_off(work.pause);
        work.pause = (work.pause * 2).min(LONGEST_PAUSE);
        if work.told_waiting.as_deref() != Some(why) {
            work.told_waiting = Some(why.to_owned());
            self.say(work, &format!("waits: {why}"))?;
        }
        Ok(Next::Look)
    }

    async fn try_begin(&self, host: &Shared, work: &mut Work) -> Result<Begun, Fault> {
        let (client, cluster) = (&host.client, self.place.cluster.as_str());
        if let Some(task) = self.find(client, &work.sent, work.perhaps_asked).await? {
            return Ok(Begun::Task(task));
        }
        if self.cancel().is_some() {
            let asked_at = work.sent.at.filter(|_| work.perhaps_asked);
            let age = asked_at.map(|at| clock::now().duration_since(at).unsigned_abs());
            // ECS may know of it and not tell yet.
            return Ok(match age.is_some_and(|age| age < host.timing.unmentioned) {
                true => Begun::Waits("it is to stop, and ECS may not know it yet".to_owned()),
                false => Begun::Over(Exit::Cancelled),
            });
        }
        let definition = host.definition(&work.sent.run.definition).await?;
        if let Err(why) = settle(&mut work.sent, &definition) {
            return Ok(Begun::Over(Exit::cannot_start(why)));
        }
        let unwritten = |e: io::Error| Fault::invalid("ecs:RunTask", format!("cannot write `sent.json`: {e}"));
        work.sent.write(&self.handle.dir).map_err(unwritten)?;
        let placing = host.gate.read().await;
        let asked = client.run_task(&work.sent.run).await;
        drop(placing);
        // Where nobody answered, it may have begun; the token keeps it from beginning twice.
        work.perhaps_asked = true;
        match asked {
            Ok(task) => Ok(Begun::Task(task.task_arn)),
            // The token was used with other words, such as another environment, by whoever had this attempt before.
            Err(fault) if fault.kind == Kind::Conflict => match self.find(client, &work.sent, true).await? {
                Some(task) => Ok(Begun::Task(task)),
                None => Err(fault),
            },
            Err(fault) if fault.kind == Kind::NotFound && fault.code.contains("ClusterNotFound") => {
                Ok(Begun::Over(Exit::cannot_start(format!("there is no cluster `{cluster}`: {fault}"))))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The task that was started for this attempt, if ECS knows one; `stopped` ones are looked for as well.
    async fn find(&self, client: &Client, sent: &Sent, stopped: bool) -> Result<Option<String>, Fault> {
        let cluster = self.place.cluster.as_str();
        let word = sent.run.started_by.as_str();
        let found = client.list_tasks(cluster, Listed::StartedBy(word)).await?;
        if let Some(task) = found.into_iter().next() {
            return Ok(Some(task));
        }
        let family = sent.run.definition.parse::<crate::arn::Family>().ok().filter(|_| stopped);
        let Some(family) = family else { return Ok(None) };
        let over = client.list_tasks(cluster, Listed::Stopped(&family.name)).await?;
        let known = client.tasks(cluster, &over).await?;
        let ours = known.tasks.into_iter().find(|task| task.started_by.as_deref() == Some(word));
        Ok(ours.map(|task| task.task_arn))
    }

    /// Takes what ECS says of its task; `None`: it does not mention it.
    pub async fn advance(&self, host: &Shared, task: Option<&Task>) -> io::Result<Next> {
        let work = &mut *self.work.lock().await;
        let now = clock::instant();
        let Some(task) = task else {
            let since = *work.missing.get_or_insert(now);
            if now - since < host.timing.unmentioned {
                self.put_off(host.timing.soonest.max(Duration::from_millis(100)));
                return Ok(Next::Look);
            }
            let reason = "ECS does not know its task any more, so nobody knows how it ended".to_owned();
            return self.finish(host, work, Ended::bare(Exit::Lost { reason }, clock::now()), &[]);
        };
        work.missing = None;
        if work.definition.is_none() {
            match host.definition(&task.task_definition_arn).await {
                Ok(definition) => work.definition = Some(definition),
                Err(fault) => tracing::debug!(attempt = %self.handle.id, "its definition cannot be read: {fault}"),
            }
        }
        self.tell_named(host, work, task);
        self.tell_placed(host, work, task).await;
        if let Some(at) = task.started_at.or_else(|| (task.last_status == TaskStatus::Running).then(clock::now)) {
            self.tell_started(host, work, at);
        }
        if !task.last_status.is_over() {
            self.limit(work)?;
            if task.desired_status != TaskStatus::Stopped
                && let Err(fault) = self.stop(&host.client).await
            {
                tracing::warn!(attempt = %self.handle.id, "cannot stop it: {fault}");
            }
        }
        let whole = match task.last_status.is_before_running() {
            true => true,
            false => self.copy_log(host, work, task).await?,
        };
        if !task.last_status.is_over() {
            self.plan_next(host, work, whole);
            return Ok(Next::Look);
        }
        let stopped = *work.stopped.get_or_insert(now);
        let done = work.mirror.as_ref().is_some_and(|mirror| mirror.progress().done.is_some());
        let quiet_since = work.last_words.map_or(stopped, |at| at.max(stopped));
        // Where no container ran, nothing was written.
        let never_ran = task.started_at.is_none();
        let settled =
            done || never_ran || work.unread.is_some() || clock::instant() - quiet_since >= host.timing.settle;
        if !whole || !settled {
            self.put_off(if whole { host.timing.soonest } else { Duration::ZERO });
            return Ok(Next::Look);
        }
        let (ended, words) = self.conclude(work, task);
        self.finish(host, work, ended, &words)
    }

    /// A step that runs too long is to stop.
    fn limit(&self, work: &mut Work) -> io::Result<()> {
        if self.cancel().is_some() {
            return Ok(());
        }
        let current = work.mirror.as_ref().and_then(|mirror| mirror.progress().current()).map(|s| (s.number, s.began));
        let current = match work.sent.mark {
            Some(_) => current,
            None => work.started.map(|at| (0, at)),
        };
        let Some((number, began)) = current else { return Ok(()) };
        let Some(Some(most)) = work.sent.timeouts.get(number) else { return Ok(()) };
        let now = clock::now();
        if now.duration_since(began) < *most {
            return Ok(());
        }
        let cancel = Cancel { intent: Intent::TimedOut, at: now };
        cancel.write(&self.handle.dir)?;
        self.set_cancel(cancel);
        Ok(())
    }

    fn plan_next(&self, host: &Shared, work: &Work, whole: bool) {
        let now = clock::instant();
        let latest = match work.last_words.is_some_and(|at| now - at < LOUD) {
            true => host.timing.poll.min(Duration::from_secs(2)),
            false => host.timing.poll,
        };
        let pause = ((now - work.since) / 8).clamp(host.timing.soonest.min(latest), latest);
        self.put_off(if whole { pause } else { Duration::ZERO });
    }

    /// Tells how its task is called, and where it is as soon as that is known.
    fn tell_named(&self, host: &Shared, work: &mut Work, task: &Task) {
        let all = [
            ("task", Some(&task.task_arn)),
            ("definition", Some(&task.task_definition_arn)),
            ("instance", task.container_instance_arn.as_ref()),
        ];
        let names: Map<String, Value> =
            all.into_iter().filter_map(|(kind, name)| Some((kind.to_owned(), Value::from(name?.as_str())))).collect();
        if work.named != names {
            work.named.clone_from(&names);
            let _ = host.events.send(BackendEvent::Named { id: self.handle.id.clone(), names });
        }
    }

    /// Tells which machine ECS chose, and which devices: known when its containers are being started.
    async fn tell_placed(&self, host: &Shared, work: &mut Work, task: &Task) {
        let Some(instance) = task.container_instance_arn.as_ref().filter(|_| !work.placed) else { return };
        if task.last_status.is_before_running() {
            return;
        }
        match host.machine(instance).await {
            Ok(node) => {
                work.placed = true;
                let Some(node) = node else { return };
                let mut gpus: Vec<String> = task.containers.iter().flat_map(|one| one.gpu_ids.clone()).collect();
                gpus.sort();
                gpus.dedup();
                let _ = host.events.send(BackendEvent::Placed { id: self.handle.id.clone(), node, gpus });
            }
            // It is looked for once more at the next look; its end does not wait for it.
            Err(fault) if matches!(fault.kind, Kind::Throttled | Kind::Unreached) => {}
            Err(fault) => {
                work.placed = true;
                tracing::warn!(attempt = %self.handle.id, "it is not known on which machine it runs: {fault}");
            }
        }
    }

    fn tell_started(&self, host: &Shared, work: &mut Work, at: Timestamp) {
        if work.started.is_none() {
            work.started = Some(at);
            let _ = host.events.send(BackendEvent::Started { id: self.handle.id.clone(), at });
        }
    }

    /// Copies what the log has, or a good part of it; says whether that was all for now.
    async fn copy_log(&self, host: &Shared, work: &mut Work, task: &Task) -> io::Result<bool> {
        let Some(definition) = work.definition.clone() else { return Ok(true) };
        let name = work.sent.run.overrides.as_ref().map(|o| o.container.as_str()).filter(|name| !name.is_empty());
        let container = match name {
            Some(name) => definition.container(name),
            None => definition.main(),
        };
        let id = crate::arn::Resident::task(&task.task_arn).map(|task| task.id).unwrap_or_default();
        let Some((group, region, stream)) = container.and_then(|container| container.log_stream(&id)) else {
            if work.unread.is_none() {
                let why = "its log is not here: its container has no `awslogs` with a group and a stream prefix";
                work.unread = Some(why.to_owned());
                self.say(work, why)?;
            }
            return Ok(true);
        };
        let client = match host.client_of(region.as_deref()) {
            Ok(client) => client,
            Err(fault) => return self.cannot_read(work, &fault),
        };
        for _ in 0..TURN {
            let mirror = self.mirror(work)?;
            let (token, since) = mirror.from();
            match client.log_events(&group, &stream, token, since).await {
                Ok(page) => {
                    let wrote = !page.events.is_empty();
                    let more = mirror.take(page, clock::now())?;
                    if wrote {
                        work.last_words = Some(clock::instant());
                    }
                    if !more {
                        return Ok(true);
                    }
                }
                // It has not written yet.
                Err(fault) if fault.kind == Kind::NotFound => return Ok(true),
                Err(fault) if fault.kind == Kind::Invalid && token.is_some() => mirror.lose_token(),
                Err(fault) => return self.cannot_read(work, &fault),
            }
        }
        Ok(false)
    }

    fn cannot_read(&self, work: &mut Work, fault: &Fault) -> io::Result<bool> {
        match fault.kind {
            Kind::Throttled | Kind::Unreached => tracing::debug!(attempt = %self.handle.id, "its log waits: {fault}"),
            _ if work.unread.is_none() => {
                let why = format!("its log cannot be read: {fault}");
                work.unread = Some(why.clone());
                self.say(work, &why)?;
            }
            _ => {}
        }
        Ok(true)
    }

    fn mirror<'w>(&self, work: &'w mut Work) -> io::Result<&'w mut Mirror> {
        if work.mirror.is_none() {
            work.mirror = Some(Mirror::open(&self.handle.dir, &work.sent, clock::now())?);
        }
        Ok(work.mirror.as_mut().expect("it was made just now"))
    }

    fn say(&self, work: &mut Work, text: &str) -> io::Result<()> {
        self.mirror(work)?.say(clock::now(), text)
    }

    /// The end, out of what ECS and the driver say, and what its log is to say last.
    fn conclude(&self, work: &Work, task: &Task) -> (Ended, Vec<String>) {
        let named = work.sent.run.overrides.as_ref().map(|o| o.container.as_str()).filter(|name| !name.is_empty());
        let main = ends::main_container(task, named, work.definition.as_deref());
        let end = ends::end(task, main, self.cancel().map(|cancel| cancel.intent));
        let now = clock::now();
        let at = task.execution_stopped_at.or(task.stopped_at).unwrap_or(now);
        let progress = work.mirror.as_ref().map(Mirror::progress);
        let name = |number: usize| work.sent.steps.get(number).cloned().unwrap_or_else(|| number.to_string());
        let mut ended = Ended::bare(end.exit, at);
        let began = progress.and_then(|progress| progress.steps.first()).map(|step| step.began);
        let could_not = progress.and_then(|progress| progress.failed.clone());
        ended.started_at = began.or(work.started.or(task.started_at).filter(|_| could_not.is_none()));
        if let (Some((number, why)), ends::Cause::Itself) = (&could_not, end.cause) {
            ended.exit = Exit::start_failed(why.clone());
            ended.failed_step = Some(name(*number));
        }
        ended.at = ended.started_at.map_or(at, |begun| at.max(begun));
        match progress.filter(|_| work.sent.mark.is_some()) {
            Some(progress) => {
                ended.steps.extend(progress.steps.iter().map(|step| {
                    let (at, exit) = match step.ended {
                        Some((at, code)) => (at, Exit::Code { code }),
                        None => (ended.at, ended.exit.clone()),
                    };
                    StepEnded { name: name(step.number), exit, started_at: step.began, at: at.max(step.began) }
                }));
                if !ended.exit.is_success() && ended.failed_step.is_none() {
                    let failed = |step: &&super::progress::Step| step.ended.is_none_or(|(_, code)| code != 0);
                    let about = progress.steps.iter().rev().find(failed).or(progress.steps.last());
                    ended.failed_step = Some(about.map_or_else(|| name(0), |step| name(step.number)));
                }
            }
            None => {
                let exit = ended.exit.clone();
                ended.steps.extend(ended.started_at.map(|started_at| StepEnded {
                    name: name(0),
                    exit,
                    started_at,
                    at: ended.at,
                }));
                ended.failed_step = Some(name(0)).filter(|_| !ended.exit.is_success());
            }
        }
        if let Some(started_at) = ended.started_at {
            ended.usage.wall_seconds = ended.at.duration_since(started_at).as_secs_f64().max(0.0);
        }
        let mut words = Vec::new();
        match end.cause {
            ends::Cause::Somebody => words.push(format!("somebody asked ECS to stop it: {}", end.evidence)),
            ends::Cause::Itself | ends::Cause::NotStarted if end.evidence != "ECS gives no reason" => {
                words.push(end.evidence)
            }
            _ => {}
        }
        (ended, words)
    }

    /// Ends an attempt that has no task, and tells it.
    fn end_unstarted(&self, host: &Shared, work: &mut Work, exit: Exit) -> io::Result<Next> {
        let mut ended = Ended::bare(exit, clock::now());
        ended.failed_step = work.sent.steps.first().cloned();
        self.finish(host, work, ended, &[])
    }

    /// Writes the end down and tells it. Where that fails, the next look tries again.
    fn finish(&self, host: &Shared, work: &mut Work, mut ended: Ended, words: &[String]) -> io::Result<Next> {
        if let Some(mirror) = &work.mirror {
            for (name, bytes) in mirror.progress().outputs() {
                std::fs::write(self.handle.dir.join(name), bytes)?;
            }
        }
        if ended.started_at.is_some() {
            let left = outputs::collect(&attempt_dir::output(&self.handle.dir));
            ended.outputs = left.values;
            ended.output_problems.extend(left.problems);
        }
        if ended.exit != Exit::Cancelled || work.mirror.is_some() || !words.is_empty() {
            let about = ended.notice().filter(|notice| !words.contains(notice));
            let texts: Vec<String> = ended.output_problems.iter().cloned().chain(words.to_vec()).chain(about).collect();
            if !texts.is_empty() {
                self.mirror(work)?.last_words(clock::now(), texts);
            }
        }
        if !ended.exit.is_success() {
            ended.tail = log::tail(&attempt_dir::log(&self.handle.dir), 10, 4 << 10);
        }
        record(&self.handle, &ended)?;
        if let Some(at) = ended.started_at {
            self.tell_started(host, work, at);
        }
        let _ = host.events.send(told(&self.handle, ended));
        Ok(Next::Over)
    }
}

enum Begun {
    Task(String),
    Waits(String),
    Over(Exit),
}

/// Fixes which revision and which container it is, so that every try asks for the same.
fn settle(sent: &mut Sent, definition: &Definition) -> Result<(), String> {
    if !definition.task_definition_arn.is_empty() {
        sent.run.definition.clone_from(&definition.task_definition_arn);
    }
    let Some(overrides) = &mut sent.run.overrides else { return Ok(()) };
    let all = || {
        let names: Vec<_> = definition.container_definitions.iter().map(|c| format!("`{}`", c.name)).collect();
        names.join(", ")
    };
    match definition.container(&overrides.container) {
        Some(_) => Ok(()),
        None if overrides.container.is_empty() => {
            let main = definition.main().ok_or("its task definition has no container")?;
            overrides.container.clone_from(&main.name);
            Ok(())
        }
        None => Err(format!("its task definition has no container `{}`; it has: {}", overrides.container, all())),
    }
}

/// Writes an end down, where no other is.
pub fn record(handle: &Handle, ended: &Ended) -> io::Result<()> {
    if attempt_dir::recorded_end(&handle.dir)?.is_none() {
        std::fs::create_dir_all(&handle.dir)?;
        attempt_dir::record_end(&handle.dir, ended)?;
    }
    Ok(())
}

/// The event for an end.
pub fn told(handle: &Handle, ended: Ended) -> BackendEvent {
    let id = handle.id.clone();
    match ended.exit {
        Exit::Lost { reason } => BackendEvent::Lost { id, reason },
        _ => BackendEvent::Ended { id, ended },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
