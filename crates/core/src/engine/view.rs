//! What one instance may see of the others: the outputs of the tasks before it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Run, Slot};
use crate::ir::TaskIx;
use crate::state::State;

/// The outputs of an upstream task, as the instance that asks sees them.
#[derive(Debug, Clone, PartialEq)]
pub enum Outputs<'a> {
    One(&'a BTreeMap<String, Value>),
    /// Of a mapped task: those of its successful instances, in map order.
    Many(Vec<&'a BTreeMap<String, Value>>),
}

/// The state and outputs of an upstream task, as the instance that asks sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream<'a> {
    /// Of the instance, or the worst of a mapped task's.
    pub state: State,
    pub outputs: Outputs<'a>,
}

impl Run {
    /// What `viewer` sees of `task`: inside the same mapped group its own index only, else all instances.
    pub fn upstream(&self, viewer: Slot, task: TaskIx) -> Upstream<'_> {
        let run = &self.tasks[task.at()];
        if !run.expanded {
            let instance = &run.instances[0];
            return Upstream { state: instance.state, outputs: Outputs::One(&instance.outputs) };
        }
        if self.same_unit(viewer.task, task)
            && let Some(instance) = run.instances.get(viewer.index as usize)
        {
            return Upstream { state: instance.state, outputs: Outputs::One(&instance.outputs) };
        }
        let successes = run.instances.iter().filter(|i| i.state == State::Success).map(|i| &i.outputs).collect();
        Upstream { state: self.task_state(task), outputs: Outputs::Many(successes) }
    }

    /// One state for a task with many instances: what stands out most.
    pub fn task_state(&self, task: TaskIx) -> State {
        let rank = |state: &State| {
            State::PROMINENCE.iter().position(|name| *name == state.name()).unwrap_or(State::PROMINENCE.len())
        };
        self.tasks[task.at()].instances.iter().map(|i| i.state).min_by_key(rank).unwrap_or_default()
    }

    /// Are both tasks mapped by the same group, so that instance *i* belongs to instance *i*?
    pub(super) fn same_unit(&self, a: TaskIx, b: TaskIx) -> bool {
        let unit = self.tasks[a.at()].unit;
        a != b && unit.is_some() && unit == self.tasks[b.at()].unit
    }
}
