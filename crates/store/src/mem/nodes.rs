//! Nodes in memory.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{Mem, State};
use crate::error::Result;
use crate::types::*;

impl Mem {
    pub fn nodes(&self) -> Result<Vec<NodeRow>> {
        Ok(self.lock().nodes.values().cloned().collect())
    }

    pub fn marks(&self) -> Result<Marks> {
        let state = self.lock();
        let done = |row: &&NodeRow| row.cordoned || !row.labels.is_empty() || !row.taints.is_empty();
        let nodes = state.nodes.values().filter(done);
        let nodes = nodes.map(|row| format!("{}\n{}\n{:?}\n{:?}", row.name, row.cordoned, row.labels, row.taints));
        let workers = state.workers.values().filter(|row| row.revoked.is_none());
        let workers = workers.map(|row| format!("{}\n{}\n{}\n{}", row.id, row.name, row.drain, row.about));
        Ok(Marks(nodes.chain(workers).collect()))
    }

    pub fn change_node(&self, name: &str, change: NodeChange, audit: AuditEntry) -> Result<NodeRow> {
        let mut state = self.lock();
        let row = state.node(name);
        row.apply(change);
        let row = row.clone();
        state.write_audit([audit]);
        Ok(row)
    }

    pub fn see_node(&self, name: &str, seen: &Value, at: Timestamp) -> Result<()> {
        let mut state = self.lock();
        let row = state.node(name);
        (row.seen, row.seen_at) = (seen.clone(), Some(at));
        Ok(())
    }

    pub fn live_attempts(&self, limit: u32) -> Result<Vec<RunAttempt>> {
        let state = self.lock();
        let live = attempts(&state).filter(|attempt| attempt.attempt.exit.is_none());
        Ok(live.take(limit as usize).collect())
    }

    pub fn live_attempts_on(&self, node: &str) -> Result<Vec<RunAttempt>> {
        let state = self.lock();
        let live = attempts(&state).filter(|attempt| attempt.attempt.exit.is_none());
        Ok(live.filter(|attempt| attempt.attempt.node.as_deref() == Some(node)).collect())
    }

    pub fn used_nodes(&self) -> Result<BTreeSet<String>> {
        let state = self.lock();
        let live = attempts(&state).filter(|attempt| attempt.attempt.exit.is_none());
        Ok(live.filter_map(|attempt| attempt.attempt.node).collect())
    }

    pub fn attempts_ended_on(&self, node: &str, limit: u32) -> Result<Vec<RunAttempt>> {
        let state = self.lock();
        let there = |of: &RunAttempt| of.attempt.node.as_deref() == Some(node) && of.attempt.end.is_some();
        let mut all: Vec<RunAttempt> = attempts(&state).filter(there).collect();
        all.sort_by(|a, b| {
            let newest = (b.attempt.end, b.run).cmp(&(a.attempt.end, a.run));
            let place = |of: &RunAttempt| (of.attempt.task.clone(), of.attempt.map_index, Reverse(of.attempt.number));
            newest.then_with(|| place(a).cmp(&place(b)))
        });
        all.truncate(limit as usize);
        Ok(all)
    }

    pub fn put_node_sample(&self, sample: NodeSample, keep: Timestamp) -> Result<()> {
        let samples = &mut self.lock().node_samples;
        samples.retain(|(node, at), _| *node != sample.node || *at >= keep);
        samples.insert((sample.node, sample.at), sample.sample);
        Ok(())
    }

    pub fn node_samples(&self, node: &str) -> Result<Vec<NodeSample>> {
        let state = self.lock();
        let all = state.node_samples.iter().filter(|((name, _), _)| name == node);
        let row = |((node, at), sample): (&(String, Timestamp), &Value)| NodeSample {
            node: node.clone(),
            at: *at,
            sample: sample.clone(),
        };
        Ok(all.map(row).collect())
    }
}

impl super::State {
    fn node(&mut self, name: &str) -> &mut NodeRow {
        let new = || NodeRow { name: name.to_owned(), ..NodeRow::default() };
        self.nodes.entry(name.to_owned()).or_insert_with(new)
    }
}

/// Every attempt, with its run.
fn attempts(state: &State) -> impl Iterator<Item = RunAttempt> {
    let all = state.runs.values().flat_map(|run| run.attempts.values().map(move |attempt| (&run.record, attempt)));
    all.map(|(run, attempt)| RunAttempt {
        run: run.key,
        workflow: run.workflow.clone(),
        run_id: run.run_id.clone(),
        attempt: attempt.clone(),
    })
}
