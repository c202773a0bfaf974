//! Tasks of a run as they run: whether, how often, and as what pod. All follows from what other tasks came to.

pub(crate) mod check;
pub(crate) mod container;
mod facts;
pub(crate) mod guard;
mod items;
mod limits;
mod pod;
mod resources;
pub(crate) mod steps;
pub(crate) mod template;
mod volumes;

use pitcrew_core::engine::{Answer, Run, Slot};
use pitcrew_core::ir::{MapUnit, When};
use serde_json::Value;

pub use facts::{Facts, Skip, TaskFacts, TaskState, reason_of};
pub use guard::answer;
pub use items::combinations;
pub(crate) use pod::pod_security;
pub use pod::{Instance, TaskRunPod, pod};
pub use resources::GPU_ANNOTATION;
pub(crate) use resources::demand_of;

/// Whether a task of a run goes: the engine's question.
pub fn guard(run: &Run, slot: Slot) -> Result<Answer, String> {
    match &run.workflow.task(slot.task).when {
        None => Ok(Answer::Go),
        Some(When::Guard(template)) => answer(template, &Facts::of(run)),
        Some(When::Expression(_)) => Err("`when` cannot be evaluated: it is of another language".to_owned()),
    }
}

/// The combinations of a task with a matrix: the engine's question.
pub fn items(run: &Run, unit: MapUnit) -> Result<Vec<Value>, String> {
    let MapUnit::Task(ix) = unit else { return Ok(Vec::new()) };
    let foreach = run.workflow.task(ix).foreach.as_ref();
    let Some((_, matrix)) = foreach.and_then(|foreach| foreach.axes.first()) else { return Ok(Vec::new()) };
    let most = foreach.map_or(0, |foreach| foreach.max_items);
    let found = combinations(matrix, &Facts::of(run))?;
    if found.len() > most as usize {
        return Err(format!("the matrix gives {} combinations, and at most {most} are allowed", found.len()));
    }
    Ok(found)
}
