//! One attempt on ECS: its start, what is seen of its task, its log, its end.
//!
//! Invariants: which task it is, is written down before anything else is done with it; why it is to stop, before ECS is
//! asked to stop it. The end is told after all of the log is here and the end is written down here.

mod copy;
mod end;
mod start;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_exec::{BackendEvent, EcsPlace, Handle};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use end::{record, told};

use self::copy::Copied;
use super::ends::Intent;
use super::marks::{Cancel, Known, Mark, Sent};
use super::mirror::Mirror;
use super::watch::Shared;
use crate::client::ecs::{Definition, Needs, Task, TaskStatus, Where};
use crate::client::{Client, Fault, Kind};
use crate::clock;

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
    is_taken_up: bool,
    /// Somebody wants it looked at since the last look began.
    is_wanted: bool,
    /// Until the next look, should ECS not tell of it now.
    pause: Duration,
    task: Option<String>,
    cancel: Option<Cancel>,
    seat: Option<(String, Needs)>,
}

struct Work {
    sent: Sent,
    /// ECS was asked whether a task was started for it before, of a gang of which nothing is written down here.
    was_sought: bool,
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

/// Task definitions, by what was asked for.
pub type Definitions = BTreeMap<String, Arc<Definition>>;

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
        // Nobody asks for a member of a gang before it has its machine.
        let is_asked_for = place.gang.is_none() || sent.seated.is_some();
        let seat = match (&sent.seated, &sent.run.on) {
            (Some(_), Where::Machine(machine)) => Some((machine.clone(), sent.needs.unwrap_or_default())),
            (Some(_) | None, _) => None,
        };
        Follow {
            handle,
            place,
            seen: Mutex::new(Seen {
                due: now,
                is_taken_up: false,
                is_wanted: false,
                pause: FIRST_PAUSE,
                task: known.map(|known| known.arn),
                cancel,
                seat,
            }),
            work: tokio::sync::Mutex::new(Work {
                sent,
                was_sought: false,
                perhaps_asked: !is_new && is_asked_for,
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

    /// When it is to be looked at next; `None`: somebody does.
    pub fn due(&self) -> Option<Instant> {
        let seen = lock(&self.seen);
        Some(seen.due).filter(|_| !seen.is_taken_up)
    }

    /// Whoever gets `true` looks at it now, and puts it down afterwards.
    pub fn take_up(&self, until: Instant) -> bool {
        let seen = &mut *lock(&self.seen);
        let is_due = !seen.is_taken_up && seen.due <= until;
        if is_due {
            (seen.is_taken_up, seen.is_wanted) = (true, false);
        }
        is_due
    }

    pub fn put_down(&self) {
        lock(&self.seen).is_taken_up = false;
    }

    /// Lets it be looked at now, or once more where somebody does already: what that one saw may be from before.
    pub fn hurry(&self) {
        let seen = &mut *lock(&self.seen);
        (seen.due, seen.is_wanted) = (clock::instant(), true);
    }

    pub fn put_off(&self, pause: Duration) {
        let seen = &mut *lock(&self.seen);
        seen.due = clock::instant() + if seen.is_wanted { Duration::ZERO } else { pause };
    }

    /// ECS does not tell of it now. The pauses grow.
    pub fn untold(&self) {
        let seen = &mut *lock(&self.seen);
        seen.due = clock::instant() + seen.pause;
        seen.pause = (seen.pause * 2).min(LONGEST_PAUSE);
    }

    /// From now on ECS is asked to stop it, at each look. The first intent counts.
    pub fn set_cancel(&self, cancel: Cancel) {
        lock(&self.seen).cancel.get_or_insert(cancel);
    }

    fn cancel(&self) -> Option<Cancel> {
        lock(&self.seen).cancel
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel().is_some()
    }

    /// It is of a gang, and the machine that is its own is known.
    pub fn has_seat(&self) -> bool {
        lock(&self.seen).seat.is_some()
    }

    /// The machine that was chosen for it, and what it takes of that.
    pub fn claim(&self) -> Option<(String, Needs)> {
        lock(&self.seen).seat.clone()
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

    /// Takes what ECS says of its task; `None`: it does not mention it.
    pub async fn advance(&self, host: &Shared, task: Option<&Task>) -> io::Result<Next> {
        let work = &mut *self.work.lock().await;
        let now = clock::instant();
        lock(&self.seen).pause = FIRST_PAUSE;
        let Some(task) = task else {
            let since = *work.missing.get_or_insert(now);
            if now - since < host.timing.unmentioned {
                self.put_off(host.timing.soonest.max(Duration::from_millis(100)));
                return Ok(Next::Look);
            }
            return self.conclude_forgotten(host, work, now - since).await;
        };
        work.missing = None;
        let undefined = self.read_definition(host, work, &task.task_definition_arn).await;
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
        let copied = match undefined {
            _ if task.last_status.is_before_running() => Copied::All,
            Some(fault) => Copied::Later(fault.to_string()),
            None => self.copy_log(host, work, &task.task_arn).await?,
        };
        if !task.last_status.is_over() {
            self.plan_next(host, work, !matches!(copied, Copied::More));
            return Ok(Next::Look);
        }
        let stopped = *work.stopped.get_or_insert(now);
        let done = work.mirror.as_ref().is_some_and(|mirror| mirror.progress().done.is_some());
        let quiet_since = work.last_words.map_or(stopped, |at| at.max(stopped));
        // Where no container ran, nothing was written.
        let never_ran = task.started_at.is_none();
        let settled =
            done || never_ran || work.unread.is_some() || clock::instant() - quiet_since >= host.timing.settle;
        if !self.is_whole(host, work, copied, now - stopped)? || !settled {
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
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use pitcrew_core::id::UNMAPPED;
    use pitcrew_core::{AttemptId, RunKey, TaskId};
    use pitcrew_exec::AttemptSpec;

    use super::*;

    #[test]
    fn the_next_server_knows_what_a_member_takes_of_its_machine() {
        let dir = tempfile::tempdir().unwrap();
        let needs = Needs { gpus: 2, cpu: 512, memory: 900 };
        let mut sent = Sent { seated: Some(Timestamp::UNIX_EPOCH), needs: Some(needs), ..Sent::default() };
        sent.run.on = Where::Machine("i-0f".to_owned());
        sent.write(dir.path()).unwrap();
        let id = AttemptId { run: RunKey(1), task: TaskId::new("a").unwrap(), map_index: UNMAPPED, number: 1 };
        let handle = Handle::of(&AttemptSpec::new(id, dir.path(), ""));
        let read = Sent::read(dir.path()).unwrap().unwrap();
        let follow = Follow::new(handle, EcsPlace::default(), read, None, None, false);
        assert_eq!(follow.claim(), Some(("i-0f".to_owned(), needs)));
    }
}
