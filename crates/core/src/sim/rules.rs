//! What the templates of a random workflow say: pure functions of the run's own data, as the real language's are.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::record::SkipReason;
use crate::engine::{Answer, Demand, Evaluate, Outputs, Run, Slot};
use crate::fleet::Request;
use crate::ir::{MapUnit, TaskIx};
use crate::state::State;

#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub tasks: Vec<TaskRules>,
    /// How many items a mapping has that reads no task.
    pub params_items: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TaskRules {
    pub when_error: bool,
    /// What a guard says; `None`: it goes by `when_reads`.
    pub guard: Option<Answer>,
    /// `when` is true if this task gave an even number; without it, it goes by the item.
    pub when_reads: Option<TaskIx>,
    pub branch_error: bool,
    pub request: Option<Arc<Request>>,
    pub demand_error: bool,
    pub unknown_pool: bool,
}

/// The name of the one output that simulated tasks have.
pub(super) const OUTPUT: &str = "n";

fn number(run: &Run, viewer: Slot, task: TaskIx) -> u64 {
    let of = |outputs: &std::collections::BTreeMap<String, Value>| outputs.get(OUTPUT).and_then(Value::as_u64);
    match run.upstream(viewer, task).outputs {
        Outputs::One(outputs) => of(outputs).unwrap_or(0),
        Outputs::Many(all) => all.into_iter().filter_map(of).sum(),
    }
}

impl Evaluate for Rules {
    fn when(&self, run: &Run, slot: Slot) -> Result<Answer, String> {
        let rules = &self.tasks[slot.task.at()];
        if rules.when_error {
            return Err("`undefined` is not defined".to_owned());
        }
        if let Some(answer) = &rules.guard {
            return Ok(answer.clone());
        }
        let flag = match rules.when_reads {
            Some(task) => number(run, slot, task).is_multiple_of(2),
            None => !run.item(slot).as_u64().unwrap_or(1).is_multiple_of(3),
        };
        Ok(if flag { Answer::Go } else { Answer::Skip(SkipReason::When) })
    }

    fn items(&self, run: &Run, unit: MapUnit) -> Result<Vec<Value>, String> {
        let (first, foreach) = match unit {
            MapUnit::Task(task) => (task, run.workflow.task(task).foreach.as_ref()),
            MapUnit::Group(group) => (run.workflow.unit_tasks(unit)[0], run.workflow.group(group).foreach.as_ref()),
        };
        if let MapUnit::Task(task) = unit
            && let Some(gang) = &run.workflow.task(task).gang
        {
            return Ok((0..gang.count).map(|rank| json!(rank)).collect());
        }
        let refs = foreach.map(|foreach| foreach.refs.as_slice()).unwrap_or_default();
        let Some(reads) = refs.first().copied() else {
            return Ok((0..self.params_items).map(|i| json!(i)).collect());
        };
        let viewer = Slot::new(first, 0);
        if !matches!(run.task_state(reads), State::Success | State::Skipped) {
            return Err(format!("`{}` gave nothing", run.workflow.task(reads).id));
        }
        let count = number(run, viewer, reads) % 5;
        Ok((0..count).map(|i| json!(i + 10)).collect())
    }

    fn branch(&self, run: &Run, slot: Slot) -> Result<Vec<String>, String> {
        if self.tasks[slot.task.at()].branch_error {
            return Ok(vec!["no-such-task".to_owned()]);
        }
        let choice = run.instance(slot).outputs.get(OUTPUT).and_then(Value::as_u64).unwrap_or(1);
        let after = &run.workflow.downstream[slot.task.at()];
        let followed = after.iter().enumerate().filter(|(place, _)| (choice >> (place % 3)) & 1 == 1);
        Ok(followed.map(|(_, ix)| run.workflow.task(*ix).id.to_string()).collect())
    }

    fn demand(&self, run: &Run, slot: Slot) -> Result<Demand, String> {
        let rules = &self.tasks[slot.task.at()];
        if rules.demand_error && run.item(slot).as_u64().unwrap_or(0).is_multiple_of(2) {
            return Err("`resources.gpu` is not a number".to_owned());
        }
        Ok(Demand { request: rules.request.clone(), ..Demand::default() })
    }
}
