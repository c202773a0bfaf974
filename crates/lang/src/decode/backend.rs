//! Where a task runs: the name of a backend, or a mapping that says where it finds its host.

use pitcrew_core::ir::{BackendKind, Placement, Resources, Task, Work};
use serde_json::{Map, Value};

use super::{Decoder, Owner, Role, keys};
use crate::OnHosts;
use crate::diagnostic::Place;
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
const HOW_PLACED: &str =
    "write `backend: {ssh: {connection: NAME}}`, or say with `resources` or `node_selector` what a node must have";

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
                let place = self.ssh(entry, owner, role)?;
                Some(Backend { kind, place: Some(Value::Object(place)) })
            }
            (_, None) => Some(Backend { kind, place: None }),
            (BackendKind::Local | BackendKind::Fake | BackendKind::Worker, Some(entry)) => {
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
            Work::Noop | Work::Steps(_) => None,
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
        task.backend = backend.kind;
        task.place = backend.place;
    }

    /// What is no template is checked here, by what reads it when it is used; templates are checked when rendered.
    fn ssh(&mut self, entry: &Entry, owner: Owner, role: Role) -> Option<Map<String, Value>> {
        let Some(entries) = entry.value.as_map() else {
            let found = entry.value.describe();
            self.r.error_hint(entry.value.at, format!("`ssh` must be a mapping, found {found}"), HOW_SSH);
            return None;
        };
        let mut place = Map::new();
        let mut fixed = SshTarget::default();
        for entry in entries {
            let (key, node) = (&*entry.key.text, &entry.value);
            if !keys::SSH.contains(&key) {
                self.unknown(&entry.key, keys::SSH, "`ssh`");
                continue;
            }
            let sites = self.sites.len();
            self.sites_in(owner, role, node);
            let Some(value) = self.json(node) else { continue };
            if self.sites.len() == sites
                && let Err(message) = fixed.set(key, &value)
            {
                self.r.error(node.at, message);
            }
            place.insert(key.to_owned(), value);
        }
        Some(place)
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
