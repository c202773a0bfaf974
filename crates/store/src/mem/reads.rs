//! Reading runs in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType, StoredRun};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
use pitcrew_core::state::RunState;

use super::Mem;
use crate::error::Result;
use crate::types::*;

/// Cuts a page out of everything.
pub(super) fn page<T>(all: Vec<T>, paging: Paging) -> Page<T> {
    let total = all.len() as u64;
    let offset = usize::try_from(paging.offset).unwrap_or(usize::MAX);
    Page { rows: all.into_iter().skip(offset).take(paging.limit as usize).collect(), total }
}

/// Cuts a page out of everything, as it is done where the whole is counted up to the cap only.
pub(super) fn capped<T>(all: Vec<T>, paging: Paging) -> Page<T> {
    let Page { rows, total } = page(all, paging);
    Page::capped(rows, total.min(TOTAL_CAP + 1), paging)
}

/// Sorts rows that come in their usual order; those without the time go last, and equal ones keep that order, or
/// turn it if `descending`.
pub(super) fn by_time<T>(all: &mut [T], time: impl Fn(&T) -> Option<Timestamp>, descending: bool) {
    if descending {
        all.reverse();
    }
    all.sort_by(|a, b| {
        let (x, y) = (time(a), time(b));
        let order = x.cmp(&y);
        x.is_none().cmp(&y.is_none()).then(if descending { order.reverse() } else { order })
    });
}

impl Mem {
    fn select(&self, keep: impl Fn(&RunRecord) -> bool) -> Vec<RunRecord> {
        self.lock().runs.values().map(|run| &run.record).filter(|run| keep(run)).cloned().collect()
    }

    pub fn run(&self, key: RunKey) -> Result<Option<RunRecord>> {
        Ok(self.lock().runs.get(&key).map(|run| run.record.clone()))
    }

    pub fn run_by_id(&self, workflow: &WorkflowId, run_id: &RunId) -> Result<Option<RunRecord>> {
        Ok(self.select(|run| run.workflow == *workflow && run.run_id == *run_id).pop())
    }

    pub fn latest_run(&self, workflow: &WorkflowId) -> Result<Option<RunRecord>> {
        Ok(self.select(|run| run.workflow == *workflow).pop())
    }

    pub fn runs(&self, filter: &RunFilter, paging: Paging) -> Result<Page<RunRecord>> {
        let part = filter.contains.as_deref().unwrap_or_default().to_ascii_lowercase();
        let mut all = self.select(|run| {
            filter.workflow.as_ref().is_none_or(|workflow| run.workflow == *workflow)
                && (filter.among.is_empty() || filter.among.contains(&run.workflow))
                && (filter.states.is_empty() || filter.states.contains(&run.state))
                && filter.run_type.is_none_or(|run_type| run.run_type == run_type)
                && filter.backfill.is_none_or(|backfill| run.backfill == Some(backfill))
                && run.run_id.as_str().to_ascii_lowercase().contains(&part)
                && filter.logical_date.holds(run.logical_date)
                && filter.run_after.holds(Some(run.run_after))
                && filter.queued.holds(Some(run.queued_at))
                && filter.start.holds(run.start)
                && filter.end.holds(run.end)
                && filter.before.is_none_or(|before| run.key < before)
        });
        match filter.order {
            RunOrder::Newest => all.reverse(),
            RunOrder::Oldest => {}
            RunOrder::LogicalDate => by_time(&mut all, |run| run.logical_date, false),
            RunOrder::LogicalDateDescending => by_time(&mut all, |run| run.logical_date, true),
            RunOrder::Start => by_time(&mut all, |run| run.start, false),
            RunOrder::StartDescending => by_time(&mut all, |run| run.start, true),
            RunOrder::End => by_time(&mut all, |run| run.end, false),
            RunOrder::EndDescending => by_time(&mut all, |run| run.end, true),
        }
        Ok(if filter.is_plain() { page(all, paging) } else { capped(all, paging) })
    }

    pub fn run_counts(&self) -> Result<BTreeMap<WorkflowId, RunCounts>> {
        let mut counts: BTreeMap<WorkflowId, RunCounts> = BTreeMap::new();
        for run in self.lock().runs.values() {
            *counts.entry(run.record.workflow.clone()).or_default().of_mut(run.record.state) += 1;
        }
        Ok(counts)
    }

    pub fn open_run_counts(&self, workflow: &WorkflowId) -> Result<RunCounts> {
        let count = |state| self.select(|run| run.workflow == *workflow && run.state == state).len() as u64;
        let (queued, running) = (count(RunState::Queued), count(RunState::Running));
        Ok(RunCounts { queued, running, ..RunCounts::default() })
    }

    pub fn previous_run(&self, workflow: &WorkflowId, before: Before) -> Result<Option<RunRecord>> {
        let runs = self.select(|run| {
            run.workflow == *workflow
                && match before {
                    Before::LogicalDate(at) => run.logical_date.is_some_and(|date| date < at),
                    Before::Key(key) => run.key < key,
                }
        });
        Ok(match before {
            Before::LogicalDate(_) => runs.into_iter().max_by_key(|run| run.logical_date),
            Before::Key(_) => runs.into_iter().next_back(),
        })
    }

    pub fn last_logical_date(&self, workflow: &WorkflowId, run_type: RunType) -> Result<Option<Timestamp>> {
        let runs = self.select(|run| run.workflow == *workflow && run.run_type == run_type);
        Ok(runs.into_iter().filter_map(|run| run.logical_date).max())
    }

    pub fn stored_run(&self, key: RunKey) -> Result<Option<StoredRun>> {
        Ok(self.lock().runs.get(&key).map(|run| run.stored()))
    }

    pub fn instances(&self, run: RunKey, filter: &InstanceFilter, paging: Paging) -> Result<Page<InstanceRecord>> {
        let state = self.lock();
        let all = state.runs.get(&run).into_iter().flat_map(|run| run.instances.values());
        let kept = all.filter(|instance| {
            (filter.states.is_empty() || filter.states.contains(&instance.state.name()))
                && filter.task.as_ref().is_none_or(|task| instance.task == *task)
        });
        Ok(page(kept.cloned().collect(), paging))
    }

    pub fn instance(&self, run: RunKey, task: &TaskId, map_index: i32) -> Result<Option<InstanceRecord>> {
        let state = self.lock();
        Ok(state.runs.get(&run).and_then(|run| run.instances.get(&(task.clone(), map_index))).cloned())
    }

    pub fn attempts(&self, run: RunKey, task: &TaskId, map_index: i32) -> Result<Vec<AttemptRecord>> {
        let state = self.lock();
        let all = state.runs.get(&run).into_iter().flat_map(|run| run.attempts.values());
        Ok(all.filter(|attempt| attempt.task == *task && attempt.map_index == map_index).cloned().collect())
    }

    pub fn state_counts(&self, runs: &[RunKey]) -> Result<BTreeMap<RunKey, StateCounts>> {
        let state = self.lock();
        let mut counts: BTreeMap<RunKey, StateCounts> = BTreeMap::new();
        for run in runs.iter().filter_map(|key| state.runs.get(key)) {
            for instance in run.instances.values() {
                *counts.entry(run.record.key).or_default().entry(instance.state.name()).or_default() += 1;
            }
        }
        Ok(counts)
    }
}
