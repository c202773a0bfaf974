//! What people did to nodes, and what was seen of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::id::{RunId, RunKey, WorkflowId};
use serde_json::Value;

/// A node as the store knows it; what it should have stands in the configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeRow {
    pub name: String,
    /// Somebody said that it takes no new work.
    pub cordoned: bool,
    /// By key; `None` takes away one of the configuration.
    pub labels: BTreeMap<String, Option<String>>,
    /// The value by key and effect, such as `gpu:NoSchedule`; `None` takes away one of the configuration.
    pub taints: BTreeMap<String, Option<String>>,
    /// What it last told of itself; null before it did.
    pub seen: Value,
    pub seen_at: Option<Timestamp>,
}

/// What people and other servers have done to nodes, and who the workers are: as text, for whoever only wants to know whether
/// anything is other than it was. What nodes told of themselves is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(pub(crate) Vec<String>);

/// What somebody does to a node. What is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub cordoned: Option<bool>,
    pub labels: BTreeMap<String, Option<String>>,
    pub taints: BTreeMap<String, Option<String>>,
}

impl NodeRow {
    /// The row after a change.
    pub fn apply(&mut self, change: NodeChange) {
        self.cordoned = change.cordoned.unwrap_or(self.cordoned);
        self.labels.extend(change.labels);
        self.taints.extend(change.taints);
    }
}

/// An attempt, with the run that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct RunAttempt {
    pub run: RunKey,
    pub workflow: WorkflowId,
    pub run_id: RunId,
    pub attempt: AttemptRecord,
}

/// The use of a node's devices over some minutes.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSample {
    pub node: String,
    pub at: Timestamp,
    pub sample: Value,
}
