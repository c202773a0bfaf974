//! Who has to end so that somebody else finds room, or gets back what is its own.
//!
//! Invariant: only preemptible holders are made to end, each once, and only where that is enough: there is a node with
//! room then, and the quota that was missing. None of them could be spared; and for quota's sake they end only as long as
//! their namespace holds more than its own. What ends together (a gang) is one unit here, and costs the sum.
//!
//! In one pass, room is made for as many as can be helped: what those that end give back is promised to those before, so
//! it is counted for nobody else; and nobody ends for somebody behind others who would take the room before him.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::pass::Pass;
use super::quota::{Amounts, Resource};
use super::{Admission, Candidate, Cause, Held, Holder, Preemption, lease_id};
use crate::fleet::{Amount, Freed, LeaseId, Request};

/// Whom it would be enough to end does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// Not even all that may be ended give back as much of the quota.
    Quota,
    /// They would, but no node has the room then.
    Room,
}

/// Who may be made to end together: an instance, or what is left of a gang.
struct Unit<'a> {
    holders: Vec<Holder>,
    ids: Vec<LeaseId>,
    /// Of each of them.
    held: &'a Held,
    /// Of all of them.
    amounts: Amounts,
    is_lower: bool,
    /// Of the cohort of whoever asks for its own.
    is_lender: bool,
}

/// Those that would end, and what that leaves to be found.
#[derive(Clone)]
struct Plan<'a> {
    freed: Freed<'a>,
    /// What each namespace would have given back.
    given: BTreeMap<&'a str, Amounts>,
    missing: Missing,
    /// By their places among all, which are in the order of their cost.
    chosen: Vec<usize>,
}

/// Those that have to end, by what ends together, and why; and nodes that have room then.
type Cleared = (Vec<(Vec<Holder>, Cause)>, BTreeSet<usize>);

/// So much of the quota of the cohort.
type Missing = BTreeMap<Resource, Amount>;

impl<'a> Plan<'a> {
    fn counts(&mut self, held: &'a Held, amounts: Amounts, is_of_cohort: bool) {
        let given = self.given.entry(&held.namespace).or_default();
        *given = given.plus(amounts);
        for (resource, amount) in self.missing.iter_mut().filter(|_| is_of_cohort) {
            *amount = amount.saturating_sub(amounts.get(*resource));
        }
    }

    /// Gives back the leases of a unit, or takes them again.
    fn change(&mut self, unit: &Unit<'_>, take: bool) {
        unit.ids.iter().for_each(|id| self.freed.change(id, take));
    }

    fn has_quota(&self) -> bool {
        self.missing.values().all(|amount| amount.is_zero())
    }
}

impl Admission {
    /// Lets the cheapest end that have a lower priority: the lowest first, and of those the youngest, which lose least.
    /// Who asks for what is its own may also end those of no higher priority that borrowed.
    ///
    /// Tells the nodes that have room once those are gone that end now; `None`: it has to wait for others.
    pub(super) fn make_room(&mut self, pass: &mut Pass, by: Holder, request: &Request) -> Option<BTreeSet<usize>> {
        let is_of_use = |held: &Held| held.is_placed && (held.is_ending || held.is_preemptible);
        if !self.held.values().any(is_of_use) {
            return None;
        }
        let (victims, nodes) = self.victims(pass, by, request, Missing::new()).ok()?;
        self.preempt(pass, victims, by);
        Some(nodes)
    }

    /// Lets borrowers of the cohort end, whatever their priority, until there is as much left as the candidate asks for,
    /// and room for it. Tells the nodes that have that then.
    pub(super) fn reclaim(
        &mut self,
        pass: &mut Pass,
        by: Holder,
        request: &Request,
        cohort: &str,
    ) -> Result<BTreeSet<usize>, Short> {
        let candidate = &self.candidates[&by];
        let quota = self.quotas.quota(&candidate.line.namespace);
        let limited = |resource: &Resource| quota.is_some_and(|quota| quota.limits.get(*resource).is_some());
        let lacks = |resource: Resource| {
            let (used, all) = self.quotas.of_cohort(cohort, resource);
            (resource, (used + candidate.asked.get(resource)).saturating_sub(all))
        };
        let asked = Resource::ALL.into_iter().filter(|resource| !candidate.asked.get(*resource).is_zero());
        let missing: Missing = asked.filter(limited).map(lacks).collect();
        let (victims, nodes) = self.victims(pass, by, request, missing)?;
        self.preempt(pass, victims, by);
        Ok(nodes)
    }

    /// One of those that end together is told, and stands for all.
    fn preempt(&mut self, pass: &mut Pass, victims: Vec<(Vec<Holder>, Cause)>, by: Holder) {
        for (holders, cause) in victims {
            for holder in &holders {
                if let Some(held) = self.held.get_mut(holder) {
                    held.is_ending = true;
                    pass.ending.push(*holder);
                }
            }
            pass.preemptions.extend(holders.first().map(|victim| Preemption { victim: *victim, by, cause }));
        }
    }

    /// Those that have to end so that the request has room on a node and `missing` is given back; nobody, where those that
    /// end already give enough.
    ///
    /// Each node is looked at for itself. Of two, the one is taken whose dearest victim is cheaper, then the one with fewer.
    /// For a gang all nodes are one: the cheapest end, wherever they are, until as many nodes have room as it has members.
    fn victims(&self, pass: &Pass, by: Holder, request: &Request, missing: Missing) -> Result<Cleared, Short> {
        let gang = self.candidates[&by].line.gang.as_ref();
        let freed = self.fleet.freed(request, gang, &pass.promises);
        let mut plan = Plan { freed, given: BTreeMap::new(), missing, chosen: Vec::new() };
        let takes_back = !plan.missing.is_empty();
        let namespace = &*self.candidates[&by].line.namespace;
        let cohort = self.quotas.cohort(namespace);
        for (holder, held) in self.held.iter().filter(|(_, held)| held.is_ending) {
            plan.freed.change(&lease_id(*holder), false);
            plan.counts(held, held.amounts, cohort.is_some() && self.quotas.cohort(&held.namespace) == cohort);
        }
        if plan.freed.has_room() && plan.has_quota() {
            return Ok((Vec::new(), plan.freed.nodes()));
        }
        let units = self.units(by, takes_back);
        // For quota alone, all that is lent on any node.
        let mut all = plan.clone();
        self.give_quota(&units, &mut all);
        if !all.has_quota() {
            return Err(Short::Quota);
        }
        let mut sites: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        match plan.freed.has_room() {
            true => drop(sites.insert(0, Vec::new())),
            false if gang.is_some() => drop(sites.insert(0, (0..units.len()).collect())),
            false => {
                for (cost, unit) in units.iter().enumerate() {
                    for at in unit.ids.iter().filter_map(|id| self.fleet.node_of(id)) {
                        sites.entry(at).or_default().push(cost);
                    }
                }
            }
        }
        let plans = sites.into_values().filter_map(|site| self.cleared(&units, &site, plan.clone(), takes_back));
        let plans = plans.filter(|chosen| !self.is_for_others(pass, by, &units, chosen, takes_back));
        let best = plans.min_by_key(|chosen| (chosen.last().copied(), chosen.len())).ok_or(Short::Room)?;
        let causes = best.into_iter().map(|cost| {
            let cause = self.cause(&units[cost], &plan, takes_back).unwrap_or(Cause::Reclaim);
            plan.counts(units[cost].held, units[cost].amounts, units[cost].is_lender);
            plan.change(&units[cost], false);
            (units[cost].holders.clone(), cause)
        });
        let causes = causes.collect();
        Ok((causes, plan.freed.nodes()))
    }

    /// Those of one node that have to end for room there, and whoever else has to for the quota, the cheapest first.
    fn cleared<'a>(
        &'a self,
        units: &[Unit<'a>],
        site: &[usize],
        mut plan: Plan<'a>,
        takes_back: bool,
    ) -> Option<Vec<usize>> {
        let missing = plan.missing.clone();
        for cost in site {
            let unit = &units[*cost];
            if !plan.freed.has_room() && self.cause(unit, &plan, takes_back).is_some() {
                plan.change(unit, false);
                plan.counts(unit.held, unit.amounts, unit.is_lender);
                plan.chosen.push(*cost);
            }
        }
        if !plan.freed.has_room() {
            return None;
        }
        self.give_quota(units, &mut plan);
        if !plan.has_quota() {
            return None;
        }
        plan.chosen.sort_unstable();
        // Not all of them were in the way: the dearest are spared first.
        for cost in plan.chosen.clone().into_iter().rev() {
            let suffices = |resource: &Resource, missing: &Amount| {
                let others = plan.chosen.iter().filter(|other| **other != cost && units[**other].is_lender);
                others.map(|other| units[*other].amounts.get(*resource)).sum::<Amount>() >= *missing
            };
            if missing.iter().all(|(resource, missing)| suffices(resource, missing)) {
                plan.change(&units[cost], true);
                match plan.freed.has_room() {
                    true => plan.chosen.retain(|kept| *kept != cost),
                    false => plan.change(&units[cost], false),
                }
            }
        }
        Some(plan.chosen)
    }

    /// Whether somebody who was refused before could begin when those have ended, and so take what they leave.
    fn is_for_others(&self, pass: &Pass, by: Holder, units: &[Unit<'_>], chosen: &[usize], takes_back: bool) -> bool {
        let cohort = self.quotas.cohort(&self.candidates[&by].line.namespace).filter(|_| takes_back);
        let mut before = self.quotas.without_kept();
        let ending: Vec<&Holder> =
            self.held.iter().filter(|(_, held)| held.is_ending).map(|(holder, _)| holder).collect();
        for held in ending.iter().map(|holder| &self.held[*holder]) {
            before.give_back(&held.namespace, held.amounts);
        }
        let mut after = before.clone();
        let gone = chosen.iter().map(|cost| &units[*cost]);
        for unit in gone.clone() {
            after.give_back(&unit.held.namespace, unit.amounts);
        }
        // Of the pool, beside those that are gone.
        let slots = |pool: &str, with_chosen: bool| {
            let ending = ending.iter().copied();
            let gone = gone.clone().filter(|_| with_chosen).flat_map(|unit| &unit.holders);
            let held = ending.chain(gone).map(|holder| &self.held[holder]).filter(|held| held.pool == pool);
            self.pools[pool].used - held.map(|held| held.slots).sum::<u32>()
        };
        pass.refused.iter().filter(|(other, _)| *other != by).any(|(other, count)| {
            let Candidate { line, asked, slots: wanted, .. } = &self.candidates[other];
            let has_slots = |with_chosen| slots(&line.pool, with_chosen) + wanted <= self.pools[&line.pool].slots;
            let Some(request) = &line.request else { return false };
            if line.namespace == self.candidates[&by].line.namespace && !has_slots(false) && has_slots(true) {
                // With a slot it takes its part of their quota, or keeps it.
                return true;
            }
            // Nobody borrows while somebody waits for what is its own.
            let borrows = || after.would_borrow(&line.namespace, asked).next().is_some();
            let is_kept_from = cohort.is_some() && self.quotas.cohort(&line.namespace) == cohort && borrows();
            if is_kept_from || !has_slots(true) || after.lack(&line.namespace, asked).is_some() {
                return false;
            }
            if !has_slots(false) || before.lack(&line.namespace, asked).is_some() {
                // It is only what they leave that lets it go on.
                return true;
            }
            let promises = pass.promises.first(*count);
            let mut freed = self.fleet.freed(request, line.gang.as_ref(), &promises);
            ending.iter().for_each(|holder| freed.change(&lease_id(**holder), false));
            if freed.has_room() {
                // It does not need them.
                return false;
            }
            chosen.iter().flat_map(|cost| &units[*cost].ids).for_each(|id| freed.change(id, false));
            freed.has_room()
        })
    }

    /// Adds the cheapest that give back of the quota what is missing still.
    fn give_quota<'a>(&self, units: &[Unit<'a>], plan: &mut Plan<'a>) {
        for (cost, unit) in units.iter().enumerate().filter(|(_, unit)| unit.is_lender) {
            let helps = plan.missing.iter().any(|(resource, missing)| {
                !missing.is_zero()
                    && !unit.amounts.get(*resource).is_zero()
                    && self.is_beyond(unit.held, *resource, plan)
            });
            if helps && !plan.chosen.contains(&cost) {
                plan.change(unit, false);
                plan.counts(unit.held, unit.amounts, true);
                plan.chosen.push(cost);
            }
        }
    }

    /// Those that may be made to end for somebody, the cheapest first. Who takes back what is its own may end those of any
    /// priority that borrowed.
    fn units(&self, by: Holder, takes_back: bool) -> Vec<Unit<'_>> {
        let candidate = &self.candidates[&by];
        let (priority, namespace) = (candidate.rank.0.0, &*candidate.line.namespace);
        let is_own = takes_back || self.quotas.would_borrow(namespace, &candidate.asked).next().is_none();
        let cohort = self.quotas.cohort(namespace).filter(|_| is_own);
        let mut units: Vec<Unit<'_>> = Vec::new();
        for (holder, held) in &self.held {
            match units.last_mut() {
                Some(unit) if held.is_member && is_mate(unit.holders[0], *holder) => {
                    unit.holders.push(*holder);
                    unit.ids.push(lease_id(*holder));
                    unit.amounts = unit.amounts.plus(held.amounts);
                }
                _ => {
                    let is_of_cohort = cohort.is_some() && self.quotas.cohort(&held.namespace) == cohort;
                    let is_other = *held.namespace != *namespace;
                    units.push(Unit {
                        holders: vec![*holder],
                        ids: vec![lease_id(*holder)],
                        held,
                        amounts: held.amounts,
                        is_lower: held.priority < priority,
                        is_lender: is_of_cohort && is_other && (takes_back || held.priority <= priority),
                    });
                }
            }
        }
        let is_ending = |unit: &Unit<'_>| unit.holders.iter().any(|holder| self.held[holder].is_ending);
        units.retain(|unit| unit.held.is_preemptible && unit.held.is_placed && (unit.is_lower || unit.is_lender));
        units.retain(|unit| !is_ending(unit));
        // Of one priority, those that are alone before gangs.
        units.sort_by_key(|unit| (unit.held.priority, unit.holders.len(), Reverse(unit.held.number)));
        units
    }

    /// Why it may be made to end beside those that are chosen, if it may.
    fn cause(&self, unit: &Unit<'_>, plan: &Plan<'_>, takes_back: bool) -> Option<Cause> {
        let has = |resource: &Resource| !unit.amounts.get(*resource).is_zero();
        let is_lent = || {
            unit.is_lender
                && Resource::ALL.into_iter().filter(has).any(|resource| self.is_beyond(unit.held, resource, plan))
        };
        match (unit.is_lower, takes_back) {
            (true, false) => Some(Cause::Priority),
            (true, true) if !is_lent() => Some(Cause::Priority),
            (true, true) => Some(Cause::Reclaim),
            (false, _) => is_lent().then_some(Cause::Reclaim),
        }
    }

    /// Whether its namespace holds more than its own, also when all those are gone.
    fn is_beyond(&self, held: &Held, resource: Resource, plan: &Plan<'_>) -> bool {
        let given = plan.given.get(&*held.namespace).copied().unwrap_or_default();
        self.quotas.borrowed(&held.namespace, resource) > given.get(resource)
    }
}

fn is_mate(a: Holder, b: Holder) -> bool {
    (a.run, a.slot.task) == (b.run, b.slot.task)
}
