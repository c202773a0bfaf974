//! Backfills: many runs for a span of past time, made and begun at their own pace.

use jiff::Timestamp;
use pitcrew_core::id::WorkflowId;
use serde_json::{Map, Value};

/// What a backfill does with a time that has a run already. A run under way is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reprocess {
    /// Nothing.
    #[default]
    None,
    /// Runs it again if it failed or was cancelled.
    Failed,
    /// Runs it again.
    Completed,
}

impl Reprocess {
    pub const ALL: [Reprocess; 3] = [Reprocess::None, Reprocess::Failed, Reprocess::Completed];

    pub fn name(self) -> &'static str {
        match self {
            Reprocess::None => "none",
            Reprocess::Failed => "failed",
            Reprocess::Completed => "completed",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Reprocess::ALL.into_iter().find(|word| word.name() == name)
    }
}

/// A backfill to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBackfill {
    pub workflow: WorkflowId,
    /// The first and the last logical date, both included.
    pub from: Timestamp,
    pub to: Timestamp,
    pub reprocess: Reprocess,
    /// The newest time first.
    pub reverse: bool,
    /// Of its own runs; those of the workflow have their own limit.
    pub max_active_runs: u32,
    /// For every run that it makes.
    pub conf: Map<String, Value>,
    pub by: String,
    pub created: Timestamp,
}

/// A stored backfill.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    /// Unique for ever, in order of creation.
    pub id: i64,
    pub new: NewBackfill,
    /// Its runs do not begin.
    pub is_paused: bool,
    /// All its runs are made; until then they are being made.
    pub planned: bool,
    /// No more runs of it begin.
    pub cancelled: bool,
    /// When the last of its runs ended.
    pub completed: Option<Timestamp>,
    pub updated: Timestamp,
}

impl Backfill {
    /// Still to be worked on.
    pub fn is_open(&self) -> bool {
        self.completed.is_none()
    }
}

/// What changes in a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillChange {
    Pause(bool),
    /// Its runs are made.
    Planned,
    Cancelled,
    Completed,
}

/// Which backfills. The newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackfillFilter {
    pub workflow: Option<WorkflowId>,
    /// Those that are not completed, or those that are.
    pub open: Option<bool>,
}
