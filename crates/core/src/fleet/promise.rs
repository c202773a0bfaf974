//! Nodes that are kept for those who wait, while others who come behind them are let past.
//!
//! Invariant: whoever is let past by [`Fleet::place_beside`] takes, on a promised node, nothing of what is asked for there,
//! unless enough of it is left for all that it is promised to. So whatever the others give back there, and in whatever
//! order, makes as much room as if nobody had passed. Time limits do not enter into that: they say by when somebody is gone
//! at the latest, and nobody knows when it is gone at the earliest. They only help to choose nodes that are free soon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::amount::Amount;
use super::gang::Gang;
use super::node::Node;
use super::place::{Fleet, Held, Lease, LeaseId, Refused};
use super::request::Request;
use super::room::{Device, Room, Taking, is_wanted};

/// What is kept on which nodes: of those before somebody, by whom it is asked.
#[derive(Debug, Clone, Default)]
pub struct Promises {
    /// One after the other.
    all: Vec<(BTreeSet<usize>, Arc<Request>)>,
    at: BTreeMap<usize, Vec<Arc<Request>>>,
    /// All other nodes are closed.
    only: Option<BTreeSet<usize>>,
}

impl Promises {
    /// From now on these nodes are kept for somebody who asks for this.
    pub fn keep(&mut self, nodes: &BTreeSet<usize>, request: &Arc<Request>) {
        nodes.iter().for_each(|at| self.at.entry(*at).or_default().push(request.clone()));
        self.all.push((nodes.clone(), request.clone()));
    }

    /// The same, and nothing goes to any other node than these.
    pub fn only(self, nodes: BTreeSet<usize>) -> Promises {
        Promises { only: Some(nodes), ..self }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The first so many of them.
    pub fn first(&self, count: usize) -> Promises {
        let mut first = Promises::default();
        self.all.iter().take(count).for_each(|(nodes, request)| first.keep(nodes, request));
        first
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    pub(super) fn on(&self, at: usize) -> &[Arc<Request>] {
        self.at.get(&at).map_or(&[], Vec::as_slice)
    }

    /// What the request can have of a node in this room of it; `None`: it does not fit, or not beside what is kept.
    pub(super) fn beside(&self, at: usize, node: &Node, room: &Room, request: &Request) -> Option<Taking> {
        let taking = room.fits(node, request).ok()?;
        let kept = self.on(at);
        if kept.is_empty() {
            return Some(taking);
        }
        let is_spare = |devices: &[Device]| leaves(node, room, request, devices, kept);
        match taking {
            Taking::These(devices) => is_spare(&devices).then_some(Taking::These(devices)),
            Taking::Whole(count) => is_spare(&room.whole(node, request, count)).then_some(Taking::Whole(count)),
            Taking::OneOf(mut parts) => {
                parts.retain(|(gpu, part)| is_spare(&[Device::share(*gpu, *part)]));
                (!parts.is_empty()).then_some(Taking::OneOf(parts))
            }
        }
    }
}

/// Whether the request takes nothing of the node's room that is asked for by those for whom it is kept, or leaves enough
/// for all of them; each thing by itself.
fn leaves(node: &Node, room: &Room, request: &Request, devices: &[Device], kept: &[Arc<Request>]) -> bool {
    let mut left = room.clone();
    left.change(request, devices, true);
    let cores: Amount = kept.iter().map(|one| one.cpu).sum();
    let memory = kept.iter().fold(0i64, |sum, one| sum.saturating_add_unsigned(one.memory_mib));
    let custom = |name: &String| kept.iter().filter_map(|one| one.custom.get(name).copied()).sum::<Amount>();
    (request.cpu.is_zero() || left.cpu >= cores)
        && (request.memory_mib == 0 || left.memory_mib >= memory)
        && left.slots.is_none_or(|slots| slots >= kept.len() as i64)
        && request.custom.iter().all(|(name, asked)| asked.is_zero() || left.custom(name) >= custom(name))
        && (!devices.iter().any(|device| kept.iter().any(|one| is_wanted(node, *device, one)))
            || has_gpus(node, left, kept))
}

/// Whether the room has GPUs for all of these.
fn has_gpus(node: &Node, mut room: Room, all: &[Arc<Request>]) -> bool {
    all.iter().all(|request| {
        let devices = match room.gpus_for(node, request) {
            Ok(Taking::These(devices)) => devices,
            Ok(Taking::Whole(count)) => room.whole(node, request, count),
            // The fullest that will do.
            Ok(Taking::OneOf(parts)) => {
                let fullest = parts.into_iter().min_by_key(|(gpu, _)| room.gpus[*gpu].share());
                fullest.map(|(gpu, part)| Device::share(gpu, part)).into_iter().collect()
            }
            Err(_) => return false,
        };
        room.change(&Request::default(), &devices, true);
        true
    })
}

impl Fleet {
    /// Nodes for the request, or for each member of a gang that asks for it, beside what is promised already: those that
    /// have room soonest, as far as `ends` says when somebody is gone. `None`: there are not as many that could take it.
    pub fn promised(
        &self,
        request: &Request,
        gang: Option<&Gang>,
        promises: &Promises,
        ends: impl Fn(&LeaseId) -> Option<Timestamp>,
    ) -> Option<BTreeSet<usize>> {
        let mut leases: BTreeMap<usize, Vec<(Timestamp, &Lease)>> = BTreeMap::new();
        for (id, lease) in self.leases() {
            if let Some(at) = self.at(&lease.node) {
                leases.entry(at).or_default().push((ends(id).unwrap_or(Timestamp::MAX), lease));
            }
        }
        // By when it has room, and how many have to be gone by then.
        let wait = |at: usize, held: &Held| -> Option<(Timestamp, usize)> {
            promises.beside(at, &held.node, &Room::of(&held.node), request)?;
            let mut room = held.room.clone();
            let mut going = leases.get(&at).cloned().unwrap_or_default();
            going.sort_by_key(|(end, _)| *end);
            let mut wait = (Timestamp::MIN, 0);
            for (end, lease) in going {
                if promises.beside(at, &held.node, &room, request).is_some() {
                    break;
                }
                room.change(&lease.request, &lease.devices, false);
                wait = (end, wait.1 + 1);
            }
            Some(wait)
        };
        let waits = self.nodes.iter().enumerate().filter_map(|(at, held)| Some((wait(at, held)?, at)));
        let mut waits: Vec<((Timestamp, usize), usize)> = waits.collect();
        waits.sort_unstable();
        self.first_near(gang, waits.into_iter().map(|(_, at)| at))
    }

    /// The nodes of these names that could take the request, were they empty.
    pub fn able(&self, names: &BTreeSet<String>, request: &Request) -> BTreeSet<usize> {
        let could = |at: &usize| Room::of(&self.nodes[*at].node).fits(&self.nodes[*at].node, request).is_ok();
        names.iter().filter_map(|name| self.at(name)).filter(could).collect()
    }

    pub fn names(&self, nodes: &BTreeSet<usize>) -> BTreeSet<String> {
        nodes.iter().map(|at| self.nodes[*at].node.name.clone()).collect()
    }

    /// Places a request where that keeps what is promised.
    pub fn place_beside(&mut self, id: LeaseId, request: &Request, promises: &Promises) -> Result<&Lease, Refused> {
        if self.leases().contains_key(&id) {
            return Err(Refused::Twice(id));
        }
        request.check()?;
        let closed = self.closed(request, promises);
        let Some(at) = self.best(request, |at| !closed.contains(&at)) else { return Err(Refused::Full) };
        Ok(self.take(id, at, request, promises))
    }

    /// The promised nodes that the request would take something from.
    pub(super) fn closed(&self, request: &Request, promises: &Promises) -> BTreeSet<usize> {
        let is_closed = |at: &usize| {
            let held = &self.nodes[*at];
            promises.beside(*at, &held.node, &held.room, request).is_none()
        };
        let mut closed: BTreeSet<usize> = promises.at.keys().copied().filter(is_closed).collect();
        if let Some(only) = &promises.only {
            closed.extend((0..self.nodes.len()).filter(|at| !only.contains(at)));
        }
        closed
    }

    /// Whether the request, or each member of a gang that asks for it, has room beside what is promised.
    pub fn has_beside(&self, request: &Request, gang: Option<&Gang>, promises: &Promises) -> bool {
        let closed = self.closed(request, promises);
        let fits = |held: &Held| held.room.fits(&held.node, request).is_ok();
        let fitting = self.those(fits).difference(&closed).copied().collect();
        self.suffices(gang, &fitting)
    }
}
