//! "Why is this not running?", answered from the same facts that the engine decides by.

use std::fmt;

use jiff::Timestamp;

use crate::admission::{Admission, Blocked};
use crate::engine::record::{RunStop, StopHow};
use crate::engine::{Held, Run, Slot};
use crate::fleet::{Miss, Policy};
use crate::ir::{Kind, TaskIx};
use crate::state::{Exit, RunState, State};
use crate::trigger_rule::{TriggerRule, Verdict};

/// One reason; its text is a sentence without its subject, the task.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It is not waiting: the state, and what is known about it.
    Is {
        state: State,
        message: String,
    },
    /// It will not run, because this task before it failed.
    HeldUpBy {
        task: String,
    },
    RunNotBegun,
    RunStopped(RunStop),
    RunEnded(RunState),
    WaitsForTask {
        task: String,
        state: State,
    },
    /// More tasks than are worth listing.
    WaitsForMore(usize),
    WaitsForSetup {
        task: String,
        state: State,
    },
    WaitsForAll {
        open: u32,
    },
    WaitsForRule {
        rule: TriggerRule,
    },
    WaitsForItems {
        task: String,
    },
    /// So many members of its gang still run.
    WaitsForMates(usize),
    /// Of recovery, on the machine that the attempt failed on.
    WaitsForVerdict {
        /// `None`: whoever asked does not know it.
        node: Option<String>,
        after: String,
    },
    WaitsForPast,
    WaitsUntil(Timestamp),
    HeldByLimit(Held),
    InLine(Blocked),
    /// One of the nodes, and why it does not take it now.
    Node {
        name: String,
        miss: Miss,
    },
    /// By what a node is chosen once several have room.
    Placement(Policy),
    AskedForSlot,
    StartRequested,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Is { state, message } if message.is_empty() => write!(f, "is {state}"),
            Reason::Is { state, message } => write!(f, "is {state}: {}", message.lines().last().unwrap_or("")),
            Reason::HeldUpBy { task } => write!(f, "did not run: `{task}` failed"),
            Reason::RunNotBegun => f.write_str("waits for its run to begin (`max_active_runs`)"),
            Reason::RunStopped(RunStop::Cancelled { by, how: StopHow::DrainThenFinally }) => {
                write!(f, "will not run: {by} cancelled the run, and only what had begun goes on")
            }
            Reason::RunStopped(RunStop::Cancelled { by, how: StopHow::ThenFinally | StopHow::Everything }) => {
                write!(f, "will not run: {by} cancelled the run")
            }
            Reason::RunStopped(RunStop::TimedOut) => f.write_str("will not run: the run timed out"),
            Reason::RunStopped(RunStop::TasksTimedOut) => f.write_str("will not run: the time for the tasks is over"),
            Reason::RunStopped(RunStop::FinallyTimedOut) => {
                f.write_str("will not run: the time for the `finally` tasks is over")
            }
            Reason::RunStopped(RunStop::FailFast { task }) => write!(f, "will not run: `{task}` failed (`fail_fast`)"),
            Reason::RunStopped(RunStop::Drain { task }) => {
                write!(f, "will not run: `{task}` failed, and nothing new begins")
            }
            Reason::RunStopped(RunStop::Refused { message, .. }) => write!(f, "will not run: {message}"),
            Reason::RunEnded(state) => write!(f, "will not run: the run is over ({state})"),
            Reason::WaitsForTask { task, state } => write!(f, "waits for `{task}`, which is {}", word(*state)),
            Reason::WaitsForMore(count) => write!(f, "waits for {count} more tasks"),
            Reason::WaitsForSetup { task, state } => {
                write!(f, "waits for the setup `{task}`, which is {}", word(*state))
            }
            Reason::WaitsForAll { open } => write!(f, "waits for the end of all other tasks; {open} are open"),
            Reason::WaitsForRule { rule } => write!(f, "waits for its trigger rule `{}`", rule.name()),
            Reason::WaitsForItems { task } => {
                write!(f, "waits for the items of its `foreach`, which come from `{task}`")
            }
            Reason::WaitsForMates(1) => f.write_str("has ended; 1 more of its gang runs"),
            Reason::WaitsForMates(count) => write!(f, "has ended; {count} more of its gang run"),
            Reason::WaitsForVerdict { node, after } => match node {
                Some(node) => write!(f, "waits for the check of `{node}` after {after}"),
                None => write!(f, "waits for the check of its machine after {after}"),
            },
            Reason::WaitsForPast => f.write_str("waits for the same task of the previous run (`depends_on_past`)"),
            Reason::WaitsUntil(at) => write!(f, "waits until {} for its next try", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            Reason::HeldByLimit(Held::ByRun(max)) => {
                write!(f, "waits: {max} tasks of the run are active (`max_active_tasks`)")
            }
            Reason::HeldByLimit(Held::ForGang(max)) => {
                write!(f, "waits: the places that are left of {max} are kept for a gang (`max_active_tasks`)")
            }
            Reason::HeldByLimit(Held::ByTask(max)) => {
                write!(f, "waits: {max} of its instances are active (`max_parallel`)")
            }
            Reason::HeldByLimit(Held::ByGroup(max)) => {
                write!(f, "waits: {max} instances of its group are under way (`max_parallel`)")
            }
            Reason::InLine(blocked) => write!(f, "waits for a slot: {blocked}"),
            Reason::Node { name, miss } => write!(f, "does not fit the node `{name}`: {miss}"),
            Reason::Placement(policy) => write!(f, "is placed by the policy `{policy}`: {}", policy.aim()),
            Reason::AskedForSlot => f.write_str("has asked for a slot"),
            Reason::StartRequested => f.write_str("has its slot and is being started"),
        }
    }
}

/// A state in a sentence; none is one that a person would not call a state.
fn word(state: State) -> &'static str {
    if state == State::None { "waiting" } else { state.name() }
}

/// How many nodes are listed, those first that it nearly fits.
const NODES: usize = 50;
/// How many upstream tasks are listed by name.
const LISTED: usize = 8;

impl Run {
    /// Why the instance is not running; one reason if it is, or is over. `admission` is asked for its part if given.
    pub fn explain(&self, slot: Slot, admission: Option<&Admission>) -> Vec<Reason> {
        let instance = self.instance(slot);
        match instance.state {
            State::Queued => vec![Reason::StartRequested],
            State::UpForRetry { at } | State::UpForReschedule { at } => vec![Reason::WaitsUntil(at)],
            State::Scheduled => {
                if !instance.offered() {
                    return self.held(slot).map(Reason::HeldByLimit).into_iter().collect();
                }
                let why = admission.and_then(|admission| admission.why(self.record.key, self.speaker(slot)));
                let nodes = match &why {
                    Some(Blocked::Room { nodes } | Blocked::Gang { nodes, .. }) if nodes.len() > 1 => nodes.clone(),
                    _ => Vec::new(),
                };
                let first = why.map_or(Reason::AskedForSlot, Reason::InLine);
                let policy = admission.filter(|_| !nodes.is_empty()).map(|admission| admission.fleet().policy());
                let each = nodes.into_iter().take(NODES).map(|(name, miss)| Reason::Node { name, miss });
                std::iter::once(first).chain(each).chain(policy.map(Reason::Placement)).collect()
            }
            State::None => self.why_not_ready(slot),
            State::UpstreamFailed => self.what_failed(slot),
            State::Deferred if self.live_mates(slot) > 0 => vec![Reason::WaitsForMates(self.live_mates(slot))],
            State::Recovering => vec![Reason::WaitsForVerdict { node: None, after: self.what_failed_on_it(slot) }],
            State::Running | State::Success | State::Failed | State::Skipped | State::Deferred | State::Removed => {
                vec![Reason::Is { state: instance.state, message: instance.message.clone() }]
            }
        }
    }

    /// The instance whose failure recovery looks into: the first of the gang that failed, or itself.
    pub fn suspect_of(&self, slot: Slot) -> Slot {
        self.culprit(&self.with_mates(slot)).unwrap_or(slot)
    }

    fn what_failed_on_it(&self, slot: Slot) -> String {
        let instance = self.instance(self.suspect_of(slot));
        let last = instance.message.lines().last().unwrap_or_default();
        match &instance.exit {
            // It was ended because of the suspicion, which is what its message says.
            Some(Exit::Cancelled) | None => last.to_owned(),
            Some(exit) if last.is_empty() => exit.to_string(),
            Some(exit) => format!("{exit}: {last}"),
        }
    }

    /// The failures that an instance was held up by, also those further up.
    fn what_failed(&self, slot: Slot) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut seen = std::collections::BTreeSet::from([slot]);
        let mut open = std::collections::VecDeque::from([slot]);
        while let Some(at) = open.pop_front() {
            let task = self.workflow.task(at.task);
            for up in task.needs.iter().chain(&task.setups).flat_map(|need| self.upstream_slots(at, *need)) {
                match self.instance(up).state {
                    State::Failed if seen.insert(up) && reasons.len() < LISTED => {
                        reasons.push(Reason::HeldUpBy { task: self.name_of(up) });
                    }
                    State::UpstreamFailed if seen.insert(up) => open.push_back(up),
                    _ => {}
                }
            }
        }
        if reasons.is_empty() {
            reasons.push(Reason::Is { state: State::UpstreamFailed, message: String::new() });
        }
        reasons
    }

    fn name_of(&self, slot: Slot) -> String {
        let id = &self.workflow.task(slot.task).id;
        if self.map_index(slot) >= 0 { format!("{id}[{}]", slot.index) } else { id.to_string() }
    }

    fn why_not_ready(&self, slot: Slot) -> Vec<Reason> {
        match self.record.state {
            RunState::Queued => return vec![Reason::RunNotBegun],
            RunState::Running => {}
            RunState::Failed if matches!(self.record.stop, Some(RunStop::Refused { .. })) => {}
            state => return vec![Reason::RunEnded(state)],
        }
        if let Some(stop) = &self.record.stop
            && self.skipped_by_stop(slot).is_some()
        {
            return vec![Reason::RunStopped(stop.clone())];
        }
        match self.verdict(slot) {
            Verdict::Wait => self.what_is_open(slot),
            _ if !self.past_allows(slot.task) => vec![Reason::WaitsForPast],
            _ => match self.waits_for_items_of(slot) {
                Some(task) => vec![Reason::WaitsForItems { task: self.workflow.task(task).id.to_string() }],
                None => vec![Reason::WaitsForRule { rule: self.workflow.task(slot.task).trigger_rule }],
            },
        }
    }

    fn what_is_open(&self, slot: Slot) -> Vec<Reason> {
        let task = self.workflow.task(slot.task);
        if task.kind == Kind::Finally && self.open_ordinary() > 0 {
            return vec![Reason::WaitsForAll { open: self.open_ordinary() }];
        }
        let is_open = |up: &Slot| !self.instance(*up).state.is_final();
        let name = |up: Slot| self.name_of(up);
        let of = |tasks: &[TaskIx]| -> Vec<Slot> {
            tasks.iter().flat_map(|other| self.upstream_slots(slot, *other)).filter(is_open).collect()
        };
        let setups = of(&task.setups);
        let mut reasons: Vec<Reason> = setups
            .iter()
            .map(|up| Reason::WaitsForSetup { task: name(*up), state: self.instance(*up).state })
            .collect();
        let needs: Vec<Slot> = of(&task.needs).into_iter().filter(|up| !setups.contains(up)).collect();
        reasons
            .extend(needs.iter().map(|up| Reason::WaitsForTask { task: name(*up), state: self.instance(*up).state }));
        if reasons.len() > LISTED {
            let more = reasons.len() - LISTED;
            reasons.truncate(LISTED);
            reasons.push(Reason::WaitsForMore(more));
        }
        if reasons.is_empty() {
            reasons.push(Reason::WaitsForRule { rule: task.trigger_rule });
        }
        reasons
    }
}
