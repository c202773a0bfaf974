//! The choice of who starts now.
//!
//! One pass over the heads of all lines, the best first. Invariant: a line whose head finds no room is left alone for the
//! rest of the pass, so a pass costs what it grants and as many tries as there are lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::pass::Pass;
use super::{
    Admission, Amounts, Candidate, Grant, Held, Holder, Line, Placed, Preemption, Promised, Rank, lease_id, members,
};
use crate::fleet::{LeaseId, Promises, Request};

impl Admission {
    /// Grants what fits now, best first. Each grant is told to its run, as [`Event::Admitted`], before the run takes
    /// any event that could take the offer back.
    ///
    /// [`Event::Admitted`]: crate::engine::Event::Admitted
    pub fn grant(&mut self, now: Timestamp) -> Vec<Grant> {
        let mut grants = Vec::new();
        while !std::mem::replace(&mut self.is_settled, true) {
            self.pass(now, &mut grants);
        }
        grants
    }

    /// Who has to end is decided by a pass that grants nothing: otherwise who began in it may change what is missing.
    fn pass(&mut self, now: Timestamp, grants: &mut Vec<Grant>) {
        let (mut is_again, before) = (false, (grants.len(), self.promised.clone()));
        let mut pass = self.begin_pass();
        while !self.is_full() {
            let Some((rank, line)) = self.next(&mut pass) else { break };
            let kept = pass.kept_slots.slots.get(&line.pool).copied().unwrap_or_default();
            if pass.kept_slots.lacking.contains(&line.pool) || self.lacks_slots(rank.1, kept) {
                pass.kept_slots.lacking.insert(line.pool.clone());
                self.served(&mut pass, rank.1);
                self.waits_for_slot(&line, rank);
                pass.refuses(rank.1);
                continue;
            }
            if !self.within_quota(&mut pass, rank.1) {
                continue;
            }
            if self.here() + pass.kept_slots.places + line.members() > self.parallelism {
                // All that become free are kept for the first gang from now on, and its nodes until then. One without nodes
                // holds nobody up.
                if let Some(request) = line.request.as_ref().filter(|_| line.gang.is_some() && !pass.is_short) {
                    self.waits_for_room(&mut pass, rank.1, request, Some(BTreeSet::new()));
                    pass.is_short = self.promised.contains_key(&rank.1);
                }
                continue;
            }
            let Some(placed) = self.place(rank.1, &line, &mut pass) else { continue };
            let candidate = self.candidates[&rank.1].clone();
            let ends = candidate.limit.and_then(|limit| now.checked_add(limit).ok());
            self.withdraw(rank.1.run, rank.1.slot);
            for (at, holder) in members(rank.1, line.members()).enumerate() {
                let held = Held {
                    namespace: line.namespace.clone(),
                    amounts: line.request.as_deref().map(Amounts::of).unwrap_or_default(),
                    pool: line.pool.clone(),
                    slots: candidate.slots / line.members(),
                    is_placed: placed.len() > at,
                    is_member: line.gang.is_some(),
                    number: self.granted,
                    ends,
                    priority: rank.0.0,
                    is_preemptible: candidate.is_preemptible,
                    is_ending: false,
                };
                self.take(holder, held);
            }
            self.served(&mut pass, rank.1);
            self.has_slot(&mut pass, &line);
            // What was kept for it from those before may be left.
            is_again |= pass.is_kept;
            grants.push(Grant { holder: rank.1, placed, demand: candidate.demand });
            if let Some(next) = self.lines.get(&line).and_then(|ranks| self.head(&line, ranks)) {
                pass.insert(next, line);
            }
        }
        let (told, ending) = (std::mem::take(&mut pass.preemptions), std::mem::take(&mut pass.ending));
        self.end_pass(pass);
        if grants.len() > before.0 && !told.is_empty() {
            for holder in ending {
                if let Some(held) = self.held.get_mut(&holder) {
                    held.is_ending = false;
                }
            }
            self.promised = before.1;
            self.promised.retain(|holder, _| self.candidates.contains_key(holder));
            is_again = true;
        } else {
            self.preemptions.extend(told);
        }
        // What was withdrawn above is what was granted.
        self.is_settled = !is_again;
    }

    /// The leases of a candidate, if it asks for any; `None`: it has to wait for room.
    fn place(&mut self, holder: Holder, line: &Line, pass: &mut Pass) -> Option<Vec<Placed>> {
        let Some(request) = &line.request else { return Some(Vec::new()) };
        let ids: Vec<LeaseId> = members(holder, line.members()).map(lease_id).collect();
        if self.lease_promised(&ids, line, holder, request, pass) {
            let lease = |id: &LeaseId| {
                let lease = &self.fleet.leases()[id];
                Placed { node: lease.node.clone(), gpus: lease.ids.clone() }
            };
            return Some(ids.iter().map(lease).collect());
        }
        let coming = self.make_room(pass, holder, request);
        self.waits_for_room(pass, holder, request, coming);
        self.without_room(holder);
        None
    }

    /// Whoever is promised nodes begins on those if it can; and as long as room is made for it there, it does not take what
    /// others are promised, for whom room is made elsewhere.
    fn lease_promised(&mut self, ids: &[LeaseId], line: &Line, holder: Holder, request: &Request, pass: &Pass) -> bool {
        if let Some(own) = self.promised.get(&holder).filter(|_| self.promised.len() > 1) {
            let (is_cleared, nodes) = (own.is_cleared, self.fleet.able(&own.nodes, request));
            if self.lease_all(ids, line, request, &pass.promises.clone().only(nodes)) {
                return true;
            }
            if is_cleared {
                return self.lease_all(ids, line, request, &self.promises_beside(holder));
            }
        }
        self.lease_all(ids, line, request, &pass.promises)
    }

    /// It has to wait for room, on these nodes if some are cleared for it. The first that waits is promised nodes, and so
    /// are those for whom room is made, until they begin: others do not take what they wait for there, nor their slots.
    pub(super) fn waits_for_room(
        &mut self,
        pass: &mut Pass,
        holder: Holder,
        request: &Arc<Request>,
        cleared: Option<BTreeSet<usize>>,
    ) {
        let is_first = !std::mem::replace(&mut pass.is_waited, true);
        pass.refuses(holder);
        let before = self.promised.remove(&holder);
        if !is_first && before.is_none() && cleared.is_none() {
            return;
        }
        let Candidate { line, slots, .. } = &self.candidates[&holder];
        let mut nodes = before.as_ref().map(|before| self.fleet.able(&before.nodes, request)).unwrap_or_default();
        let is_cleared = cleared.is_some();
        nodes.extend(cleared.into_iter().flatten());
        if !self.fleet.suffices(line.gang.as_ref(), &nodes) {
            let ends = self.held.iter().filter_map(|(holder, held)| Some((lease_id(*holder), held.ends?)));
            let ends: BTreeMap<LeaseId, Timestamp> = ends.collect();
            let found = self.fleet.promised(request, line.gang.as_ref(), &pass.promises, |id| ends.get(id).copied());
            nodes.extend(found.into_iter().flatten());
        }
        if !self.fleet.suffices(line.gang.as_ref(), &nodes) {
            return;
        }
        *pass.kept_slots.slots.entry(line.pool.clone()).or_default() += slots;
        pass.kept_slots.places += line.members();
        pass.promises.keep(&nodes, request);
        self.promises += u64::from(before.is_none());
        let number = before.map_or(self.promises, |before| before.number);
        self.promised.insert(holder, Promised { number, is_cleared, nodes: self.fleet.names(&nodes) });
    }

    /// A lease under each of these names, or none.
    fn lease_all(&mut self, ids: &[LeaseId], line: &Line, request: &Request, promises: &Promises) -> bool {
        match (&line.gang, ids) {
            (Some(gang), ids) => self.fleet.place_gang(ids, request, gang, promises).is_ok(),
            (None, [id]) => self.fleet.place_beside(id.clone(), request, promises).is_ok(),
            (None, _) => false,
        }
    }

    /// Who has to end since it was asked last; each is told once, as [`Event::Preempt`].
    ///
    /// [`Event::Preempt`]: crate::engine::Event::Preempt
    pub fn preemptions(&mut self) -> Vec<Preemption> {
        std::mem::take(&mut self.preemptions)
    }

    /// The first of a line that its pool could ever serve.
    pub(super) fn head(&self, line: &Line, ranks: &BTreeSet<Rank>) -> Option<Rank> {
        let pool = &self.pools[&line.pool];
        if pool.slots == 0 {
            return None;
        }
        ranks.iter().find(|(_, holder)| self.candidates[holder].slots <= pool.slots).copied()
    }

    /// Whether its pool has too few slots for it, beside so many that are kept for others.
    pub(super) fn lacks_slots(&self, holder: Holder, kept: u32) -> bool {
        let candidate = &self.candidates[&holder];
        let pool = &self.pools[&candidate.line.pool];
        pool.used + kept + candidate.slots > pool.slots
    }

    pub(super) fn take(&mut self, holder: Holder, held: Held) {
        let held = self.charge(holder, held);
        let pool = self.pools.entry(held.pool.clone()).or_default();
        pool.used += held.slots;
        pool.granted += 1;
        self.quotas.take(&held.namespace, held.amounts);
        self.granted += 1;
        self.is_settled = false;
        let before = self.held.insert(holder, held);
        assert!(before.is_none(), "an instance was granted twice");
    }
}
