//! Several members that ask for the same, each on a node of its own: all of them are placed, or none.
//!
//! Invariant: what is looked for is a set of nodes, so the order in which members are placed never matters. Whether a set
//! of nodes will do is answered by [`Fleet::suffices`] alone, for one request as for a gang.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Amount;
use super::place::{Fleet, Held, LeaseId, Refused};
use super::promise::Promises;
use super::request::Request;

/// Members that begin together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gang {
    /// How many members there are, and so nodes.
    pub count: u32,
    #[serde(default)]
    pub topology: Option<Topology>,
    /// Their backend finds the machines, which are none of those that are given out here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_elsewhere: bool,
}

/// Nodes with the same value of this label are near each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Topology {
    pub label: String,
    /// Otherwise nodes that are further apart will do when there is no other way.
    pub is_required: bool,
}

impl Gang {
    /// So many members wherever there is room.
    pub fn of(count: u32) -> Gang {
        Gang { count, topology: None, is_elsewhere: false }
    }

    /// The label that all of its nodes have to agree in.
    fn must_share(&self) -> Option<&str> {
        self.topology.as_ref().filter(|topology| topology.is_required).map(|topology| topology.label.as_str())
    }
}

fn first(count: usize, ranked: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
    let nodes: Vec<usize> = ranked.take(count).collect();
    (nodes.len() == count).then_some(nodes)
}

impl Fleet {
    /// A lease for each of these, one node each; beside what is promised to somebody, if anything is.
    ///
    /// Of groups of near nodes that take all, the one is chosen that is left with the least idle GPUs: so that a small
    /// gang does not break up a large group. Members that follow each other are near each other, since those talk most: where
    /// the nodes are of several groups, the names go through one group after the other, the one with the most of the
    /// nodes first, and within each by the names of nodes.
    pub fn place_gang(
        &mut self,
        ids: &[LeaseId],
        request: &Request,
        gang: &Gang,
        promises: &Promises,
    ) -> Result<(), Refused> {
        request.check()?;
        let mut names = BTreeSet::new();
        for id in ids {
            if !names.insert(id) || self.leases().contains_key(id) {
                return Err(Refused::Twice(id.clone()));
            }
        }
        let closed = self.closed(request, promises);
        let mut ranked = self.ranked(request);
        ranked.retain(|at| !closed.contains(at));
        let groups = match &gang.topology {
            Some(topology) => self.groups(&topology.label, &ranked),
            None => Vec::new(),
        };
        let near = groups.into_iter().filter(|group| group.len() >= ids.len()).find_map(|group| {
            let ranked = ranked.iter().copied().filter(|at| group.contains(at));
            first(ids.len(), ranked)
        });
        let found = match near {
            None if gang.must_share().is_none() => first(ids.len(), ranked.iter().copied()),
            near => near,
        };
        let Some(mut nodes) = found else {
            return Err(if self.could_ever(request, Some(gang)) { Refused::Full } else { Refused::Never });
        };
        nodes.sort_unstable();
        if let Some(topology) = &gang.topology {
            self.put_together(&topology.label, &mut nodes);
        }
        for (id, at) in ids.iter().zip(nodes) {
            self.take(id.clone(), at, request, promises);
        }
        Ok(())
    }

    /// Orders nodes by group, those without one last.
    fn put_together(&self, label: &str, nodes: &mut [usize]) {
        let value = |at: usize| self.nodes[at].node.labels.get(label).map(String::as_str);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for value in nodes.iter().filter_map(|at| value(*at)) {
            *counts.entry(value).or_default() += 1;
        }
        nodes.sort_by_key(|at| {
            let group = value(*at).map(|value| (Reverse(counts[value]), value));
            (group.is_none(), group)
        });
    }

    /// The first of these nodes that are as many as are needed, and near each other where that is required: of all near
    /// ones, those that are complete first.
    pub(super) fn first_near(
        &self,
        gang: Option<&Gang>,
        ranked: impl IntoIterator<Item = usize>,
    ) -> Option<BTreeSet<usize>> {
        let count = gang.map_or(1, |gang| gang.count as usize);
        let label = gang.and_then(Gang::must_share);
        let mut groups: BTreeMap<Option<&str>, BTreeSet<usize>> = BTreeMap::new();
        for at in ranked {
            let value = label.and_then(|label| self.nodes[at].node.labels.get(label)).map(String::as_str);
            if label.is_some() && value.is_none() {
                continue;
            }
            let group = groups.entry(value).or_default();
            group.insert(at);
            if group.len() == count {
                return groups.remove(&value);
            }
        }
        None
    }

    /// The nodes of each value of a label, the group with the least idle GPUs first.
    fn groups(&self, label: &str, among: &[usize]) -> Vec<BTreeSet<usize>> {
        let mut groups: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for at in among {
            if let Some(value) = self.nodes[*at].node.labels.get(label) {
                groups.entry(value).or_default().insert(*at);
            }
        }
        let idle = |value: &str| -> Amount {
            let near = |held: &&Held| held.node.labels.get(label).is_some_and(|other| other == value);
            self.nodes.iter().filter(near).map(|held| held.room.idle_gpus()).sum()
        };
        let mut groups: Vec<(Amount, BTreeSet<usize>)> =
            groups.into_iter().map(|(value, group)| (idle(value), group)).collect();
        groups.sort_by_key(|(idle, _)| *idle);
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Whether these nodes are as many as are needed, and near each other where that is required. Without a gang, one
    /// is enough.
    pub fn suffices(&self, gang: Option<&Gang>, nodes: &BTreeSet<usize>) -> bool {
        self.most_near(gang, nodes) >= gang.map_or(1, |gang| gang.count as usize)
    }

    /// The most of these nodes that one gang could have.
    fn most_near(&self, gang: Option<&Gang>, nodes: &BTreeSet<usize>) -> usize {
        let Some(label) = gang.and_then(Gang::must_share) else { return nodes.len() };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for value in nodes.iter().filter_map(|at| self.nodes[*at].node.labels.get(label)) {
            *counts.entry(value).or_default() += 1;
        }
        counts.into_values().max().unwrap_or_default()
    }

    /// How many members would find a node now, and how many could ever: those near each other, where that is required.
    pub fn places(&self, request: &Request, gang: &Gang) -> (usize, usize) {
        let now = self.those(|held| held.room.fits(&held.node, request).is_ok());
        let ever = self.those(|held| held.could_ever(request));
        (self.most_near(Some(gang), &now), self.most_near(Some(gang), &ever))
    }

    /// The nodes of which this is true.
    pub(super) fn those(&self, is_one: impl Fn(&Held) -> bool) -> BTreeSet<usize> {
        self.nodes.iter().enumerate().filter(|(_, held)| is_one(held)).map(|(at, _)| at).collect()
    }
}
