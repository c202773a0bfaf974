//! A node as people and programs see it: in the API, on the command line and on pages alike.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::fleet::{Amount, BACKEND_LABEL, Gpu, Standing};
use pitcrew_core::ir::BackendKind;
use pitcrew_exec::gpu::Reading;
use pitcrew_store::NodeRow;
use serde::{Deserialize, Serialize};

use super::assemble::Assembled;
use super::config::NodeConfig;
use super::tasks::TaskOnNode;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    /// `ready`, `cordoned` or `down`; of a worker that is looked at without its server, `enrolled`.
    pub standing: String,
    /// Why it is down, or not known.
    pub reason: Option<String>,
    /// Somebody said that it takes no new work; also while it is down.
    pub is_cordoned: bool,
    /// The stored connection that leads there; `None`: the machine of the server.
    pub connection: Option<String>,
    /// It comes for its work.
    #[serde(default)]
    pub is_worker: bool,
    /// The cluster of Amazon ECS that it is a machine of.
    #[serde(default)]
    pub cluster: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `key=value:Effect`.
    pub taints: Vec<String>,
    pub cpu: Amount,
    pub memory_mib: u64,
    /// What else it has of which a task can take some, by name.
    #[serde(default)]
    pub resources: BTreeMap<String, Amount>,
    pub gpus: Vec<GpuView>,
    /// What runs there.
    #[serde(default)]
    pub tasks: Vec<TaskOnNode>,
    /// What is odd about it.
    pub remarks: Vec<String>,
    /// When what is known of it changed last.
    pub seen_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    pub id: String,
    pub model: String,
    pub memory_mib: u64,
    /// `whole`, `time-slicing by 4`, …
    pub sharing: String,
    /// What keeps tasks on it apart.
    pub isolation: String,
    pub fault: Option<String>,
    pub instances: Vec<String>,
    pub use_percent: Option<f64>,
    pub used_mib: Option<u64>,
    pub power_watts: Option<f64>,
    pub celsius: Option<f64>,
}

impl NodeView {
    pub fn new(config: &NodeConfig, assembled: Assembled, marks: Option<&NodeRow>, readings: &[Reading]) -> NodeView {
        let Assembled { node, remarks } = assembled;
        let (standing, reason) = match node.standing {
            Standing::Ready => ("ready", None),
            Standing::Cordoned => ("cordoned", None),
            Standing::Down(why) => ("down", Some(why)),
        };
        let is_worker = node.labels.get(BACKEND_LABEL).is_some_and(|kind| kind == BackendKind::Worker.name());
        let gpu = |gpu: &Gpu| GpuView::new(gpu, readings.iter().find(|reading| reading.uuid == gpu.id));
        NodeView {
            name: node.name,
            standing: standing.to_owned(),
            reason,
            is_cordoned: marks.is_some_and(|marks| marks.cordoned),
            connection: config.connection.clone(),
            is_worker,
            cluster: None,
            labels: node.labels,
            taints: node.taints.iter().map(ToString::to_string).collect(),
            cpu: node.cpu,
            memory_mib: node.memory_mib,
            resources: node.custom.clone(),
            gpus: node.gpus.iter().map(gpu).collect(),
            tasks: Vec::new(),
            remarks,
            seen_at: marks.and_then(|marks| marks.seen_at),
        }
    }

    /// The kind of its GPUs, as labelled.
    pub fn gpu_type(&self) -> &str {
        self.labels.get("gpu-type").map_or("", String::as_str)
    }

    /// The mean use of the devices that tell it, in percent.
    pub fn mean_use(&self) -> Option<f64> {
        let told: Vec<f64> = self.gpus.iter().filter_map(|gpu| gpu.use_percent).collect();
        if told.is_empty() { None } else { Some(told.iter().sum::<f64>() / told.len() as f64) }
    }

    /// Devices without a fault.
    pub fn usable_gpus(&self) -> usize {
        self.gpus.iter().filter(|gpu| gpu.fault.is_none()).count()
    }
}

impl GpuView {
    fn new(gpu: &Gpu, now: Option<&Reading>) -> GpuView {
        let instances = match &gpu.sharing {
            pitcrew_core::fleet::Sharing::Mig { instances } => {
                instances.iter().map(|instance| format!("{} {}", instance.profile, instance.id)).collect()
            }
            _ => Vec::new(),
        };
        GpuView {
            id: gpu.id.clone(),
            model: gpu.model.clone(),
            memory_mib: gpu.memory_mib,
            sharing: gpu.sharing.to_string(),
            isolation: gpu.sharing.isolation().to_owned(),
            fault: gpu.fault.clone(),
            instances,
            use_percent: now.and_then(|now| now.use_percent),
            used_mib: now.and_then(|now| now.used_mib),
            power_watts: now.and_then(|now| now.power_watts),
            celsius: now.and_then(|now| now.celsius),
        }
    }
}
