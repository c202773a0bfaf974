//! The simulated database: what was committed, and nothing else, is there after a crash.

use std::collections::BTreeMap;

use crate::admission::Placed;
use crate::engine::Run;
use crate::engine::record::{InstanceRecord, RunRecord};
use crate::id::{AttemptId, RunKey, TaskId, UNMAPPED};

/// Everything of one run that one transaction writes.
#[derive(Debug)]
pub(super) struct Commit {
    pub key: RunKey,
    pub record: Option<RunRecord>,
    pub rows: Vec<InstanceRecord>,
    /// Tasks whose placeholder's row goes.
    pub expanded: Vec<TaskId>,
    /// New attempts, with the devices that they hold.
    pub attempts: Vec<(AttemptId, Option<Placed>)>,
    /// The run as it was when these rows were taken: what a restored run must equal.
    pub twin: Run,
    pub halted: bool,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub record: RunRecord,
    pub rows: BTreeMap<(TaskId, i32), InstanceRecord>,
    pub attempts: BTreeMap<AttemptId, Option<Placed>>,
    pub twin: Run,
    /// It was cancelled twice, so nothing of it may begin.
    pub halted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub runs: BTreeMap<RunKey, Stored>,
    /// A store that forgets to delete placeholders; a restore copes with that.
    pub keeps_placeholders: bool,
}

impl Store {
    pub fn write(&mut self, commit: Commit) {
        let stored = self.runs.get_mut(&commit.key).expect("the run was made in the store");
        if let Some(record) = commit.record {
            stored.record = record;
        }
        if !self.keeps_placeholders {
            for task in commit.expanded {
                stored.rows.remove(&(task, UNMAPPED));
            }
        }
        for row in commit.rows {
            stored.rows.insert((row.task.clone(), row.map_index), row);
        }
        stored.attempts.extend(commit.attempts);
        stored.twin = commit.twin;
        stored.halted = commit.halted;
    }
}
