//! What waits for its turn, why, and what is in use: read off the same facts that the scheduler decides by, so nothing
//! of it is stored and asking costs as much as is shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::engine::Slot;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::RunState;
use pitcrew_core::{RunId, RunKey, TaskId, WorkflowId};

use super::core_loop::Core;
use crate::quotas::{self, NamespaceUse};

/// The state of the queue at a moment.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Runs that have not begun, then instances in the order in which they will be served.
    pub waiting: Vec<Waiting>,
    /// How many wait altogether.
    pub total: usize,
    /// Live instances, and how many there may be.
    pub live: usize,
    pub parallelism: u32,
    /// Devices in use, and of all nodes.
    pub gpus: (usize, usize),
    /// Of each pool, the slots in use and the instances in line.
    pub pools: BTreeMap<String, (u32, usize)>,
    /// How many wait for the workers of each queue.
    pub queues: BTreeMap<String, usize>,
    /// What each namespace holds.
    pub namespaces: Vec<NamespaceUse>,
}

/// Somebody in the queue.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub workflow: WorkflowId,
    pub run_id: RunId,
    /// `None`: the whole run has not begun.
    pub instance: Option<(TaskId, i32)>,
    /// Since when; known of runs only.
    pub since: Option<Timestamp>,
    /// A sentence without its subject.
    pub reason: String,
}

impl Core {
    pub(super) fn queue(&self, limit: usize) -> Queue {
        let mut waiting = Vec::new();
        let mut total = 0;
        for active in self.runs.values().filter(|active| active.run.record.state == RunState::Queued) {
            total += 1;
            if waiting.len() < limit {
                let record = &active.run.record;
                waiting.push(Waiting {
                    workflow: record.workflow.clone(),
                    run_id: record.run_id.clone(),
                    instance: None,
                    since: Some(record.queued_at),
                    reason: self.why_not_begun(record, active.run.workflow.max_active_runs),
                });
            }
        }
        let (line, in_line) = self.admission.in_line(limit.saturating_sub(waiting.len()));
        waiting.extend(line.into_iter().filter_map(|holder| self.waiting(holder.run, holder.slot)));
        total += in_line;
        for (key, active) in &self.runs {
            for slot in active.run.held_back().filter(|slot| active.run.speaker(*slot) == *slot) {
                total += 1;
                if waiting.len() < limit {
                    waiting.extend(self.waiting(*key, slot));
                }
            }
        }
        Queue {
            waiting,
            total,
            live: self.admission.live(),
            parallelism: self.parts.parallelism,
            gpus: self.admission.gpu_use(),
            queues: self.queues(),
            namespaces: self.namespaces(),
            pools: self.admission.pools().map(|pool| (pool.name.to_owned(), (pool.used, pool.waiting))).collect(),
        }
    }

    pub(super) fn queues(&self) -> BTreeMap<String, usize> {
        self.admission.queues().into_iter().map(|(queue, waiting)| (queue.to_owned(), waiting)).collect()
    }

    pub(super) fn namespaces(&self) -> Vec<NamespaceUse> {
        let uses = self.admission.quota_uses().into_iter();
        let known = uses.map(|one| NamespaceUse {
            namespace: one.namespace.to_owned(),
            used: quotas::amounts(&one.used),
            borrowed: quotas::amounts(&one.borrowed),
            waiting: one.waiting,
        });
        known.collect()
    }

    fn waiting(&self, key: RunKey, slot: Slot) -> Option<Waiting> {
        let run = &self.runs.get(&key)?.run;
        let is_gang = run.workflow.task(slot.task).gang.is_some();
        // A gang waits as one.
        let index = if is_gang { UNMAPPED } else { run.map_index(slot) };
        let reasons = run.explain(slot, Some(&self.admission));
        Some(Waiting {
            workflow: run.record.workflow.clone(),
            run_id: run.record.run_id.clone(),
            instance: Some((run.workflow.task(slot.task).id.clone(), index)),
            since: None,
            reason: reasons.first().map(ToString::to_string).unwrap_or_default(),
        })
    }

    /// The same questions as in `begin_runs`, answered for a person.
    fn why_not_begun(&self, record: &RunRecord, max_active_runs: u32) -> String {
        if record.run_after > crate::clock::now() {
            return format!("waits for its time, {}", record.run_after.strftime("%Y-%m-%d %H:%M:%S UTC"));
        }
        if self.paused.contains(&record.workflow) {
            return "waits: its workflow is paused".to_owned();
        }
        format!("waits for its turn: {max_active_runs} of the workflow may run at a time (`max_active_runs`)")
    }
}
