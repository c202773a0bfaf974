//! The choice of who starts now.
//!
//! One pass over the heads of all lines, the best first. Invariant: a line whose head finds no room is left alone for the
//! rest of the pass, so a pass costs what it grants and as many tries as there are lines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use jiff::Timestamp;

use super::pass::Pass;
use super::{Admission, Amounts, Grant, Held, Holder, Line, Placed, Preemption, Rank, lease_id, members};
use crate::fleet::{Gang, LeaseId, Promise, Request};

/// Candidates of a line that are looked at for one that is brief.
const LOOKED_AT: usize = 100;

impl Admission {
    /// Grants what fits now, best first. Each grant is told to its run, as [`Event::Admitted`], before the run takes
    /// any event that could take the offer back.
    ///
    /// [`Event::Admitted`]: crate::engine::Event::Admitted
    pub fn grant(&mut self, now: Timestamp) -> Vec<Grant> {
        let mut grants = Vec::new();
        if std::mem::replace(&mut self.is_settled, true) {
            return grants;
        }
        let mut pass = self.begin_pass();
        while !self.is_full() {
            let Some((rank, line)) = self.next(&mut pass) else { break };
            if pass.lacking.contains(&line.pool) || self.lacks_slots(rank.1) {
                pass.lacking.insert(line.pool.clone());
                self.served(&mut pass, rank.1);
                self.waits_for_slot(&line, rank);
                continue;
            }
            if !self.within_quota(&mut pass, rank.1) {
                continue;
            }
            if self.here() + line.members() > self.parallelism {
                // Places are kept for it.
                break;
            }
            let candidate = self.candidates[&rank.1].clone();
            let ends = candidate.limit.and_then(|limit| now.checked_add(limit).ok());
            let Some((placed, is_brief)) = self.place(rank.1, &line, ends, &mut pass) else {
                if let Some(brief) = self.brief(&line, rank, now, &pass) {
                    pass.insert(brief, line);
                }
                continue;
            };
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
                    is_brief,
                    priority: rank.0.0,
                    is_preemptible: candidate.is_preemptible,
                    is_ending: false,
                };
                self.take(holder, held);
            }
            self.served(&mut pass, rank.1);
            self.has_slot(&mut pass, &line);
            grants.push(Grant { holder: rank.1, placed, demand: candidate.demand });
            if let Some(next) = self.lines.get(&line).and_then(|ranks| self.head(&line, ranks)) {
                pass.insert(next, line);
            }
        }
        self.end_pass(pass);
        // What was withdrawn above is what was granted.
        self.is_settled = true;
        grants
    }

    /// Of those behind one that found no room and that ask for the same, the first that is gone before promised room is
    /// needed. Of a long line only the first are looked at.
    fn brief(&self, line: &Line, after: Rank, now: Timestamp, pass: &Pass) -> Option<Rank> {
        let promise = pass.promise.as_ref().filter(|promise| promise.starts().is_some())?;
        let is_brief = |rank: &&Rank| {
            let limit = self.candidates[&rank.1].limit;
            promise.is_before(limit.and_then(|limit| now.checked_add(limit).ok()))
        };
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        self.lines.get(line)?.range(behind).take(LOOKED_AT).find(is_brief).copied()
    }

    /// The leases of a candidate, if it asks for any, and whether it is in room that is promised; `None`: it has to wait.
    fn place(
        &mut self,
        holder: Holder,
        line: &Line,
        ends: Option<Timestamp>,
        pass: &mut Pass,
    ) -> Option<(Vec<Placed>, bool)> {
        let Some(request) = &line.request else { return Some((Vec::new(), false)) };
        let ids: Vec<LeaseId> = members(holder, line.members()).map(lease_id).collect();
        let is_brief = if self.lease_all(&ids, line, request, pass.promise.as_mut()) {
            Some(false)
        } else {
            let is_before = pass.promise.as_ref().is_some_and(|promise| promise.is_before(ends));
            (is_before && self.lease_all(&ids, line, request, None)).then_some(true)
        };
        if let Some(is_brief) = is_brief {
            let lease = |id: &LeaseId| {
                let lease = &self.fleet.leases()[id];
                Placed { node: lease.node.clone(), gpus: lease.ids.clone() }
            };
            return Some((ids.iter().map(lease).collect(), is_brief));
        }
        if pass.promise.is_none() {
            self.make_room(holder, request);
            self.promise_room(pass, holder, request);
        }
        self.without_room(holder);
        None
    }

    /// From now on others pass only beside what it waits for.
    pub(super) fn promise_room(&mut self, pass: &mut Pass, holder: Holder, request: &Request) {
        let gang = self.candidates[&holder].line.gang.clone();
        let before = self.promised.filter(|(before, _)| *before == holder).map(|(_, since)| since);
        let mut since = before.unwrap_or(self.granted);
        let mut promise = self.promise(gang.as_ref(), request, since);
        if !promise.can_be_kept() {
            // Nodes are gone that it was promised, and who came later holds the others: it begins to wait for those.
            since = self.granted;
            promise = self.promise(gang.as_ref(), request, since);
        }
        self.promised = Some((holder, since));
        self.starts = promise.starts();
        pass.promise = Some(promise);
    }

    /// The room of all that were granted something before so many grants were made.
    fn promise(&self, gang: Option<&Gang>, request: &Request, since: u64) -> Promise {
        let stays = |held: &Held| held.number >= since && !held.is_brief;
        let later = self.held.iter().filter(|(_, held)| held.is_placed && stays(held));
        let later: BTreeSet<LeaseId> = later.map(|(holder, _)| lease_id(*holder)).collect();
        let ends = self.held.iter().filter_map(|(holder, held)| Some((lease_id(*holder), held.ends?)));
        let ends: BTreeMap<LeaseId, Timestamp> = ends.collect();
        let end_of = |lease: &LeaseId| ends.get(lease).copied();
        self.fleet.promise(request, gang, |lease| later.contains(lease), end_of)
    }

    /// A lease under each of these names, or none.
    fn lease_all(&mut self, ids: &[LeaseId], line: &Line, request: &Request, promise: Option<&mut Promise>) -> bool {
        match (&line.gang, ids) {
            (Some(gang), ids) => self.fleet.place_gang(ids, request, gang, promise).is_ok(),
            (None, [id]) => self.fleet.place_beside(id.clone(), request, promise).is_ok(),
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

    pub(super) fn lacks_slots(&self, holder: Holder) -> bool {
        let candidate = &self.candidates[&holder];
        let pool = &self.pools[&candidate.line.pool];
        pool.used + candidate.slots > pool.slots
    }

    pub(super) fn take(&mut self, holder: Holder, held: Held) {
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
