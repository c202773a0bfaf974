//! The nodes as placement takes them, and how an attempt gets to the one that it was given.
//!
//! Each node says by labels of the server's own by which backend work gets there, and one over SSH also where its stored
//! connection leads: so a task that names a host is placed on the node that is that host, and on no other.

use std::collections::BTreeMap;

use pitcrew_core::admission::Placed;
use pitcrew_core::fleet::{BACKEND_LABEL, CONNECTION_LABEL, HOST_LABEL, NODE_LABEL, Node, PORT_LABEL};
use pitcrew_core::ir::{BackendKind, Task};
use pitcrew_exec::WorkerPlace;
use pitcrew_exec::ssh::{ConfigFile, Defaults, Draft, home};
use serde_json::{Value, json};

use super::Parts;
use super::core_loop::Core;
use crate::clock;
use crate::fleet::{FleetNode, Reach};
use crate::ssh;

/// Host and port of stored connections, by their ids.
pub(super) type Hosts = BTreeMap<String, (String, u16)>;

/// How an attempt gets to its node.
pub(super) enum Way {
    Here,
    /// What stands under `ssh`.
    Connection(Value),
    Worker(WorkerPlace),
    /// There is no such node any more.
    Gone,
}

/// What a task says of its host stands above what the connection of its node says.
pub(super) fn way_to(parts: &Parts, placed: &Placed, task: &Task) -> Way {
    let nodes = parts.nodes.borrow();
    let is_ssh = task.backend == BackendKind::Ssh;
    match nodes.iter().find(|node| node.node.name == placed.node).map(|node| &node.reach) {
        Some(Reach::Connection(id)) if is_ssh || task.placement.is_free => {
            let mut target = task.place.clone().unwrap_or_else(|| json!({}));
            target["connection"] = json!(id);
            Way::Connection(target)
        }
        // It has another way to it than when it was chosen.
        Some(Reach::Local | Reach::Worker(_)) if is_ssh => Way::Gone,
        Some(Reach::Local | Reach::Connection(_)) => Way::Here,
        Some(Reach::Worker(place)) => Way::Worker(place.clone()),
        // Work comes there by their clusters alone.
        Some(Reach::Ecs(_) | Reach::Kubernetes(_)) | None => Way::Gone,
    }
}

/// The nodes with the labels that are the server's own; without those of clusters, which give out what there is.
pub(super) fn placeable(nodes: &[FleetNode], hosts: &Hosts) -> Vec<Node> {
    let labelled = |known: &FleetNode| {
        let mut node = known.node.clone();
        let mut label = |key: &str, value: &str| drop(node.labels.insert(key.to_owned(), value.to_owned()));
        let backend = match &known.reach {
            Reach::Local => BackendKind::Local,
            Reach::Connection(id) => {
                label(CONNECTION_LABEL, id);
                if let Some((host, port)) = hosts.get(id) {
                    label(HOST_LABEL, host);
                    label(PORT_LABEL, &port.to_string());
                }
                BackendKind::Ssh
            }
            Reach::Worker(_) => BackendKind::Worker,
            Reach::Ecs(_) | Reach::Kubernetes(_) => return None,
        };
        label(BACKEND_LABEL, backend.name());
        label(NODE_LABEL, &known.node.name);
        Some(node)
    };
    nodes.iter().filter_map(labelled).collect()
}

impl Core {
    /// Nodes came, went, or are otherwise than before.
    pub(super) async fn take_nodes(&mut self) {
        let nodes = self.parts.nodes.borrow_and_update().clone();
        let file = ssh_file(&nodes).await;
        self.hosts = self.hosts_of(&nodes, file.as_ref());
        self.place_nodes(&nodes);
    }

    /// Connections were read anew.
    pub(super) async fn take_connections(&mut self) {
        let nodes = self.parts.nodes.borrow().clone();
        let file = ssh_file(&nodes).await;
        let hosts = self.hosts_of(&nodes, file.as_ref());
        if hosts != self.hosts {
            self.hosts = hosts;
            self.place_nodes(&nodes);
        }
    }

    fn place_nodes(&mut self, nodes: &[FleetNode]) {
        let nodes = placeable(nodes, &self.hosts);
        self.tainted.take(&nodes, clock::now());
        if let Err(error) = self.admission.set_nodes(nodes) {
            tracing::error!(%error, "the nodes stay as they were");
        }
        self.evict();
        self.unserved.retain(|queue| !self.admission.fleet().serves(queue));
    }

    fn hosts_of(&self, nodes: &[FleetNode], file: Option<&ConfigFile>) -> Hosts {
        let led = |id: &String| {
            let before = self.hosts.get(id);
            let way = match self.known.connection(id)? {
                Ok(connection) => leads_to(ssh::draft(&connection).ok()?, file, &self.parts.ssh, before),
                Err(_) => before.cloned(),
            };
            Some((id.clone(), way?))
        };
        connections(nodes).filter_map(led).collect()
    }
}

fn connections(nodes: &[FleetNode]) -> impl Iterator<Item = &String> {
    nodes.iter().filter_map(|known| match &known.reach {
        Reach::Connection(id) => Some(id),
        Reach::Local | Reach::Worker(_) | Reach::Ecs(_) | Reach::Kubernetes(_) => None,
    })
}

/// `~/.ssh/config`, where a node needs it. That it cannot be read is told when a node is asked, and when a task is to
/// start there.
async fn ssh_file(nodes: &[FleetNode]) -> Option<ConfigFile> {
    connections(nodes).next()?;
    tokio::task::spawn_blocking(|| ConfigFile::load(&home()).ok()).await.ok().flatten()
}

/// Where a connection leads. A port that only a file says that cannot be read now is what it was `before`: a node that
/// lost its host would have tasks for that host refused for good.
fn leads_to(
    draft: Draft,
    file: Option<&ConfigFile>,
    defaults: &Defaults,
    before: Option<&(String, u16)>,
) -> Option<(String, u16)> {
    // By the name that the connection has for it, before `~/.ssh/config` says another.
    let host = draft.host.clone();
    if host.is_empty() {
        return None;
    }
    let known = before.filter(|(known, _)| *known == host).map(|(_, port)| *port);
    let given = draft.port;
    let said = file.and_then(|file| draft.place(file, defaults).ok()).map(|place| place.port);
    Some((host, given.or(said).or(known).unwrap_or(defaults.port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_host_while_no_file_can_be_read() {
        let home = tempfile::tempdir().unwrap();
        let defaults = Defaults::default();
        let to = |port: Option<u16>| Draft { port, ..Draft::new("gpu-1") };
        let way = |host: &str, port: u16| Some((host.to_owned(), port));
        let empty = ConfigFile::load(home.path()).unwrap();
        assert_eq!(leads_to(to(None), Some(&empty), &defaults, None), way("gpu-1", 22));
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::write(home.path().join(".ssh/config"), "Host gpu-1\n  Port 2222\n").unwrap();
        let file = ConfigFile::load(home.path()).unwrap();
        let told = leads_to(to(None), Some(&file), &defaults, None);
        assert_eq!(told, way("gpu-1", 2222));
        assert_eq!(leads_to(to(None), None, &defaults, told.as_ref()), told, "as it was");
        assert_eq!(leads_to(to(Some(5)), None, &defaults, told.as_ref()), way("gpu-1", 5));
        assert_eq!(leads_to(to(None), None, &defaults, way("gpu-2", 7).as_ref()), way("gpu-1", 22), "it is another");
        assert_eq!(leads_to(Draft::new(""), None, &defaults, told.as_ref()), None);
    }
}
