//! Jobs of several members that start together or not at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::place::{Fleet, LeaseId, Refused};
use super::request::Request;

/// Members, each of which gets a lease; all of them, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gang {
    /// The name of each member's lease, and what it asks for.
    pub members: Vec<(LeaseId, Request)>,
    #[serde(default)]
    pub topology: Option<Topology>,
}

/// Nodes with the same value of this label are near each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub label: String,
    /// Otherwise nodes that are further apart will do when there is no other way.
    pub is_required: bool,
}

impl Fleet {
    /// Places all members, near each other if asked to.
    ///
    /// Of groups of near nodes that take all, the one is chosen that is left with the least idle GPUs: so that a small
    /// gang does not break up a large group.
    pub fn place_gang(&mut self, gang: &Gang) -> Result<(), Refused> {
        for (at, (id, request)) in gang.members.iter().enumerate() {
            request.check()?;
            let is_twice = gang.members[..at].iter().any(|(other, _)| other == id);
            if is_twice || self.leases().contains_key(id) {
                return Err(Refused::Twice(id.clone()));
            }
        }
        let Some(topology) = &gang.topology else { return self.place_members(gang, None) };
        let mut groups: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (at, held) in self.nodes.iter().enumerate() {
            if let Some(value) = held.node.labels.get(&topology.label) {
                groups.entry(value.clone()).or_default().insert(at);
            }
        }
        let idle = |group: &BTreeSet<usize>| group.iter().map(|at| self.nodes[*at].room.idle_gpus()).sum();
        let mut groups: Vec<(super::Amount, BTreeSet<usize>)> =
            groups.into_values().map(|group| (idle(&group), group)).collect();
        groups.sort_by_key(|(idle, _)| *idle);
        if groups.iter().any(|(_, group)| self.place_members(gang, Some(group)).is_ok()) {
            return Ok(());
        }
        match topology.is_required {
            true => Err(Refused::Full),
            false => self.place_members(gang, None),
        }
    }

    /// The largest first: what is left over suits the small.
    fn place_members(&mut self, gang: &Gang, within: Option<&BTreeSet<usize>>) -> Result<(), Refused> {
        let mut order: Vec<&(LeaseId, Request)> = gang.members.iter().collect();
        order.sort_by_key(|(_, request)| std::cmp::Reverse(request.size()));
        for (placed, (id, request)) in order.iter().enumerate() {
            match self.best(request, |at| within.is_none_or(|group| group.contains(&at))) {
                Some(at) => {
                    self.take(id.clone(), at, request);
                }
                None => {
                    for (id, _) in &order[..placed] {
                        self.release(id);
                    }
                    return Err(self.refusal(request));
                }
            }
        }
        Ok(())
    }
}
