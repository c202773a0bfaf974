//! Questions over many runs, in memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pitcrew_core::id::{RunKey, TaskId, WorkflowId};
use pitcrew_core::state::RunState;

use super::Mem;
use super::reads::{by_time, capped};
use crate::error::Result;
use crate::figures;
use crate::types::*;

impl Mem {
    pub fn task_instances(&self, query: &InstanceQuery, paging: Paging) -> Result<Page<InstanceOfRun>> {
        let state = self.lock();
        let runs = state.runs.values().filter(|run| {
            query.workflow.as_ref().is_none_or(|workflow| run.record.workflow == *workflow)
                && (query.among.is_empty() || query.among.contains(&run.record.workflow))
                && query.run.is_none_or(|key| run.record.key == key)
        });
        let mut all: Vec<InstanceOfRun> = Vec::new();
        for run in runs {
            let brief = RunBrief::from(&run.record);
            let kept = run.instances.values().filter(|instance| {
                query.task.as_ref().is_none_or(|task| instance.task == *task)
                    && query.map_index.is_none_or(|index| instance.map_index == index)
                    && (query.states.is_empty() || query.states.contains(&instance.state.name()))
                    && query.queued.holds(instance.queued_at)
                    && query.start.holds(instance.start)
                    && query.end.holds(instance.end)
            });
            all.extend(kept.map(|instance| InstanceOfRun { run: brief.clone(), instance: instance.clone() }));
        }
        let start = |row: &InstanceOfRun| row.instance.start;
        let end = |row: &InstanceOfRun| row.instance.end;
        match query.order {
            InstanceOrder::Newest => all.sort_by_key(|row| Reverse(row.run.key)),
            InstanceOrder::Oldest => {}
            InstanceOrder::Start => by_time(&mut all, start, false),
            InstanceOrder::StartDescending => by_time(&mut all, start, true),
            InstanceOrder::End => by_time(&mut all, end, false),
            InstanceOrder::EndDescending => by_time(&mut all, end, true),
        }
        Ok(capped(all, paging))
    }

    pub fn grid(&self, workflow: &WorkflowId, before: Option<RunKey>, runs: u32) -> Result<Grid> {
        let state = self.lock();
        let newest = state
            .runs
            .values()
            .rev()
            .filter(|run| run.record.workflow == *workflow && before.is_none_or(|before| run.record.key < before));
        let newest: Vec<_> = newest.take(runs as usize).collect();
        let tasks: BTreeSet<&TaskId> =
            newest.iter().flat_map(|run| run.instances.values()).map(|instance| &instance.task).collect();
        let tasks: Vec<TaskId> = tasks.into_iter().cloned().collect();
        let mut columns = Vec::new();
        for run in newest {
            let mut counts: BTreeMap<(u32, &'static str), u32> = BTreeMap::new();
            for instance in run.instances.values() {
                let place = tasks.binary_search(&instance.task).unwrap_or_default() as u32;
                *counts.entry((place, instance.state.name())).or_default() += 1;
            }
            let cells = counts.into_iter().map(|((task, state), count)| GridCell { task, state, count }).collect();
            columns.push(GridRun { run: RunBrief::from(&run.record), cells });
        }
        Ok(Grid { tasks, runs: columns })
    }

    pub fn run_days(&self, workflow: Option<&WorkflowId>, bounds: &[Timestamp]) -> Result<Vec<RunCounts>> {
        let mut days = vec![RunCounts::default(); bounds.len().saturating_sub(1)];
        for run in self.lock().runs.values().map(|run| &run.record) {
            if workflow.is_some_and(|workflow| run.workflow != *workflow) {
                continue;
            }
            for (day, span) in days.iter_mut().zip(bounds.windows(2)) {
                if (span[0]..span[1]).contains(&run.run_after) {
                    *day.of_mut(run.state) += 1;
                }
            }
        }
        Ok(days)
    }

    pub fn figures(&self, of: &FiguresOf) -> Result<Figures> {
        let state = self.lock();
        let inside = |end: Option<Timestamp>| end.filter(|end| (of.since..of.until).contains(end));
        let mut figures = figures::Builder::default();
        let (mut ended, mut held) = (Vec::new(), Vec::new());
        for run in state.runs.values() {
            let record = &run.record;
            if of.workflow.as_ref().is_some_and(|workflow| record.workflow != *workflow) {
                continue;
            }
            if let Some(end) = inside(record.end).filter(|_| record.state.is_final()) {
                figures.count(record.state, 1);
                ended.push((end, record));
            }
            let attempts = run.attempts.values().filter(|attempt| !attempt.gpus.is_empty());
            held.extend(attempts.filter_map(|attempt| inside(attempt.end).map(|end| (end, attempt))));
        }
        ended.sort_by_key(|(end, run)| Reverse((*end, run.key)));
        for (end, run) in ended.into_iter().take(FIGURES_OF as usize) {
            figures.run(run.workflow.as_str(), run.state, run.queued_at, run.start, end);
        }
        held.sort_by_key(|(end, _)| Reverse(*end));
        for (end, attempt) in held.into_iter().take(FIGURES_OF as usize) {
            figures.attempt(attempt.start, end, &attempt.usage);
        }
        Ok(figures.finish())
    }

    pub fn recent_runs(&self, workflows: &[WorkflowId], limit: u32) -> Result<BTreeMap<WorkflowId, Vec<RunBrief>>> {
        let state = self.lock();
        let mut recent: BTreeMap<WorkflowId, Vec<RunBrief>> = BTreeMap::new();
        for run in state.runs.values().rev().filter(|run| workflows.contains(&run.record.workflow)) {
            let runs = recent.entry(run.record.workflow.clone()).or_default();
            if runs.len() < limit as usize {
                runs.push(RunBrief::from(&run.record));
            }
        }
        recent.retain(|_, runs| !runs.is_empty());
        Ok(recent)
    }

    pub fn runs_in(&self, state: RunState) -> Result<u64> {
        let count = self.lock().runs.values().filter(|run| run.record.state == state).count() as u64;
        Ok(count.min(TOTAL_CAP + 1))
    }

    pub fn instances_in(&self) -> Result<StateCounts> {
        let mut counts = StateCounts::new();
        for instance in self.lock().runs.values().flat_map(|run| run.instances.values()) {
            *counts.entry(instance.state.name()).or_default() += 1;
        }
        counts.values_mut().for_each(|count| *count = (*count).min(TOTAL_CAP + 1));
        Ok(counts)
    }
}
