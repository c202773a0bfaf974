//! The loop that owns the runs of this process.
//!
//! Invariant: only this task changes a run; everybody else asks. One turn takes what is in the inbox, lets the engine
//! and the admission settle in memory, and hands at most one batch at a time to the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::admission::{Admission, Cause, Holder, Placed, Preemption};
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::engine::{Effects, Event, Launch, Slot};
use pitcrew_core::ir::BackendKind;
use pitcrew_core::recovery::JobKey;
use pitcrew_core::state::RunState;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_exec::ssh::{ConfigFile, home};
use pitcrew_exec::{EcsPlace, Place};
use pitcrew_lang::Evaluator;
use pitcrew_store::{Backfill, Committed, StoreError};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::active::Active;
use super::evict::Tainted;
use super::languages::Languages;
use super::launch::Observed;
use super::lead::Standing;
use super::nodes::{Hosts, Way, placeable, way_to};
use super::notices::Outcomes;
use super::perform::After;
use super::{Ask, Changed, Claim, Parts, Step, gang, place};
use crate::clock;
use crate::cluster::homed::Homed;
use crate::known::Known;

/// Messages taken in one turn, so that a flood still gets committed.
const TURN: usize = 4096;
/// How often live attempts are looked at, in case an event of theirs was lost.
const POLL: Duration = Duration::from_secs(20);
/// How often a standby asks to lead, and a process looks for runs that others made in the same database.
pub(super) const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Core {
    pub parts: Parts,
    pub me: mpsc::WeakUnboundedSender<Ask>,
    pub changes: broadcast::Sender<Changed>,
    pub runs: BTreeMap<RunKey, Active>,
    pub admission: Admission,
    /// The variables and connections of the server, for templates.
    pub known: Known,
    pub evaluator: Arc<Evaluator>,
    /// Events of the engine that other events led to.
    pub events: VecDeque<(RunKey, Event)>,
    /// Runs with something unwritten.
    pub unwritten: BTreeSet<RunKey>,
    /// Queues without a worker that the log has told of.
    pub unserved: BTreeSet<String>,
    /// Runs of which a task ended since the last commit, here or in another data directory: that it may have left files
    /// is written down first.
    pub left_files: BTreeSet<(RunKey, Option<String>)>,
    /// Where the stored connections of the nodes lead.
    pub hosts: Hosts,
    /// Nodes that not all may stay on.
    pub tainted: Tainted,
    /// What is to be done after the next commit.
    pub after: Vec<After>,
    commit: Option<InFlight>,
    /// Workflows whose number of running runs changed.
    pub turn_of: BTreeSet<WorkflowId>,
    pub leads: bool,
    /// Tells others.
    pub standing: Standing,
    /// Losses of the owner's lock that are dealt with.
    pub breaks: u64,
    /// How the last run of a workflow ended, where a rule of notifications asks for it.
    pub outcomes: Outcomes,
    /// Workflows whose runs do not begin.
    pub paused: BTreeSet<WorkflowId>,
    /// Backfills that are not complete.
    pub backfills: BTreeMap<i64, Backfill>,
    /// When changes that others may have made are looked at.
    pub look_at: Option<tokio::time::Instant>,
    failures: u32,
    pub look_wanted: bool,
    poll_at: Option<tokio::time::Instant>,
}

/// The page of a run; empty without a server.
pub(super) fn run_url(base: &str, run: RunKey) -> String {
    if base.is_empty() { String::new() } else { format!("{base}/runs/{run}") }
}

struct InFlight {
    task: JoinHandle<Result<Committed, StoreError>>,
    after: Vec<After>,
    told: Vec<Changed>,
}

pub(super) async fn run(
    mut parts: Parts,
    mut inbox: mpsc::UnboundedReceiver<Ask>,
    me: mpsc::WeakUnboundedSender<Ask>,
    changes: broadcast::Sender<Changed>,
    standing: Standing,
) {
    let mut changed = parts.store.subscribe(LOOK);
    let server = parts.claim == Claim::Leading;
    let nodes = placeable(&parts.nodes.borrow_and_update(), &Hosts::new());
    let mut tainted = Tainted::default();
    tainted.take(&nodes, clock::now());
    let mut admission = Admission::new(parts.parallelism, nodes).expect("the list of nodes has no name twice");
    admission.set_policy(parts.policy);
    let known = Known::new(parts.store.clone(), parts.vault.clone());
    let evaluator = {
        let base = parts.base_url.clone();
        let evaluator = Evaluator::new(Arc::new(known.clone())).with_default_queue(parts.default_queue.clone());
        evaluator.with_run_url(move |run| run_url(&base, run.key))
    };
    let mut core = Core {
        parts,
        me,
        changes,
        runs: BTreeMap::new(),
        admission,
        known,
        evaluator: Arc::new(evaluator),
        events: VecDeque::new(),
        unwritten: BTreeSet::new(),
        unserved: BTreeSet::new(),
        left_files: BTreeSet::new(),
        hosts: Hosts::new(),
        tainted,
        after: Vec::new(),
        commit: None,
        turn_of: BTreeSet::new(),
        leads: false,
        standing,
        breaks: 0,
        outcomes: Outcomes::new(),
        paused: BTreeSet::new(),
        backfills: BTreeMap::new(),
        look_at: None,
        failures: 0,
        look_wanted: true,
        poll_at: None,
    };
    loop {
        let timer = core.next_timer();
        tokio::select! {
            biased;
            done = async { (&mut core.commit.as_mut().expect("guarded").task).await }, if core.commit.is_some() => {
                core.committed(done.unwrap_or_else(|error| Err(StoreError::Backend(error.to_string())))).await;
            }
            Ok(()) = core.parts.nodes.changed() => core.take_nodes().await,
            ask = inbox.recv() => {
                let Some(ask) = ask else { return };
                if let Some(reply) = core.turn(ask, &mut inbox).await {
                    core.drain().await;
                    let _ = reply.send(());
                    return;
                }
            }
            event = core.parts.events.recv() => {
                if let Some(event) = event {
                    core.told(event);
                    for _ in 0..TURN {
                        match core.parts.events.try_recv() {
                            Ok(event) => core.told(event),
                            Err(_) => break,
                        }
                    }
                }
            }
            // Our own commits wake us too; so not at once, and not for each.
            () = changed.changed(), if server && core.look_at.is_none() => {
                core.look_at = Some(tokio::time::Instant::now_later(LOOK));
            }
            () = async { tokio::time::sleep_until(core.look_at.expect("guarded")).await }, if core.look_at.is_some() => {
                core.look_wanted = true;
            }
            () = sleep_until(timer), if timer.is_some() => core.tick(),
            // A standby waits for its chance; nobody tells it that the leader is gone.
            () = tokio::time::sleep(LOOK), if server && !core.leads => core.look_wanted = true,
            () = async { tokio::time::sleep_until(core.poll_at.expect("guarded")).await }, if core.poll_at.is_some() => {
                core.poll_live();
            }
        }
        if std::mem::take(&mut core.look_wanted) {
            core.look_at = None;
            core.look().await;
        }
        core.settle();
        core.start_commit();
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    if let Some(at) = at {
        tokio::time::sleep(clock::until(at)).await;
    }
}

impl Core {
    /// Takes one message and those behind it. Returns where to answer when this was the last turn.
    async fn turn(&mut self, first: Ask, inbox: &mut mpsc::UnboundedReceiver<Ask>) -> Option<oneshot::Sender<()>> {
        let mut next = Some(first);
        for _ in 0..TURN {
            let Some(ask) = next else { break };
            if let Ask::Shutdown { reply } = ask {
                return Some(reply);
            }
            self.take(ask).await;
            next = inbox.try_recv().ok();
        }
        if let Some(Ask::Shutdown { reply }) = next {
            return Some(reply);
        }
        if let Some(ask) = next {
            self.take(ask).await;
        }
        None
    }

    /// The earliest timer of any run, and the start of a run that waits for its time.
    fn next_timer(&self) -> Option<Timestamp> {
        let timers = self.runs.values().filter_map(|active| active.run.next_timer());
        timers.chain(self.next_begin()).chain(self.next_late()).chain(self.tainted.due()).min()
    }

    fn tick(&mut self) {
        let now = clock::now();
        let due: Vec<RunKey> = self
            .runs
            .iter()
            .filter(|(_, active)| active.run.next_timer().is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for run in due {
            self.apply(run, Event::Tick);
        }
        if self.tainted.due().is_some_and(|at| at <= now) {
            self.evict();
        }
        self.tell_late(now);
        self.begin_runs();
    }

    /// Gives one event to the engine and takes what it leads to.
    pub fn apply(&mut self, key: RunKey, event: Event) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        let before = active.run.record.state;
        let effects = active.run.apply(event, clock::now(), &Languages(&self.evaluator));
        let record = &active.run.record;
        if record.state != before {
            tracing::info!(run = key.0, workflow = %record.workflow, "run {key} of `{}` is {}", record.workflow, record.state);
            if before == RunState::Queued && record.state == RunState::Running {
                self.parts.metrics.run_started(record);
            }
        }
        self.absorb(key, effects);
    }

    pub fn absorb(&mut self, key: RunKey, fx: Effects) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        active.measure(&self.parts, &fx);
        for slot in fx.released {
            self.admission.release(key, slot);
        }
        for slot in fx.withdrawn {
            self.admission.withdraw(key, slot);
        }
        for offer in fx.offers {
            if let Some(queue) = offer.demand.request.as_ref().and_then(|request| request.queue.as_ref())
                && !self.admission.fleet().serves(queue)
                && self.unserved.insert(queue.clone())
            {
                tracing::warn!(queue, "tasks wait for the queue `{queue}`, and no worker serves it");
            }
            // Rather on a suspect than nowhere: what is fenced takes nothing anyway.
            if active.kept_off(&offer).is_some_and(|narrow| self.admission.offer(key, &narrow).is_ok()) {
                continue;
            }
            if let Err(refusal) = self.admission.offer(key, &offer) {
                let reason = refusal.to_string();
                self.events.push_back((key, Event::Refused { slot: offer.slot, reason }));
            }
        }
        let launched: Vec<Slot> = fx.launch.iter().map(|launch| launch.slot).collect();
        for Launch { slot, attempt } in fx.launch {
            let placed = active.granted.remove(&slot);
            let mut row = launch_row(&self.parts, &self.evaluator, &self.known, active, slot, attempt, placed);
            active.excluded.remove(&slot);
            row.request = self.admission.granted(key, slot).cloned();
            active.put_attempt(slot, row);
            self.after.push(After::Launch { run: key, slot, attempt });
        }
        for cancel in fx.cancel {
            self.admission.ends(key, cancel.slot);
            self.after.push(After::Cancel {
                run: key,
                slot: cancel.slot,
                attempt: cancel.attempt,
                grace: cancel.grace,
            });
        }
        active.unwritten.slots.extend(fx.changed);
        active.unwritten.expanded.extend(fx.expanded);
        active.unwritten.run |= fx.run_changed;
        active.unwritten.finished |= fx.finished;
        let steps = fx.transitions.iter().map(|t| Step {
            task: active.run.workflow.task(t.slot.task).id.clone(),
            map_index: active.run.map_index(t.slot),
            to: t.to,
        });
        active.unwritten.steps.extend(steps);
        if fx.finished {
            active.excluded.clear();
            self.turn_of.insert(active.run.record.workflow.clone());
        }
        if active.has_unwritten() || !active.unwritten.steps.is_empty() {
            self.unwritten.insert(key);
        }
        self.tell_starting(key, launched.into_iter());
        if fx.run_changed || fx.finished {
            self.report(key);
        }
        self.note(key, &fx.transitions, fx.finished);
    }

    /// Lets everything in memory come to rest: follow-up events, grants, the next runs of a workflow.
    fn settle(&mut self) {
        loop {
            while let Some((key, event)) = self.events.pop_front() {
                self.apply(key, event);
            }
            for grant in self.admission.grant(clock::now()) {
                let Holder { run, slot } = grant.holder;
                if let Some(active) = self.runs.get_mut(&run) {
                    active.granted.extend(grant.placed());
                }
                self.events.push_back((run, Event::Admitted(slot)));
            }
            for Preemption { victim, by, cause } in self.admission.preemptions() {
                let reason = self.makes_room(by, cause);
                tracing::info!(run = victim.run.0, "an attempt of run {} has to end: {reason}", victim.run);
                self.events.push_back((victim.run, Event::Preempt { slot: victim.slot, reason }));
            }
            if !self.turn_of.is_empty() {
                self.begin_runs();
            }
            self.check_past();
            if self.events.is_empty() {
                break;
            }
        }
    }

    fn makes_room(&self, by: Holder, cause: Cause) -> String {
        let workflow = self.runs.get(&by.run).map(|active| &active.run.workflow);
        let task = workflow.map_or("", |workflow| workflow.task(by.slot.task).id.as_str());
        let namespace = workflow.map_or("", |workflow| &workflow.namespace);
        match cause {
            Cause::Priority => format!("it makes room for `{task}` of run {}, which has a higher priority", by.run),
            Cause::Reclaim => {
                format!(
                    "it held what is the namespace `{namespace}`'s own, which takes it back for `{task}` of run {}",
                    by.run
                )
            }
        }
    }

    /// Hands what is unwritten to the store, unless a batch is on its way.
    fn start_commit(&mut self) {
        if self.commit.is_some() || (self.unwritten.is_empty() && self.after.is_empty()) {
            return;
        }
        let mut commits = Vec::new();
        let mut told = Vec::new();
        let mut left = Vec::new();
        for key in std::mem::take(&mut self.unwritten) {
            let Some(active) = self.runs.get_mut(&key) else { continue };
            let (commit, steps, finished) = active.take_commit();
            if !steps.is_empty() || commit.run.is_some() {
                told.push(Changed { run: key, steps: Arc::new(steps), finished });
            }
            if finished {
                self.after.push(After::Finished(key));
                left.extend(self.elsewhere(key));
            }
            if !commit.is_empty() {
                commits.push(commit);
            }
        }
        let after = std::mem::take(&mut self.after);
        let noting = std::mem::take(&mut self.left_files);
        let homed = self.parts.backends.homed();
        let (store, owner) = (self.parts.store.clone(), self.parts.owner.clone());
        let task = tokio::spawn(async move {
            // Once its end is written, nobody looks at the run again.
            for (backend, handles) in left {
                if let Err(error) = backend.leaving(&handles).await {
                    tracing::warn!(%error, "cannot note what a run leaves on its hosts");
                }
            }
            if let Some(homed) = homed {
                note_files(&homed, noting).await;
            }
            commit_until_done(&store, &owner, commits).await
        });
        self.commit = Some(InFlight { task, after, told });
    }

    async fn committed(&mut self, result: Result<Committed, StoreError>) {
        let Some(InFlight { after, told, .. }) = self.commit.take() else { return };
        let lost = match result {
            Ok(committed) => committed.lost,
            Err(error) => {
                // The rows contradict the store: nothing that these runs do can be kept. They stay as they are there,
                // and whoever claims them next goes on from that.
                self.failures += 1;
                tracing::error!(%error, "the store refused a commit; its runs are given up and read again");
                let keys: Vec<RunKey> = told.iter().map(|changed| changed.run).collect();
                let _ = self.parts.store.release_runs(&self.parts.owner, &keys).await;
                if self.failures < 100 {
                    self.look_wanted = true;
                }
                keys
            }
        };
        for key in &lost {
            tracing::warn!(run = key.0, "run {key} belongs to another process now");
            self.forget(*key);
        }
        for changed in told {
            if !lost.contains(&changed.run) {
                let _ = self.changes.send(changed);
            }
        }
        for after in after {
            // What did not get into the store has not happened; whoever has the run now tells what has.
            if matches!(&after, After::Tell(run, _) if lost.contains(run)) {
                continue;
            }
            self.perform(after);
        }
        if self.poll_at.is_none() && self.admission.live() > 0 {
            self.poll_at = Some(tokio::time::Instant::now_later(POLL));
        }
    }

    /// Lets go of every run: another server leads, or may have in the meantime. What is on its way to the store gets
    /// there, or is refused because the run is another's; nothing that would have followed from it is done.
    pub async fn stand_down(&mut self) {
        if let Some(in_flight) = self.commit.take() {
            let _ = in_flight.task.await;
        }
        let keys: Vec<RunKey> = self.runs.keys().copied().collect();
        for key in &keys {
            self.forget(*key);
        }
        self.events.clear();
        // Whoever waits for an answer learns that none comes.
        self.after.clear();
        self.turn_of.clear();
        if !keys.is_empty() {
            tracing::warn!("let go of {} runs, which another server may have taken", keys.len());
        }
        // A run that stays ours in the store would be nobody's: we would not look for it, and others may not take it.
        while let Err(error) = self.parts.store.release_runs(&self.parts.owner, &keys).await {
            tracing::warn!(%error, "cannot release runs; trying again");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn forget(&mut self, key: RunKey) {
        if let Some(active) = self.runs.remove(&key) {
            if let Some(homed) = self.parts.backends.homed() {
                homed.files().forget(key);
            }
            self.admission.forget(key);
            self.turn_of.insert(active.run.record.workflow.clone());
        }
        self.unwritten.remove(&key);
    }

    /// Writes what is left and ends.
    async fn drain(&mut self) {
        self.settle();
        while self.commit.is_some() || !self.unwritten.is_empty() {
            if let Some(in_flight) = &mut self.commit {
                let done = (&mut in_flight.task).await;
                self.committed(done.unwrap_or_else(|error| Err(StoreError::Backend(error.to_string())))).await;
            }
            self.start_commit();
        }
    }

    /// Asks the backends what is true of everything live; events may have been lost.
    fn poll_live(&mut self) {
        self.poll_at = (self.admission.live() > 0).then(|| tokio::time::Instant::now_later(POLL));
        let mut by_backend: BTreeMap<String, Vec<(RunKey, Slot, u32, pitcrew_exec::Handle)>> = BTreeMap::new();
        for (key, active) in &self.runs {
            for (slot, attempt) in active.attempts.iter().filter(|(_, attempt)| attempt.exit.is_none()) {
                if let Ok(handle) = serde_json::from_value(attempt.handle.clone()) {
                    let entry = (*key, *slot, attempt.number, handle);
                    by_backend.entry(attempt.backend.clone()).or_default().push(entry);
                }
            }
        }
        for (name, entries) in by_backend {
            let backend = self.backend(&name);
            let me = self.me.clone();
            tokio::spawn(async move {
                let handles: Vec<_> = entries.iter().map(|(_, _, _, handle)| handle.clone()).collect();
                let observations = backend.poll(&handles).await;
                for ((run, slot, attempt, _), observation) in entries.into_iter().zip(observations) {
                    // Not begun: its start is on its way, or will be repeated by whoever asked for it.
                    if observation != pitcrew_exec::Observation::NeverBegan
                        && let Some(me) = me.upgrade()
                    {
                        let _ = me.send(Ask::Observed(Observed { run, slot, attempt, observation }));
                    }
                }
            });
        }
    }
}

/// The row of an attempt that is about to be launched: what finds it again is written before anything starts.
///
/// Where the attempt runs is decided here, so that whoever looks for it later asks the same host. If that cannot be
/// said, the row's message says why, and its launch fails.
pub(super) fn launch_row(
    parts: &Parts,
    evaluator: &Evaluator,
    known: &Known,
    active: &Active,
    slot: Slot,
    number: u32,
    placed: Option<Placed>,
) -> AttemptRecord {
    let id = active.run.attempt_id(slot, number);
    let task = active.run.workflow.task(slot.task);
    let way = match &placed {
        Some(placed) if matches!(task.backend, BackendKind::Local | BackendKind::Ssh) => way_to(parts, placed, task),
        _ => Way::Here,
    };
    let (kind, by_node) = match &way {
        Way::Connection(target) => (BackendKind::Ssh, Some(target)),
        Way::Here => (task.backend, None),
        Way::Worker(_) | Way::Gone => (BackendKind::Worker, None),
    };
    let backend = parts.backends.of(kind);
    let mut bare = pitcrew_exec::AttemptSpec::new(id.clone(), parts.data.attempt(&id), parts.data.workspace(id.run));
    let mut message = String::new();
    if kind == BackendKind::Ssh {
        let template = by_node.or(task.place.as_ref()).unwrap_or(&Value::Null);
        let rendering = evaluator.rendering(&active.run, slot);
        let file = ConfigFile::load(&home()).map_err(|fault| fault.to_string());
        match file.and_then(|file| place::of(template, &rendering, known, &file, &parts.ssh)) {
            Ok(place) => bare.place = Some(place),
            Err(why) => message = why,
        }
    }
    if kind == BackendKind::Ecs {
        let rendering = evaluator.rendering(&active.run, slot);
        match place::on_ecs(task.place.as_ref().unwrap_or(&Value::Null), &rendering) {
            Ok(place) => {
                let gang = gang::on_ecs(parts, active, slot, number);
                bare.place = Some(Place::Ecs(EcsPlace { gang, ..place }));
            }
            Err(why) => message = why,
        }
    }
    if kind == BackendKind::Kubernetes {
        match place::on_kubernetes(task.place.as_ref(), &active.run.record.conf) {
            Ok(place) => bare.place = Some(Place::Kubernetes(place)),
            Err(why) => message = why,
        }
    }
    match way {
        Way::Worker(place) => bare.place = Some(Place::Worker(place)),
        Way::Gone => message = "its node was gone when it was to start there".to_owned(),
        Way::Here | Way::Connection(_) => {}
    }
    let handle = backend.prepare(&bare);
    let (node, gpus) = placed.map(|placed| (placed.node, placed.gpus)).unzip();
    let instance = active.run.instance(slot);
    let names = match &bare.place {
        Some(Place::Ecs(place)) => names(active, slot, place),
        Some(Place::Ssh(_) | Place::Worker(_) | Place::Kubernetes(_)) | None => Value::Null,
    };
    AttemptRecord {
        task: id.task,
        map_index: id.map_index,
        number,
        backend: backend.name().to_owned(),
        handle: serde_json::to_value(&handle).unwrap_or(Value::Null),
        queued_at: instance.queued_at.unwrap_or_else(clock::now),
        start: None,
        end: None,
        exit: None,
        message,
        node,
        gpus: gpus.unwrap_or_default(),
        request: None,
        usage: Value::Null,
        names,
        detail: Value::Null,
    }
}

/// What an attempt on ECS is called by us: its job, and how large that is.
fn names(active: &Active, slot: Slot, place: &EcsPlace) -> Value {
    let job = JobKey::of(&active.run, slot);
    let mut id = place.job.clone().unwrap_or_else(|| format!("{}-{}", job.run, job.task));
    if let Some(index) = job.index {
        id.push_str(&format!("-{index}"));
    }
    // Databases refuse a NUL in a text, wherever it stands.
    let plain = |text: &str| text.replace('\0', "\u{fffd}");
    let size = active.run.members(slot.task).map_or(1, |members| members.len());
    json!({ "job": job.to_string(), "job_id": plain(&id), "size": size, "definition": plain(&place.task_definition) })
}

/// Whoever goes on after this server must know that there are files.
async fn note_files(homed: &Homed, ended: BTreeSet<(RunKey, Option<String>)>) {
    for (run, home) in ended {
        let note = async || match &home {
            None => homed.files().note(run).await,
            Some(home) => homed.files().note_at(run, home).await,
        };
        while let Err(error) = note().await {
            tracing::error!(%error, "cannot write down who has the files of run {run}; trying again");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A full disk or a database that is away is waited for: nothing else may happen before these rows are written.
async fn commit_until_done(
    store: &pitcrew_store::Store,
    owner: &pitcrew_store::Owner,
    commits: Vec<pitcrew_store::RunCommit>,
) -> Result<Committed, StoreError> {
    let mut wait = Duration::from_millis(50);
    loop {
        match store.commit(owner, commits.clone()).await {
            Err(error) if error.is_transient() => {
                tracing::error!(%error, "cannot write to the store; trying again in {wait:?}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
            result => return result,
        }
    }
}

/// Tokio's clock, which the loop's own waits use.
pub(super) trait Later {
    fn now_later(by: Duration) -> Self;
}

impl Later for tokio::time::Instant {
    fn now_later(by: Duration) -> Self {
        tokio::time::Instant::now() + by
    }
}

impl Core {
    /// The backend of that name in an attempt's row.
    pub fn backend(&self, name: &str) -> Arc<dyn pitcrew_exec::Backend> {
        self.parts.backends.named(name)
    }
}
