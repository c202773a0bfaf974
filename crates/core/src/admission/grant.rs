//! The choice of who starts now.
//!
//! One pass over the heads of all lines, the best first. Invariant: a line whose head finds no room is left alone for the
//! rest of the pass, so a pass costs what it grants and as many tries as there are lines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Admission, Grant, Held, Holder, Line, Placed, Preemption, Rank, lease_id};
use crate::fleet::{LeaseId, Promise, Request};

impl Admission {
    /// Grants what fits now, best first. Each grant is told to its run, as [`Event::Admitted`], before the run takes
    /// any event that could take the offer back.
    ///
    /// [`Event::Admitted`]: crate::engine::Event::Admitted
    pub fn grant(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        if std::mem::replace(&mut self.is_settled, true) {
            return grants;
        }
        let heads = self.lines.iter().filter_map(|(line, ranks)| Some((self.head(line, ranks)?, line.clone())));
        let mut heads: BTreeMap<Rank, Arc<Line>> = heads.collect();
        let mut lacking: BTreeSet<String> = BTreeSet::new();
        let mut promise: Option<Promise> = None;
        while (self.held.len() as u32) < self.parallelism {
            let Some((rank, line)) = heads.pop_first() else { break };
            if lacking.contains(&line.pool) {
                continue;
            }
            if self.lacks_slots(rank.1) {
                lacking.insert(line.pool.clone());
                continue;
            }
            let Some(placed) = self.place(rank.1, &line, &mut promise) else { continue };
            let candidate = self.candidates[&rank.1].clone();
            self.withdraw(rank.1.run, rank.1.slot);
            let held = Held {
                pool: line.pool.clone(),
                slots: candidate.slots,
                is_placed: placed.is_some(),
                number: self.granted,
                priority: rank.0.0,
                is_preemptible: candidate.is_preemptible,
                is_ending: false,
            };
            self.take(rank.1, held);
            grants.push(Grant { holder: rank.1, placed, demand: candidate.demand });
            if let Some(next) = self.lines.get(&line).and_then(|ranks| self.head(&line, ranks)) {
                heads.insert(next, line);
            }
        }
        // What was withdrawn above is what was granted.
        self.is_settled = true;
        grants
    }

    /// The lease of a candidate, if it asks for one; `None`: it has to wait.
    fn place(&mut self, holder: Holder, line: &Line, promise: &mut Option<Promise>) -> Option<Option<Placed>> {
        let Some(request) = &line.request else { return Some(None) };
        if let Ok(lease) = self.fleet.place_beside(lease_id(holder), request, promise.as_mut()) {
            return Some(Some(Placed { node: lease.node.clone(), gpus: lease.ids.clone() }));
        }
        // What no node takes as it is now has no room to be kept for.
        if promise.is_none() && self.fleet.could_now(request) {
            let since = match self.promised {
                Some((before, since)) if before == holder => since,
                _ => self.granted,
            };
            self.promised = Some((holder, since));
            self.make_room(holder, request);
            let later = self.held.iter().filter(|(_, held)| held.is_placed && held.number >= since);
            let later: BTreeSet<LeaseId> = later.map(|(holder, _)| lease_id(*holder)).collect();
            *promise = Some(self.fleet.promise(request, |lease| later.contains(lease)));
        }
        None
    }

    /// Who has to end since it was asked last; each is told once, as [`Event::Preempt`].
    ///
    /// [`Event::Preempt`]: crate::engine::Event::Preempt
    pub fn preemptions(&mut self) -> Vec<Preemption> {
        std::mem::take(&mut self.preemptions)
    }

    /// Lets the cheapest end that have a lower priority: the lowest first, and of those the youngest, which lose least.
    fn make_room(&mut self, by: Holder, request: &Request) {
        let priority = self.candidates[&by].rank.0.0;
        let may = |held: &Held| held.is_placed && held.is_preemptible && !held.is_ending && held.priority < priority;
        let mut may: Vec<(&Holder, &Held)> = self.held.iter().filter(|(_, held)| may(held)).collect();
        if may.is_empty() {
            return;
        }
        may.sort_by_key(|(_, held)| (held.priority, Reverse(held.number)));
        let holders: BTreeMap<LeaseId, Holder> = may.iter().map(|(holder, _)| (lease_id(**holder), **holder)).collect();
        let may: Vec<LeaseId> = may.into_iter().map(|(holder, _)| lease_id(*holder)).collect();
        let going = self.held.iter().filter(|(_, held)| held.is_placed && held.is_ending);
        let going: BTreeSet<LeaseId> = going.map(|(holder, _)| lease_id(*holder)).collect();
        for victim in self.fleet.victims(request, &going, &may).unwrap_or_default() {
            let victim = holders[&victim];
            if let Some(held) = self.held.get_mut(&victim) {
                held.is_ending = true;
            }
            self.preemptions.push(Preemption { victim, by });
        }
    }

    /// The first of a line that its pool could ever serve.
    fn head(&self, line: &Line, ranks: &BTreeSet<Rank>) -> Option<Rank> {
        let pool = &self.pools[&line.pool];
        if pool.slots == 0 {
            return None;
        }
        ranks.iter().find(|(_, holder)| self.candidates[holder].slots <= pool.slots).copied()
    }

    fn lacks_slots(&self, holder: Holder) -> bool {
        let candidate = &self.candidates[&holder];
        let pool = &self.pools[&candidate.line.pool];
        pool.used + candidate.slots > pool.slots
    }

    pub(super) fn take(&mut self, holder: Holder, held: Held) {
        self.pools.entry(held.pool.clone()).or_default().used += held.slots;
        self.granted += 1;
        self.is_settled = false;
        let before = self.held.insert(holder, held);
        assert!(before.is_none(), "an instance was granted twice");
    }
}
