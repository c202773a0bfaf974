//! The rules about setups, teardowns, `finally` and mappings, each with its reason in the message.

use pitcrew_core::ir::{Foreach, Kind, Shape, TaskIx, Workflow};

use super::edges::Places;
use super::scope::{Names, Thing};
use super::{is_finally, name};
use crate::decode::{RawGroup, RawTask};
use crate::diagnostic::{Place, Reporter};

/// Looks up the setups that teardowns name.
pub fn teardowns(workflow: &mut Workflow, names: &Names, tasks: &[RawTask], r: &mut Reporter<'_>) {
    for (ix, raw) in tasks.iter().enumerate() {
        let mut setups: Vec<TaskIx> = Vec::new();
        for named in &raw.of {
            let scope = workflow.tasks[ix].group;
            match names.find(workflow, scope, &named.name) {
                Some(Thing::Task(setup)) if workflow.task(setup).kind == Kind::Setup => setups.push(setup),
                Some(Thing::Task(_)) => {
                    let hint = format!("add `setup: true` to `{}`", named.name);
                    r.error_hint(named.at, format!("`{}` is not a setup", named.name), hint);
                }
                Some(Thing::Group(_)) => {
                    r.error_hint(
                        named.at,
                        format!("`{}` is a group, not a setup", named.name),
                        "name the setup task in it",
                    );
                }
                None => {
                    let hint = names.hint(workflow, scope, &named.name, r);
                    r.error_maybe(named.at, format!("`{}` is not a task", named.name), hint);
                }
            }
        }
        if let Kind::Teardown { of, .. } = &mut workflow.tasks[ix].kind {
            setups.sort_unstable();
            setups.dedup();
            *of = setups;
        }
    }
}

/// A task is mapped once: by itself or by one of its groups. What `item` means would be unclear otherwise.
pub fn mappings(workflow: &Workflow, tasks: &[RawTask], groups: &[RawGroup], r: &mut Reporter<'_>) {
    let all_groups = workflow.groups.iter().zip(groups).map(|(g, raw)| (&g.id, g.parent, &g.foreach, raw.foreach_at));
    let all_tasks = workflow.tasks.iter().zip(tasks).map(|(t, raw)| (&t.id, t.group, &t.foreach, raw.foreach_at));
    for (id, parent, foreach, at) in all_groups.chain(all_tasks) {
        let (Some(foreach), Some(at)) = (foreach, at) else { continue };
        let mut around = std::iter::successors(parent, |at| workflow.group(*at).parent);
        if let Some(outer) = around.find(|at| workflow.group(*at).foreach.is_some()) {
            let message =
                format!("a `foreach` inside the group `{}`, which is mapped itself", workflow.group(outer).id);
            r.error_hint(at, message, "map the group over both lists: `foreach: {a: […], b: […]}`");
        }
        check_literal(foreach, id.as_str(), at, r);
    }
}

/// Members of a gang are the instances of its task, and begin together.
pub fn gangs(workflow: &Workflow, tasks: &[RawTask], r: &mut Reporter<'_>) {
    for (task, raw) in workflow.tasks.iter().zip(tasks) {
        let (Some(gang), Some(at)) = (&task.gang, raw.nodes_at) else { continue };
        let mut around = std::iter::successors(task.group, |at| workflow.group(*at).parent);
        if let Some(outer) = around.find(|at| workflow.group(*at).foreach.is_some()) {
            let message = format!("`nodes` inside the group `{}`, which is mapped", workflow.group(outer).id);
            r.error_hint(at, message, "take the task out of the group");
        }
        if let Some(max) = workflow.max_active_tasks.filter(|max| *max < gang.count) {
            let message = format!(
                "`{}` has {} members that run at a time, and `max_active_tasks` of the workflow allows {max}",
                task.id, gang.count
            );
            r.error_hint(at, message, "raise `max_active_tasks`, or ask for fewer `nodes`");
        }
    }
}

/// More literal items than allowed fail at once, not when the run starts.
fn check_literal(foreach: &Foreach, what: &str, at: Place, r: &mut Reporter<'_>) {
    let lengths: Option<Vec<usize>> = foreach.axes.iter().map(|(_, list)| list.as_array().map(Vec::len)).collect();
    let Some(lengths) = lengths else { return };
    let items = match foreach.shape {
        Shape::Product => lengths.iter().try_fold(1usize, |n, length| n.checked_mul(*length)),
        Shape::Zip => lengths.first().copied(),
    };
    if items.is_none_or(|items| items > foreach.max_items as usize) {
        let items = items.map_or("far more".into(), |items| items.to_string());
        let message = format!("the `foreach` of `{what}` has {items} items, at most {} are allowed", foreach.max_items);
        r.error_hint(at, message, "raise `foreach_max` if that is meant");
    }
}

/// `finally` tasks wait for all others anyway, and nothing else can wait for them.
pub fn finally_edges(workflow: &Workflow, tasks: &[RawTask], places: &Places, r: &mut Reporter<'_>) {
    if workflow.indices().all(|ix| !is_finally(workflow, ix)) {
        return;
    }
    for ix in workflow.indices() {
        for need in &workflow.task(ix).needs {
            if is_finally(workflow, ix) == is_finally(workflow, *need) {
                continue;
            }
            let at = places.of(workflow, ix, *need).unwrap_or(tasks[ix.at()].at);
            let (own, other) = (name(workflow, ix), name(workflow, *need));
            let hint = "tasks in `finally` start when all other tasks are finished";
            let message = if is_finally(workflow, ix) {
                format!("{own} stands in `finally` and cannot need {other}")
            } else {
                format!("{own} cannot need {other}, which stands in `finally`")
            };
            r.error_hint(at, message, hint);
        }
    }
}

/// What only the linked graph shows.
pub fn after_link(workflow: &Workflow, tasks: &[RawTask], r: &mut Reporter<'_>) {
    for ix in workflow.indices() {
        let task = workflow.task(ix);
        let at = tasks[ix.at()].at;
        if task.branch.is_some() && workflow.downstream[ix.at()].is_empty() {
            let message = format!("the task {} has a `branch`, but no task needs it", name(workflow, ix));
            r.error_hint(at, message, "let the tasks to choose from need it");
        }
        if task.kind == Kind::Setup && workflow.downstream[ix.at()].is_empty() {
            let message = format!("the setup {} sets nothing up: no task needs it", name(workflow, ix));
            r.warning_hint(at, message, "let the tasks that use it need it");
        }
    }
}
