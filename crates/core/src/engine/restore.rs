//! A run in memory, made new or from its rows.
//!
//! Invariant: a run restored from what [`Effects::changed`](super::Effects) had written behaves as the one that was
//! lost: what was not written follows from what was.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::record::{InstanceRecord, RunRecord};
use super::{Cancel, Counts, Effects, Evaluate, GroupRun, Instance, Run, Slot, TaskRun, Timer};
use crate::id::UNMAPPED;
use crate::ir::{GroupIx, Kind, MapUnit, TaskIx, Workflow};
use crate::state::{RunState, State};

impl Run {
    /// A run that has not begun. The workflow must be linked.
    pub fn new(record: RunRecord, workflow: Arc<Workflow>) -> Run {
        let tasks = workflow
            .indices()
            .map(|ix| TaskRun {
                unit: workflow.mapping_of(ix).map(|(unit, _)| unit),
                branches: branches(&workflow, ix),
                instances: vec![fresh(&workflow, ix)],
                ..TaskRun::default()
            })
            .collect();
        let groups = (0..workflow.groups.len() as u32)
            .map(|ix| match workflow.group(GroupIx(ix)).foreach {
                Some(_) => GroupRun { tasks: workflow.unit_tasks(MapUnit::Group(GroupIx(ix))), ..GroupRun::default() },
                None => GroupRun::default(),
            })
            .collect();
        let mut run = Run {
            record,
            workflow,
            tasks,
            groups,
            timers: BTreeSet::new(),
            armed: super::stop::RunTimers::default(),
            waiting: super::limits::Waiting::default(),
            finals: Vec::new(),
            ordinary: Counts::default(),
            finally_open: 0,
            active: 0,
            stale_reports: 0,
        };
        run.link();
        run.recount();
        run
    }

    /// Notes who goes by whom without needing it.
    fn link(&mut self) {
        let workflow = self.workflow.clone();
        for ix in workflow.indices() {
            let task = workflow.task(ix);
            if task.kind == Kind::Finally {
                self.finals.push(ix);
            }
            let refs = workflow.mapping_of(ix).map(|(_, foreach)| foreach.refs.as_slice()).unwrap_or_default();
            for heard in task.setups.iter().chain(refs) {
                let listeners = &mut self.tasks[heard.at()].listeners;
                if !task.needs.contains(heard) && listeners.last() != Some(&ix) {
                    listeners.push(ix);
                }
            }
        }
    }

    /// A run as its rows tell it. Rows of tasks that the workflow does not have are left aside.
    /// Call [`Run::resume`] next.
    pub fn restore(record: RunRecord, workflow: Arc<Workflow>, mut rows: Vec<InstanceRecord>) -> Run {
        let mut run = Run::new(record, workflow);
        // A placeholder's row may lie beside those of the instances that took its place, and comes before them.
        rows.sort_by_key(|row| row.map_index);
        for row in rows {
            let Some(task) = run.workflow.by_name.get(&row.task).copied() else { continue };
            let mapped = run.tasks[task.at()].unit.is_some();
            let index = match row.map_index {
                UNMAPPED => 0,
                index if index >= 0 && mapped => index as usize,
                _ => continue,
            };
            let expanded = row.map_index != UNMAPPED;
            let followed = row
                .followed
                .map(|names| names.iter().filter_map(|name| run.workflow.by_name.get(name).copied()).collect());
            let new = fresh(&run.workflow, task);
            let task_run = &mut run.tasks[task.at()];
            if expanded && !std::mem::replace(&mut task_run.expanded, true) {
                task_run.instances[0] = new.clone();
            }
            if task_run.instances.len() <= index {
                task_run.instances.resize(index + 1, new);
            }
            task_run.instances[index] = Instance {
                // Kept states are never `scheduled`; an older store may hold one.
                state: if row.state == State::Scheduled { State::None } else { row.state },
                attempt: row.attempt,
                max_attempt: row.max_attempt,
                lost: row.lost,
                queued_at: row.queued_at,
                start: row.start,
                end: row.end,
                exit: row.exit,
                message: row.message,
                outputs: row.outputs,
                item: row.item,
                followed,
                stop: row.stop,
                skip: row.skip,
                upstream: Counts::default(),
                offered: false,
            };
        }
        for task in &mut run.tasks {
            task.stale = task.expanded && task.instances.iter().any(|instance| instance.item.is_none());
        }
        run.recount();
        run
    }

    /// Goes on after [`Run::restore`]: arms timers, wakes what waits, repeats what was being stopped.
    ///
    /// The caller looks every one of [`Run::live_slots`] up at its backend, after it wrote the returned changes.
    pub fn resume(&mut self, now: Timestamp, eval: &dyn Evaluate) -> Effects {
        self.step(now, eval, |step| {
            if step.run.record.state != RunState::Running {
                return;
            }
            step.run.arm_run_timers();
            for slot in step.run.all_slots().collect::<Vec<_>>() {
                let instance = step.run.instance(slot);
                let (state, stop, attempt) = (instance.state, instance.stop, instance.attempt);
                if let Some(at) = state.wakes_at() {
                    step.run.timers.insert((at, Timer::Wake(slot)));
                } else if state.is_live() {
                    step.run.enter(slot);
                    if stop.is_some() {
                        let grace = step.run.workflow.task(slot.task).grace;
                        step.fx.cancel.push(Cancel { slot, attempt, grace });
                    }
                    step.run.arm_timeout(slot);
                }
            }
            step.run.find_under_way();
            if step.run.record.stop.is_some() {
                step.enforce_stop(false);
            }
            step.tick();
            step.wake_all();
        })
    }

    /// Only what was offered can be live or between two tries, and what is still ready asks again.
    fn find_under_way(&mut self) {
        for task in self.workflow.indices() {
            let Some((group, _)) = self.group_limit(task) else { continue };
            let open = self.slots(task).filter(|slot| {
                let state = self.instance(*slot).state;
                state != State::None && !state.is_final()
            });
            let open: Vec<u32> = open.map(|slot| slot.index).collect();
            self.groups[group.at()].under_way.extend(open);
        }
    }

    /// The row of an instance, to be written.
    pub fn row(&self, slot: Slot) -> InstanceRecord {
        let instance = self.instance(slot);
        InstanceRecord {
            task: self.workflow.task(slot.task).id.clone(),
            map_index: self.map_index(slot),
            state: instance.state,
            attempt: instance.attempt,
            max_attempt: instance.max_attempt,
            lost: instance.lost,
            queued_at: instance.queued_at,
            start: instance.start,
            end: instance.end,
            exit: instance.exit.clone(),
            message: instance.message.clone(),
            outputs: instance.outputs.clone(),
            item: instance.item.clone(),
            followed: instance
                .followed
                .as_ref()
                .map(|followed| followed.iter().map(|ix| self.workflow.task(*ix).id.clone()).collect()),
            stop: instance.stop,
            skip: instance.skip,
        }
    }

    /// The value of `item` for an instance; null when it is not mapped.
    pub fn item(&self, slot: Slot) -> &Value {
        self.instance(slot).item.as_ref().unwrap_or(&Value::Null)
    }
}

/// An instance that was never tried.
pub(super) fn fresh(workflow: &Workflow, task: TaskIx) -> Instance {
    Instance { max_attempt: workflow.task(task).retry.retries + 1, ..Instance::default() }
}

fn branches(workflow: &Workflow, task: TaskIx) -> Vec<TaskIx> {
    workflow.task(task).needs.iter().copied().filter(|need| workflow.task(*need).branch.is_some()).collect()
}
