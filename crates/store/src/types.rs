//! The rows and questions of the store that are not the engine's own.
//!
//! Times are kept to the microsecond, and a NUL character in a text is kept as U+FFFD, in every store alike.

mod across;
mod backfills;
mod deliveries;
mod ecs;
mod files;
mod nodes;
mod notices;
mod objects;
mod people;
mod recovery;
mod secrets;
mod workers;

pub use across::*;
pub use backfills::*;
pub use deliveries::*;
pub use ecs::*;
pub use files::*;
pub use nodes::*;
pub use notices::*;
pub use objects::*;
pub use people::*;
pub use recovery::*;
pub use secrets::*;
pub use workers::*;

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
use pitcrew_core::state::RunState;
use serde_json::{Map, Value};

/// A run to be made. It begins `queued`.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    pub workflow: WorkflowId,
    pub run_id: RunId,
    pub run_type: RunType,
    /// A hash given to `put_workflow`.
    pub version: String,
    pub params: Map<String, Value>,
    pub conf: Map<String, Value>,
    pub logical_date: Option<Timestamp>,
    pub data_interval: Option<(Timestamp, Timestamp)>,
    pub run_after: Timestamp,
    pub queued_at: Timestamp,
    pub triggered_by: String,
    pub note: String,
    /// The backfill that it is a run of.
    pub backfill: Option<i64>,
    /// Written with the run, and only if it is made.
    pub audit: Vec<AuditEntry>,
}

impl NewRun {
    pub(crate) fn into_record(self, key: RunKey) -> RunRecord {
        RunRecord {
            key,
            workflow: self.workflow,
            run_id: self.run_id,
            run_type: self.run_type,
            version: self.version,
            params: self.params,
            conf: self.conf,
            logical_date: self.logical_date,
            data_interval: self.data_interval,
            run_after: self.run_after,
            queued_at: self.queued_at,
            triggered_by: self.triggered_by,
            state: RunState::Queued,
            start: None,
            end: None,
            stop: None,
            note: self.note,
            backfill: self.backfill,
            finally_start: None,
        }
    }
}

/// What became of a [`NewRun`].
#[derive(Debug, Clone, PartialEq)]
pub enum CreateRun {
    Created(RunRecord),
    /// Nothing was written: this run was there before.
    Exists {
        run: RunRecord,
        same: Same,
    },
}

impl CreateRun {
    /// The run, new or old.
    pub fn into_run(self) -> RunRecord {
        match self {
            CreateRun::Created(run) | CreateRun::Exists { run, .. } => run,
        }
    }
}

/// What an existing run has in common with a new one of its workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    RunId,
    LogicalDate,
}

/// Which runs to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimFilter {
    /// Every run that is queued or running and has no living owner.
    All,
    /// This run, in whatever state, unless another living owner has it. A finished run is claimed to be
    /// cleared; a run that is already the caller's is returned again.
    Only(RunKey),
}

/// What changes in one run, to be written all or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCommit {
    pub key: RunKey,
    /// The new row of the run. What a run keeps for life is not written again: its workflow, ids, type, params,
    /// conf, logical date, data interval and who triggered it.
    pub run: Option<RunRecord>,
    /// Lets `run` leave a final state; without it that is a [`StoreError::Conflict`](crate::StoreError::Conflict).
    pub reopen: bool,
    /// Rows to be made or replaced; of equal keys the last one counts.
    pub instances: Vec<InstanceRecord>,
    pub attempts: Vec<AttemptRecord>,
    /// Tasks whose mapping is known from now on: the row of their placeholder goes, before `instances` are written.
    pub expanded: Vec<TaskId>,
    pub variables: Vec<VariableSet>,
    pub audit: Vec<AuditEntry>,
    /// Those whose `dedupe` is known already are ignored.
    pub notices: Vec<NewNotice>,
    /// What ended on workers, by the id of each; it is added to what is counted of them.
    pub worker_ends: BTreeMap<String, WorkerEnds>,
}

impl RunCommit {
    /// A commit that changes nothing yet.
    pub fn new(key: RunKey) -> Self {
        RunCommit {
            key,
            run: None,
            reopen: false,
            instances: Vec::new(),
            attempts: Vec::new(),
            expanded: Vec::new(),
            variables: Vec::new(),
            audit: Vec::new(),
            notices: Vec::new(),
            worker_ends: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.run.is_none()
            && self.instances.is_empty()
            && self.attempts.is_empty()
            && self.expanded.is_empty()
            && self.variables.is_empty()
            && self.audit.is_empty()
            && self.notices.is_empty()
            && self.worker_ends.is_empty()
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// Runs that this owner does not own (any more): nothing was written for them. The caller forgets them.
    pub lost: Vec<RunKey>,
}

/// A variable to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableSet {
    pub key: String,
    pub value: String,
    /// `None` leaves the description as it is.
    pub description: Option<String>,
}

/// A stored variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub key: String,
    pub value: String,
    pub description: String,
}

/// A pool of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub slots: u32,
    pub description: String,
}

/// The pool of tasks that name none. It always exists.
pub const DEFAULT_POOL: &str = "default_pool";
/// Its slots in a new store.
pub const DEFAULT_POOL_SLOTS: u32 = 128;

/// Who did what, when.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub at: Timestamp,
    pub who: String,
    /// A short word: `run.trigger`, `variable.set`, ….
    pub event: String,
    pub workflow: Option<WorkflowId>,
    /// By id, not key: an entry outlives its run.
    pub run: Option<RunId>,
    pub task: Option<TaskId>,
    pub detail: Value,
}

impl AuditEntry {
    /// An entry about nothing in particular.
    pub fn new(at: Timestamp, who: impl Into<String>, event: impl Into<String>) -> Self {
        AuditEntry {
            at,
            who: who.into(),
            event: event.into(),
            workflow: None,
            run: None,
            task: None,
            detail: Value::Null,
        }
    }
}

/// A stored audit entry.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Unique for ever, in order of writing.
    pub id: i64,
    pub entry: AuditEntry,
}

/// A workflow as its file says, with what the server and its users know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRow {
    pub id: WorkflowId,
    /// Of the source file.
    pub path: String,
    /// The hash of the source.
    pub version: String,
    pub description: String,
    /// Sorted, each once.
    pub tags: Vec<String>,
    /// As a person reads it; `None`: only by hand.
    pub schedule: Option<String>,
    pub is_paused: bool,
    /// Its file is there.
    pub active: bool,
    /// When the next scheduled run is due.
    pub next_run: Option<Timestamp>,
}

/// What became of a workflow that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutWorkflow {
    Created,
    Updated,
    /// Equal to what was stored: nothing was written.
    Unchanged,
}

/// One definition that a workflow has, or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub hash: String,
    pub created: Timestamp,
}

/// Why a file gives no workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    pub path: String,
    pub message: String,
    pub at: Timestamp,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// Rows at most.
    pub limit: u32,
    /// Rows to leave out first.
    pub offset: u64,
}

impl Paging {
    /// Everything.
    pub const ALL: Paging = Paging { limit: u32::MAX, offset: 0 };

    /// The first `limit` rows.
    pub fn first(limit: u32) -> Self {
        Paging { limit, offset: 0 }
    }

    /// The length of the list, if a page with that many rows tells it: its end is on the page.
    pub(crate) fn total_after(self, rows: usize) -> Option<u64> {
        let is_end = (rows as u64) < u64::from(self.limit) && (rows > 0 || self.offset == 0);
        is_end.then(|| self.offset.saturating_add(rows as u64))
    }
}

/// Some rows of a list, with the length of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Where a list says so, it is counted up to [`TOTAL_CAP`] only; above that, this merely is larger than the
    /// cap, and than the place of the last row here if there are more: who pages until `total` reaches the end.
    pub total: u64,
}

/// How far long lists are counted: people do not read the difference, and the database would count for long.
pub const TOTAL_CAP: u64 = 10_000;

impl<T> Page<T> {
    /// `counted` stops at one more than [`TOTAL_CAP`].
    pub(crate) fn capped(rows: Vec<T>, counted: u64, paging: Paging) -> Self {
        let seen = paging.offset.saturating_add(rows.len() as u64);
        let more = u64::from(rows.len() == paging.limit as usize);
        let total = if counted > TOTAL_CAP && !rows.is_empty() { counted.max(seen + more) } else { counted };
        Page { rows, total }
    }
}

/// Which workflows. By id in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkflowFilter {
    /// Part of the id, whatever its case.
    pub contains: Option<String>,
    /// Has all of these.
    pub tags: Vec<String>,
    pub paused: Option<bool>,
    pub active: Option<bool>,
}

/// Which runs, in which order. Empty lists allow all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    pub workflow: Option<WorkflowId>,
    /// Only of these workflows: what a token is limited to.
    pub among: Vec<WorkflowId>,
    pub states: Vec<RunState>,
    pub run_type: Option<RunType>,
    pub backfill: Option<i64>,
    /// Part of the run's id, whatever its case.
    pub contains: Option<String>,
    pub logical_date: Between,
    pub run_after: Between,
    pub queued: Between,
    pub start: Between,
    pub end: Between,
    /// Made before this run: where the next page of the newest goes on.
    pub before: Option<RunKey>,
    pub order: RunOrder,
}

impl RunFilter {
    /// Whether the database can count what matches out of an index alone.
    pub(crate) fn is_plain(&self) -> bool {
        self.among.is_empty()
            && self.run_type.is_none()
            && self.backfill.is_none()
            && self.contains.is_none()
            && self.before.is_none()
            && [self.logical_date, self.run_after, self.queued, self.start, self.end].iter().all(Between::is_open)
    }
}

/// The order of a list of runs. Runs without the time in question come last; equal ones by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunOrder {
    /// By creation, the newest first.
    #[default]
    Newest,
    Oldest,
    LogicalDate,
    LogicalDateDescending,
    Start,
    StartDescending,
    End,
    EndDescending,
}

/// Before which point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// In logical time; runs without one are not considered.
    LogicalDate(Timestamp),
    /// In order of creation.
    Key(RunKey),
}

/// How many runs of a workflow are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunCounts {
    pub queued: u64,
    pub running: u64,
    pub success: u64,
    pub failed: u64,
    pub cancelled: u64,
}

impl RunCounts {
    pub fn of(&self, state: RunState) -> u64 {
        match state {
            RunState::Queued => self.queued,
            RunState::Running => self.running,
            RunState::Success => self.success,
            RunState::Failed => self.failed,
            RunState::Cancelled => self.cancelled,
        }
    }

    pub(crate) fn of_mut(&mut self, state: RunState) -> &mut u64 {
        match state {
            RunState::Queued => &mut self.queued,
            RunState::Running => &mut self.running,
            RunState::Success => &mut self.success,
            RunState::Failed => &mut self.failed,
            RunState::Cancelled => &mut self.cancelled,
        }
    }

    /// Queued and running.
    pub fn open(&self) -> u64 {
        self.queued + self.running
    }
}

/// How many stored instances are in each state; the words are those of `State::name`.
pub type StateCounts = BTreeMap<&'static str, u64>;

/// Which stored instances of a run. By task and map index in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    /// Words of `State::name`; none: all.
    pub states: Vec<&'static str>,
    pub task: Option<TaskId>,
}

/// Which audit entries. The newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    pub workflow: Option<WorkflowId>,
    /// Only of these workflows, unless empty; entries about none are not among them.
    pub among: Vec<WorkflowId>,
    pub run: Option<RunId>,
    pub event: Option<String>,
    /// How the event begins: `run.`.
    pub event_prefix: Option<String>,
    pub who: Option<String>,
    pub at: Between,
    /// Written before this entry: where the next page goes on.
    pub before: Option<i64>,
}

/// A run that retention removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedRun {
    pub key: RunKey,
    pub workflow: WorkflowId,
    pub run_id: RunId,
}

/// What retention removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Runs whose rows are gone and whose directories can be deleted; also those of an earlier
    /// removal that was not confirmed by `retention_done`. By key in order.
    pub runs: Vec<RemovedRun>,
    /// Audit entries.
    pub audit: u64,
    /// Old workflow versions that no run refers to.
    pub versions: u64,
    /// Notices that were settled, or given up.
    pub notices: u64,
    /// Completed backfills without runs.
    pub backfills: u64,
}
