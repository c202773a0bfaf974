//! What happens to a run: [`Run::apply`] takes one event and the time, changes the run in memory, and says what
//! must be written and done.
//!
//! The shell around it writes [`Effects::changed`] first and performs the rest after; so a crash between the two is
//! repaired by [`Run::restore`], which finds the same effects again. Reports of older attempts are dropped and counted.
//! [`Run::sanity_check`] derives every invariant anew and is called after each step of the simulator.

mod apply;
mod attempt;
mod gang;
mod limits;
mod mapping;
mod ready;
pub mod record;
mod recover;
mod repeat;
mod restore;
mod sanity;
mod stop;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fleet::{Gang, Request};
use crate::id::{AttemptId, UNMAPPED};
use crate::ir::{MapUnit, TaskIx, Workflow};
use crate::state::{Change, Exit, State};
use crate::trigger_rule::Counts;

pub use limits::Held;
use record::{RunRecord, SkipReason, Stop, StopHow};
pub use view::{Outputs, Upstream};

/// Attempts that are lost to machines are repeated this often without drawing on the task's `retries`.
pub const MAX_LOST: u32 = 5;

/// One task instance of a run: a task, and its place in the mapped list (0 for one that is not mapped).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    pub task: TaskIx,
    pub index: u32,
}

impl Slot {
    pub fn new(task: TaskIx, index: u32) -> Self {
        Slot { task, index }
    }
}

/// What the front-end's language works out for the engine, from the run's own data alone. Pure: the same run gives
/// the same answer. An `Err` is a sentence for the user, and fails the instance.
pub trait Evaluate {
    /// The task's `when`; called only if it has one.
    fn when(&self, run: &Run, slot: Slot) -> Result<Answer, String>;
    /// The items of a mapped unit, each as the value of `item`.
    fn items(&self, run: &Run, unit: MapUnit) -> Result<Vec<Value>, String>;
    /// The names that the task's `branch` gives, after its success; called only if it has one.
    fn branch(&self, run: &Run, slot: Slot) -> Result<Vec<String>, String>;
    /// What an attempt of the instance will hold.
    fn demand(&self, run: &Run, slot: Slot) -> Result<Demand, String>;
}

/// What a `when` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Go,
    Skip(SkipReason),
    /// It cannot be: what the task uses is not there. It fails, with this sentence; that does not count as a failure that
    /// stops others, nor is it one that can be ignored.
    Invalid(String),
}

/// What an attempt holds while it is live, with its templates rendered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// What a node has to have for it; `None`: it asks for nothing of a node, and runs on this machine.
    pub request: Option<Arc<Request>>,
    /// A limit of the processes, in thousandths of a core.
    pub cpu_milli: Option<u32>,
    /// A limit of the processes, in bytes.
    pub memory_bytes: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The run may begin (its turn under `max_active_runs` has come).
    Begin,
    /// Time passed; timers that are due fire.
    Tick,
    /// [`crate::admission`] granted what the instance, or the gang of which it is the first, asked for.
    Admitted(Slot),
    /// The instance, or its gang, asks for something that no machine has.
    Refused { slot: Slot, reason: String },
    /// [`crate::admission`] needs its room, or that of its gang, for somebody of higher priority.
    Preempt { slot: Slot, reason: String },
    /// The backend says that the attempt runs.
    Started { slot: Slot, attempt: u32, at: Timestamp },
    /// The backend says that the attempt ended.
    Ended { slot: Slot, attempt: u32, report: Report },
    /// [`crate::recovery`] suspects a machine that the instance, or a member of its gang, runs on: end it, and wait for the
    /// verdict. One that waits to begin anew waits for the verdict instead.
    Suspect { slot: Slot, reason: String },
    /// What [`crate::recovery`] says of an instance that is recovering, or of its gang. `attempt`: the one that has ended; where
    /// nothing is to begin, a later one will do, which recovery counted and nobody began.
    Recovered { slot: Slot, attempt: u32, verdict: Ruling },
    /// Whether the same task of the previous run lets this one go; asked for by `depends_on_past`. Not kept: to be
    /// told again after a restart, and whenever it changes.
    Past { task: TaskIx, allows: bool },
    /// Somebody wants the run to stop. Asked a second time to end what runs, it ends all.
    Cancel {
        by: String,
        #[serde(default)]
        how: StopHow,
    },
    /// Run these again, from the beginning, and everything after them if `downstream`.
    Clear { slots: Vec<Slot>, downstream: bool },
    /// A person says how it ended.
    Mark { slot: Slot, success: bool },
    /// A person puts an output in place, or takes it away. What was made of the old value stays as it is.
    Output { slot: Slot, name: String, value: Option<Value> },
    /// A person remarks on the run.
    Note { text: String },
}

/// What becomes of an instance, or of a gang, that waited for recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// It begins anew.
    Restart {
        /// Not before this.
        at: Timestamp,
        /// Of the new attempt; those between the last and this one were never begun.
        number: u32,
        /// It was the task's own fault, so the restart counts against its `retries`.
        draws: bool,
    },
    /// As if recovery had never been there: the usual retry, or failure.
    Leave,
    /// It fails, whatever retries are left.
    Fail { why: String },
}

/// How an attempt ended, as the backend and the shell found it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub exit: Exit,
    /// When it began, by the backend's clock, if that is known.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the backend's clock.
    pub at: Timestamp,
    /// Makes a failure of an exit code 0: a declared output that is missing or cannot be read.
    pub error: Option<String>,
    /// For people: the last lines of the log.
    pub message: String,
    pub outputs: BTreeMap<String, Value>,
    /// Of a failure: recovery suspects the machine, and says what becomes of the instance ([`Event::Recovered`]).
    #[serde(default)]
    pub held: bool,
}

/// What must be written and done. `released`, `withdrawn` and `offers` concern memory alone and are done at once, in
/// this order: an instance may give back and ask again in one step. What is started or ended waits until `changed`,
/// `run_changed` and `expanded` are written.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Rows to write; each once, in its newest state.
    pub changed: BTreeSet<Slot>,
    pub run_changed: bool,
    /// Mapped tasks whose items were found: their row of map index [`UNMAPPED`], if there is one, is to be deleted.
    pub expanded: Vec<TaskIx>,
    /// Their attempt has ended: give back what it held.
    pub released: Vec<Slot>,
    /// Take these offers back.
    pub withdrawn: Vec<Slot>,
    /// Offer these to the admission.
    pub offers: Vec<Offer>,
    /// Start these attempts.
    pub launch: Vec<Launch>,
    /// End these attempts.
    pub cancel: Vec<Cancel>,
    /// What changed, in order, for logs and live pages.
    pub transitions: Vec<Transition>,
    /// The run reached its final state with this event.
    pub finished: bool,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        *self == Effects::default()
    }
}

/// An instance that may run, and what it asks for; or a gang, and what each of its members does.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Of a gang, its first member.
    pub slot: Slot,
    pub gang: Option<Gang>,
    /// Whose quota it counts against.
    pub namespace: String,
    pub pool: Option<String>,
    pub pool_slots: u32,
    pub priority: i64,
    /// It may be made to end for somebody of higher priority.
    pub is_preemptible: bool,
    /// How long an attempt takes at most, with its forced end; `None`: nobody knows.
    pub limit: Option<SignedDuration>,
    pub demand: Demand,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub slot: Slot,
    pub attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    pub slot: Slot,
    pub attempt: u32,
    pub grace: SignedDuration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    pub slot: Slot,
    pub from: State,
    pub to: State,
    pub at: Timestamp,
}

/// A run in memory.
#[derive(Debug, Clone)]
pub struct Run {
    pub record: RunRecord,
    pub workflow: Arc<Workflow>,
    tasks: Vec<TaskRun>,
    groups: Vec<GroupRun>,
    /// Due times; an entry that no longer fits the instance is ignored when it fires.
    timers: BTreeSet<(Timestamp, Timer)>,
    /// Those of `timers` that are of the run itself.
    armed: stop::RunTimers,
    /// Scheduled instances held back by the limits of the run or of their task.
    waiting: limits::Waiting,
    /// The `finally` tasks.
    finals: Vec<TaskIx>,
    /// Final states of all tasks but `finally` ones.
    ordinary: Counts,
    /// Instances that are not final, of `finally` tasks.
    finally_open: u32,
    /// Offered or live.
    active: u32,
    /// Reports of older attempts, dropped.
    pub stale_reports: u64,
}

#[derive(Debug, Clone, Default)]
struct TaskRun {
    /// What maps it, if anything does.
    unit: Option<MapUnit>,
    /// Mapped, and its items are known.
    expanded: bool,
    /// An instance was cleared, and is without an item: they are found anew before an instance starts.
    stale: bool,
    instances: Vec<Instance>,
    /// Offered or live.
    active: u32,
    /// What the previous run says, for `depends_on_past`; `None` until it is told.
    past: Option<bool>,
    /// Those it needs that have a `branch`.
    branches: Vec<TaskIx>,
    /// Those that go by this one without needing it: the scope of a setup, what is mapped over its outputs.
    listeners: Vec<TaskIx>,
}

/// The mapping of a group: which indices are under way, for `max_parallel`. An index at which all that is left waits
/// for something else gives its place up; it would wait for ever for tasks that need all indices.
#[derive(Debug, Clone, Default)]
struct GroupRun {
    /// The tasks of the group, if it is mapped.
    tasks: Vec<TaskIx>,
    /// Indices at which an instance was offered and one is still going on: ready, live, or between two tries.
    under_way: BTreeSet<u32>,
}

/// A task instance in memory; the fields are those of [`record::InstanceRecord`].
#[derive(Debug, Clone, Default)]
pub struct Instance {
    pub state: State,
    pub attempt: u32,
    pub max_attempt: u32,
    pub lost: u32,
    pub queued_at: Option<Timestamp>,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub exit: Option<Exit>,
    pub message: String,
    pub outputs: BTreeMap<String, Value>,
    pub item: Option<Value>,
    pub followed: Option<Vec<TaskIx>>,
    pub stop: Option<Stop>,
    pub skip: Option<SkipReason>,
    /// Final states of what it needs.
    upstream: Counts,
    /// Between its offer to the admission and its admission.
    offered: bool,
}

impl Instance {
    /// Is it in line at the admission?
    pub(crate) fn offered(&self) -> bool {
        self.offered
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The end of a retry's or reschedule's wait.
    Wake(Slot),
    /// The timeout of an attempt.
    Timeout(Slot, u32),
    RunTimeout,
    TasksTimeout,
    FinallyTimeout,
}

impl Run {
    /// The instance at `slot`. Panics on a slot that is not of this run.
    pub fn instance(&self, slot: Slot) -> &Instance {
        &self.tasks[slot.task.at()].instances[slot.index as usize]
    }

    /// The instance at `slot`, or `None` if the task has not (or no longer) that many.
    pub fn get(&self, slot: Slot) -> Option<&Instance> {
        self.tasks.get(slot.task.at())?.instances.get(slot.index as usize)
    }

    /// All slots of a task, in map order; one for a task that is not mapped or not yet.
    pub fn slots(&self, task: TaskIx) -> impl Iterator<Item = Slot> + use<> {
        (0..self.tasks[task.at()].instances.len() as u32).map(move |index| Slot { task, index })
    }

    /// Every slot of the run, by task and map index.
    pub fn all_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.workflow.indices().flat_map(|task| self.slots(task))
    }

    /// [`UNMAPPED`], or the index in the mapped list.
    pub fn map_index(&self, slot: Slot) -> i32 {
        if self.tasks[slot.task.at()].expanded { slot.index as i32 } else { UNMAPPED }
    }

    /// The slot with that map index, if there is one.
    pub fn find(&self, task: TaskIx, map_index: i32) -> Option<Slot> {
        let run = self.tasks.get(task.at())?;
        let index = match (run.expanded, map_index) {
            (false, UNMAPPED) => 0,
            (true, index) if index >= 0 && (index as usize) < run.instances.len() => index as u32,
            _ => return None,
        };
        Some(Slot { task, index })
    }

    pub fn attempt_id(&self, slot: Slot, number: u32) -> AttemptId {
        AttemptId {
            run: self.record.key,
            task: self.workflow.task(slot.task).id.clone(),
            map_index: self.map_index(slot),
            number,
        }
    }

    /// When [`Event::Tick`] is due next.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn instance_mut(&mut self, slot: Slot) -> &mut Instance {
        &mut self.tasks[slot.task.at()].instances[slot.index as usize]
    }

    /// Instances that hold a slot and an attempt; after a restart each is looked up at its backend.
    pub fn live_slots(&self) -> Vec<Slot> {
        self.all_slots().filter(|slot| self.instance(*slot).state.is_live()).collect()
    }

    /// Instances of ordinary tasks that are not final.
    pub(crate) fn open_ordinary(&self) -> u32 {
        self.ordinary.total - self.ordinary.done()
    }

    fn is_finally(&self, task: TaskIx) -> bool {
        self.workflow.task(task).kind == crate::ir::Kind::Finally
    }
}

/// Changes that the table refuses are bugs of the engine, not of its input: input is checked before.
fn must(state: State, change: Change) -> State {
    state.next(change).unwrap_or_else(|illegal| unreachable!("engine asked for an illegal change: {illegal}"))
}
