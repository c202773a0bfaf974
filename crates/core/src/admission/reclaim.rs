//! Who has to end so that somebody else finds room, or gets back what is its own.
//!
//! Invariant: only preemptible holders are made to end, no more than are needed, each once; and for quota's sake only as
//! long as their namespace holds more than its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::quota::{Amounts, Resource};
use super::{Admission, Cause, Held, Holder, Preemption, lease_id};
use crate::fleet::{Amount, LeaseId, Request};

/// What each namespace would have given back.
#[derive(Default)]
struct Given(BTreeMap<String, Amounts>);

impl Given {
    fn of(&self, namespace: &str) -> Amounts {
        self.0.get(namespace).copied().unwrap_or_default()
    }

    fn add(&mut self, held: &Held) {
        let sum = self.of(&held.namespace).plus(held.amounts);
        self.0.insert(held.namespace.to_string(), sum);
    }
}

impl Admission {
    /// Lets the cheapest end that have a lower priority: the lowest first, and of those the youngest, which lose least.
    /// Who asks for what is its own may also end those of no higher priority that borrowed.
    pub(super) fn make_room(&mut self, by: Holder, request: &Request) {
        let candidate = &self.candidates[&by];
        let (priority, namespace) = (candidate.rank.0.0, &*candidate.line.namespace);
        let is_own = self.quotas.would_borrow(namespace, &candidate.asked).next().is_none();
        let cohort = self.quotas.cohort(namespace).filter(|_| is_own);
        let mut given = Given::default();
        let mut may: BTreeMap<LeaseId, (Holder, Cause)> = BTreeMap::new();
        let mut order: Vec<LeaseId> = Vec::new();
        for (holder, held) in self.cheapest().filter(|(_, held)| held.is_placed && held.priority <= priority) {
            let cause = match held.priority < priority {
                true => Cause::Priority,
                false if cohort.is_some() && self.is_lent(held, cohort, namespace, &given) => Cause::Reclaim,
                false => continue,
            };
            given.add(held);
            may.insert(lease_id(holder), (holder, cause));
            order.push(lease_id(holder));
        }
        if order.is_empty() {
            return;
        }
        let going = self.held.iter().filter(|(_, held)| held.is_placed && held.is_ending);
        let going: BTreeSet<LeaseId> = going.map(|(holder, _)| lease_id(*holder)).collect();
        for victim in self.fleet.victims(request, &going, &order).unwrap_or_default() {
            let (victim, cause) = may[&victim];
            self.preempt(victim, by, cause);
        }
    }

    /// Lets borrowers of the cohort end until there is as much left as the candidate asks for.
    pub(super) fn reclaim(&mut self, by: Holder, cohort: &str) {
        let candidate = &self.candidates[&by];
        let (asked, namespace) = (candidate.asked, candidate.line.namespace.clone());
        let mut missing: BTreeMap<Resource, Amount> = BTreeMap::new();
        for resource in Resource::ALL.into_iter().filter(|resource| !asked.get(*resource).is_zero()) {
            if self.quotas.quota(&namespace).is_some_and(|quota| quota.limits.get(resource).is_some()) {
                let (used, all) = self.quotas.of_cohort(cohort, resource);
                missing.insert(resource, (used + asked.get(resource)).saturating_sub(all));
            }
        }
        let mut given = Given::default();
        let in_cohort = |held: &&Held| self.quotas.cohort(&held.namespace) == Some(cohort);
        for held in self.held.values().filter(in_cohort).filter(|held| held.is_ending) {
            given.add(held);
            lessen(&mut missing, held);
        }
        let mut victims: Vec<(Holder, &Held)> = Vec::new();
        for (holder, held) in self.cheapest() {
            if missing.values().all(|amount| amount.is_zero()) {
                break;
            }
            let helps = missing.iter().any(|(resource, amount)| {
                !amount.is_zero() && !held.amounts.get(*resource).is_zero() && self.is_beyond(held, *resource, &given)
            });
            if helps && in_cohort(&held) && held.namespace != namespace {
                given.add(held);
                lessen(&mut missing, held);
                victims.push((holder, held));
            }
        }
        if missing.values().any(|amount| !amount.is_zero()) {
            return;
        }
        for victim in victims.into_iter().map(|(holder, _)| holder).collect::<Vec<_>>() {
            self.preempt(victim, by, Cause::Reclaim);
        }
    }

    fn preempt(&mut self, victim: Holder, by: Holder, cause: Cause) {
        if let Some(held) = self.held.get_mut(&victim) {
            held.is_ending = true;
            self.preemptions.push(Preemption { victim, by, cause });
        }
    }

    /// Those that may be made to end, the cheapest first.
    fn cheapest(&self) -> impl Iterator<Item = (Holder, &Held)> {
        let may = self.held.iter().filter(|(_, held)| held.is_preemptible && !held.is_ending);
        let mut may: Vec<(Holder, &Held)> = may.map(|(holder, held)| (*holder, held)).collect();
        may.sort_by_key(|(_, held)| (held.priority, Reverse(held.number)));
        may.into_iter()
    }

    fn is_lent(&self, held: &Held, cohort: Option<&str>, to: &str, given: &Given) -> bool {
        *held.namespace != *to
            && self.quotas.cohort(&held.namespace) == cohort
            && Resource::ALL
                .into_iter()
                .any(|resource| !held.amounts.get(resource).is_zero() && self.is_beyond(held, resource, given))
    }

    /// Whether its namespace holds more than its own, also when all those are gone.
    fn is_beyond(&self, held: &Held, resource: Resource, given: &Given) -> bool {
        self.quotas.borrowed(&held.namespace, resource) > given.of(&held.namespace).get(resource)
    }
}

fn lessen(missing: &mut BTreeMap<Resource, Amount>, held: &Held) {
    for (resource, amount) in missing {
        *amount = amount.saturating_sub(held.amounts.get(*resource));
    }
}
