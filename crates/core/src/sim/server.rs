//! The simulated server: what it has in memory, and the order in which it commits and acts.
//!
//! Invariant: an attempt is started or ended only after the rows that ask for it are committed. A commit takes time;
//! meanwhile events go on changing the runs, and end up in the next commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::backend::Found;
use super::store::Commit;
use super::world::{Outcome, World};
use super::{check, workflows};
use crate::admission::{Admission, Cause, Holder, Placed, Preemption, Quota};
use crate::engine::record::{RunStop, SkipReason, StopHow};
use crate::engine::{Effects, Evaluate, Event, Launch, Report, Run, Slot, Transition};
use crate::fleet::{Amount, Gpus, Node};
use crate::id::{AttemptId, RunKey};
use crate::ir::TaskIx;
use crate::state::{Exit, RunState, State};

/// How long after its last look the server asks the backend again what became of the live attempts.
const POLL: SignedDuration = SignedDuration::from_secs(20);

/// What a crash takes.
pub(super) struct Memory {
    pub runs: BTreeMap<RunKey, Active>,
    pub admission: Admission,
    /// Events that the server makes itself.
    pub events: VecDeque<(RunKey, Event)>,
    pub unwritten: BTreeSet<RunKey>,
    /// To be done after the next commit.
    pub after: Vec<After>,
    pub commit: Option<(Vec<Commit>, Vec<After>)>,
    /// To be done now, one by one.
    pub performing: VecDeque<After>,
    pub poll_at: Option<Timestamp>,
}

pub(super) struct Active {
    pub run: Run,
    pub flow: usize,
    /// What it was told of the previous run.
    pub told: BTreeMap<TaskIx, bool>,
    /// It was cancelled twice, so nothing of it may begin.
    pub halted: bool,
    granted: BTreeMap<Slot, Option<Placed>>,
    slots: BTreeSet<Slot>,
    record: bool,
    expanded: Vec<TaskIx>,
    attempts: Vec<(AttemptId, Option<Placed>)>,
    finished: bool,
}

#[derive(Debug, Clone)]
pub(super) enum After {
    Launch { run: RunKey, slot: Slot, attempt: u32 },
    Attach { run: RunKey, slot: Slot, attempt: u32 },
    Cancel { run: RunKey, slot: Slot, attempt: u32, grace: SignedDuration },
    Finished(RunKey),
}

impl Active {
    pub fn new(run: Run, flow: usize) -> Self {
        Active {
            run,
            flow,
            told: BTreeMap::new(),
            halted: false,
            granted: BTreeMap::new(),
            slots: BTreeSet::new(),
            record: false,
            expanded: Vec::new(),
            attempts: Vec::new(),
            finished: false,
        }
    }

    fn commit(&mut self) -> Commit {
        let name = |task: &TaskIx| self.run.workflow.task(*task).id.clone();
        let commit = Commit {
            key: self.run.record.key,
            record: self.record.then(|| self.run.record.clone()),
            rows: self.slots.iter().map(|slot| self.run.row(*slot)).collect(),
            expanded: self.expanded.iter().map(name).collect(),
            attempts: std::mem::take(&mut self.attempts),
            twin: self.run.clone(),
            halted: self.halted,
        };
        self.slots.clear();
        self.expanded.clear();
        (self.record, self.finished) = (false, false);
        commit
    }
}

impl Memory {
    pub fn new(nodes: Vec<Node>, quotas: Vec<Quota>) -> Self {
        let mut admission = Admission::new(12, nodes).expect("nodes of different names");
        admission.set_quotas(quotas);
        for (pool, slots) in workflows::POOLS {
            admission.set_pool(pool, slots);
        }
        Memory {
            runs: BTreeMap::new(),
            admission,
            events: VecDeque::new(),
            unwritten: BTreeSet::new(),
            after: Vec::new(),
            commit: None,
            performing: VecDeque::new(),
            poll_at: None,
        }
    }

    pub fn is_written(&self) -> bool {
        self.unwritten.is_empty() && self.after.is_empty() && self.commit.is_none() && self.performing.is_empty()
    }
}

impl World {
    /// Gives one event to the engine, and takes what it leads to.
    pub fn apply(&mut self, key: RunKey, event: Event) -> Outcome {
        let Some(active) = self.memory.runs.get_mut(&key) else { return Ok(()) };
        let rules = self.flows[active.flow].1.clone();
        let before = check::Before::of(&active.run, &event);
        match &event {
            // Asked again, nothing of the run may begin any more.
            Event::Cancel { how, .. } if active.run.record.state == RunState::Running => {
                let ended = |how: &StopHow| *how != StopHow::DrainThenFinally;
                let before = matches!(&active.run.record.stop, Some(RunStop::Cancelled { how, .. }) if ended(how));
                active.halted |= *how == StopHow::Everything || (before && ended(how));
            }
            Event::Clear { .. } | Event::Mark { .. } => active.halted = false,
            _ => {}
        }
        let fx = active.run.apply(event.clone(), self.now, &*rules);
        check::transitions(&active.run, &before, &event, &fx)?;
        if active.halted && !fx.launch.is_empty() {
            return Err(format!("run {key} was cancelled twice, and goes on"));
        }
        self.say(|| format!("run {key}: {event:?}"));
        self.absorb(key, fx);
        Ok(())
    }

    /// Takes effects: memory at once, the rest after the commit.
    pub fn absorb(&mut self, key: RunKey, fx: Effects) {
        let memory = &mut self.memory;
        let Some(active) = memory.runs.get_mut(&key) else { return };
        for slot in fx.released {
            memory.admission.release(key, slot);
        }
        for slot in fx.withdrawn {
            memory.admission.withdraw(key, slot);
        }
        for offer in fx.offers {
            if let Err(refusal) = memory.admission.offer(key, &offer) {
                let refused = Event::Refused { slot: offer.slot, reason: refusal.to_string() };
                memory.events.push_back((key, refused));
            }
        }
        for Launch { slot, attempt } in fx.launch {
            let placed = active.granted.remove(&slot).unwrap_or_default();
            active.attempts.push((active.run.attempt_id(slot, attempt), placed));
            memory.after.push(After::Launch { run: key, slot, attempt });
        }
        for cancel in fx.cancel {
            let (slot, attempt, grace) = (cancel.slot, cancel.attempt, cancel.grace);
            memory.admission.ends(key, slot);
            memory.after.push(After::Cancel { run: key, slot, attempt, grace });
        }
        active.slots.extend(fx.changed);
        active.record |= fx.run_changed;
        active.finished |= fx.finished;
        let is_refused = fx.finished && matches!(active.run.record.stop, Some(RunStop::Refused { .. }));
        active.expanded.extend(fx.expanded);
        if active.record || !active.slots.is_empty() {
            memory.unwritten.insert(key);
        }
        if is_refused {
            self.saw("a run was refused");
        }
        self.log_transitions(key, &fx.transitions);
    }

    fn log_transitions(&self, key: RunKey, transitions: &[Transition]) {
        let run = &self.memory.runs[&key].run;
        for t in transitions {
            let id = &run.workflow.task(t.slot.task).id;
            self.say(|| format!("   run {key} {id}[{}]: {} → {}", run.map_index(t.slot), t.from, t.to));
            match t.to {
                State::Removed => self.saw("removed"),
                State::Success
                    if run.workflow.task(t.slot.task).ignore_failure
                        && run.instance(t.slot).exit.as_ref().is_some_and(|exit| !exit.is_success()) =>
                {
                    self.saw("a failure was ignored");
                }
                State::Skipped | State::Failed => match run.instance(t.slot).skip {
                    Some(SkipReason::Stopping) => self.saw("nothing new began after a failure"),
                    Some(SkipReason::Stopped) => self.saw("nothing new began after a cancel"),
                    Some(SkipReason::MissingResults) => self.saw("a guard skipped a task"),
                    Some(SkipReason::Invalid) => self.saw("a guard found something missing"),
                    Some(SkipReason::TasksTimeout) => self.saw("the time of the tasks was over"),
                    Some(SkipReason::FinallyTimeout) => self.saw("the time of `finally` was over"),
                    Some(SkipReason::RunTimeout) => self.saw("the time of the run was over"),
                    _ => {}
                },
                State::UpstreamFailed => self.saw("upstream failed"),
                State::UpForRetry { .. } => self.saw("retried"),
                State::None if t.from == State::Scheduled => self.saw("ready, then not"),
                State::None if t.from == State::Removed => self.saw("removed, then back"),
                _ => {}
            }
        }
    }

    /// Lets everything in memory come to rest.
    pub fn settle(&mut self) -> Outcome {
        loop {
            let mut quiet = true;
            while let Some((key, event)) = self.memory.events.pop_front() {
                self.saw("refused");
                self.apply(key, event)?;
            }
            for grant in self.memory.admission.grant(self.now) {
                quiet = false;
                let Holder { run, slot } = grant.holder;
                if grant.placed.len() > 1 {
                    self.saw("a gang was admitted");
                }
                if let Some(active) = self.memory.runs.get_mut(&run) {
                    active.granted.extend(grant.placed().map(|(slot, placed)| (slot, Some(placed))));
                }
                self.apply(run, Event::Admitted(slot))?;
            }
            for Preemption { victim, by, cause } in self.memory.admission.preemptions() {
                quiet = false;
                self.saw(match cause {
                    Cause::Priority => "preempted",
                    Cause::Reclaim => "reclaimed",
                });
                let reason = format!("it makes room for {by:?}");
                self.apply(victim.run, Event::Preempt { slot: victim.slot, reason })?;
            }
            quiet &= !self.begin_runs()?;
            quiet &= !self.tell_past()?;
            if quiet && self.memory.events.is_empty() {
                break;
            }
        }
        if self.memory.poll_at.is_none() && self.memory.admission.live() > 0 {
            self.memory.poll_at = Some(self.now + POLL);
        }
        Ok(())
    }

    fn begin_runs(&mut self) -> Outcome<bool> {
        let mut running = vec![0; self.flows.len()];
        for active in self.memory.runs.values().filter(|active| active.run.record.state == RunState::Running) {
            running[active.flow] += 1;
        }
        let mut begin = Vec::new();
        for (key, active) in &self.memory.runs {
            let free = running[active.flow] < self.flows[active.flow].0.max_active_runs;
            if active.run.record.state == RunState::Queued && free {
                running[active.flow] += 1;
                begin.push(*key);
            }
        }
        let any = !begin.is_empty();
        begin.into_iter().try_for_each(|key| self.apply(key, Event::Begin))?;
        Ok(any)
    }

    /// What `depends_on_past` tasks of a run may know of the run before.
    pub fn past_of(&self, key: RunKey) -> Vec<(TaskIx, bool)> {
        let Some(active) = self.memory.runs.get(&key) else { return Vec::new() };
        let workflow = &active.run.workflow;
        let before =
            self.store.runs.iter().rev().find(|(k, stored)| **k < key && stored.record.workflow == workflow.id);
        let allows = |task: TaskIx| {
            let Some((before, stored)) = before else { return true };
            // A run that left the memory is over, and is as its last commit.
            let run = self.memory.runs.get(before).map_or(&stored.twin, |active| &active.run);
            let lets_go = |slot| matches!(run.instance(slot).state, State::Success | State::Skipped | State::Removed);
            run.slots(task).all(lets_go)
        };
        let tasks = workflow.indices().filter(|ix| workflow.task(*ix).depends_on_past);
        tasks.map(|task| (task, allows(task))).collect()
    }

    fn tell_past(&mut self) -> Outcome<bool> {
        let mut any = false;
        for key in self.memory.runs.keys().copied().collect::<Vec<_>>() {
            for (task, allows) in self.past_of(key) {
                let active = self.memory.runs.get_mut(&key).expect("just listed");
                if active.told.insert(task, allows) != Some(allows) {
                    any = true;
                    self.apply(key, Event::Past { task, allows })?;
                }
            }
        }
        Ok(any)
    }

    pub fn start_commit(&mut self) {
        let memory = &mut self.memory;
        let mut commits = Vec::new();
        for key in std::mem::take(&mut memory.unwritten) {
            let active = memory.runs.get_mut(&key).expect("what is unwritten stays in memory");
            if active.finished {
                memory.after.push(After::Finished(key));
            }
            commits.push(active.commit());
        }
        memory.commit = Some((commits, std::mem::take(&mut memory.after)));
    }

    pub fn end_commit(&mut self) {
        let Some((commits, after)) = self.memory.commit.take() else { return };
        commits.into_iter().for_each(|commit| self.store.write(commit));
        self.memory.performing.extend(after);
    }

    pub fn perform(&mut self, after: After) -> Outcome {
        match after {
            After::Launch { run, slot, attempt } => self.launch(run, slot, attempt),
            After::Attach { run, slot, attempt } => {
                let Some(id) = self.live_id(run, slot, attempt) else { return Ok(()) };
                match self.backend.look(&id) {
                    // What is to be ended was told so already, and must not begin now.
                    Found::NeverBegan if self.is_stopping(run, slot) => self.end_unbegun(run, slot, attempt),
                    Found::NeverBegan => self.launch(run, slot, attempt),
                    Found::Starting => Ok(()),
                    Found::Running { since } => self.apply(run, Event::Started { slot, attempt, at: since }),
                    Found::Ended(report) => {
                        let report = self.hold(report);
                        self.apply(run, Event::Ended { slot, attempt, report })
                    }
                }
            }
            After::Cancel { run, slot, attempt, grace } => {
                if let Some(id) = self.live_id(run, slot, attempt) {
                    self.say(|| format!("cancel {id}"));
                    self.backend.cancel(&mut self.rng, self.now, &id, grace);
                }
                Ok(())
            }
            After::Finished(key) => {
                let is_over = |active: &Active| active.run.record.state.is_final();
                let over = self.memory.runs.get(&key).is_some_and(is_over);
                if over && !self.memory.unwritten.contains(&key) && self.memory.commit.is_none() {
                    self.memory.runs.remove(&key);
                    self.memory.admission.forget(key);
                }
                Ok(())
            }
        }
    }

    fn live_id(&self, run: RunKey, slot: Slot, attempt: u32) -> Option<AttemptId> {
        let run = &self.memory.runs.get(&run)?.run;
        let live = run.get(slot).is_some_and(|i| i.state.is_live() && i.attempt == attempt);
        live.then(|| run.attempt_id(slot, attempt))
    }

    fn launch(&mut self, run: RunKey, slot: Slot, attempt: u32) -> Outcome {
        let Some(id) = self.live_id(run, slot, attempt) else { return Ok(()) };
        if self.is_stopping(run, slot) && self.rng.percent(50) {
            return self.end_unbegun(run, slot, attempt);
        }
        let placed = self.store.runs[&run].attempts.get(&id).cloned();
        let placed = placed.ok_or_else(|| format!("{id} is started before its row is written"))?;
        let demand = self.flows[self.memory.runs[&run].flow].1.demand(&self.memory.runs[&run].run, slot)?;
        let part = match demand.request.map(|request| request.gpus.clone()) {
            Some(Gpus::Share(share)) => share,
            _ => Amount::ONE,
        };
        self.say(|| format!("start {id}"));
        self.backend.start(&mut self.rng, self.now, &id, placed.unwrap_or_default().gpus, part)
    }

    fn is_stopping(&self, run: RunKey, slot: Slot) -> bool {
        let run = self.memory.runs.get(&run).map(|active| &active.run);
        run.and_then(|run| run.get(slot)).is_some_and(|instance| instance.stop.is_some())
    }

    /// No need to begin what is to be ended.
    fn end_unbegun(&mut self, run: RunKey, slot: Slot, attempt: u32) -> Outcome {
        self.saw("ended before it began");
        let report = Report {
            exit: Exit::Cancelled,
            started_at: None,
            at: self.now,
            error: None,
            message: String::new(),
            outputs: BTreeMap::new(),
            held: false,
        };
        self.apply(run, Event::Ended { slot, attempt, report })
    }

    /// Was its attempt started, or will be?
    pub fn is_being_started(&self, key: RunKey, slot: Slot) -> bool {
        let memory = &self.memory;
        let number = memory.runs[&key].run.instance(slot).attempt;
        let planned = memory.commit.iter().flat_map(|(_, after)| after).chain(&memory.after).chain(&memory.performing);
        let mut planned = planned.filter(|after| match after {
            After::Launch { run, slot: s, attempt } | After::Attach { run, slot: s, attempt } => {
                (*run, *s, *attempt) == (key, slot, number)
            }
            After::Cancel { .. } | After::Finished(_) => false,
        });
        let id = memory.runs[&key].run.attempt_id(slot, number);
        !matches!(self.backend.look(&id), Found::NeverBegan) || planned.next().is_some()
    }

    /// Was its attempt told to end, or will be?
    pub fn is_being_ended(&self, key: RunKey, slot: Slot) -> bool {
        let memory = &self.memory;
        let number = memory.runs[&key].run.instance(slot).attempt;
        let planned = memory.commit.iter().flat_map(|(_, after)| after).chain(&memory.after).chain(&memory.performing);
        let mut planned = planned.filter(|after| {
            matches!(after, After::Cancel { run, slot: s, attempt, .. } if (*run, *s, *attempt) == (key, slot, number))
        });
        !self.backend.is_left_alone(&memory.runs[&key].run.attempt_id(slot, number)) || planned.next().is_some()
    }
}
