//! From names to edges: looks every name up, checks every template, completes `needs`, and links the workflow.
//!
//! A name means the nearest task or group: first a sibling in the same group, then one of the groups around it, last
//! one at the top. A workflow that comes out of here holds the invariants of [`pitcrew_core::ir`].

mod edges;
mod kinds;
mod scope;
mod templates;

use pitcrew_core::ir::{Kind, TaskIx, Workflow};

use crate::decode::{Decoded, RawTask};
use crate::diagnostic::Reporter;
use scope::Names;

/// Finishes a decoded document. `None`: there were errors, all reported.
pub(crate) fn resolve(decoded: Decoded, r: &mut Reporter<'_>) -> Option<Workflow> {
    let Decoded { mut workflow, tasks, groups, sites, .. } = decoded;
    let names = Names::new(&workflow, &tasks, &groups, r);
    let mut wanted = edges::collect(&workflow, &names, &tasks, &groups, r);
    kinds::teardowns(&mut workflow, &names, &tasks, r);
    kinds::mappings(&workflow, &tasks, &groups, r);
    kinds::gangs(&workflow, &tasks, r);
    let implied = templates::check(&mut workflow, &names, &sites, r);
    wanted.add(&workflow, implied, r);
    if r.errors() > 0 {
        return None;
    }
    let places = edges::expand(&mut workflow, wanted, r)?;
    kinds::finally_edges(&workflow, &tasks, &places, r);
    if r.errors() > 0 {
        return None;
    }
    if let Err(cycle) = workflow.link() {
        report_cycle(&workflow, &tasks, &places, &cycle, r);
        return None;
    }
    kinds::after_link(&workflow, &tasks, r);
    (r.errors() == 0).then_some(workflow)
}

fn report_cycle(
    workflow: &Workflow,
    tasks: &[RawTask],
    places: &edges::Places,
    cycle: &pitcrew_core::ir::Cycle,
    r: &mut Reporter<'_>,
) {
    let ix = |name: &pitcrew_core::TaskId| workflow.by_name.get(name).copied();
    let ixs: Vec<TaskIx> = cycle.0.iter().filter_map(ix).collect();
    // The path runs from what is needed to what needs it; the edge is written at the latter.
    let edge = ixs.windows(2).filter_map(|pair| places.of(workflow, pair[1], pair[0])).min();
    let at = edge.or_else(|| ixs.first().map(|ix| tasks[ix.at()].at)).unwrap_or_default();
    let hint = match ixs.as_slice() {
        [one, other] if one == other => "a task cannot wait for itself",
        _ => "take one of these `needs` away; a template that uses `tasks.x` counts as one",
    };
    r.error_hint(at, cycle.to_string(), hint);
}

/// Is the task one of `finally`?
fn is_finally(workflow: &Workflow, ix: TaskIx) -> bool {
    workflow.task(ix).kind == Kind::Finally
}

/// The name of a task, in backticks.
fn name(workflow: &Workflow, ix: TaskIx) -> String {
    format!("`{}`", workflow.task(ix).id)
}
