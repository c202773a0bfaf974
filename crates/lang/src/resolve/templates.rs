//! Every template, checked before anything runs: can it be read, and does every name in it exist?
//!
//! A use of `tasks.x` is also an edge: the task waits for `x`.

use std::collections::HashMap;
use std::sync::Arc;

use pitcrew_core::ir::{GroupIx, TaskIx, Work, Workflow};

use super::scope::{Names, Thing};
use super::{is_finally, name};
use crate::decode::{Owner, Role, Site};
use crate::diagnostic::{Place, Reporter, did_you_mean, meant_or_known};
use crate::template::{Analysis, Reference, analyse, is_template, roots};
use crate::yaml::Style;

/// Analyses kept for other sites with the same text.
const MAX_KNOWN: usize = 2_000;

/// Who uses whose state or outputs, and where.
#[derive(Default)]
pub struct Implied {
    pub tasks: Vec<(TaskIx, TaskIx, Place)>,
    pub groups: Vec<(GroupIx, TaskIx, Place)>,
}

/// Checks all sites; gives the edges that they imply, and fills in what mappings refer to.
pub fn check(workflow: &mut Workflow, names: &Names, sites: &[Site], r: &mut Reporter<'_>) -> Implied {
    let mut implied = Implied::default();
    let mut refs: Vec<(Owner, TaskIx)> = Vec::new();
    // Many tasks share a text; it is read once.
    let mut known: HashMap<(&str, bool), Arc<Analysis>> = HashMap::new();
    for site in sites {
        let bare = site.role == Role::When && !is_template(&site.text);
        let analysis = match known.get(&(site.text.as_str(), bare)) {
            Some(analysis) => analysis.clone(),
            None => {
                let wrapped = if bare { format!("{{{{ {} }}}}", site.text) } else { site.text.clone() };
                match analyse(&wrapped) {
                    Ok(analysis) if known.len() >= MAX_KNOWN => Arc::new(analysis),
                    Ok(analysis) => known.entry((&site.text, bare)).or_insert(Arc::new(analysis)).clone(),
                    Err(complaint) => {
                        r.error_maybe(place(site, &complaint.range, bare, r), complaint.message, complaint.hint);
                        continue;
                    }
                }
            }
        };
        for complaint in &analysis.complaints {
            r.error_maybe(place(site, &complaint.range, bare, r), complaint.message.clone(), complaint.hint.clone());
        }
        let mut check = Check { workflow, names, site, bare, implied: &mut implied, refs: &mut refs, r };
        for reference in &analysis.references {
            check.reference(reference);
        }
    }
    for (owner, used) in refs {
        let foreach = match owner {
            Owner::Task(ix) => workflow.tasks[ix.at()].foreach.as_mut(),
            Owner::Group(ix) => workflow.groups[ix.at()].foreach.as_mut(),
            Owner::Workflow => None,
        };
        if let Some(foreach) = foreach {
            foreach.refs.push(used);
            foreach.refs.sort_unstable();
            foreach.refs.dedup();
        }
    }
    implied
}

/// The place of a stretch of a template, found in the source by its text.
fn place(site: &Site, range: &std::ops::Range<usize>, bare: bool, r: &Reporter<'_>) -> Place {
    let shift = if bare { 3 } else { 0 };
    let range = range.start.saturating_sub(shift)..range.end.saturating_sub(shift);
    let (Some(snippet), Some(before)) = (site.text.get(range.clone()), site.text.get(..range.start)) else {
        return site.at;
    };
    let snippet = snippet.split('\n').next().unwrap_or("").trim_end();
    if snippet.is_empty() {
        return site.at;
    }
    let nth = before.matches(snippet).count();
    // Quotes, indentation and escapes make the source longer than the text.
    let slack = match site.style {
        Style::Block => 64 * (site.text.matches('\n').count() + 2),
        Style::Plain | Style::Quoted => 256,
    };
    r.locate(site.at, snippet, nth, site.text.len() * 2 + slack).unwrap_or(site.at)
}

struct Check<'c, 'r, 's> {
    workflow: &'c Workflow,
    names: &'c Names,
    site: &'c Site,
    bare: bool,
    implied: &'c mut Implied,
    refs: &'c mut Vec<(Owner, TaskIx)>,
    r: &'r mut Reporter<'s>,
}

impl Check<'_, '_, '_> {
    fn complain(&mut self, reference: &Reference, message: String, hint: Option<String>) {
        let at = place(self.site, &reference.range, self.bare, self.r);
        self.r.error_maybe(at, message, hint);
    }

    fn reference(&mut self, reference: &Reference) {
        let root = reference.path[0].as_str();
        let second = reference.path.get(1).map(String::as_str);
        match root {
            "params" => {
                let names: Vec<&str> = self.workflow.params.iter().map(|p| p.name.as_str()).collect();
                self.member(reference, second, &names, "param");
            }
            "run" => self.member(reference, second, roots::RUN, "`run` value"),
            "dag_run" => self.member(reference, second, roots::DAG_RUN, "`dag_run` value"),
            "task" => self.member(reference, second, roots::TASK, "`task` value"),
            "tasks" => self.tasks(reference),
            "item" => self.item(reference, second),
            "outputs" if self.site.role != Role::Branch => {
                let hint = "write `tasks.name.outputs.…`; `outputs` alone is a task's own, in its `branch`";
                self.complain(reference, "`outputs` has no meaning here".into(), Some(hint.into()));
            }
            "conn" => {
                if let Some(field) = reference.path.get(2) {
                    self.member(reference, Some(field), roots::CONN, "field of a connection");
                }
            }
            _ if roots::ROOTS.contains(&root) => {}
            _ => {
                let hint = did_you_mean(root, roots::ROOTS.iter().copied()).or_else(|| self.likely_root(root)).or_else(|| {
                    Some("templates know `params`, `tasks`, `run`, `item`, `var`, `ds`, `ts`, `logical_date` and others; a text needs quotes".into())
                });
                self.complain(reference, format!("unknown name `{root}` in a template"), hint);
            }
        }
    }

    /// A param or task named without its root is a common slip.
    fn likely_root(&self, name: &str) -> Option<String> {
        if self.workflow.params.iter().any(|p| p.name == name) {
            return Some(format!("did you mean `params.{name}`?"));
        }
        let scope = self.scope();
        self.names.find(self.workflow, scope, name).map(|_| format!("did you mean `tasks.{name}`?"))
    }

    fn member(&mut self, reference: &Reference, name: Option<&str>, known: &[&str], what: &str) {
        let Some(name) = name else { return };
        // A method of the mapping itself.
        if known.contains(&name) || matches!(name, "items" | "keys" | "values" | "get") {
            return;
        }
        let hint = match (known, what) {
            ([], "param") => Some(format!("declare it: `params: {{{name}: {{type: string}}}}`")),
            (_, "param") => meant_or_known(name, known, "the params are"),
            _ => meant_or_known(name, known, "known here"),
        };
        self.complain(reference, format!("unknown {what} `{name}`"), hint);
    }

    fn scope(&self) -> Option<GroupIx> {
        match self.site.owner {
            Owner::Workflow => None,
            Owner::Task(ix) => self.workflow.task(ix).group,
            // As its tasks see it: that is where it is evaluated.
            Owner::Group(ix) => Some(ix),
        }
    }

    fn item(&mut self, reference: &Reference, axis: Option<&str>) {
        if self.site.role == Role::Foreach {
            let hint = "inside `foreach` there is no item yet";
            return self.complain(reference, "`item` has no meaning here".into(), Some(hint.into()));
        }
        let mapping = match self.site.owner {
            Owner::Task(ix) => self.workflow.mapping_of(ix).map(|(_, foreach)| foreach),
            Owner::Group(ix) => std::iter::successors(Some(ix), |at| self.workflow.group(*at).parent)
                .find_map(|at| self.workflow.group(at).foreach.as_ref()),
            Owner::Workflow => None,
        };
        let Some(foreach) = mapping else {
            let hint = match self.site.owner {
                Owner::Task(_) => "add `foreach` to the task or to its group",
                _ => "it is there in tasks that have a `foreach`",
            };
            return self.complain(reference, "`item` has no meaning here: nothing is mapped".into(), Some(hint.into()));
        };
        let axes: Vec<&str> = foreach.axes.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(axis) = axis
            && axes != [""]
            && !axes.contains(&axis)
        {
            let hint = meant_or_known(axis, &axes, "the lists of `foreach` are");
            self.complain(reference, format!("unknown list `{axis}` of `foreach`"), hint);
        }
    }

    fn tasks(&mut self, reference: &Reference) {
        if self.site.role == Role::Shared {
            let hint = "it is there for every task; use `tasks` in the task that needs it";
            return self.complain(reference, "`tasks` has no meaning here".into(), Some(hint.into()));
        }
        let path = &reference.path[1..];
        let Some((thing, length)) = self.names.along(self.workflow, self.scope(), path) else {
            if path.is_empty() {
                if !reference.open {
                    self.complain(
                        reference,
                        "`tasks` is followed by the name of a task".into(),
                        Some("write `tasks.name.outputs.…`".into()),
                    );
                }
                return;
            }
            let name = path
                .iter()
                .take_while(|part| !roots::TASKS.contains(&part.as_str()))
                .cloned()
                .collect::<Vec<_>>()
                .join(".");
            let hint = self.names.hint(self.workflow, self.scope(), &name, self.r);
            return self.complain(reference, format!("unknown task `{name}`"), hint);
        };
        let Thing::Task(used) = thing else {
            let group = path[..length].join(".");
            match path.get(length) {
                None if reference.open => {}
                _ => {
                    let hint = format!("name a task in it: `tasks.{group}.name.outputs.…`");
                    self.complain(
                        reference,
                        format!("`{group}` is a group, and has no outputs of its own"),
                        Some(hint),
                    );
                }
            }
            return;
        };
        self.field(reference, used, &path[length..]);
        self.edge(reference, used);
    }

    /// What follows the task's name: `outputs.x` or `state`.
    fn field(&mut self, reference: &Reference, used: TaskIx, rest: &[String]) {
        let Some(field) = rest.first() else { return };
        let task = self.workflow.task(used);
        if !roots::TASKS.contains(&field.as_str()) {
            let hint = if task.outputs.iter().any(|o| o.name == *field) {
                format!("did you mean `tasks.{}.outputs.{field}`?", task.id)
            } else {
                "a task has `outputs` and `state`".into()
            };
            return self.complain(
                reference,
                format!("unknown `{field}` of the task {}", name(self.workflow, used)),
                Some(hint),
            );
        }
        let Some(output) = rest.get(1).filter(|_| field == "outputs") else { return };
        let declared: Vec<&str> = task.outputs.iter().map(|o| o.name.as_str()).collect();
        if declared.contains(&output.as_str()) {
            return;
        }
        if task.work == Work::Noop {
            let hint = "it does nothing, so it has no outputs";
            return self.complain(
                reference,
                format!("unknown output `{output}` of the task {}", name(self.workflow, used)),
                Some(hint.into()),
            );
        }
        // It may still write it to `$PITCREW_OUTPUT`; only a likely slip is worth a word.
        if let Some(meant) = did_you_mean(output, declared) {
            let at = place(self.site, &reference.range, self.bare, self.r);
            let message = format!("the task {} does not declare the output `{output}`", name(self.workflow, used));
            self.r.warning_hint(at, message, meant);
        }
    }

    fn edge(&mut self, reference: &Reference, used: TaskIx) {
        let at = place(self.site, &reference.range, self.bare, self.r);
        match self.site.owner {
            Owner::Workflow => {}
            Owner::Task(ix) if ix == used => {
                if self.site.role != Role::Branch {
                    let hint = "only its `branch` can use a task's own outputs";
                    self.complain(
                        reference,
                        format!("the task {} uses its own outputs", name(self.workflow, ix)),
                        Some(hint.into()),
                    );
                }
            }
            Owner::Task(ix) => self.add(ix, used, at),
            Owner::Group(group) => {
                if self.workflow.is_inside(self.workflow.task(used).group, group) {
                    let message =
                        format!("the group `{}` waits for a task of its own here", self.workflow.group(group).id);
                    return self.complain(
                        reference,
                        message,
                        Some("use the output of a task outside the group".into()),
                    );
                }
                self.implied.groups.push((group, used, at));
            }
        }
        if self.site.role == Role::Foreach {
            self.refs.push((self.site.owner, used));
        }
    }

    fn add(&mut self, task: TaskIx, used: TaskIx, at: Place) {
        // Tasks under `finally` wait for all others without an edge.
        if is_finally(self.workflow, task) && !is_finally(self.workflow, used) {
            return;
        }
        self.implied.tasks.push((task, used, at));
    }
}
