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
}

/// Why a run is being stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunStop {
    Cancelled {
        by: String,
    },
    TimedOut,
    /// `fail_fast`, with the task that failed.
    FailFast {
        task: TaskId,
    },
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
    /// Of the newest success.
    pub outputs: BTreeMap<String, Value>,
    /// The item of a mapped instance.
    pub item: Option<Value>,
    /// After a branch: the direct downstream tasks to go on with.
    pub followed: Option<Vec<TaskId>>,
    /// Why the live attempt is being stopped; kept so that a restart still knows. Of a member of a gang that has ended before
    /// its mates, or that is recovering: why it did not end well.
    pub stop: Option<Stop>,
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
}

/// Everything that a restart needs of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRun {
    pub run: RunRecord,
    pub instances: Vec<InstanceRecord>,
    /// Only the attempts that are live.
    pub live: Vec<AttemptRecord>,
}
