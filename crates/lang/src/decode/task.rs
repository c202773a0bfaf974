//! `tasks`, `finally` and groups.

use pitcrew_core::TaskId;
use pitcrew_core::ir::{BackendKind, Group, GroupIx, Kind, Task, TaskIx, When, Work};
use pitcrew_core::trigger_rule::TriggerRule;

use super::backend::Backend;
use super::gang::Mapping;
use super::{Decoder, Named, Owner, RawGroup, RawTask, Role, keys};
use crate::diagnostic::Place;
use crate::yaml::{Entry, Key, Node};

/// Groups nest no deeper than this.
const MAX_GROUPS_DEEP: usize = 16;

impl Decoder<'_, '_> {
    /// Reads a mapping of tasks into the workflow.
    pub fn all_tasks(&mut self, node: &Node, group: Option<GroupIx>, finally: bool) {
        let what = if finally { "`finally`" } else { "`tasks`" };
        let Some(entries) = node.as_map() else {
            if node.is_null() {
                if group.is_some() {
                    self.r.error_hint(node.at, "the group has 0 tasks", "add a task below `tasks:`");
                }
                return;
            }
            let message = format!("{what} must be a mapping of names to tasks, found {}", node.describe());
            return self.r.error_hint(node.at, message, "write `name:` and, indented below it, what the task does");
        };
        if entries.is_empty() && group.is_some() {
            self.r.error_hint(node.at, "the group has 0 tasks", "add a task below `tasks:`");
        }
        for entry in entries {
            let Some(id) = self.full_id(&entry.key, group) else { continue };
            let body = match (entry.value.as_map(), entry.value.is_null()) {
                (Some(body), _) => body,
                (None, true) => &[],
                (None, false) => {
                    let message = format!("the task `{id}` must be a mapping, found {}", entry.value.describe());
                    let hint = match entry.value.as_scalar() {
                        Some(_) => "to run a command, write `run: …` below the name",
                        None => "write the task's keys below its name",
                    };
                    self.r.error_hint(entry.value.at, message, hint);
                    continue;
                }
            };
            if body.iter().any(|e| &*e.key.text == "tasks") {
                if finally {
                    let hint = "write the tasks directly below `finally`";
                    self.r.error_hint(entry.key.at, "a group cannot stand in `finally`", hint);
                } else {
                    self.group(id, &entry.key, body, group);
                }
            } else {
                self.task(id, &entry.key, body, group, finally);
            }
        }
    }

    fn full_id(&mut self, key: &Key, group: Option<GroupIx>) -> Option<TaskId> {
        if key.text.contains('.') && !key.text.contains("..") && TaskId::new(&key.text).is_ok() {
            let hint = "to put a task in a group, write the group's name and the task below its `tasks:`";
            self.r.error_hint(
                key.at,
                format!("`{}`: the name of a task has no `.`, which parts a group from its tasks", key.text),
                hint,
            );
            return None;
        }
        let checked = TaskId::new(&key.text).and_then(|own| match group {
            Some(group) => TaskId::new(&format!("{}.{own}", self.workflow.group(group).id)),
            None => Ok(own),
        });
        checked.map_err(|error| self.r.error(key.at, error.to_string())).ok()
    }

    fn group(&mut self, id: TaskId, key: &Key, body: &[Entry], parent: Option<GroupIx>) {
        let ix = GroupIx(self.workflow.groups.len() as u32);
        let depth = std::iter::successors(parent, |at| self.workflow.group(*at).parent).count();
        if depth >= MAX_GROUPS_DEEP {
            return self.r.error(key.at, format!("groups are nested more than {MAX_GROUPS_DEEP} deep"));
        }
        let group = Group { id, description: String::new(), parent, foreach: None, max_parallel: None };
        self.workflow.groups.push(group);
        self.groups.push(RawGroup { at: key.at, needs: Vec::new(), foreach_at: None });
        let mut max_items = None;
        for entry in body {
            let node = &entry.value;
            match &*entry.key.text {
                "tasks" => {}
                "description" => {
                    self.workflow.groups[ix.at()].description = self.text(node, "description").unwrap_or_default();
                }
                "needs" => self.groups[ix.at()].needs = self.names(node, "needs"),
                "foreach" => {
                    self.groups[ix.at()].foreach_at = Some(entry.key.at);
                    self.workflow.groups[ix.at()].foreach = self.foreach(node, Owner::Group(ix));
                }
                "foreach_max" => max_items = self.whole(node, "foreach_max", 1, super::foreach::MOST_ITEMS),
                "max_parallel" => {
                    self.workflow.groups[ix.at()].max_parallel =
                        self.whole(node, "max_parallel", 1, 1_000_000).map(|n| n as u32);
                }
                "when" => {}
                _ => self.unknown(&entry.key, keys::GROUP, "a group"),
            }
        }
        let has = |key: &str| body.iter().find(|e| &*e.key.text == key).map(|e| e.key.at);
        let mapped = self.workflow.groups[ix.at()].foreach.is_some();
        self.needs_foreach(mapped, has("foreach"), has("max_parallel"), has("foreach_max"));
        if let (Some(foreach), Some(max)) = (&mut self.workflow.groups[ix.at()].foreach, max_items) {
            foreach.max_items = max as u32;
        }
        let first = self.workflow.tasks.len();
        if let Some(tasks) = body.iter().find(|e| &*e.key.text == "tasks") {
            self.all_tasks(&tasks.value, Some(ix), false);
        }
        if let Some(when) = body.iter().find(|e| &*e.key.text == "when") {
            self.group_when(&when.value, ix, first);
        }
    }

    /// A group's condition is a condition of each of its tasks.
    fn group_when(&mut self, node: &Node, group: GroupIx, first: usize) {
        let Some(text) = self.text(node, "when") else { return };
        let Some(outer) = crate::template::as_expression(&text) else {
            let hint = "write one expression: `when: \"{{ … }}\"`";
            return self.r.error_hint(node.at, "the `when` of a group cannot mix text and templates", hint);
        };
        self.site(Owner::Group(group), Role::When, &text, node);
        for ix in first..self.workflow.tasks.len() {
            let task = &mut self.workflow.tasks[ix];
            task.when = match task.when.take() {
                None => Some(When::Expression(format!("{{{{ {outer} }}}}"))),
                Some(When::Guard(guard)) => Some(When::Guard(guard)),
                Some(When::Expression(own)) => match crate::template::as_expression(&own) {
                    Some(own) => Some(When::Expression(format!("{{{{ ({outer}) | bool and ({own}) | bool }}}}"))),
                    None => {
                        let message = format!(
                            "the `when` of `{}` mixes text and templates, and its group has a `when` too",
                            task.id
                        );
                        let at = self.tasks[ix].at;
                        self.r.error_hint(at, message, "write it as one expression: `when: \"{{ … }}\"`");
                        return;
                    }
                },
            };
        }
    }

    fn needs_foreach(&mut self, read: bool, foreach: Option<Place>, parallel: Option<Place>, max: Option<Place>) {
        if read || foreach.is_some() {
            return;
        }
        for (key, at) in [("max_parallel", parallel), ("foreach_max", max)] {
            if let Some(at) = at {
                let hint = "add `foreach`, or limit tasks with `pool` or the workflow's `max_active_tasks`";
                self.r.error_hint(at, format!("`{key}` without `foreach` has no meaning"), hint);
            }
        }
    }

    fn task(&mut self, id: TaskId, key: &Key, body: &[Entry], group: Option<GroupIx>, finally: bool) {
        let ix = TaskIx(self.workflow.tasks.len() as u32);
        let owner = Owner::Task(ix);
        let d = &self.defaults;
        let mut task = Task {
            group,
            kind: if finally { Kind::Finally } else { Kind::Normal },
            trigger_rule: if finally { TriggerRule::AllDone } else { d.trigger_rule },
            retry: d.retry,
            timeout: d.timeout,
            grace: d.grace,
            pool: d.pool.clone(),
            priority: d.priority,
            is_preemptible: d.is_preemptible,
            env: d.env.clone(),
            resources: d.resources.clone(),
            placement: d.placement.clone(),
            ..Task::new(id, Work::Noop)
        };
        let mut raw =
            RawTask { at: key.at, needs: Vec::new(), of: Vec::new(), foreach_at: None, nodes_at: None, rule_at: None };
        let mut max_items = None;
        let (mut setup, mut teardown) = (None, None);
        let (mut parallel_at, mut max_at) = (None, None);
        let (mut backend, mut asks, mut queue_at) = (None, false, None);
        for entry in body {
            let node = &entry.value;
            let at = entry.key.at;
            match &*entry.key.text {
                "needs" => raw.needs = self.names(node, "needs"),
                "run" | "steps" | "uses" | "with" | "shell" => {}
                "description" => task.description = self.text(node, "description").unwrap_or_default(),
                "when" => {
                    if let Some(text) = self.text(node, "when") {
                        self.site(owner, Role::When, &text, node);
                        task.when = Some(When::Expression(text));
                    }
                }
                "trigger_rule" => {
                    raw.rule_at = Some(node.at);
                    if let Some(rule) = self.trigger_rule(node) {
                        task.trigger_rule = rule;
                    }
                }
                "foreach" => {
                    raw.foreach_at = Some(at);
                    task.foreach = self.foreach(node, owner);
                }
                "foreach_max" => {
                    max_at = Some(at);
                    max_items = self.whole(node, "foreach_max", 1, super::foreach::MOST_ITEMS);
                }
                "max_parallel" => {
                    parallel_at = Some(at);
                    task.max_parallel = self.whole(node, "max_parallel", 1, 1_000_000).map(|n| n as u32);
                }
                "env" => task.env.extend(self.env(node, owner, Role::Launch)),
                "workdir" => task.workdir = self.template(node, "workdir", owner),
                "outputs" => task.outputs = self.outputs(node, owner),
                name if self.retry_key(name, node, &mut task.retry) => {}
                "resume_from" => task.resume_from = self.template(node, "resume_from", owner),
                "recovery" => self.recovery(node, &mut task.recovery),
                "hang" => task.recovery.hang = self.hang(node),
                "timeout" => task.timeout = self.duration(node, "timeout", true),
                "grace" => task.grace = self.duration(node, "grace", false).unwrap_or(task.grace),
                "pool" => task.pool = self.pool(node),
                "pool_slots" => task.pool_slots = self.whole(node, "pool_slots", 1, 1_000_000).unwrap_or(1) as u32,
                "priority" => task.priority = self.priority(node).unwrap_or_default(),
                "preemptible" => task.is_preemptible = self.flag(node, "preemptible").unwrap_or_default(),
                "depends_on_past" => task.depends_on_past = self.flag(node, "depends_on_past").unwrap_or_default(),
                "skip_exit_codes" => task.skip_exit_codes = self.exit_codes(node),
                "branch" => {
                    if let Some(text) = self.text(node, "branch") {
                        self.site(owner, Role::Branch, &text, node);
                        task.branch = Some(text);
                    }
                }
                "setup" => setup = self.flag(node, "setup").filter(|is| *is).map(|_| at),
                "teardown" => teardown = self.teardown(node, &mut raw.of).map(|fails_run| (at, fails_run)),
                "resources" => {
                    asks = true;
                    let base = std::mem::take(&mut task.resources);
                    task.resources = self.resources(node, owner, Role::Launch, base);
                }
                "nodes" => {
                    raw.nodes_at = Some(at);
                    task.gang = self.nodes(node);
                }
                "node_selector" => {
                    asks = true;
                    let base = std::mem::take(&mut task.placement.node_selector);
                    task.placement.node_selector = self.node_selector(node, owner, Role::Launch, base);
                }
                "affinity" => {
                    asks = true;
                    (task.placement.required, task.placement.preferred) = self.affinity(node);
                }
                "tolerations" => task.placement.tolerations = self.tolerations(node),
                "queue" => {
                    queue_at = Some(at);
                    task.placement.queue = self.queue(node, owner, Role::Launch);
                }
                "backend" => backend = Some((node.at, self.backend(node, owner, Role::Launch))),
                _ => self.unknown(&entry.key, keys::TASK, "a task"),
            }
        }
        task.work = self.work(body, key, owner);
        // ECS is the one backend that finds machines for the members of a gang itself.
        let is_one = |said: &Option<Backend>| said.as_ref().is_some_and(|backend| backend.kind != BackendKind::Ecs);
        let backend_at = backend.as_ref().filter(|(_, said)| is_one(said)).map(|(at, _)| *at);
        self.put(&mut task, key.at, backend, asks, queue_at);
        if let (Some(foreach), Some(max)) = (&mut task.foreach, max_items) {
            foreach.max_items = max as u32;
        }
        match raw.nodes_at {
            Some(at) => {
                let mapping = Mapping { foreach: raw.foreach_at, max_parallel: parallel_at, foreach_max: max_at };
                self.make_gang(&mut task, at, mapping, backend_at);
            }
            None => self.needs_foreach(task.foreach.is_some(), raw.foreach_at, parallel_at, max_at),
        }
        self.kind(&mut task, &raw, setup, teardown, finally);
        self.workflow.tasks.push(task);
        self.tasks.push(raw);
    }

    fn kind(
        &mut self,
        task: &mut Task,
        raw: &RawTask,
        setup: Option<Place>,
        teardown: Option<(Place, bool)>,
        finally: bool,
    ) {
        let clash = match (setup, teardown) {
            (Some(_), Some((at, _))) => Some((at, "a task is either a setup or a teardown".to_owned())),
            (Some(at), None) if finally => Some((at, "a task under `finally` cannot be a setup".to_owned())),
            (None, Some((at, _))) if finally => Some((
                at,
                "a task under `finally` cannot be a teardown; it already runs whatever became of the others".to_owned(),
            )),
            _ => None,
        };
        if let Some((at, message)) = clash {
            return self.r.error(at, message);
        }
        if setup.is_some() {
            task.kind = Kind::Setup;
        }
        if let Some((_, fails_run)) = teardown {
            task.kind = Kind::Teardown { of: Vec::new(), fails_run };
            if let Some(at) = raw.rule_at
                && task.trigger_rule != TriggerRule::AllDoneSetupSuccess
            {
                let hint =
                    "a teardown always runs once its work is done, if its setup succeeded; leave `trigger_rule` out";
                self.r.error_hint(at, "a teardown has no `trigger_rule` of its own", hint);
            }
            task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
        }
        if let Some(at) = raw.rule_at
            && finally
            && raw.needs.is_empty()
            && !matches!(task.trigger_rule, TriggerRule::AllDone | TriggerRule::Always)
        {
            let hint = "a task under `finally` runs whatever became of the others; use `when` for a condition, such as `tasks.build.state == 'failed'`";
            self.r.error_hint(at, format!("the rule `{}` has no effect here", task.trigger_rule.name()), hint);
        }
    }

    /// `true`, or `{of: […], fails_run: …}`; gives `fails_run`.
    fn teardown(&mut self, node: &Node, of: &mut Vec<Named>) -> Option<bool> {
        let Some(entries) = node.as_map() else {
            return self.flag(node, "teardown").filter(|is| *is).map(|_| false);
        };
        let mut fails_run = false;
        for entry in entries {
            match &*entry.key.text {
                "of" => *of = self.names(&entry.value, "of"),
                "fails_run" => fails_run = self.flag(&entry.value, "fails_run").unwrap_or_default(),
                _ => self.unknown(&entry.key, keys::TEARDOWN, "`teardown`"),
            }
        }
        Some(fails_run)
    }

    fn exit_codes(&mut self, node: &Node) -> Vec<i32> {
        let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
        nodes.iter().filter_map(|n| self.whole(n, "skip_exit_codes", 1, 255)).map(|code| code as i32).collect()
    }

    /// A text that may be a template, set aside for checking.
    pub fn template(&mut self, node: &Node, key: &str, owner: Owner) -> Option<String> {
        let text = self.text(node, key)?;
        if text.contains('\0') {
            self.r.error(node.at, format!("`{key}` holds a zero byte"));
            return None;
        }
        self.site(owner, Role::Launch, &text, node);
        Some(text)
    }
}
