//! From the YAML tree to the parts of a workflow, names still unresolved.
//!
//! Each function reads one kind of mapping with one `match` over its keys, so the keys that exist are the arms of
//! that match; every other key is refused. A problem is reported and the reading goes on with the next key: one
//! pass finds them all. Templates are set aside as [`Site`]s and checked once all names are known.

mod backend;
mod fields;
mod foreach;
mod gang;
mod hooks;
pub(crate) mod keys;
mod notify;
mod on;
mod params;
mod placement;
mod recovery;
mod schedule;
mod task;
mod work;

use std::collections::BTreeMap;

use pitcrew_core::ir::{GroupIx, NotifyRule, OnFailure, Placement, Resources, TaskIx, Workflow};
use pitcrew_core::retry::RetryPolicy;
use pitcrew_core::trigger_rule::TriggerRule;
use pitcrew_core::{SignedDuration, WorkflowId};

use crate::Options;
use crate::diagnostic::{Diagnostic, Place, Reporter, Severity, closest, did_you_mean};
use crate::yaml::{Node, Style};

/// A workflow whose tasks and groups are in place, and whose names are not looked up yet.
pub(crate) struct Decoded {
    pub workflow: Workflow,
    pub name_at: Place,
    /// Beside [`Workflow::tasks`].
    pub tasks: Vec<RawTask>,
    /// Beside [`Workflow::groups`].
    pub groups: Vec<RawGroup>,
    pub sites: Vec<Site>,
}

/// What a task's source says beyond its [`pitcrew_core::ir::Task`].
pub(crate) struct RawTask {
    pub at: Place,
    pub needs: Vec<Named>,
    /// For a teardown: the setups it names.
    pub of: Vec<Named>,
    pub foreach_at: Option<Place>,
    pub nodes_at: Option<Place>,
    pub rule_at: Option<Place>,
}

pub(crate) struct RawGroup {
    pub at: Place,
    pub needs: Vec<Named>,
    pub foreach_at: Option<Place>,
}

/// A name that must turn out to be a task or a group.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub name: String,
    pub at: Place,
}

/// A template, and where it stands.
pub(crate) struct Site {
    pub owner: Owner,
    pub role: Role,
    pub text: String,
    pub at: Place,
    pub style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Workflow,
    Task(TaskIx),
    Group(GroupIx),
}

/// What a template is for; decides which names it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Rendered when an attempt starts.
    Launch,
    /// A condition: may be an expression without braces.
    When,
    /// A list to map over; there is no `item` yet.
    Foreach,
    /// After success; sees the task's own outputs.
    Branch,
    /// Of the workflow or its defaults: for every task, so it can name none.
    Shared,
}

/// What a task has unless it says otherwise.
pub(crate) struct Defaults {
    pub retry: RetryPolicy,
    pub timeout: Option<SignedDuration>,
    pub grace: SignedDuration,
    pub pool: Option<String>,
    pub priority: i64,
    pub is_preemptible: bool,
    pub trigger_rule: TriggerRule,
    pub env: BTreeMap<String, String>,
    pub resources: Resources,
    pub placement: Placement,
    /// `None`: nothing is said of it.
    pub backend: Option<backend::Backend>,
    pub shell: Vec<String>,
}

pub(crate) struct Decoder<'d, 's> {
    pub r: &'d mut Reporter<'s>,
    pub options: &'d Options<'d>,
    pub defaults: Defaults,
    pub workflow: Workflow,
    pub tasks: Vec<RawTask>,
    pub groups: Vec<RawGroup>,
    pub sites: Vec<Site>,
    /// Validators of the actions' `with`, made when first used.
    pub validators: BTreeMap<String, jsonschema::Validator>,
}

/// Reads one document. `None`: it is too broken to go on with; why was reported.
pub(crate) fn document(root: &Node, options: &Options<'_>, r: &mut Reporter<'_>) -> Option<Decoded> {
    let Some(entries) = root.as_map() else {
        let hint = "a workflow begins with `workflow: name` and has `tasks:`";
        r.error_hint(root.at, format!("a workflow is a mapping, found {}", root.describe()), hint);
        return None;
    };
    let name = root.get("workflow");
    let id = name.and_then(|node| workflow_id(node, r));
    if name.is_none() {
        let mistyped = entries.iter().map(|e| &*e.key.text).find(|k| closest(k, ["workflow"]).is_some());
        let hint = mistyped
            .map_or("begin with `workflow: my-workflow`".into(), |k| format!("did you mean `workflow` by `{k}`?"));
        r.error_hint(Place { line: root.at.line, column: root.at.column, length: 1 }, "the workflow has no name", hint);
    }
    let unnamed = || WorkflowId::new("unnamed").expect("a valid id");
    let mut decoder = Decoder::new(id.unwrap_or_else(unnamed), options, r);
    // First what the tasks build on, wherever it stands.
    if let Some(defaults) = root.get("defaults") {
        decoder.defaults(defaults);
    }
    decoder.workflow_keys(root, entries);
    let Decoder { workflow, tasks, groups, sites, .. } = decoder;
    Some(Decoded { workflow, name_at: name.map_or(root.at, |n| n.at), tasks, groups, sites })
}

/// The rules of a text that stands elsewhere than in a workflow; the error names what is wrong with it.
pub(crate) fn notify_rules(text: &str) -> Result<Vec<NotifyRule>, String> {
    let said = |found: Vec<Diagnostic>| {
        let errors = found.iter().filter(|one| one.severity == Severity::Error);
        errors.map(|one| one.message.clone()).collect::<Vec<_>>().join("; ")
    };
    let Some(node) = crate::yaml::read(text, "notify").map_err(said)? else { return Ok(Vec::new()) };
    let mut r = Reporter::new("notify", text);
    let id = WorkflowId::new("unnamed").expect("a valid id");
    let rules = Decoder::new(id, &Options::default(), &mut r).notify(&node);
    if r.errors() == 0 { Ok(rules) } else { Err(said(r.finish())) }
}

fn workflow_id(node: &Node, r: &mut Reporter<'_>) -> Option<WorkflowId> {
    let Some(scalar) = node.as_scalar() else {
        r.error_hint(
            node.at,
            format!("the name of a workflow is a text, found {}", node.describe()),
            "begin with `workflow: my-workflow`",
        );
        return None;
    };
    WorkflowId::new(&scalar.text).map_err(|error| r.error(node.at, error.to_string())).ok()
}

impl<'d, 's> Decoder<'d, 's> {
    fn new(id: WorkflowId, options: &'d Options<'d>, r: &'d mut Reporter<'s>) -> Decoder<'d, 's> {
        let empty = pitcrew_core::ir::Task::new(
            pitcrew_core::TaskId::new("defaults").expect("a valid id"),
            pitcrew_core::ir::Work::Noop,
        );
        Decoder {
            r,
            options,
            defaults: Defaults {
                retry: empty.retry,
                timeout: None,
                grace: empty.grace,
                pool: None,
                priority: 0,
                is_preemptible: false,
                trigger_rule: empty.trigger_rule,
                env: BTreeMap::new(),
                resources: Resources::default(),
                placement: Placement::default(),
                backend: None,
                shell: Vec::new(),
            },
            workflow: Workflow::new(id),
            tasks: Vec::new(),
            groups: Vec::new(),
            sites: Vec::new(),
            validators: BTreeMap::new(),
        }
    }
}

impl Decoder<'_, '_> {
    fn workflow_keys(&mut self, root: &Node, entries: &[crate::yaml::Entry]) {
        let mut has_tasks = false;
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "workflow" | "defaults" => {}
                "description" => self.workflow.description = self.text(node, "description").unwrap_or_default(),
                "tags" => self.workflow.tags = self.texts(node, "tags").unwrap_or_default(),
                "schedule" => self.workflow.schedule = self.schedule(node),
                "namespace" => self.namespace(node),
                "max_active_runs" => {
                    if let Some(runs) = self.whole(node, "max_active_runs", 1, 100_000) {
                        self.workflow.max_active_runs = runs as u32;
                    }
                }
                "max_active_tasks" => {
                    self.workflow.max_active_tasks =
                        self.whole(node, "max_active_tasks", 1, 1_000_000).map(|n| n as u32);
                }
                "fail_fast" => {
                    if self.flag(node, "fail_fast") == Some(true) {
                        self.workflow.on_failure = OnFailure::Stop;
                    }
                }
                "timeout" => self.workflow.timeouts.run = self.duration(node, "timeout", true),
                "params" => self.params(node),
                "env" => self.workflow.env = self.env(node, Owner::Workflow, Role::Shared),
                "workspaces" => self.workspaces(node),
                "tasks" => {
                    has_tasks = true;
                    self.all_tasks(node, None, false);
                }
                "finally" => self.all_tasks(node, None, true),
                "notify" => self.workflow.notify = self.notify(node),
                "on" => self.on(node),
                // A place for anchors that other keys use, as in compose files.
                key if key.starts_with("x-") => {}
                _ => self.unknown(&entry.key, keys::WORKFLOW, "a workflow"),
            }
        }
        if let Some(schedule) = root.get("schedule").filter(|_| self.workflow.schedule.is_some()) {
            self.check_scheduled_params(schedule);
        }
        if let Some(on) = root.get("on") {
            self.check_event_params(on);
        }
        let has_normal = self.workflow.tasks.iter().any(|t| t.kind != pitcrew_core::ir::Kind::Finally);
        if !has_tasks {
            let at = Place { length: 1, ..root.at };
            self.r.error_hint(at, "the workflow has no `tasks`", "add `tasks:` with at least one task below it");
        } else if !has_normal && self.r.errors() == 0 {
            let at = root.get("tasks").map_or(root.at, |node| node.at);
            self.r.error_hint(
                at,
                "the workflow has 0 tasks",
                "add a task below `tasks:`, for example `hello: {run: echo hello}`",
            );
        }
    }

    fn namespace(&mut self, node: &Node) {
        let Some(name) = self.text(node, "namespace") else { return };
        match pitcrew_core::TaskId::new(&name) {
            Ok(_) => self.workflow.namespace = name,
            Err(error) => self.r.error(node.at, error.to_string()),
        }
    }

    fn workspaces(&mut self, node: &Node) {
        let Some(names) = node.as_list() else {
            return self.mismatch(node, "`workspaces`", "a list of names");
        };
        for node in names {
            let Some(name) = self.text(node, "workspaces") else { continue };
            if let Err(error) = pitcrew_core::TaskId::new(&name) {
                self.r.error(node.at, error.to_string());
            } else if self.workflow.workspaces.contains(&name) {
                self.r.error(node.at, format!("the workspace `{name}` is there twice"));
            } else {
                self.workflow.workspaces.push(name);
            }
        }
    }

    fn defaults(&mut self, node: &Node) {
        let Some(entries) = node.as_map() else {
            return self.mismatch(node, "`defaults`", "a mapping");
        };
        for entry in entries {
            let node = &entry.value;
            let mut retry = self.defaults.retry;
            match &*entry.key.text {
                key if self.retry_key(key, node, &mut retry) => self.defaults.retry = retry,
                "timeout" => self.defaults.timeout = self.duration(node, "timeout", true),
                "grace" => self.defaults.grace = self.duration(node, "grace", false).unwrap_or(self.defaults.grace),
                "pool" => self.defaults.pool = self.pool(node),
                "priority" => self.defaults.priority = self.priority(node).unwrap_or_default(),
                "preemptible" => self.defaults.is_preemptible = self.flag(node, "preemptible").unwrap_or_default(),
                "trigger_rule" => {
                    if let Some(rule) = self.trigger_rule(node) {
                        self.defaults.trigger_rule = rule;
                    }
                }
                "node_selector" => {
                    self.defaults.placement.node_selector =
                        self.node_selector(node, Owner::Workflow, Role::Shared, BTreeMap::new())
                }
                "affinity" => {
                    let affinity = self.affinity(node);
                    (self.defaults.placement.required, self.defaults.placement.preferred) = affinity;
                }
                "tolerations" => self.defaults.placement.tolerations = self.tolerations(node),
                "queue" => self.defaults.placement.queue = self.queue(node, Owner::Workflow, Role::Shared),
                "env" => self.defaults.env = self.env(node, Owner::Workflow, Role::Shared),
                "resources" => {
                    self.defaults.resources = self.resources(node, Owner::Workflow, Role::Shared, Resources::default())
                }
                "backend" => {
                    self.defaults.backend = self.backend(node, Owner::Workflow, Role::Shared);
                }
                "shell" => self.defaults.shell = self.shell(node).unwrap_or_default(),
                _ => self.unknown(&entry.key, keys::DEFAULTS, "`defaults`"),
            }
        }
        if let (Some(_), Some(_), Some(at)) =
            (&self.defaults.backend, &self.defaults.placement.queue, node.get("queue"))
        {
            let hint = "leave one of them out: a worker of the queue runs the tasks, or they run where `backend` says";
            self.r.error_hint(at.at, "`defaults` have a `queue` or a `backend`, not both", hint);
        }
    }

    /// Refuses a key, with the best advice there is.
    pub fn unknown(&mut self, key: &crate::yaml::Key, known: &[&str], what: &str) {
        if self.r.is_full() {
            return self.r.error(key.at, "unknown key");
        }
        let name = &*key.text;
        if let Some((_, why)) = keys::LATER.iter().find(|(later, _)| *later == name)
            && what != "a param"
        {
            self.r.error_hint(key.at, format!("`{name}` is not supported yet"), *why);
            return;
        }
        let airflow = keys::ELSEWHERE.iter().find(|(word, ours)| *word == name && known.contains(ours));
        let hint = match airflow {
            Some((_, ours)) => Some(format!("did you mean `{ours}`?")),
            None => did_you_mean(name, known.iter().copied())
                .or_else(|| keys::elsewhere_in_the_file(name, known))
                .or_else(|| Some(format!("known here: {}", known.join(", ")))),
        };
        self.r.error_maybe(key.at, format!("unknown key `{name}` in {what}"), hint);
    }

    /// Sets a template aside for checking, if it is one.
    pub fn site(&mut self, owner: Owner, role: Role, text: &str, node: &Node) {
        if role != Role::When && !crate::template::is_template(text) {
            return;
        }
        let style = node.as_scalar().map_or(Style::Plain, |scalar| scalar.style);
        self.sites.push(Site { owner, role, text: text.to_owned(), at: node.at, style });
    }

    /// Refuses a template where none is rendered.
    pub fn no_template(&mut self, text: &str, at: Place, what: &str) {
        if crate::template::is_template(text) {
            self.r.error(at, format!("{what} cannot be a template"));
        }
    }

    /// Sets aside every template inside a value.
    pub fn sites_in(&mut self, owner: Owner, role: Role, node: &Node) {
        match &node.yaml {
            crate::yaml::Yaml::Scalar(scalar) => self.site(owner, role, &scalar.text, node),
            crate::yaml::Yaml::List(items) => items.iter().for_each(|item| self.sites_in(owner, role, item)),
            crate::yaml::Yaml::Map(entries) => {
                for entry in entries {
                    self.no_template(&entry.key.text, entry.key.at, "a key");
                    self.sites_in(owner, role, &entry.value);
                }
            }
        }
    }
}
