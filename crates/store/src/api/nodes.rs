//! What people did to nodes, and what was seen of them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    /// By name in order.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>> {
        ask!(self, nodes())
    }

    /// Reads little of many nodes, and nothing of those to which nothing was done.
    pub async fn marks(&self) -> Result<Marks> {
        ask!(self, marks())
    }

    /// Does something to a node; changes at the same time are all kept. Returns the row that then is.
    pub async fn change_node(&self, name: &str, change: NodeChange, mut audit: AuditEntry) -> Result<NodeRow> {
        normalise::name("node", name)?;
        for key in change.labels.keys().chain(change.taints.keys()) {
            normalise::name("label or taint", key)?;
        }
        normalise::audit(&mut audit);
        ask!(self, change_node(name, change, audit))
    }

    /// Notes what a node told of itself.
    pub async fn see_node(&self, name: &str, seen: &Value, mut at: Timestamp) -> Result<()> {
        normalise::name("node", name)?;
        normalise::time(&mut at);
        let mut seen = seen.clone();
        normalise::plain(&mut seen);
        let seen = &seen;
        ask!(self, see_node(name, seen, at))
    }

    /// What is under way on a node, the oldest first.
    pub async fn live_attempts_on(&self, node: &str) -> Result<Vec<RunAttempt>> {
        ask!(self, live_attempts_on(node))
    }

    /// The nodes on which something is under way.
    pub async fn used_nodes(&self) -> Result<BTreeSet<String>> {
        ask!(self, used_nodes())
    }

    /// What is under way in all runs, the oldest first, `limit` at most.
    pub async fn live_attempts(&self, limit: u32) -> Result<Vec<RunAttempt>> {
        ask!(self, live_attempts(limit))
    }

    /// Attempts that ended on a node, the newest first.
    pub async fn attempts_ended_on(&self, node: &str, limit: u32) -> Result<Vec<RunAttempt>> {
        ask!(self, attempts_ended_on(node, limit))
    }

    /// Adds a sample, and removes those of the node from before `keep`.
    pub async fn put_node_sample(&self, mut sample: NodeSample, mut keep: Timestamp) -> Result<()> {
        normalise::name("node", &sample.node)?;
        normalise::times([&mut sample.at, &mut keep]);
        ask!(self, put_node_sample(sample, keep))
    }

    /// The samples of a node, the oldest first.
    pub async fn node_samples(&self, node: &str) -> Result<Vec<NodeSample>> {
        ask!(self, node_samples(node))
    }
}
