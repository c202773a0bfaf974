//! A run that this process works on: the engine's run, and what of it is not written yet.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::admission::Placed;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::ir::TaskIx;
use pitcrew_core::state::State;
use pitcrew_store::{AuditEntry, NewNotice, RunCommit, VariableSet, WorkerEnds};
use serde_json::Value;

use super::Step;

pub(super) struct Active {
    pub run: Run,
    /// The newest attempt of each instance that had one since it was loaded.
    pub attempts: BTreeMap<Slot, AttemptRecord>,
    /// Where the admission placed those that ask for something of a node, from the grant to the launch.
    pub granted: BTreeMap<Slot, Placed>,
    /// Nodes that recovery wants the next attempt to keep off, by the instance or the first of its gang. Not written.
    pub excluded: BTreeMap<Slot, BTreeSet<String>>,
    /// The newest attempt of which recovery was told that all of it runs, likewise.
    pub told: BTreeMap<Slot, u32>,
    /// Tasks that wait for the previous run, and that run.
    pub past: Vec<TaskIx>,
    pub previous: Option<pitcrew_core::RunKey>,
    /// People were told that the run is late as of then.
    pub late: Option<jiff::Timestamp>,
    /// Since when instances could run that wait for a slot.
    pub ready: BTreeMap<Slot, jiff::Timestamp>,
    pub unwritten: Unwritten,
}

/// What changed since the last commit was put together.
#[derive(Default)]
pub(super) struct Unwritten {
    pub slots: BTreeSet<Slot>,
    pub run: bool,
    pub reopen: bool,
    /// Tasks whose mapping became known.
    pub expanded: Vec<TaskIx>,
    /// By instance and number; the newest state of each.
    pub attempts: BTreeMap<(Slot, u32), AttemptRecord>,
    pub variables: Vec<VariableSet>,
    pub audit: Vec<AuditEntry>,
    pub notices: Vec<NewNotice>,
    /// What ended on workers, by the id of each.
    pub worker_ends: BTreeMap<String, WorkerEnds>,
    pub steps: Vec<Step>,
    pub finished: bool,
}

impl Active {
    pub fn new(run: Run) -> Self {
        Active {
            run,
            attempts: BTreeMap::new(),
            granted: BTreeMap::new(),
            excluded: BTreeMap::new(),
            told: BTreeMap::new(),
            past: Vec::new(),
            previous: None,
            late: None,
            ready: BTreeMap::new(),
            unwritten: Unwritten::default(),
        }
    }

    pub fn has_unwritten(&self) -> bool {
        let u = &self.unwritten;
        u.run
            || !u.slots.is_empty()
            || !u.attempts.is_empty()
            || !u.variables.is_empty()
            || !u.audit.is_empty()
            || !u.notices.is_empty()
    }

    /// Is it, or its gang, all that failed of the run?
    pub fn is_first_failure(&self, slot: Slot) -> bool {
        let mates = self.run.with_mates(slot);
        let mut failed = self.run.all_slots().filter(|slot| self.run.instance(*slot).state == State::Failed);
        self.run.instance(slot).state == State::Failed && failed.all(|slot| mates.contains(&slot))
    }

    /// Takes what is unwritten, as rows in their newest state.
    pub fn take_commit(&mut self) -> (RunCommit, Vec<Step>, bool) {
        let unwritten = std::mem::take(&mut self.unwritten);
        let mut commit = RunCommit::new(self.run.record.key);
        commit.run = unwritten.run.then(|| self.run.record.clone());
        commit.reopen = unwritten.reopen;
        commit.instances = unwritten.slots.into_iter().map(|slot| self.run.row(slot)).collect();
        commit.expanded = unwritten.expanded.iter().map(|ix| self.run.workflow.task(*ix).id.clone()).collect();
        commit.attempts = unwritten.attempts.into_values().collect();
        commit.variables = unwritten.variables;
        commit.audit = unwritten.audit;
        commit.notices = unwritten.notices;
        commit.worker_ends = unwritten.worker_ends;
        (commit, unwritten.steps, unwritten.finished)
    }

    /// Keeps the newest row of an attempt, and remembers to write it.
    pub fn put_attempt(&mut self, slot: Slot, attempt: AttemptRecord) {
        self.unwritten.attempts.insert((slot, attempt.number), attempt.clone());
        self.attempts.insert(slot, attempt);
    }

    /// Measured use of each instance's newest attempt, for reports.
    pub fn usage(&self, slot: Slot) -> &Value {
        self.attempts.get(&slot).map_or(&Value::Null, |attempt| &attempt.usage)
    }
}
