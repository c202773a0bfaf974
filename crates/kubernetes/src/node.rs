//! What an API server says of a node, as far as it matters here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::quantity::{milli, whole};

/// A node as its cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubeNode {
    pub name: String,
    /// Another one that is called the same has another.
    pub uid: String,
    /// Changes with everything that is written there.
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// It takes no new pods.
    pub is_cordoned: bool,
    /// `None`: it is ready; else what is said of it.
    pub unready: Option<String>,
    pub conditions: Vec<Condition>,
    pub boot_id: String,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Devices that pods can have.
    pub gpus: u32,
    /// Devices that it has, those that are unhealthy among them.
    pub gpus_in_all: u32,
}

/// What somebody found out about a node, such as the node problem detector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
    /// Since when it is so.
    #[serde(default)]
    pub last_transition_time: Option<Timestamp>,
}

impl Condition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// For people.
    pub fn words(&self) -> String {
        let said = [self.reason.trim(), self.message.trim()].join(": ");
        let said: String = said.trim_matches(|c| c == ':' || c == ' ').chars().take(300).collect();
        format!("{} is {}: {said}", self.kind, self.status).trim_end_matches([':', ' ']).to_owned()
    }
}

/// As the API server writes it.
#[derive(Deserialize)]
pub(crate) struct Raw {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    uid: String,
    resource_version: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    unschedulable: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    allocatable: BTreeMap<String, String>,
    capacity: BTreeMap<String, String>,
    conditions: Vec<Condition>,
    node_info: Info,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Info {
    #[serde(rename = "bootID")]
    boot_id: String,
}

impl Raw {
    /// `resource`: what GPUs are called, such as `nvidia.com/gpu`.
    pub fn read(self, resource: &str) -> KubeNode {
        let Raw { metadata, spec, status } = self;
        let count = |all: &BTreeMap<String, String>| all.get(resource).and_then(|text| whole(text)).unwrap_or(0);
        let gpus = u32::try_from(count(&status.allocatable)).unwrap_or(u32::MAX);
        let gpus_in_all = u32::try_from(count(&status.capacity)).unwrap_or(u32::MAX).max(gpus);
        let of = |name: &str| {
            status.allocatable.get(name).or_else(|| status.capacity.get(name)).cloned().unwrap_or_default()
        };
        let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
        let unready = match ready {
            Some(ready) if ready.is_true() => None,
            Some(other) => Some(other.words()),
            None => Some("nothing is said of whether it is ready".to_owned()),
        };
        KubeNode {
            name: metadata.name,
            uid: metadata.uid,
            version: metadata.resource_version,
            labels: metadata.labels,
            annotations: metadata.annotations,
            is_cordoned: spec.unschedulable,
            unready,
            boot_id: status.node_info.boot_id,
            cpu_milli: milli(&of("cpu")).unwrap_or(0),
            memory_mib: whole(&of("memory")).unwrap_or(0) >> 20,
            gpus,
            gpus_in_all,
            conditions: status.conditions,
        }
    }
}

impl KubeNode {
    /// A condition that somebody says is so.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind && condition.is_true())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read() {
        let conditions = json!([
            { "type": "GpuXid", "status": "True", "reason": "Xid79", "message": "fell off", "lastTransitionTime": "2024-05-01T00:00:00Z" },
            { "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting." }
        ]);
        let raw = json!({
            "metadata": { "name": "n1", "uid": "u", "resourceVersion": "7", "labels": { "a": "b" } },
            "spec": { "unschedulable": true },
            "status": {
                "capacity": { "cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "8" },
                "allocatable": { "cpu": "7500m", "memory": "15Gi", "nvidia.com/gpu": "7" },
                "conditions": conditions, "nodeInfo": { "bootID": "b-1" }
            }
        });
        let node = serde_json::from_value::<Raw>(raw).unwrap().read("nvidia.com/gpu");
        assert_eq!((node.gpus, node.gpus_in_all, node.cpu_milli, node.memory_mib), (7, 8, 7500, 15 * 1024));
        assert_eq!((node.boot_id.as_str(), node.is_cordoned), ("b-1", true));
        assert_eq!(node.unready.as_deref(), Some("Ready is Unknown: NodeStatusUnknown: Kubelet stopped posting."));
        assert_eq!(node.condition("GpuXid").unwrap().words(), "GpuXid is True: Xid79: fell off");
        assert!(node.condition("Ready").is_none());
        let bare = serde_json::from_value::<Raw>(json!({ "metadata": { "name": "n" } })).unwrap().read("x");
        assert_eq!((bare.gpus, bare.unready.is_some()), (0, true));
    }
}
