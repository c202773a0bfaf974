//! Where a task runs: the name of a backend, or a mapping that says where it finds its host.

use std::collections::BTreeMap;

use pitcrew_core::ir::{BackendKind, Placement, Resources, Step, Task, Work};
use serde_json::{Map, Value};

use super::{Decoder, Owner, Role, keys};
use crate::OnHosts;
use crate::diagnostic::Place;
use crate::ecs::EcsTarget;
use crate::place::{SshTarget, names_host};
use crate::yaml::{Entry, Node};

/// Where a task's own `backend` stands, and what it says if that is right.
pub(crate) type Own = Option<(Place, Option<Backend>)>;

/// A backend, with what stands under its name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Backend {
    pub kind: BackendKind,
    /// Texts may be templates.
    pub place: Option<Value>,
}

impl Default for Backend {
    fn default() -> Self {
        Backend { kind: BackendKind::Local, place: None }
    }
}

const HOW_SSH: &str = "write `backend: {ssh: {connection: NAME}}` or `backend: {ssh: {host: gpu-1, user: ubuntu}}`";
const HOW_ECS: &str = "write `backend: {ecs: {cluster: NAME, task_definition: FAMILY}}`";
const HOW_PLACED: &str =
    "write `backend: {ssh: {connection: NAME}}`, or say with `resources` or `node_selector` what a node must have";

/// What under `ecs` is of a single task, and why.
const ONE_ALONE: [(&str, &str); 2] = [
    ("machine", "each member gets a machine of its own"),
    ("subnets", "members reach each other by the addresses of their machines, which are known before they begin"),
];

impl Decoder<'_, '_> {
    pub fn backend(&mut self, node: &Node, owner: Owner, role: Role) -> Option<Backend> {
        let (name, below) = match (node.as_scalar(), node.as_map()) {
            (Some(scalar), _) => (scalar.text.to_string(), None),
            (None, Some([entry])) => (entry.key.text.to_string(), Some(entry)),
            (None, Some([_, second, ..])) => {
                self.r.error(second.key.at, "a task has one backend");
                return None;
            }
            _ => {
                self.mismatch(node, "`backend`", "the name of a backend");
                return None;
            }
        };
        let known = self.options.backends.unwrap_or(&BackendKind::NAMED);
        let Some(kind) = known.iter().copied().find(|kind| kind.name() == name) else {
            let message = match &*name {
                "worker" => "a worker is not named as a backend".to_owned(),
                "ssh" | "docker" | "kubernetes" | "ecs" => {
                    format!("the backend `{name}` is not supported yet")
                }
                _ => format!("unknown backend `{name}`"),
            };
            let names = crate::diagnostic::listing(known.iter().map(|kind| kind.name()), "and");
            let hint = match &*name {
                "worker" => "write `queue: NAME` for the workers of that queue, and leave `backend` out".to_owned(),
                _ => format!("the backends are {names}"),
            };
            self.r.error_hint(node.at, message, hint);
            return None;
        };
        match (kind, below) {
            (BackendKind::Ssh, Some(entry)) => {
                let mut fixed = SshTarget::default();
                let set = |key: &str, value: &Value| fixed.set(key, value);
                let place = self.settings(entry, ("ssh", keys::SSH, HOW_SSH), owner, role, set)?;
                Some(Backend { kind, place: Some(Value::Object(place)) })
            }
            (BackendKind::Ecs, Some(entry)) => {
                let mut fixed = EcsTarget::default();
                let set = |key: &str, value: &Value| fixed.set(key, value);
                let place = self.settings(entry, ("ecs", keys::ECS, HOW_ECS), owner, role, set)?;
                let missing = ["cluster", "task_definition"].into_iter().find(|key| !place.contains_key(*key));
                if let Some(key) = missing {
                    self.r.error_hint(entry.value.at, format!("`ecs` has no `{key}`"), HOW_ECS);
                    return None;
                }
                Some(Backend { kind, place: Some(Value::Object(place)) })
            }
            (BackendKind::Ecs, None) => {
                self.r.error_hint(node.at, "the backend `ecs` does not know its cluster", HOW_ECS);
                None
            }
            (_, None) => Some(Backend { kind, place: None }),
            (BackendKind::Local | BackendKind::Fake | BackendKind::Kubernetes | BackendKind::Worker, Some(entry)) => {
                let hint = format!("write `backend: {name}`");
                self.r.error_hint(entry.value.at, format!("the backend `{name}` takes no settings"), hint);
                None
            }
        }
    }

    /// Gives a task its own backend, or the one of `defaults` where it can run there. `of` is where the task stands, `asks`
    /// whether it says itself what a node must have.
    pub fn put(&mut self, task: &mut Task, of: Place, own: Own, asks: bool, queue: Option<Place>) {
        let (at, backend) = match own {
            Some((at, Some(backend))) => (Some(at), Some(backend)),
            Some((_, None)) => return,
            // A queue of its own wins over the backend of `defaults`, and the other way round; so do nodes for each member.
            None => (None, self.defaults.backend.clone().filter(|_| queue.is_none() && task.gang.is_none())),
        };
        if let (Some(_), Some(queue)) = (at, queue) {
            let hint = "leave `backend` out: a worker of the queue runs the task";
            self.r.error_hint(queue, "a task has a `queue` or a `backend`, not both", hint);
        } else if at.is_some() {
            task.placement.queue = None;
        }
        // Scripts can run wherever there is a shell; of actions, what they need is here.
        task.placement.is_free = backend.is_none() && !matches!(task.work, Work::Action { .. });
        task.placement.may_queue = backend.is_none();
        let backend = backend.unwrap_or_default();
        let uses = match &task.work {
            Work::Action { uses, .. } => Some(uses),
            Work::Noop | Work::Steps(_) | Work::Pod { .. } => None,
        };
        let known = uses.and_then(|uses| self.options.actions.iter().find(|action| action.name == *uses));
        let on_hosts = known.map(|action| action.on_hosts).unwrap_or_default();
        let on_workers = known.is_none_or(|action| action.on_workers);
        task.placement.may_queue = task.placement.may_queue && on_workers;
        if let (Some(uses), Some(queue), false) = (uses, queue, on_workers) {
            let message = format!("the action `{uses}` cannot run on a worker");
            self.r.error_hint(queue, message, "leave `queue` out: it runs on the machine of the server");
        }
        if !task.placement.may_queue {
            task.placement.queue = None;
        }
        if let (Some(uses), OnHosts::Always) = (uses, on_hosts)
            && backend.kind != BackendKind::Ssh
        {
            let message = format!("the action `{uses}` needs a host, and the task has none");
            return self.r.error_hint(at.unwrap_or(of), message, HOW_SSH);
        }
        if backend.kind == BackendKind::Ssh {
            if let Some(uses) = uses {
                match at {
                    _ if on_hosts != OnHosts::Never => {}
                    Some(at) => {
                        let hint = "leave `backend` out, or write `backend: local`";
                        return self.r.error_hint(
                            at,
                            format!("the action `{uses}` cannot run on another machine"),
                            hint,
                        );
                    }
                    None => return,
                }
            }
            match backend.place.as_ref().is_some_and(names_host) {
                // Those of `defaults` are for tasks that go to a node.
                true if !asks => {
                    task.resources = Resources::default();
                    task.placement = Placement::default();
                }
                true => {}
                false if is_choosy(task) => {}
                false => {
                    let at = at.unwrap_or(of);
                    return self.r.error_hint(at, "the backend `ssh` does not know its host", HOW_PLACED);
                }
            }
        }
        if backend.kind == BackendKind::Ecs && !self.on_ecs(task, at, of, backend.place.as_ref()) {
            return;
        }
        task.backend = backend.kind;
        task.place = backend.place;
    }

    /// What of a task ECS does itself, and what it cannot do. `false`: it does not go there.
    fn on_ecs(&mut self, task: &mut Task, at: Option<Place>, of: Place, said: Option<&Value>) -> bool {
        match (&task.work, at) {
            (Work::Action { uses, .. }, Some(at)) => {
                let message = format!("the action `{uses}` cannot run on another machine");
                self.r.error_hint(at, message, "leave `backend` out, or write `backend: local`");
                return false;
            }
            // The backend of `defaults` is for what can run there.
            (Work::Action { .. }, None) => return false,
            (Work::Noop, None) => return false,
            // A container runs something without being told what.
            (Work::Noop, Some(_)) => task.work = Work::Steps(vec![own_command()]),
            (Work::Steps(_) | Work::Pod { .. }, _) => {}
        }
        let place = at.unwrap_or(of);
        if let Some(gang) = &mut task.gang {
            gang.is_elsewhere = true;
            if let Some((key, why)) = ONE_ALONE.iter().find(|(key, _)| said.is_some_and(|said| said.get(key).is_some()))
            {
                let hint = format!("leave `{key}` out: {why}");
                self.r.error_hint(place, format!("a task with `nodes` cannot have `{key}` under `ecs`"), hint);
                return false;
            }
        }
        if task.resources.gpu.is_some() && at.is_some() {
            self.r.error_hint(
                place,
                "ECS places the task itself, so `resources.gpu` says nothing",
                "write `gpus` under `ecs`",
            );
            return false;
        }
        // Nodes of ours are not meant; limits on CPU and memory are those of the container.
        task.placement = Placement::default();
        let (cpu, memory) = (task.resources.cpu.take(), task.resources.memory.take());
        task.resources = Resources { cpu, memory, ..Resources::default() };
        true
    }

    /// What is no template is checked here, by what reads it when it is used (`set`); templates are checked when
    /// rendered. `of` is the name of the backend, the keys that it knows, and how it is written.
    fn settings(
        &mut self,
        entry: &Entry,
        of: (&str, &'static [&'static str], &str),
        owner: Owner,
        role: Role,
        mut set: impl FnMut(&str, &Value) -> Result<(), String>,
    ) -> Option<Map<String, Value>> {
        let (name, known, how) = of;
        let Some(entries) = entry.value.as_map() else {
            let found = entry.value.describe();
            self.r.error_hint(entry.value.at, format!("`{name}` must be a mapping, found {found}"), how);
            return None;
        };
        let mut place = Map::new();
        for entry in entries {
            let (key, node) = (&*entry.key.text, &entry.value);
            if !known.contains(&key) {
                self.unknown(&entry.key, known, &format!("`{name}`"));
                continue;
            }
            let sites = self.sites.len();
            self.sites_in(owner, role, node);
            let Some(value) = self.json(node) else { continue };
            if self.sites.len() == sites
                && let Err(message) = set(key, &value)
            {
                self.r.error(node.at, message);
            }
            place.insert(key.to_owned(), value);
        }
        Some(place)
    }
}

/// A step that runs what the container runs anyway.
fn own_command() -> Step {
    Step {
        name: "main".to_owned(),
        run: String::new(),
        shell: Vec::new(),
        env: BTreeMap::new(),
        workdir: None,
        timeout: None,
        continue_on_error: false,
    }
}

/// Whether what a task asks for leaves a choice of nodes to be made.
fn is_choosy(task: &Task) -> bool {
    let placement = &task.placement;
    task.resources != Resources::default()
        || !placement.node_selector.is_empty()
        || !placement.required.is_empty()
        || !placement.preferred.is_empty()
}
