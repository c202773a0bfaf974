//! What a machine has: labels, taints, CPU, memory, GPUs, and in which mode the GPUs are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::request::{Gpus, Request};
use super::room::Part;
use super::{BACKEND_LABEL, DEFAULT_QUEUE, QUEUE_LABEL};
use crate::ir::BackendKind;

/// A machine that work can be placed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Labels that people set or took away since it was configured, and may again at any time.
    #[serde(skip)]
    pub marked: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Cores.
    pub cpu: Amount,
    pub memory_mib: u64,
    /// What else there is of which a task can take some, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, Amount>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// How many can have something of it at a time; `None`: as many as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    #[serde(default)]
    pub standing: Standing,
}

/// Whether a node takes new work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    #[default]
    Ready,
    /// Somebody said so; what runs goes on.
    Cordoned,
    /// It cannot be used, and why.
    Down(String),
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its UUID; what `CUDA_VISIBLE_DEVICES` gets.
    pub id: String,
    pub model: String,
    pub memory_mib: u64,
    #[serde(default)]
    pub sharing: Sharing,
    /// Why it must not be used, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How several tasks can have one GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Not at all.
    #[default]
    Whole,
    /// In turn, as the driver gives out time.
    TimeSlicing { replicas: u32 },
    /// At the same time, by the Multi-Process Service.
    Mps { replicas: u32 },
    /// Cut into instances.
    Mig { instances: Vec<MigInstance> },
}

/// A part of a GPU that is a device of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MigInstance {
    /// Its UUID, `MIG-…`.
    pub id: String,
    /// As NVIDIA names it: `1g.10gb`.
    pub profile: String,
}

impl Sharing {
    /// Into how many parts a GPU can be divided; `None`: it cannot be divided by share.
    pub fn replicas(&self) -> Option<u32> {
        match self {
            Sharing::TimeSlicing { replicas } | Sharing::Mps { replicas } => Some((*replicas).max(1)),
            Sharing::Whole | Sharing::Mig { .. } => None,
        }
    }

    /// What keeps tasks on one GPU apart, in a sentence for whoever chooses.
    pub fn isolation(&self) -> &'static str {
        match self {
            Sharing::Whole => "a GPU belongs to one task at a time: nothing of another is on it",
            Sharing::TimeSlicing { .. } => {
                "tasks take turns; memory is not divided and nothing is protected: one that takes all memory, or \
                 crashes the GPU, takes the others with it"
            }
            Sharing::Mps { .. } => {
                "tasks run at the same time, with a limit of memory and threads each; addresses are apart, but a \
                 fatal fault of one ends all on the GPU"
            }
            Sharing::Mig { .. } => "each instance has memory, cache and cores of its own, and faults stay within it",
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sharing::Whole => f.write_str("whole"),
            Sharing::TimeSlicing { replicas } => write!(f, "time-slicing by {replicas}"),
            Sharing::Mps { replicas } => write!(f, "MPS by {replicas}"),
            Sharing::Mig { instances } => write!(f, "MIG, {} instances", instances.len()),
        }
    }
}

/// What keeps work away from a node that does not tolerate it; as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    #[serde(default)]
    pub value: String,
    pub effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    /// Takes no new work, and what runs there ends.
    NoExecute,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{:?}", self.key, self.effect),
            value => write!(f, "{}={value}:{:?}", self.key, self.effect),
        }
    }
}

impl Gpu {
    /// A GPU of this model that belongs to one task at a time.
    pub fn new(id: impl Into<String>, model: impl Into<String>, memory_mib: u64) -> Gpu {
        Gpu { id: id.into(), model: model.into(), memory_mib, sharing: Sharing::Whole, fault: None }
    }

    /// What `CUDA_VISIBLE_DEVICES` gets for this part of it.
    pub fn device_id(&self, part: Part) -> Option<String> {
        match (&self.sharing, part) {
            (Sharing::Mig { instances }, Part::Instance(at)) => Some(instances.get(at)?.id.clone()),
            (_, Part::Share(_)) => Some(self.id.clone()),
            (_, Part::Instance(_)) => None,
        }
    }
}

impl Node {
    /// A node with these GPUs alone; for tests and traces.
    pub fn new(name: impl Into<String>, cpu: Amount, memory_mib: u64, gpus: Vec<Gpu>) -> Node {
        Node {
            name: name.into(),
            labels: BTreeMap::new(),
            marked: BTreeSet::new(),
            taints: Vec::new(),
            cpu,
            memory_mib,
            custom: BTreeMap::new(),
            gpus,
            slots: None,
            standing: Standing::Ready,
        }
    }

    /// Whether it takes the tasks of this queue; `None`: those that name none. Only a worker takes no others than those
    /// of its queues.
    pub fn serves(&self, queue: Option<&str>) -> bool {
        let has = |queue: &str| {
            let mut names = self.labels.keys().filter_map(|label| label.strip_prefix(QUEUE_LABEL));
            names.any(|name| name == queue)
        };
        match queue {
            Some(queue) => has(queue),
            None => !self.is_worker() || has(DEFAULT_QUEUE),
        }
    }

    /// Whether it told enough of itself to say that it can never take the request. One that was never reached did not.
    pub(super) fn is_known_for(&self, request: &Request) -> bool {
        let asks_little = request.gpus == Gpus::None && request.node_selector.is_empty() && request.required.is_empty();
        !self.cpu.is_zero() && self.memory_mib > 0 && (!self.gpus.is_empty() || asks_little)
    }

    /// Whether it is one that comes for its work.
    pub fn is_worker(&self) -> bool {
        self.labels.get(BACKEND_LABEL).is_some_and(|kind| kind == BackendKind::Worker.name())
    }
}
