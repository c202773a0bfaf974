//! What runs on which node: read off the attempts that are under way, so that it holds for every server of a database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::Exit;
use pitcrew_exec::{Handle, Place};
use pitcrew_store::{RunAttempt, Store, StoreError};
use serde::{Deserialize, Serialize};

use super::NodeView;
use crate::links;

/// Attempts that are looked at.
const MOST: u32 = 10_000;

/// A task that is under way on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOnNode {
    pub run: RunKey,
    pub workflow: String,
    pub run_id: String,
    pub task: String,
    /// -1: it is not mapped.
    pub map_index: i32,
    pub attempt: u32,
    pub since: Option<Timestamp>,
    /// When it ended, and how; of one that did.
    #[serde(skip)]
    pub over: Option<(Timestamp, Exit)>,
    /// The devices that it holds.
    pub gpus: Vec<String>,
    /// It was placed there. Others asked for nothing of a node, and are there whether it takes work or not.
    #[serde(default = "yes")]
    pub is_placed: bool,
    /// Its page.
    pub page: String,
}

/// The tasks on each of these nodes, by its name.
pub async fn tasks(store: &Store, nodes: &[NodeView]) -> Result<BTreeMap<String, Vec<TaskOnNode>>, StoreError> {
    let mut all: BTreeMap<String, Vec<TaskOnNode>> = BTreeMap::new();
    for live in store.live_attempts(MOST).await? {
        if let Some(node) = node_of(&live, nodes) {
            all.entry(node.name.clone()).or_default().push(task(live));
        }
    }
    Ok(all)
}

/// Where it was placed; of one that asked for nothing, by how it got there.
fn node_of<'n>(live: &RunAttempt, nodes: &'n [NodeView]) -> Option<&'n NodeView> {
    let attempt = &live.attempt;
    if let Some(name) = &attempt.node {
        return nodes.iter().find(|node| node.name == *name);
    }
    let holds = |node: &&NodeView| {
        let devices = |id: &String| {
            node.gpus.iter().any(|gpu| gpu.id == *id || gpu.instances.iter().any(|i| i.ends_with(id.as_str())))
        };
        attempt.gpus.iter().any(devices)
    };
    if attempt.backend != "local" {
        let handle: Handle = serde_json::from_value(attempt.handle.clone()).ok()?;
        let Some(Place::Ssh(place)) = handle.place else { return None };
        return nodes.iter().find(|node| node.connection.is_some() && node.connection == place.connection);
    }
    nodes.iter().find(holds).or_else(|| nodes.iter().find(|node| node.connection.is_none() && !node.is_worker))
}

/// The tasks whose attempts ended on a node, the newest first.
pub async fn ended(store: &Store, node: &str, most: u32) -> Result<Vec<TaskOnNode>, StoreError> {
    Ok(store.attempts_ended_on(node, most).await?.into_iter().map(task).collect())
}

/// Of servers that do not tell.
fn yes() -> bool {
    true
}

fn task(of: RunAttempt) -> TaskOnNode {
    let RunAttempt { run, workflow, run_id, attempt } = of;
    TaskOnNode {
        run,
        page: links::task(&workflow, &run_id, &attempt.task, attempt.map_index),
        workflow: workflow.to_string(),
        run_id: run_id.to_string(),
        task: attempt.task.to_string(),
        map_index: attempt.map_index,
        attempt: attempt.number,
        since: attempt.start,
        over: attempt.end.zip(attempt.exit),
        // Rows from before there were nodes have devices alone.
        is_placed: attempt.node.is_some() || !attempt.gpus.is_empty(),
        gpus: attempt.gpus,
    }
}

impl TaskOnNode {
    /// `train`, or `train[3]`.
    pub fn name(&self) -> String {
        if self.map_index == UNMAPPED { self.task.clone() } else { format!("{}[{}]", self.task, self.map_index) }
    }
}
