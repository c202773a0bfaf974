//! Who may start: slots of pools, room on the nodes of the fleet, and the limit over all, shared by all runs.
//!
//! Invariant: what a holder was granted is taken exactly once and given back exactly once; no pool and no device is
//! ever held beyond what it has. Candidates go by priority, then by age of their run, then by place in the workflow.
//! A candidate that lacks slots holds back those behind it in its pool. The first that lacks room on the nodes is promised
//! nodes, and keeps its slots: somebody behind it takes nothing there that it waits for, so it begins as soon as if
//! nobody had passed. To give somebody room sooner, preemptible holders of lower priority are made to end, the cheapest
//! of them; where that is enough, whoever waits for it is promised that room as well.
//! One that asks for more slots than its pool has, or for nodes that take no work now, holds nobody back.
//!
//! A gang stands in line as one, by its first member, with the sums of what its members ask for; it is granted all of it
//! or nothing, so two gangs cannot wait for each other. Then each member holds its own, and gives that back when it ends.
//!
//! Quotas bound what a namespace holds ([`quota`]); of one priority, the namespace goes first that uses least of its own.

mod charge;
mod grant;
mod pass;
mod quota;
mod reclaim;
pub mod replay;
mod usual;
mod why;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::engine::{Demand, Offer, Slot};
use crate::fleet::{Amount, Fleet, Gang, Lease, LeaseId, Node, Policy, Request, Twice, Workload};
use crate::id::RunKey;
use crate::ir::Task;

use pass::Kept;
use quota::Quotas;
pub use quota::{Amounts, DEFAULT_NAMESPACE, Lack, Limits, Quota, QuotaUse, Resource};
use usual::Usual;
pub use why::{Blocked, Few, Refusal};

/// The pool of a task that names none.
pub const DEFAULT_POOL: &str = "default_pool";

/// A task instance, over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    pub run: RunKey,
    pub slot: Slot,
}

/// Where something was placed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    pub node: String,
    /// The devices that it may use, by UUID.
    pub gpus: Vec<String>,
}

/// What a granted instance holds until [`Admission::release`]; of a gang, what each of its members does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The first member of a gang stands for all of them.
    pub holder: Holder,
    /// Of each member; one where there is no gang, and none where nothing is asked of a node.
    pub placed: Vec<Placed>,
    pub demand: Demand,
}

impl Grant {
    /// Each instance that was placed, and where.
    pub fn placed(self) -> impl Iterator<Item = (Slot, Placed)> {
        let Slot { task, index } = self.holder.slot;
        (index..).zip(self.placed).map(move |(index, placed)| (Slot { task, index }, placed))
    }
}

/// Somebody who has to end, and for whom. A gang ends as a whole; one of its members stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preemption {
    pub victim: Holder,
    pub by: Holder,
    pub cause: Cause,
}

/// Why somebody has to end for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The other has a higher priority.
    Priority,
    /// The namespace of the other takes back what was lent.
    Reclaim,
}

/// How much of a pool is in use, and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse<'a> {
    pub name: &'a str,
    pub slots: u32,
    pub used: u32,
    /// Candidates in line.
    pub waiting: usize,
}

type Rank = (Reverse<i64>, Holder);

/// Those that ask for the same: if one of them has no room, none has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    namespace: Arc<str>,
    pool: String,
    request: Option<Arc<Request>>,
    /// It is asked for by each of its members.
    gang: Option<Gang>,
}

impl Line {
    /// How many instances each candidate stands for.
    fn members(&self) -> u32 {
        self.gang.as_ref().map_or(1, |gang| gang.count)
    }
}

#[derive(Debug, Clone)]
struct Candidate {
    line: Arc<Line>,
    rank: Rank,
    /// Of all members.
    slots: u32,
    /// The most that could count against the quota, of all members.
    asked: Amounts,
    is_preemptible: bool,
    limit: Option<SignedDuration>,
    demand: Demand,
}

#[derive(Debug, Clone)]
struct Held {
    namespace: Arc<str>,
    pool: String,
    slots: u32,
    /// What counts against the quota.
    amounts: Amounts,
    /// It has a lease of the fleet, under its own name.
    is_placed: bool,
    /// It is of a gang: those of the same task of the same run end with it.
    is_member: bool,
    /// The how many-th grant it was.
    number: u64,
    /// By when it is gone as a rule, if that is known.
    ends: Option<Timestamp>,
    priority: i64,
    is_preemptible: bool,
    /// It was told to end, or ends anyway.
    is_ending: bool,
}

#[derive(Debug, Clone, Default)]
struct Pool {
    slots: u32,
    used: u32,
    /// Grants so far.
    granted: u64,
}

/// Nodes that are kept for somebody until it begins, or stands in line no more.
#[derive(Debug, Clone)]
struct Promised {
    /// The how many-th promise it is.
    number: u64,
    /// Others end there for it.
    is_cleared: bool,
    nodes: BTreeSet<String>,
}

/// What is kept for those that wait.
#[derive(Debug, Clone, Default)]
struct KeptSlots {
    /// Of each pool.
    slots: BTreeMap<String, u32>,
    /// Of the places of all that run.
    places: u32,
    /// Pools where somebody has too few slots: what is left of them is for him.
    lacking: BTreeSet<String>,
}

/// A namespace that waits for a slot: of a pool, or for a place among all that run.
type SlotWait = (Arc<str>, Option<String>);

/// The state of admission. One per process that runs tasks.
#[derive(Debug, Clone)]
pub struct Admission {
    parallelism: u32,
    /// Holders that take no place of this machine: they go on where another server led.
    elsewhere: BTreeSet<Holder>,
    pools: BTreeMap<String, Pool>,
    fleet: Fleet,
    quotas: Quotas,
    lines: BTreeMap<Arc<Line>, BTreeSet<Rank>>,
    candidates: BTreeMap<Holder, Candidate>,
    held: BTreeMap<Holder, Held>,
    /// Grants so far.
    granted: u64,
    /// Who is promised nodes.
    promised: BTreeMap<Holder, Promised>,
    /// Promises so far.
    promises: u64,
    /// How many were granted a slot before the namespace began to wait for one, and the priority at which it waits.
    slot_waits: BTreeMap<SlotWait, (u64, i64)>,
    /// Of each cohort, who is the first to get what it can lend.
    owed: BTreeMap<String, Kept>,
    /// Of each namespace, what of the quota somebody waits for, and keeps from those behind.
    held_back: BTreeMap<Arc<str>, BTreeMap<Resource, Rank>>,
    /// What the last pass kept for those that wait, of slots and places.
    kept: KeptSlots,
    /// Who has to end, and was not told yet.
    preemptions: Vec<Preemption>,
    /// Whether the nodes as they are now could take what a line asks for, were they empty; as far as it was asked.
    could: BTreeMap<Arc<Line>, bool>,
    /// What usually comes: what the policy `fgd` keeps room for.
    usual: Usual,
    /// Nothing changed since the last grants: there are no others.
    is_settled: bool,
}

/// The instances of a gang whose first is this.
fn members(first: Holder, count: u32) -> impl Iterator<Item = Holder> {
    let Holder { run, slot: Slot { task, index } } = first;
    (index..index.saturating_add(count)).map(move |index| Holder { run, slot: Slot { task, index } })
}

fn lease_id(holder: Holder) -> LeaseId {
    let Holder { run, slot } = holder;
    LeaseId(format!("{run}/{}/{}", slot.task.0, slot.index))
}

impl Admission {
    /// `parallelism` bounds the live instances over all pools.
    pub fn new(parallelism: u32, nodes: Vec<Node>) -> Result<Self, Twice> {
        let mut admission = Admission {
            parallelism,
            elsewhere: BTreeSet::new(),
            pools: BTreeMap::new(),
            fleet: Fleet::new(Vec::new(), Policy::default(), Workload::default())?,
            quotas: Quotas::default(),
            lines: BTreeMap::new(),
            candidates: BTreeMap::new(),
            held: BTreeMap::new(),
            granted: 0,
            promised: BTreeMap::new(),
            promises: 0,
            owed: BTreeMap::new(),
            slot_waits: BTreeMap::new(),
            held_back: BTreeMap::new(),
            kept: KeptSlots::default(),
            preemptions: Vec::new(),
            could: BTreeMap::new(),
            usual: Usual::default(),
            is_settled: false,
        };
        admission.set_nodes(nodes)?;
        admission.set_pool(DEFAULT_POOL, 128);
        Ok(admission)
    }

    /// Creates or resizes a pool. A pool that shrinks below its use grants nothing until enough was given back.
    pub fn set_pool(&mut self, name: &str, slots: u32) {
        self.pools.entry(name.to_owned()).or_default().slots = slots;
        self.is_settled = false;
    }

    /// The nodes as they are from now on. Who holds something keeps it, also on a node that is gone.
    pub fn set_nodes(&mut self, nodes: Vec<Node>) -> Result<(), Twice> {
        self.is_settled = false;
        self.could.clear();
        let whole = Amounts::of_nodes(&nodes);
        self.fleet.set_nodes(nodes)?;
        self.quotas.set_whole(whole);
        self.charge_anew();
        Ok(())
    }

    /// What placement is after from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.is_settled = false;
        self.fleet.set_policy(policy);
    }

    /// The quotas as they are from now on. A namespace that holds more than its quota is then takes nothing until enough
    /// was given back.
    pub fn set_quotas(&mut self, quotas: Vec<Quota>) {
        if self.quotas.set(quotas) {
            self.is_settled = false;
        }
    }

    /// What each namespace holds that has a quota, or ever asked for something.
    pub fn quota_uses(&self) -> Vec<QuotaUse<'_>> {
        let waiting = |namespace: &str| {
            let lines = self.lines.iter().filter(|(line, _)| *line.namespace == *namespace);
            lines.map(|(_, ranks)| ranks.len()).sum()
        };
        let names = self.quotas.namespaces().into_iter();
        names.filter_map(|namespace| self.quotas.of(namespace, waiting(namespace))).collect()
    }

    /// What all of a cohort together hold, and have of their own.
    pub fn cohort_use(&self, cohort: &str, resource: Resource) -> (Amount, Amount) {
        self.quotas.of_cohort(cohort, resource)
    }

    /// How many slots of a pool are in use, and how many it has.
    pub fn pool_use(&self, name: &str) -> Option<(u32, u32)> {
        self.pools.get(name).map(|pool| (pool.used, pool.slots))
    }

    /// How many stand in line for the workers of each queue.
    pub fn queues(&self) -> BTreeMap<&str, usize> {
        let mut all = BTreeMap::new();
        for (line, ranks) in self.lines.iter().filter(|(_, ranks)| !ranks.is_empty()) {
            if let Some(queue) = line.request.as_ref().and_then(|request| request.queue.as_deref()) {
                *all.entry(queue).or_default() += ranks.len();
            }
        }
        all
    }

    /// Every pool, by name.
    pub fn pools(&self) -> impl Iterator<Item = PoolUse<'_>> {
        self.pools.iter().map(|(name, pool)| {
            let lines = self.lines.iter().filter(|(line, _)| line.pool == *name);
            let waiting = lines.map(|(_, ranks)| ranks.len()).sum();
            PoolUse { name, slots: pool.slots, used: pool.used, waiting }
        })
    }

    /// How many GPUs somebody has something of, and how many there are.
    pub fn gpu_use(&self) -> (usize, usize) {
        self.fleet.gpu_use()
    }

    /// The nodes and their leases.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Who stands in line, the best first, `limit` at most; and how many there are.
    pub fn in_line(&self, limit: usize) -> (Vec<Holder>, usize) {
        let mut best: Vec<Rank> = self.lines.values().flat_map(|ranks| ranks.iter().take(limit).copied()).collect();
        best.sort_unstable();
        (best.into_iter().take(limit).map(|(_, holder)| holder).collect(), self.candidates.len())
    }

    pub fn live(&self) -> usize {
        self.held.len()
    }

    /// Was it granted something that it has not given back?
    pub fn holds(&self, run: RunKey, slot: Slot) -> bool {
        self.held.contains_key(&Holder { run, slot })
    }

    /// Where it was placed, and what it holds there.
    pub fn lease(&self, run: RunKey, slot: Slot) -> Option<&Lease> {
        self.fleet.leases().get(&lease_id(Holder { run, slot }))
    }

    /// Puts an instance in line, or a gang by its first member. Offering it again replaces the offer.
    pub fn offer(&mut self, run: RunKey, offer: &Offer) -> Result<(), Refusal> {
        let holder = Holder { run, slot: offer.slot };
        self.withdraw(run, offer.slot);
        let pool = offer.pool.clone().unwrap_or_else(|| DEFAULT_POOL.to_owned());
        if !self.pools.contains_key(&pool) {
            return Err(Refusal::NoSuchPool(pool));
        }
        let namespace = self.quotas.name(&offer.namespace);
        // Members of a gang have a node each, also when they ask for nothing else of it; but where their backend finds those.
        let request = match (&offer.demand.request, &offer.gang) {
            (None, Some(gang)) if !gang.is_elsewhere => Some(Arc::new(Request::default())),
            (request, _) => request.clone(),
        };
        let line = Line { namespace, pool, request, gang: offer.gang.clone() };
        let line = match self.lines.get_key_value(&line) {
            Some((line, _)) => line.clone(),
            None => {
                self.check(&line)?;
                Arc::new(line)
            }
        };
        let rank = (Reverse(offer.priority), holder);
        let (slots, is_preemptible) = (offer.pool_slots.saturating_mul(line.members()), offer.is_preemptible);
        // Those of one line ask for the same.
        let alike = self.lines.get(&line).and_then(|ranks| self.candidates.get(&ranks.first()?.1));
        let asked = match (alike, line.request.as_deref()) {
            (Some(other), _) => other.asked,
            (None, Some(request)) => self.most(request).times(line.members()),
            (None, None) => Amounts::default(),
        };
        self.lines.entry(line.clone()).or_default().insert(rank);
        let candidate =
            Candidate { line, rank, slots, asked, is_preemptible, limit: offer.limit, demand: offer.demand.clone() };
        if let Some(request) = candidate.line.request.as_deref() {
            self.usual.saw(request);
        }
        self.candidates.insert(holder, candidate);
        self.is_settled = false;
        Ok(())
    }

    /// Whether a node could ever take what this line asks for; of a gang, as many as it has members.
    fn check(&self, line: &Line) -> Result<(), Refusal> {
        line.request.as_ref().map_or(Ok(()), |request| request.check())?;
        if line.members() > self.parallelism {
            return Err(Refusal::Parallelism { members: line.members(), max: self.parallelism });
        }
        let Some(request) = &line.request else { return Ok(()) };
        // Nodes are configured; but a worker of the queue may still come.
        let is_open = request.queue.as_ref().is_some_and(|queue| !self.fleet.serves(queue));
        let is_open = is_open || (line.gang.is_some() && self.fleet.could_be_workers(request));
        if is_open || self.fleet.could_ever(request, line.gang.as_ref()) {
            return Ok(());
        }
        let misses = self.fleet.never(request).into_iter().map(|(node, miss)| (node.to_owned(), miss)).collect();
        Err(match &line.gang {
            Some(gang) if self.fleet.could_ever(request, None) => {
                let could = self.fleet.places(request, gang).1;
                Refusal::TooFew { few: Few::of(gang, could), misses }
            }
            _ => Refusal::NoNode(misses),
        })
    }

    /// Takes an instance out of line; nothing if it is not in line.
    pub fn withdraw(&mut self, run: RunKey, slot: Slot) {
        let holder = Holder { run, slot };
        let Some(candidate) = self.candidates.remove(&holder) else { return };
        self.promised.remove(&holder);
        self.is_settled = false;
        if let Some(line) = self.lines.get_mut(&candidate.line) {
            line.remove(&candidate.rank);
            if line.is_empty() {
                self.lines.remove(&candidate.line);
            }
        }
    }

    /// After a restart: an attempt that lives on holds again what it held, also beyond what there is now. `is_ending`: it
    /// is being ended.
    pub fn adopt(
        &mut self,
        run: RunKey,
        slot: Slot,
        namespace: &str,
        task: &Task,
        is_ending: bool,
        placed: Option<(&Placed, &Request)>,
    ) {
        let holder = Holder { run, slot };
        if self.held.contains_key(&holder) {
            return;
        }
        self.withdraw(run, slot);
        if let Some((placed, request)) = placed {
            self.usual.saw(request);
            self.fleet.adopt(lease_id(holder), &placed.node, request, placed.gpus.clone());
        }
        let held = Held {
            namespace: self.quotas.name(namespace),
            amounts: placed.map(|(_, request)| Amounts::of(request)).unwrap_or_default(),
            pool: task.pool.as_deref().unwrap_or(DEFAULT_POOL).to_owned(),
            slots: task.pool_slots,
            is_placed: placed.is_some(),
            is_member: task.gang.is_some(),
            number: self.granted,
            // Since when it runs, and whether it is ended in time, only its backend knows.
            ends: None,
            priority: task.priority,
            is_preemptible: task.is_preemptible,
            is_ending,
        };
        self.take(holder, held);
    }

    /// It is being ended, for whatever reason: what it holds will be given back, and nobody else has to end for that.
    pub fn ends(&mut self, run: RunKey, slot: Slot) {
        if let Some(held) = self.held.get_mut(&Holder { run, slot }) {
            held.is_ending = true;
        }
    }

    /// What an instance was granted of its node, while it holds that.
    pub fn granted(&self, run: RunKey, slot: Slot) -> Option<&Request> {
        self.fleet.leases().get(&lease_id(Holder { run, slot })).map(|lease| &lease.request)
    }

    /// What an instance holds is on the machine of another server: it takes no place among the tasks that run here.
    pub fn lives_elsewhere(&mut self, run: RunKey, slot: Slot) {
        let holder = Holder { run, slot };
        if self.held.contains_key(&holder) {
            self.elsewhere.insert(holder);
            self.is_settled = false;
        }
    }

    /// How many of those that hold something take a place of this machine.
    fn here(&self) -> u32 {
        (self.held.len() - self.elsewhere.len()) as u32
    }

    /// Whether as many run as may.
    fn is_full(&self) -> bool {
        self.here() >= self.parallelism
    }

    /// Gives back what an instance holds. Twice is once.
    pub fn release(&mut self, run: RunKey, slot: Slot) {
        let holder = Holder { run, slot };
        let Some(held) = self.held.remove(&holder) else { return };
        self.elsewhere.remove(&holder);
        self.is_settled = false;
        if let Some(pool) = self.pools.get_mut(&held.pool) {
            pool.used -= held.slots;
        }
        self.quotas.give_back(&held.namespace, held.amounts);
        if held.is_placed {
            self.fleet.release(&lease_id(holder));
        }
    }

    /// Drops everything of a run that is no longer ours.
    pub fn forget(&mut self, run: RunKey) {
        let of_run = |holder: &&Holder| holder.run == run;
        for holder in self.candidates.keys().filter(of_run).copied().collect::<Vec<_>>() {
            self.withdraw(holder.run, holder.slot);
        }
        for holder in self.held.keys().filter(of_run).copied().collect::<Vec<_>>() {
            self.release(holder.run, holder.slot);
        }
    }

    /// Panics when something is held twice, beyond what there is, or by nobody. `adopted` allows for more than the
    /// pools and nodes have, which only a restart with smaller ones brings about.
    pub fn sanity_check(&self, adopted: bool) {
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        let mut amounts: BTreeMap<&str, Amounts> = BTreeMap::new();
        for (holder, held) in &self.held {
            *used.entry(&held.pool).or_default() += held.slots;
            let sum = amounts.entry(&held.namespace).or_default();
            *sum = sum.plus(held.amounts);
            assert!(!self.candidates.contains_key(holder), "{holder:?} holds and is in line");
            assert_eq!(self.fleet.leases().contains_key(&lease_id(*holder)), held.is_placed, "the lease of {holder:?}");
        }
        let placed = self.held.values().filter(|held| held.is_placed).count();
        assert_eq!(placed, self.fleet.leases().len(), "a lease is nobody's");
        self.fleet.sanity_check(adopted);
        self.quotas.sanity_check(&amounts, adopted);
        for (name, pool) in &self.pools {
            assert_eq!(pool.used, used.get(name.as_str()).copied().unwrap_or(0), "use of pool {name}");
            assert!(adopted || pool.used <= pool.slots, "pool {name} holds more than it has");
        }
        for Preemption { victim, .. } in &self.preemptions {
            assert!(!self.held.contains_key(victim) || self.held[victim].is_ending, "{victim:?} is to end");
        }
        assert!(self.promised.keys().all(|holder| self.candidates.contains_key(holder)), "promised");
        assert!(self.elsewhere.iter().all(|holder| self.held.contains_key(holder)), "elsewhere");
        assert!(adopted || self.here() <= self.parallelism, "parallelism");
        let in_line: usize = self.lines.values().map(BTreeSet::len).sum();
        assert_eq!(in_line, self.candidates.len(), "candidates in line");
    }
}

#[cfg(test)]
mod tests;
