//! The nodes as placement takes them, and how an attempt gets to the one that it was given.
//!
//! Each node says by labels of the server's own by which backend work gets there, and one over SSH also where its stored
//! connection leads: so a task that names a host is placed on the node that is that host, and on no other.

use std::collections::BTreeMap;

use pitcrew_core::admission::Placed;
use pitcrew_core::fleet::{BACKEND_LABEL, CONNECTION_LABEL, HOST_LABEL, Node, PORT_LABEL};
use pitcrew_core::ir::{BackendKind, Task};
use pitcrew_exec::WorkerPlace;
use pitcrew_exec::ssh::{ConfigFile, home};
use serde_json::{Value, json};

use super::Parts;
use super::core_loop::Core;
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
        None => Way::Gone,
    }
}

/// The nodes with the labels that are the server's own.
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
        };
        label(BACKEND_LABEL, backend.name());
        node
    };
    nodes.iter().map(labelled).collect()
}

impl Core {
    /// Nodes came, went, or are otherwise than before.
    pub(super) fn take_nodes(&mut self) {
        let nodes = self.parts.nodes.borrow_and_update().clone();
        self.hosts = self.hosts_of(&nodes);
        if let Err(error) = self.admission.set_nodes(placeable(&nodes, &self.hosts)) {
            tracing::error!(%error, "the nodes stay as they were");
        }
        self.unserved.retain(|queue| !self.admission.fleet().serves(queue));
    }

    /// Connections were read anew.
    pub(super) fn take_connections(&mut self) {
        let nodes = self.parts.nodes.borrow().clone();
        if self.hosts_of(&nodes) != self.hosts {
            self.take_nodes();
        }
    }

    fn hosts_of(&self, nodes: &[FleetNode]) -> Hosts {
        let ids: Vec<&String> = nodes
            .iter()
            .filter_map(|known| match &known.reach {
                Reach::Connection(id) => Some(id),
                Reach::Local | Reach::Worker(_) => None,
            })
            .collect();
        if ids.is_empty() {
            return Hosts::new();
        }
        // What cannot be read is told when a node is asked, and when a task is to start there.
        let Ok(file) = ConfigFile::load(&home()) else { return Hosts::new() };
        let led = |id: &String| {
            let draft = ssh::draft(&*self.known.connection(id)?.ok()?).ok()?;
            // By the name that the connection has for it, before `~/.ssh/config` says another.
            let host = draft.host.clone();
            Some((id.clone(), (host, draft.place(&file, &self.parts.ssh).ok()?.port)))
        };
        ids.into_iter().filter_map(led).collect()
    }
}
