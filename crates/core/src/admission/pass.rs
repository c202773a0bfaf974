//! One pass over the heads of all lines: who is next, and whether quotas let it go.
//!
//! Order: priority, then those that are promised room, then the namespaces that waited longest for a slot, then the
//! namespace that uses least of its own, then age. A namespace waited longest that was passed by as many as the pool has
//! slots: what is used of GPUs says nothing about slots, so without that some could take every slot for ever. Invariants: nobody goes beyond a quota; whoever waits for a quota is not overtaken by those behind it that ask for
//! the same; nobody borrows while somebody waits for what is its own. The first of each namespace that waits for room
//! keeps what it asks for of the quota. Whoever no node could take now, or whose pool is full, keeps nothing from anybody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::quota::{Amounts, Lack, Resource};
use super::reclaim::Short;
use super::{Admission, Candidate, Holder, KeptSlots, Line, Preemption, Rank, SlotWait};
use crate::fleet::Promises;

/// What a pass has found out so far.
pub(super) struct Pass {
    heads: BTreeMap<Arc<str>, BTreeMap<Rank, Arc<Line>>>,
    /// Somebody found no room.
    pub is_waited: bool,
    /// Who was refused a slot, quota or room, and how many of the promises were before it.
    pub refused: Vec<(Holder, usize)>,
    /// Some of them only for what is kept for others, who may not need it in the end.
    pub is_kept: bool,
    /// What is kept of the nodes for those that were asked before.
    pub promises: Promises,
    /// What else is kept for them.
    pub kept_slots: KeptSlots,
    /// Until they were asked: who was promised room before this pass, by priority and age of the promise.
    first: BTreeMap<(Reverse<i64>, u64), Holder>,
    /// What somebody before waits for, of the quota of each namespace.
    held_back: BTreeMap<Arc<str>, BTreeMap<Resource, Rank>>,
    /// Who waited longest for a slot, and at which priority.
    overdue: BTreeMap<SlotWait, i64>,
    /// For whom each cohort keeps what it can lend.
    kept: BTreeMap<String, Kept>,
    /// Who has to end, as it looks in this pass; of gangs, all of their members.
    pub preemptions: Vec<Preemption>,
    pub ending: Vec<Holder>,
    /// The places that are left are kept for a gang.
    pub is_short: bool,
}

/// What somebody keeps of what a cohort can lend.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub by: Rank,
    /// Those that stand before it there may take what it would borrow.
    namespace: Arc<str>,
    resources: BTreeSet<Resource>,
    /// It waits for no more than is its own.
    is_own: bool,
}

impl Kept {
    /// Whether that is kept from this one.
    pub fn is_from(&self, namespace: &Arc<str>, rank: Rank) -> bool {
        let is_before = || rank.0 < self.by.0 || (self.namespace == *namespace && rank <= self.by);
        self.is_own || !is_before()
    }

    pub fn has(&self, resource: Resource) -> bool {
        self.resources.contains(&resource)
    }
}

pub(super) fn asked_of(asked: &Amounts) -> impl Iterator<Item = Resource> {
    Resource::ALL.into_iter().filter(|resource| !asked.get(*resource).is_zero())
}

impl Pass {
    pub fn insert(&mut self, rank: Rank, line: Arc<Line>) {
        self.heads.entry(line.namespace.clone()).or_default().insert(rank, line);
    }

    /// It cannot begin now.
    pub fn refuses(&mut self, holder: Holder) {
        self.refused.push((holder, self.promises.count()));
    }

    /// It is asked before its turn.
    fn remove(&mut self, (rank, line): &(Rank, Arc<Line>)) {
        if let Some(heads) = self.heads.get_mut(&line.namespace) {
            heads.remove(rank);
            if heads.is_empty() {
                self.heads.remove(&line.namespace);
            }
        }
    }
}

impl Admission {
    pub(super) fn begin_pass(&mut self) -> Pass {
        self.ask_nodes();
        self.quotas.begin_pass();
        if let Some(workload) = self.usual.workload() {
            self.fleet.set_workload(workload);
        }
        let mut pass = Pass {
            heads: BTreeMap::new(),
            is_waited: false,
            refused: Vec::new(),
            is_kept: false,
            promises: Promises::default(),
            kept_slots: KeptSlots::default(),
            first: BTreeMap::new(),
            held_back: BTreeMap::new(),
            overdue: self.overdue(),
            kept: BTreeMap::new(),
            preemptions: Vec::new(),
            ending: Vec::new(),
            is_short: false,
        };
        for (line, ranks) in self.lines.iter().filter(|(line, _)| self.could_now(line)) {
            if let Some(rank) = self.head(line, ranks) {
                pass.insert(rank, line.clone());
            }
        }
        for (holder, promised) in &self.promised {
            let Candidate { line, rank, slots, .. } = &self.candidates[holder];
            if self.could_now(line) && *slots <= self.pools[&line.pool].slots {
                pass.first.insert((rank.0, promised.number), *holder);
            }
        }
        for (cohort, Kept { by: (_, by), is_own, .. }) in &self.owed {
            let Some(candidate) = self.candidates.get(by) else { continue };
            let namespace = &*candidate.line.namespace;
            // Meanwhile others may borrow: what it cannot use now is no use to anybody if it is kept.
            if !self.could_now(&candidate.line) || self.lacks_slots(*by, 0) {
                continue;
            }
            if self.quotas.cohort(namespace) != Some(cohort) || !self.quotas.could_ever(namespace, &candidate.asked) {
                continue;
            }
            let is_own = *is_own && self.quotas.would_borrow(namespace, &candidate.asked).next().is_none();
            let (rank, resources) = (candidate.rank, asked_of(&candidate.asked).collect());
            let namespace = candidate.line.namespace.clone();
            pass.kept.insert(cohort.clone(), Kept { by: rank, namespace, resources, is_own });
        }
        pass
    }

    /// Asks the nodes about lines of which it is not known whether they could be served now.
    fn ask_nodes(&mut self) {
        if self.could.len() > 2 * self.lines.len() + 64 {
            let lines = &self.lines;
            self.could.retain(|line, _| lines.contains_key(line));
        }
        for line in self.lines.keys() {
            if let Some(request) = &line.request
                && !self.could.contains_key(line)
            {
                self.could.insert(line.clone(), self.fleet.could_now(request, line.gang.as_ref()));
            }
        }
    }

    /// Whether the nodes as they are now could take what the line asks for, were they empty.
    pub(super) fn could_now(&self, line: &Line) -> bool {
        line.request.is_none() || self.could.get(line).copied().unwrap_or_default()
    }

    /// The next to be asked.
    pub(super) fn next(&self, pass: &mut Pass) -> Option<(Rank, Arc<Line>)> {
        let heads = || pass.heads.iter().filter_map(|(name, heads)| Some((name, heads.first_key_value()?.0)));
        if let Some((first, holder)) = pass.first.first_key_value()
            && heads().all(|(_, rank)| first.0 <= rank.0)
        {
            let Candidate { line, rank, .. } = &self.candidates[holder];
            let (first, next) = (*first, (*rank, line.clone()));
            pass.first.remove(&first);
            pass.remove(&next);
            return Some(next);
        }
        let name = match pass.heads.len() {
            0 | 1 => heads().map(|(name, _)| name).next()?.clone(),
            _ => {
                let is_overdue = |name: &Arc<str>, rank: &Rank| {
                    pass.overdue.iter().any(|((first, _), priority)| first == name && *priority == rank.0.0)
                };
                let key = |(name, rank): (&Arc<str>, &Rank)| {
                    (rank.0, !is_overdue(name, rank), self.quotas.share(name), rank.1, name.clone())
                };
                let order = |(a, b, c, d, _): &(_, bool, f64, Holder, _),
                             (e, f, g, h, _): &(_, bool, f64, Holder, _)| {
                    Ord::cmp(a, e).then(b.cmp(f)).then(c.total_cmp(g)).then(d.cmp(h))
                };
                heads().map(key).min_by(order)?.4
            }
        };
        let heads = pass.heads.get_mut(&name)?;
        let next = heads.pop_first();
        if heads.is_empty() {
            pass.heads.remove(&name);
        }
        next
    }

    /// Whether the quotas let it go. If not, it keeps what it waits for from those behind it.
    pub(super) fn within_quota(&mut self, pass: &mut Pass, holder: Holder) -> bool {
        let candidate = &self.candidates[&holder];
        let (line, asked, rank) = (candidate.line.clone(), candidate.asked, candidate.rank);
        let namespace = &line.namespace;
        let Some(quota) = self.quotas.quota(namespace).filter(|_| !asked.is_zero()) else { return true };
        let cohort = quota.cohort.clone();
        if let Some(kept) = pass.held_back.get(namespace)
            && asked_of(&asked).any(|resource| kept.contains_key(&resource))
        {
            pass.is_kept = true;
            pass.refuses(holder);
            return false;
        }
        if let Some(kept) = cohort.as_ref().and_then(|cohort| pass.kept.get(cohort))
            && kept.is_from(namespace, rank)
            && self.quotas.would_borrow(namespace, &asked).any(|resource| kept.has(resource))
        {
            pass.is_kept = true;
            pass.refuses(holder);
            return false;
        }
        let mut lack = self.quotas.lack(namespace, &asked);
        if let Some(Lack { is_own: true, cohort: Some(cohort), .. }) = &lack
            && self.quotas.drop_kept_loans(cohort)
        {
            // What was kept for somebody who would borrow it is not in the way of whoever it belongs to.
            lack = self.quotas.lack(namespace, &asked);
        }
        let Some(lack) = lack else { return true };
        pass.is_kept = true;
        pass.refuses(holder);
        if !self.quotas.could_ever(namespace, &asked) {
            return false;
        }
        if lack.cohort.is_none() || lack.is_own {
            let kept = pass.held_back.entry(namespace.clone()).or_default();
            for resource in asked_of(&asked) {
                kept.entry(resource).or_insert(rank);
            }
        }
        if let Some(cohort) = lack.cohort {
            let is_own = lack.is_own;
            let goes_before = |kept: &Kept| (!is_own, rank.0) < (!kept.is_own, kept.by.0);
            if pass.kept.get(&cohort).is_none_or(goes_before) {
                let (namespace, resources) = (namespace.clone(), asked_of(&asked).collect());
                pass.kept.insert(cohort.clone(), Kept { by: rank, namespace, resources, is_own });
            }
            // It is promised room as well: else others take that before its quota is back.
            if is_own && let Some(request) = &line.request {
                match self.reclaim(pass, holder, request, &cohort) {
                    Err(Short::Quota) => {}
                    Err(Short::Room) => self.waits_for_room(pass, holder, request, None),
                    Ok(nodes) => {
                        self.quotas.keep(namespace, asked, true);
                        self.waits_for_room(pass, holder, request, Some(nodes));
                    }
                }
            }
        }
        false
    }

    /// It found no room, and is worth waiting for: it keeps its part of the quota, if it is the first of its namespace or
    /// is promised room.
    pub(super) fn without_room(&mut self, holder: Holder) {
        let candidate = &self.candidates[&holder];
        let (namespace, asked) = (candidate.line.namespace.clone(), candidate.asked);
        self.quotas.keep(&namespace, asked, self.promised.contains_key(&holder));
    }

    pub(super) fn end_pass(&mut self, pass: Pass) {
        self.quotas.end_pass();
        let is_full = self.is_full();
        // Who was not asked any more waits for a place; where all were asked, the others do not wait for a slot.
        for (namespace, heads) in pass.heads.iter().filter(|_| is_full) {
            if let Some((rank, _)) = heads.first_key_value() {
                self.slot_waits.entry((namespace.clone(), None)).or_insert((self.granted, rank.0.0));
            }
        }
        let waits = |namespace: &Arc<str>, pool: &Option<String>| match pool {
            Some(pool) => {
                let is_one = |line: &Arc<Line>| line.namespace == *namespace && line.pool == *pool;
                (is_full || pass.kept_slots.lacking.contains(pool)) && self.lines.keys().any(is_one)
            }
            None => is_full && self.lines.keys().any(|line| line.namespace == *namespace),
        };
        self.slot_waits.retain(|(namespace, pool), _| waits(namespace, pool));
        self.owed = pass.kept.into_iter().filter(|(_, kept)| self.candidates.contains_key(&kept.by.1)).collect();
        self.held_back = pass.held_back;
        self.kept = pass.kept_slots;
    }

    /// Who was passed by as many as there are slots, where one is free now.
    fn overdue(&self) -> BTreeMap<SlotWait, i64> {
        let is_overdue = |(wait, (since, priority)): (&SlotWait, &(u64, i64))| {
            let (granted, slots, is_free) = match &wait.1 {
                Some(pool) => self.pools.get(pool).map(|pool| (pool.granted, pool.slots, pool.used < pool.slots))?,
                None => (self.granted, self.parallelism, true),
            };
            (is_free && granted - since >= u64::from(slots)).then(|| (wait.clone(), *priority))
        };
        self.slot_waits.iter().filter_map(is_overdue).collect()
    }

    /// Its pool has too few slots for it now.
    pub(super) fn waits_for_slot(&mut self, line: &Line, rank: Rank) {
        let granted = self.pools[&line.pool].granted;
        let wait = (line.namespace.clone(), Some(line.pool.clone()));
        self.slot_waits.entry(wait).or_insert((granted, rank.0.0));
    }

    /// It was granted a slot: its namespace had its turn.
    pub(super) fn has_slot(&mut self, pass: &mut Pass, line: &Line) {
        for pool in [Some(line.pool.clone()), None] {
            let wait = (line.namespace.clone(), pool);
            self.slot_waits.remove(&wait);
            pass.overdue.remove(&wait);
        }
    }

    /// Granted, or it cannot be for now: nothing has to be kept for it.
    pub(super) fn served(&self, pass: &mut Pass, holder: Holder) {
        pass.kept.retain(|_, kept| kept.by.1 != holder);
    }
}
