//! Ends what runs on nodes with a taint that it does not tolerate (`NoExecute`): it begins anew elsewhere, which draws on none of
//! its retries.
//!
//! What a taint ends later (`tolerationSeconds`) is counted from when this server first saw the taint, or from the start of the attempt
//! if that is later; a server that takes over counts anew.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::engine::{Event, Slot};
use pitcrew_core::fleet::{Effect, Node, Taint, ends};

use super::active::Active;
use super::core_loop::Core;
use crate::clock;

/// Nodes with taints that end something.
#[derive(Default)]
pub(super) struct Tainted {
    nodes: BTreeMap<String, Vec<(Taint, Timestamp)>>,
    /// When the next attempt has to end.
    due: Option<Timestamp>,
}

impl Tainted {
    /// The nodes as they are now.
    pub fn take(&mut self, nodes: &[Node], now: Timestamp) {
        let before = std::mem::take(&mut self.nodes);
        for node in nodes {
            let since = |taint: &Taint| {
                let known = before.get(&node.name).into_iter().flatten().find(|(before, _)| before == taint);
                (taint.clone(), known.map_or(now, |(_, since)| *since))
            };
            let ending = node.taints.iter().filter(|taint| taint.effect == Effect::NoExecute);
            let all: Vec<_> = ending.map(since).collect();
            if !all.is_empty() {
                self.nodes.insert(node.name.clone(), all);
            }
        }
    }

    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// When an attempt has to leave its node, and why; `None`: it may stay.
    fn end(&self, active: &Active, slot: Slot) -> Option<(Timestamp, String)> {
        let row = active.attempts.get(&slot)?;
        let instance = active.run.get(slot)?;
        if !instance.state.is_live() || instance.stop.is_some() {
            return None;
        }
        let node = row.node.as_deref()?;
        let (taints, times): (Vec<Taint>, Vec<Timestamp>) = self.nodes.get(node)?.iter().cloned().unzip();
        let ends = ends(&taints, &active.run.workflow.task(slot.task).placement.tolerations)?;
        let at = taints.iter().position(|taint| *taint == ends.taint)?;
        let since = row.start.map_or(times[at], |start| start.max(times[at]));
        let why = match ends.after.as_secs() {
            0 => format!("its node `{node}` has the taint `{}`, which it does not tolerate", ends.taint),
            seconds => format!("its node `{node}` has the taint `{}`, which it tolerates for {seconds} s", ends.taint),
        };
        Some((since.checked_add(ends.after).unwrap_or(Timestamp::MAX), why))
    }
}

impl Core {
    /// Ends what has to end by now, and finds out when the next has to.
    pub(super) fn evict(&mut self) {
        self.tainted.due = None;
        if self.tainted.nodes.is_empty() {
            return;
        }
        let now = clock::now();
        let mut leaving: Vec<(RunKey, Slot, String)> = Vec::new();
        for (key, active) in &self.runs {
            for slot in active.attempts.keys() {
                match self.tainted.end(active, *slot) {
                    Some((at, why)) if at <= now => leaving.push((*key, *slot, why)),
                    Some((at, _)) => self.tainted.due = Some(self.tainted.due.map_or(at, |due| due.min(at))),
                    None => {}
                }
            }
        }
        for (key, slot, reason) in leaving {
            tracing::info!(run = key.0, "an attempt of run {key} has to end: {reason}");
            self.apply(key, Event::Preempt { slot, reason });
        }
    }

    /// An attempt has begun on a node, perhaps on one that it may not stay on for ever.
    pub(super) fn begins_on_node(&mut self, key: RunKey, slot: Slot) {
        let end = self.runs.get(&key).and_then(|active| self.tainted.end(active, slot));
        if let Some((at, _)) = end {
            self.tainted.due = Some(self.tainted.due.map_or(at, |due| due.min(at)));
        }
    }
}
