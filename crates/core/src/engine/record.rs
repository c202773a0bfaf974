//! What is kept of a run: plain rows, the same in memory, in the store and in the simulator.
//!
//! An instance that is `none` or `scheduled` and was never tried needs no row: both follow from the rest.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fleet::Request;
use crate::id::{RunId, RunKey, TaskId, WorkflowId};
use crate::state::{Exit, RunState, State};

/// Why a run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunType {
    Manual,
    Scheduled,
    Backfill,
    /// Another service told of something.
    Event,
}

impl RunType {
    pub fn name(self) -> &'static str {
        match self {
            RunType::Manual => "manual",
            RunType::Scheduled => "scheduled",
            RunType::Backfill => "backfill",
            RunType::Event => "event",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [RunType::Manual, RunType::Scheduled, RunType::Backfill, RunType::Event].into_iter().find(|t| t.name() == name)
    }
}

/// The row of a run. What is fixed at its creation comes first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub key: RunKey,
    pub workflow: WorkflowId,
    pub run_id: RunId,
    pub run_type: RunType,
    /// The hash of the workflow source that it runs; names a row of the workflow's versions.
    pub version: String,
    /// Every param with its value, defaults filled in.
    pub params: Map<String, Value>,
    /// What the trigger gave.
    pub conf: Map<String, Value>,
    /// The time the run stands for. Unique in a workflow; `None` for a run by hand that stands for none.
    pub logical_date: Option<Timestamp>,
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Not started before this.
    pub run_after: Timestamp,
    pub queued_at: Timestamp,
    /// Who asked for it, as shown: a user, `schedule`, `cli`.
    pub triggered_by: String,
    pub state: RunState,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    /// Set once somebody or a timeout wants it to stop; the run ends as soon as its tasks do.
    pub stop: Option<RunStop>,
    /// A person's remark.
    pub note: String,
    /// The backfill that it is a run of, by number.
    #[serde(default)]
    pub backfill: Option<i64>,
    /// When the first `finally` task began; kept only where they have a time of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finally_start: Option<Timestamp>,
}

/// Why a run is being stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunStop {
    Cancelled {
        by: String,
        #[serde(default, skip_serializing_if = "StopHow::is_usual")]
        how: StopHow,
    },
    TimedOut,
    /// The time for all tasks but the `finally` ones is over.
    TasksTimedOut,
    /// The time for the `finally` tasks is over.
    FinallyTimedOut,
    /// [`OnFailure::Stop`](crate::ir::OnFailure), with the task that failed.
    FailFast {
        task: TaskId,
    },
    /// [`OnFailure::Drain`](crate::ir::OnFailure), with the task that failed.
    Drain {
        task: TaskId,
    },
    /// The workflow cannot run; see [`Refusal`](crate::ir::Refusal).
    Refused {
        reason: String,
        message: String,
    },
}

/// How far a run is stopped. The later ones stop all that the earlier ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopHow {
    /// Nothing new begins; what has begun goes on to its end, with its retries. Then `finally` tasks and teardowns run.
    DrainThenFinally,
    /// What runs is ended; then `finally` tasks and teardowns run.
    #[default]
    ThenFinally,
    /// All is ended, also `finally` tasks and teardowns.
    Everything,
}

impl StopHow {
    fn is_usual(&self) -> bool {
        *self == StopHow::default()
    }
}

/// The row of a task instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    pub task: TaskId,
    /// [`crate::id::UNMAPPED`], or the index in the mapped list.
    pub map_index: i32,
    pub state: State,
    /// The newest attempt's number; 0: never tried.
    pub attempt: u32,
    /// The number of the last attempt that may fail and be tried again; raised by a clear.
    pub max_attempt: u32,
    /// Attempts lost to machines, not to the task; they do not count against `retries`.
    pub lost: u32,
    /// When the newest attempt got its slot.
    pub queued_at: Option<Timestamp>,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    /// How the newest attempt ended.
    pub exit: Option<Exit>,
    /// One or a few lines for people: the end of the log of a failure, why it was skipped.
    pub message: String,
    /// Of the newest success; of a pod, and where failures are ignored, of the newest attempt that ended.
    pub outputs: BTreeMap<String, Value>,
    /// The item of a mapped instance.
    pub item: Option<Value>,
    /// After a branch: the direct downstream tasks to go on with.
    pub followed: Option<Vec<TaskId>>,
    /// Why the live attempt is being stopped; kept so that a restart still knows. Of a member of a gang that has ended before
    /// its mates, or that is recovering: why it did not end well.
    pub stop: Option<Stop>,
    /// Why it was skipped, or could not be, without an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkipReason>,
}

/// Why Pitcrew stops an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The task's timeout.
    TimedOut,
    /// The run is being stopped, or a person stopped this task.
    Cancelled,
    /// It was cleared while it ran: it begins anew once it has ended.
    Cleared,
    /// A task of higher priority needs its room: it begins anew once it has ended, without drawing on its retries.
    Preempted,
    /// A member of its gang failed or was lost: all of the gang begin anew, or fail. On a member that has ended itself, and
    /// waits for its mates: it failed.
    Gang,
    /// Its machine is under suspicion: recovery says what becomes of it once it has ended. On a member that has ended itself:
    /// it failed, and its gang will wait for recovery.
    Recovery,
    /// A person marked it while it ran.
    MarkedSuccess,
    MarkedFailed,
}

/// Why an instance ended without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its `when` does not hold.
    When,
    /// A task before it was skipped, for another reason than its `when`.
    Parent,
    /// Another task failed, and nothing new begins.
    Stopping,
    /// The run was cancelled.
    Cancelled,
    /// The run was cancelled, and what had begun went on to its end.
    Stopped,
    /// It uses results that a task before it did not give.
    MissingResults,
    RunTimeout,
    TasksTimeout,
    FinallyTimeout,
    /// What it is mapped over is empty.
    NoItems,
    /// Its trigger rule, or the branch that another task took.
    Rule,
    /// Not skipped but failed: what it uses is not there ([`Answer::Invalid`](super::Answer)).
    Invalid,
}

impl SkipReason {
    pub const ALL: [SkipReason; 12] = [
        SkipReason::When,
        SkipReason::Parent,
        SkipReason::Stopping,
        SkipReason::Cancelled,
        SkipReason::Stopped,
        SkipReason::MissingResults,
        SkipReason::RunTimeout,
        SkipReason::TasksTimeout,
        SkipReason::FinallyTimeout,
        SkipReason::NoItems,
        SkipReason::Rule,
        SkipReason::Invalid,
    ];

    pub fn name(self) -> &'static str {
        match self {
            SkipReason::When => "when",
            SkipReason::Parent => "parent",
            SkipReason::Stopping => "stopping",
            SkipReason::Cancelled => "cancelled",
            SkipReason::Stopped => "stopped",
            SkipReason::MissingResults => "missing_results",
            SkipReason::RunTimeout => "run_timeout",
            SkipReason::TasksTimeout => "tasks_timeout",
            SkipReason::FinallyTimeout => "finally_timeout",
            SkipReason::NoItems => "no_items",
            SkipReason::Rule => "rule",
            SkipReason::Invalid => "invalid",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        SkipReason::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            SkipReason::When => "`when` is false",
            SkipReason::Parent => "a task before it was skipped",
            SkipReason::Stopping => "another task failed, and nothing new begins",
            SkipReason::Cancelled => "the run was cancelled",
            SkipReason::Stopped => "the run was cancelled; only what had begun went on",
            SkipReason::MissingResults => "it uses results that a task before it did not give",
            SkipReason::RunTimeout => "the run timed out",
            SkipReason::TasksTimeout => "the time for the tasks was over",
            SkipReason::FinallyTimeout => "the time for the `finally` tasks was over",
            SkipReason::NoItems => "`foreach` has no items",
            SkipReason::Rule => "its trigger rule is not met",
            SkipReason::Invalid => "what it uses is not there",
        }
    }
}

/// The row of one attempt, kept for history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    pub task: TaskId,
    pub map_index: i32,
    pub number: u32,
    /// The backend's name, and its own words for finding the attempt again.
    pub backend: String,
    pub handle: Value,
    pub queued_at: Timestamp,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    /// `None` while it is live.
    pub exit: Option<Exit>,
    pub message: String,
    /// The node that it was placed on; `None`: it asked for nothing of a node.
    pub node: Option<String>,
    /// Devices that it held there, by UUID.
    pub gpus: Vec<String>,
    /// What it was granted there; `None`: nothing, or it began before that was kept.
    #[serde(default)]
    pub request: Option<Request>,
    /// Measured use, as the backend reported it; `null` when unknown.
    pub usage: Value,
    /// What it is called elsewhere: of an attempt on ECS its `job`, `job_id` and `size`, and once that is known its `task`,
    /// `definition` and `instance`. `null` where nobody else has a name for it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub names: Value,
    /// Of a pod that has ended: what became of each container, as [`PodEnded`](crate::pod::PodEnded). Else `null`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// Everything that a restart needs of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRun {
    pub run: RunRecord,
    pub instances: Vec<InstanceRecord>,
    /// Only the attempts that are live.
    pub live: Vec<AttemptRecord>,
}
