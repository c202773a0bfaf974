//! Whose leases have to be given back so that a request finds room.

use std::collections::{BTreeMap, BTreeSet};

use super::place::{Fleet, LeaseId};
use super::request::Request;

impl Fleet {
    /// Of the leases that may be ended, the cheapest first, those that have to be so that the request has room; `None`: not
    /// even all of them would do. Empty: those that are `going` already give enough.
    ///
    /// One node has to hold the request, so each node is looked at for itself. Of two nodes, the one is taken whose dearest
    /// victim is cheaper, then the one with fewer.
    pub fn victims(&self, request: &Request, going: &BTreeSet<LeaseId>, may: &[LeaseId]) -> Option<Vec<LeaseId>> {
        let mut by_node: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (cost, id) in may.iter().enumerate() {
            let lease = self.leases().get(id);
            if let Some(at) = lease.and_then(|lease| self.at(&lease.node)) {
                by_node.entry(at).or_default().push(cost);
            }
        }
        let mut best: Option<Vec<usize>> = None;
        for (at, held) in self.nodes.iter().enumerate() {
            let mut room = held.room.clone();
            for lease in going.iter().filter_map(|id| self.leases().get(id)).filter(|l| l.node == held.node.name) {
                room.change(&lease.request, &lease.devices, false);
            }
            if room.fits(&held.node, request).is_ok() {
                return Some(Vec::new());
            }
            let mut chosen = Vec::new();
            for cost in by_node.remove(&at).unwrap_or_default() {
                let lease = &self.leases()[&may[cost]];
                room.change(&lease.request, &lease.devices, false);
                chosen.push(cost);
                if room.fits(&held.node, request).is_ok() {
                    break;
                }
            }
            if room.fits(&held.node, request).is_err() {
                continue;
            }
            // Not all of them were in its way: the dearest are spared first.
            for cost in chosen.clone().into_iter().rev() {
                let lease = &self.leases()[&may[cost]];
                room.change(&lease.request, &lease.devices, true);
                if room.fits(&held.node, request).is_ok() {
                    chosen.retain(|kept| *kept != cost);
                } else {
                    room.change(&lease.request, &lease.devices, false);
                }
            }
            let worth = |chosen: &Vec<usize>| (chosen.iter().max().copied(), chosen.len());
            if best.as_ref().is_none_or(|best| worth(&chosen) < worth(best)) {
                best = Some(chosen);
            }
        }
        Some(best?.into_iter().map(|cost| may[cost].clone()).collect())
    }
}
