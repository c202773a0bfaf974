//! Nodes with what is left of them, leases, and the choice of a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::OWN_LABELS;
use super::amount::Amount;
use super::fragments::Workload;
use super::gang::Gang;
use super::node::{Node, Standing};
use super::policy::{Measure, Policy, Scale};
use super::promise::Promises;
use super::request::{BadRequest, Request};
use super::room::{Device, Left, Miss, Room, devices};

/// Requests that are not alike and whose worths are remembered; beyond, all are forgotten.
const REMEMBERED: usize = 1024;

/// Who holds something: an attempt, or a member of a gang.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub String);

/// What somebody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub node: String,
    /// Places on the node.
    pub devices: Vec<Device>,
    /// The same by UUID: what its tasks may see.
    pub ids: Vec<String>,
    pub request: Request,
}

/// Why nothing was placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// No node could take it, were it empty and ready; the nearest misses are with [`Fleet::explain`].
    #[error("no node can ever take it")]
    Never,
    #[error("no node has room for it now")]
    Full,
    #[error("`{0}` holds a lease already")]
    Twice(LeaseId),
}

/// Two nodes of one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are two nodes of the name `{0}`")]
pub struct Twice(pub String);

/// All nodes and leases.
#[derive(Debug, Clone)]
pub struct Fleet {
    policy: Policy,
    workload: Workload,
    scale: Scale,
    pub(super) nodes: Vec<Held>,
    by_name: HashMap<String, usize>,
    leases: BTreeMap<LeaseId, Lease>,
    memory: HashMap<Request, Vec<Remembered>>,
}

/// A node and what is left of it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub node: Node,
    pub room: Room,
    /// Counts changes.
    version: u64,
    /// Since the last change, if somebody asked.
    fragments: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    version: u64,
    worth: Worth,
}

/// Preference first, then the policy's measure; `None`: it does not fit.
type Worth = Option<(i64, f64)>;

impl Fleet {
    /// A fleet without leases; nodes that are worth the same are taken in the order of their names.
    pub fn new(nodes: Vec<Node>, policy: Policy, workload: Workload) -> Result<Fleet, Twice> {
        let (leases, memory) = (BTreeMap::new(), HashMap::new());
        let (nodes_held, by_name) = (Vec::new(), HashMap::new());
        let mut fleet = Fleet { policy, workload, scale: Scale::default(), nodes: nodes_held, by_name, leases, memory };
        fleet.set_nodes(nodes)?;
        Ok(fleet)
    }

    /// Other nodes, or the same with something else to them. Leases stay: on a node that is gone they hold nothing, and
    /// when it is back, the devices of the same ids.
    pub fn set_nodes(&mut self, mut nodes: Vec<Node>) -> Result<(), Twice> {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Twice(pair[0].name.clone()));
        }
        let most = |of: fn(&Node) -> f64| nodes.iter().map(of).fold(0.0, f64::max);
        self.scale = Scale { cpu: most(|node| node.cpu.to_f64()), gpus: most(|node| node.gpus.len() as f64) };
        self.by_name = nodes.iter().enumerate().map(|(at, node)| (node.name.clone(), at)).collect();
        let fresh = |node: Node| Held { room: Room::of(&node), node, version: 1, fragments: None };
        self.nodes = nodes.into_iter().map(fresh).collect();
        self.memory.clear();
        for lease in self.leases.values_mut() {
            let Some(at) = self.by_name.get(&lease.node) else { continue };
            let held = &mut self.nodes[*at];
            lease.devices = devices(&held.node, &lease.request, &lease.ids);
            held.change(&lease.request, &lease.devices, true);
        }
        Ok(())
    }

    /// What placement is after from now on; what is held stays where it is.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.memory.clear();
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// What usually comes from now on.
    pub fn set_workload(&mut self, workload: Workload) {
        if self.workload != workload {
            self.workload = workload;
            self.memory.clear();
            self.nodes.iter_mut().for_each(|held| held.fragments = None);
        }
    }

    /// For somebody who runs already: holds the devices of these ids on this node, whatever is said of the node now.
    pub fn adopt(&mut self, id: LeaseId, node: &str, request: &Request, ids: Vec<String>) {
        if self.leases.contains_key(&id) {
            return;
        }
        let mut lease = Lease { node: node.to_owned(), devices: Vec::new(), ids, request: request.clone() };
        if let Some(at) = self.by_name.get(node) {
            let held = &mut self.nodes[*at];
            lease.devices = devices(&held.node, request, &lease.ids);
            held.change(request, &lease.devices, true);
        }
        self.leases.insert(id, lease);
    }

    /// The lease of a node for the request, kept under this name until [`Fleet::release`].
    pub fn place(&mut self, id: LeaseId, request: &Request) -> Result<&Lease, Refused> {
        if self.leases.contains_key(&id) {
            return Err(Refused::Twice(id));
        }
        request.check()?;
        let Some(at) = self.best(request, |_| true) else { return Err(self.refusal(request)) };
        Ok(self.take(id, at, request, &Promises::default()))
    }

    /// Gives back what the lease holds; `None`: there is no such lease, or no more.
    pub fn release(&mut self, id: &LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(id)?;
        // A node that is gone takes its leases with it.
        if let Some(at) = self.by_name.get(&lease.node) {
            let held = &mut self.nodes[*at];
            held.change(&lease.request, &lease.devices, false);
        }
        Some(lease)
    }

    pub fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.leases
    }

    /// The nodes, in the order of their names, with what is left of each.
    pub fn nodes(&self) -> impl Iterator<Item = (&Node, &Room)> {
        self.nodes.iter().map(|held| (&held.node, &held.room))
    }

    /// For each node why the request does not go there now; `None`: it fits.
    pub fn explain(&self, request: &Request) -> Vec<(&str, Option<Miss>)> {
        let why = |held: &Held| held.room.fits(&held.node, request).err();
        self.nodes.iter().map(|held| (held.node.name.as_str(), why(held))).collect()
    }

    /// Whether a node could take it that is empty, ready and sound, and as it was configured: taints, and labels that
    /// people changed, may be otherwise again. One that is down and of which too little is known could. Of a gang: whether
    /// as many nodes could as it has members.
    pub fn could_ever(&self, request: &Request, gang: Option<&Gang>) -> bool {
        match gang {
            // Mostly the first that is looked at.
            None => self.nodes.iter().any(|held| held.could_ever(request)),
            Some(_) => self.suffices(gang, &self.those(|held| held.could_ever(request))),
        }
    }

    /// Whether it could ever go to a worker; more of them may come at any time.
    pub fn could_be_workers(&self, request: &Request) -> bool {
        self.nodes.iter().any(|held| held.node.is_worker() && held.could_ever(request))
    }

    /// Whether there is a node that takes the tasks of this queue, whatever its standing.
    pub fn serves(&self, queue: &str) -> bool {
        self.nodes.iter().any(|held| held.node.serves(Some(queue)))
    }

    /// Whether a node could take it that is as it is now, but empty.
    pub fn could_now(&self, request: &Request, gang: Option<&Gang>) -> bool {
        self.suffices(gang, &self.those(|held| Room::of(&held.node).fits(&held.node, request).is_ok()))
    }

    /// For a request that no node can ever take: why each could not, even if it were empty; the nearest miss first.
    pub fn never(&self, request: &Request) -> Vec<(&str, Miss)> {
        let why = |held: &Held| Room::sound(&held.node).could(&held.node, request).err();
        let mut misses: Vec<(&str, Miss)> =
            self.nodes.iter().filter_map(|held| Some((held.node.name.as_str(), why(held)?))).collect();
        misses.sort_by_key(|(_, miss)| std::cmp::Reverse(miss.nearness()));
        misses
    }

    /// How many GPUs somebody has something of, and how many there are.
    pub fn gpu_use(&self) -> (usize, usize) {
        let used: BTreeSet<(&str, usize)> = self
            .leases
            .values()
            .flat_map(|lease| lease.devices.iter().map(|device| (lease.node.as_str(), device.gpu)))
            .collect();
        (used.len(), self.nodes.iter().map(|held| held.node.gpus.len()).sum())
    }

    /// Undivided GPUs and parts of GPUs that are held. MIG instances are not among them.
    pub fn gpus_held(&self) -> Amount {
        self.gpus() - self.nodes.iter().map(|held| held.room.idle_gpus()).sum()
    }

    /// All GPUs that are given whole or in parts.
    pub fn gpus(&self) -> Amount {
        self.nodes.iter().map(|held| Room::of(&held.node).idle_gpus()).sum()
    }

    /// Idle GPUs that the usual work cannot use; see [`Workload::fragments`].
    pub fn fragments(&mut self) -> f64 {
        let of = |held: &mut Held| *held.fragments.get_or_insert_with(|| self.workload.fragments(&held.room));
        self.nodes.iter_mut().map(of).sum()
    }

    pub(super) fn at(&self, node: &str) -> Option<usize> {
        self.by_name.get(node).copied()
    }

    pub(super) fn refusal(&self, request: &Request) -> Refused {
        if self.could_ever(request, None) { Refused::Full } else { Refused::Never }
    }

    /// Of the nodes that may be looked at, the one that is worth most.
    pub(super) fn best(&mut self, request: &Request, may: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, (i64, f64))> = None;
        for (at, worth) in self.worths(request).filter(|(at, _)| may(*at)) {
            if best.is_none_or(|(_, most)| worth > most) {
                best = Some((at, worth));
            }
        }
        best.map(|(at, _)| at)
    }

    /// The nodes that the request fits, the one that is worth most first.
    pub(super) fn ranked(&mut self, request: &Request) -> Vec<usize> {
        let mut all: Vec<(usize, (i64, f64))> = self.worths(request).collect();
        all.sort_by(|(a, (wanted, worth)), (b, (other, than))| {
            other.cmp(wanted).then(than.total_cmp(worth)).then(a.cmp(b))
        });
        all.into_iter().map(|(at, _)| at).collect()
    }

    /// What each node is worth that the request fits.
    fn worths(&mut self, request: &Request) -> impl Iterator<Item = (usize, (i64, f64))> {
        if self.memory.len() >= REMEMBERED && !self.memory.contains_key(request) {
            self.memory.clear();
        }
        let count = self.nodes.len();
        let measure = Measure { policy: self.policy, workload: &self.workload, scale: self.scale };
        if !self.memory.contains_key(request) {
            self.memory.insert(request.clone(), vec![Remembered { version: 0, worth: None }; count]);
        }
        let memory = self.memory.get_mut(request).into_iter().flatten();
        self.nodes.iter_mut().zip(memory).enumerate().filter_map(move |(at, (held, known))| {
            if known.version != held.version {
                *known = Remembered { version: held.version, worth: held.worth(measure, request) };
            }
            Some((at, known.worth?))
        })
    }

    /// Takes the request's room on this node, where it fits beside what is promised.
    pub(super) fn take(&mut self, id: LeaseId, at: usize, request: &Request, promises: &Promises) -> &Lease {
        let measure = Measure { policy: self.policy, workload: &self.workload, scale: self.scale };
        let held = &mut self.nodes[at];
        let taking = promises.beside(at, &held.node, &held.room, request);
        let choice = taking.map(|taking| measure.choose(&held.node, &mut held.room, request, taking));
        let devices = choice.map(|choice| choice.devices).unwrap_or_default();
        held.change(request, &devices, true);
        let gpus = &held.node.gpus;
        let ids = devices.iter().filter_map(|device| gpus.get(device.gpu)?.device_id(device.part)).collect();
        let lease = Lease { node: held.node.name.clone(), devices, ids, request: request.clone() };
        self.leases.entry(id).or_insert(lease)
    }
}

impl Fleet {
    /// Panics when what is left of a node is not what its leases leave. `adopted` allows leases of more than there is.
    pub fn sanity_check(&self, adopted: bool) {
        for held in &self.nodes {
            let mut room = Room::of(&held.node);
            for lease in self.leases.values().filter(|lease| lease.node == held.node.name) {
                room.change(&lease.request, &lease.devices, true);
            }
            assert_eq!(room, held.room, "what is left of {}", held.node.name);
            let is_over = room.memory_mib < 0 || room.cpu < Amount::ZERO || room.slots.is_some_and(|left| left < 0);
            let is_over =
                is_over || room.gpus.iter().any(|left| matches!(left, Left::Share(left) if *left < Amount::ZERO));
            assert!(adopted || !is_over, "{} gave more than it has", held.node.name);
        }
    }
}

impl Held {
    /// Whether it could take the request, were it empty, ready and sound; see [`Fleet::could_ever`].
    pub(super) fn could_ever(&self, request: &Request) -> bool {
        let node = &self.node;
        let mut own = request.node_selector.iter().filter(|(label, _)| label.starts_with(OWN_LABELS));
        let is_unknown = match &node.standing {
            Standing::Down(_) => {
                !node.is_known_for(request)
                    && node.serves(request.queue.as_deref())
                    && own.all(|(label, value)| node.labels.get(label) == Some(value))
            }
            Standing::Ready | Standing::Cordoned => false,
        };
        is_unknown || Room::sound(node).could(node, request).is_ok()
    }

    pub(super) fn change(&mut self, request: &Request, devices: &[Device], take: bool) {
        self.room.change(request, devices, take);
        self.version += 1;
        self.fragments = None;
    }

    fn worth(&mut self, measure: Measure<'_>, request: &Request) -> Worth {
        let taking = self.room.fits(&self.node, request).ok()?;
        let choice = measure.choose(&self.node, &mut self.room, request, taking);
        Some((request.preference(&self.node), choice.worth))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
