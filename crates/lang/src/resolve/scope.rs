//! What a name means, and what was probably meant by one that means nothing.

use std::collections::HashMap;

use pitcrew_core::ir::{GroupIx, TaskIx, Workflow};

use crate::decode::{RawGroup, RawTask};
use crate::diagnostic::{Reporter, closest};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Task(TaskIx),
    Group(GroupIx),
}

/// All names of a workflow, by full name.
pub struct Names {
    by_name: HashMap<String, Thing>,
}

impl Names {
    /// Refuses names that are there twice: a task and a group, or `finally` and `tasks`.
    pub fn new(workflow: &Workflow, tasks: &[RawTask], groups: &[RawGroup], r: &mut Reporter<'_>) -> Self {
        let mut by_name: HashMap<String, Thing> = HashMap::with_capacity(tasks.len() + groups.len());
        let all_groups = workflow.groups.iter().zip(groups).enumerate();
        let all_groups = all_groups.map(|(ix, (group, raw))| (&group.id, Thing::Group(GroupIx(ix as u32)), raw.at));
        let all_tasks = workflow.tasks.iter().zip(tasks).enumerate();
        let all_tasks = all_tasks.map(|(ix, (task, raw))| (&task.id, Thing::Task(TaskIx(ix as u32)), raw.at));
        for (id, thing, at) in all_groups.chain(all_tasks) {
            let before = by_name.insert(id.to_string(), thing);
            if let Some(before) = before {
                let first = match before {
                    Thing::Task(ix) => tasks[ix.at()].at,
                    Thing::Group(ix) => groups[ix.at()].at,
                };
                let (first, second) = if first.line <= at.line { (first, at) } else { (at, first) };
                r.error_hint(
                    second,
                    format!("the name `{id}` is there twice"),
                    format!("it is first given in line {}", first.line),
                );
            }
        }
        Names { by_name }
    }

    /// What `name` means in `scope`.
    pub fn find(&self, workflow: &Workflow, scope: Option<GroupIx>, name: &str) -> Option<Thing> {
        let mut scope = scope;
        loop {
            let found = match scope {
                Some(group) => self.by_name.get(&format!("{}.{name}", workflow.group(group).id)),
                None => self.by_name.get(name),
            };
            if found.is_some() {
                return found.copied();
            }
            scope = workflow.group(scope?).parent;
        }
    }

    /// A hint for a name that means nothing.
    pub fn hint(&self, workflow: &Workflow, scope: Option<GroupIx>, name: &str, r: &Reporter<'_>) -> Option<String> {
        if r.is_full() {
            return None;
        }
        let prefixes: Vec<String> = std::iter::successors(scope, |at| workflow.group(*at).parent)
            .map(|at| format!("{}.", workflow.group(at).id))
            .collect();
        // Near names as they would be written, then the full names of the others.
        let short = |full: &'_ str| -> String {
            prefixes.iter().find_map(|prefix| full.strip_prefix(prefix.as_str())).unwrap_or(full).to_owned()
        };
        let mut candidates: Vec<String> = if self.by_name.len() > 20_000 {
            Vec::new()
        } else {
            self.by_name.keys().map(|full| short(full)).collect()
        };
        candidates.sort();
        if let Some(found) = closest(name, candidates.iter().map(String::as_str)) {
            return Some(format!("did you mean `{found}`?"));
        }
        // The task may be there, in a group that was not named.
        let tail = format!(".{name}");
        let inner = candidates.iter().find(|candidate| candidate.ends_with(&tail));
        if let Some(inner) = inner {
            return Some(format!("did you mean `{inner}`?"));
        }
        let listed = crate::diagnostic::listing(candidates.iter().map(String::as_str), "and");
        (!candidates.is_empty() && candidates.len() <= 20).then(|| format!("the tasks are {listed}"))
    }

    /// The task or group that the beginning of `path` names, and how many parts it takes. A task wins over a group.
    pub fn along(&self, workflow: &Workflow, scope: Option<GroupIx>, path: &[String]) -> Option<(Thing, usize)> {
        let mut best = None;
        let mut name = String::new();
        for (number, part) in path.iter().enumerate() {
            if number > 0 {
                name.push('.');
            }
            name.push_str(part);
            match self.find(workflow, scope, &name) {
                Some(found @ Thing::Task(_)) => return Some((found, number + 1)),
                Some(found) => best = Some((found, number + 1)),
                None => {}
            }
        }
        best
    }
}
