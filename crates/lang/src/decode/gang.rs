//! `nodes`: a task whose members begin together, on a node each.
//!
//! Invariant: a task that is a gang is mapped over the ranks of its members, and has nothing that would have its members
//! differ in when they begin, where they run, or which way the run goes on.

use pitcrew_core::fleet::{Gang, Topology};
use pitcrew_core::ir::{Foreach, Task, Work};

use super::{Decoder, keys};
use crate::diagnostic::Place;
use crate::yaml::Node;

/// The most members of a gang.
const MOST: i64 = 1_024;

/// Where a task says what is for mapped tasks alone.
pub struct Mapping {
    pub foreach: Option<Place>,
    pub max_parallel: Option<Place>,
    pub foreach_max: Option<Place>,
}

impl Decoder<'_, '_> {
    /// A number, or `{count, near, near_required}`.
    pub fn nodes(&mut self, node: &Node) -> Option<Gang> {
        let Some(entries) = node.as_map() else {
            return self.members(node, "nodes").map(Gang::of);
        };
        let (mut count, mut near, mut required) = (None, None, None);
        for entry in entries {
            match &*entry.key.text {
                "count" => count = Some(self.members(&entry.value, "nodes.count")?),
                "near" => {
                    near = self.text(&entry.value, "near").filter(|label| !label.is_empty());
                    if let Some(label) = &near {
                        self.no_template(label, entry.value.at, "a label");
                    } else {
                        self.mismatch(&entry.value, "`near`", "a label of nodes, such as `rack`");
                    }
                }
                "near_required" => {
                    required = self.flag(&entry.value, "near_required").map(|flag| (entry.key.at, flag));
                }
                _ => self.unknown(&entry.key, keys::NODES, "`nodes`"),
            }
        }
        let Some(count) = count else {
            self.r.error_hint(node.at, "`nodes` does not say how many", "write `nodes: {count: 4, …}`");
            return None;
        };
        if let (None, Some((at, _))) = (&near, required) {
            let hint = "say which label nodes that are near each other agree in: `near: rack`";
            self.r.error_hint(at, "`near_required` without `near` has no meaning", hint);
        }
        let is_required = required.is_some_and(|(_, flag)| flag);
        Some(Gang { topology: near.map(|label| Topology { label, is_required }), ..Gang::of(count) })
    }

    fn members(&mut self, node: &Node, key: &str) -> Option<u32> {
        let number = node.as_scalar().and_then(|scalar| scalar.as_number()).and_then(|number| number.as_i64());
        if number == Some(1) {
            let hint = "leave `nodes` out: a task has one node unless it says otherwise";
            self.r.error_hint(node.at, format!("`{key}`: 1 member is no gang"), hint);
            return None;
        }
        self.whole(node, key, 2, MOST).map(|count| count as u32)
    }

    /// Makes the task a gang, unless it is something that no gang can be. `backend`: where it says that.
    pub fn make_gang(&mut self, task: &mut Task, at: Place, mapping: Mapping, backend: Option<Place>) {
        let Some(gang) = &task.gang else { return };
        if let Some(foreach) = mapping.foreach {
            let hint = "members know their number by `PITCREW_RANK`; for several gangs, write several tasks";
            self.r.error_hint(foreach, "a task has `nodes` or a `foreach`, not both", hint);
        }
        if let Some(at) = mapping.max_parallel {
            let hint = "leave `max_parallel` out; to have fewer gangs run at a time, give their tasks a `pool`, or set the \
                        workflow's `max_active_runs`";
            self.r.error_hint(at, "a task with `nodes` cannot have `max_parallel`: its members begin together", hint);
            task.max_parallel = None;
        }
        if let Some(at) = mapping.foreach_max {
            let hint = "leave `foreach_max` out: `nodes` says how many members there are";
            self.r.error_hint(at, "a task with `nodes` cannot have `foreach_max`", hint);
        }
        if let Some(backend) = backend {
            let hint =
                "leave `backend` out: a node is chosen for each member; only `backend: {ecs: …}` finds them itself";
            self.r.error_hint(backend, "a task has `nodes` or a `backend`, not both", hint);
        }
        if task.branch.is_some() {
            let hint = "let a task after it have the `branch`";
            self.r.error_hint(at, "a task with `nodes` cannot have a `branch`: each member would decide", hint);
        }
        match &task.work {
            Work::Steps(_) | Work::Pod { .. } => {}
            Work::Noop => {
                let hint = "say what each member runs, with `run` or `steps`";
                self.r.error_hint(at, "a task with `nodes` has nothing to run", hint);
            }
            Work::Action { uses, .. } => {
                let hint = "leave `nodes` out, or write `run` or `steps`";
                self.r.error_hint(at, format!("the action `{uses}` cannot run as a gang"), hint);
            }
        }
        task.foreach = Some(Foreach::ranks(gang.count));
    }
}
