//! Who may start: slots of pools, GPUs of this machine, and the limit over all, shared by all runs.
//!
//! Invariant: what a holder was granted is taken exactly once and given back exactly once; no pool and no device is
//! ever held beyond what it has. Candidates go by priority, then by age of their run, then by place in the workflow;
//! a candidate that does not fit holds back those behind it that want what it lacks, so that none starves. One that
//! asks for more slots than its pool has waits for the pool to grow, and holds nobody back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::engine::{Demand, Offer, Slot};
use crate::id::RunKey;

/// The pool of a task that names none.
pub const DEFAULT_POOL: &str = "default_pool";

/// A task instance, over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    pub run: RunKey,
    pub slot: Slot,
}

/// What a granted instance holds until [`Admission::release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub holder: Holder,
    /// Identifiers of the devices that it may use.
    pub gpus: Vec<String>,
    pub demand: Demand,
}

/// Why an offer can never be granted, as a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the pool `{0}` does not exist; create it with `pitcrew pools set {0} SLOTS`")]
    NoSuchPool(String),
    #[error("it asks for {}, and this machine has {total}", gpus(.asked))]
    TooManyGpus { asked: u32, total: u32 },
}

fn gpus(count: &u32) -> String {
    if *count == 1 { "1 GPU".to_owned() } else { format!("{count} GPUs") }
}

/// What an offered instance waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    Parallelism {
        max: u32,
    },
    Pool {
        pool: String,
        slots: u32,
        used: u32,
        asked: u32,
    },
    Gpus {
        asked: u32,
        free: u32,
        total: u32,
    },
    /// It fits, but these many are before it in line.
    Behind {
        ahead: usize,
    },
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::Parallelism { max } => write!(f, "all {max} places for running tasks are taken (`parallelism`)"),
            Blocked::Pool { pool, slots, used, asked } => {
                write!(f, "the pool `{pool}` has {used} of {slots} slots in use, and it asks for {asked}")
            }
            Blocked::Gpus { asked, free, total } => {
                write!(f, "it asks for {}, and {free} of {total} are free", gpus(asked))
            }
            Blocked::Behind { ahead: 0 } => f.write_str("it is next in line"),
            Blocked::Behind { ahead: 1 } => f.write_str("1 task is before it in line"),
            Blocked::Behind { ahead } => write!(f, "{ahead} tasks are before it in line"),
        }
    }
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

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    pool: String,
    wants_gpus: bool,
}

#[derive(Debug, Clone)]
struct Candidate {
    line: Line,
    rank: Rank,
    slots: u32,
    demand: Demand,
}

#[derive(Debug, Clone)]
struct Held {
    pool: String,
    slots: u32,
    gpus: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Pool {
    slots: u32,
    used: u32,
}

/// The state of admission. One per process that runs tasks.
#[derive(Debug, Clone)]
pub struct Admission {
    parallelism: u32,
    pools: BTreeMap<String, Pool>,
    /// Each device and who has it.
    gpus: BTreeMap<String, Option<Holder>>,
    lines: BTreeMap<Line, BTreeSet<Rank>>,
    candidates: BTreeMap<Holder, Candidate>,
    held: BTreeMap<Holder, Held>,
}

impl Admission {
    /// `parallelism` bounds the live instances over all pools; `gpus` are the identifiers of the devices.
    pub fn new(parallelism: u32, gpus: impl IntoIterator<Item = String>) -> Self {
        let mut admission = Admission {
            parallelism,
            pools: BTreeMap::new(),
            gpus: gpus.into_iter().map(|gpu| (gpu, None)).collect(),
            lines: BTreeMap::new(),
            candidates: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        admission.set_pool(DEFAULT_POOL, 128);
        admission
    }

    /// Creates or resizes a pool. A pool that shrinks below its use grants nothing until enough was given back.
    pub fn set_pool(&mut self, name: &str, slots: u32) {
        self.pools.entry(name.to_owned()).or_default().slots = slots;
    }

    /// How many slots of a pool are in use, and how many it has.
    pub fn pool_use(&self, name: &str) -> Option<(u32, u32)> {
        self.pools.get(name).map(|pool| (pool.used, pool.slots))
    }

    /// Every pool, by name.
    pub fn pools(&self) -> impl Iterator<Item = PoolUse<'_>> {
        self.pools.iter().map(|(name, pool)| {
            let lines = self.lines.iter().filter(|(line, _)| line.pool == *name);
            let waiting = lines.map(|(_, ranks)| ranks.len()).sum();
            PoolUse { name, slots: pool.slots, used: pool.used, waiting }
        })
    }

    /// How many GPUs are held, and how many there are.
    pub fn gpu_use(&self) -> (usize, usize) {
        (self.gpus.values().flatten().count(), self.gpus.len())
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

    /// Puts an instance in line. Offering it again replaces the offer.
    pub fn offer(&mut self, run: RunKey, offer: &Offer) -> Result<(), Refusal> {
        let holder = Holder { run, slot: offer.slot };
        self.withdraw(run, offer.slot);
        let pool = offer.pool.clone().unwrap_or_else(|| DEFAULT_POOL.to_owned());
        if !self.pools.contains_key(&pool) {
            return Err(Refusal::NoSuchPool(pool));
        }
        let total = self.gpus.len() as u32;
        if offer.demand.gpus > total {
            return Err(Refusal::TooManyGpus { asked: offer.demand.gpus, total });
        }
        let line = Line { pool, wants_gpus: offer.demand.gpus > 0 };
        let rank = (Reverse(offer.priority), holder);
        self.lines.entry(line.clone()).or_default().insert(rank);
        self.candidates.insert(holder, Candidate { line, rank, slots: offer.pool_slots, demand: offer.demand });
        Ok(())
    }

    /// Takes an instance out of line; nothing if it is not in line.
    pub fn withdraw(&mut self, run: RunKey, slot: Slot) {
        let Some(candidate) = self.candidates.remove(&Holder { run, slot }) else { return };
        if let Some(line) = self.lines.get_mut(&candidate.line) {
            line.remove(&candidate.rank);
            if line.is_empty() {
                self.lines.remove(&candidate.line);
            }
        }
    }

    /// Grants what fits now, best first. Each grant is told to its run, as [`Event::Admitted`], before the run takes
    /// any event that could take the offer back.
    ///
    /// [`Event::Admitted`]: crate::engine::Event::Admitted
    pub fn grant(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        while (self.held.len() as u32) < self.parallelism {
            let Some(holder) = self.next() else { break };
            let candidate = self.candidates[&holder].clone();
            self.withdraw(holder.run, holder.slot);
            let free = self.gpus.iter().filter(|(_, by)| by.is_none()).map(|(gpu, _)| gpu.clone());
            let gpus: Vec<String> = free.take(candidate.demand.gpus as usize).collect();
            self.take(holder, &candidate.line.pool, candidate.slots, gpus.clone());
            grants.push(Grant { holder, gpus, demand: candidate.demand });
        }
        grants
    }

    /// The best candidate that fits and wants nothing that a better one lacks.
    fn next(&self) -> Option<Holder> {
        let mut heads: Vec<&Rank> = self.lines.iter().filter_map(|(line, ranks)| self.head(line, ranks)).collect();
        heads.sort_unstable();
        let mut lacking_pools: BTreeSet<&str> = BTreeSet::new();
        let mut lacking_gpus = false;
        for (_, holder) in heads {
            let candidate = &self.candidates[holder];
            let pool = &self.pools[&candidate.line.pool];
            let held_back =
                lacking_pools.contains(candidate.line.pool.as_str()) || (lacking_gpus && candidate.line.wants_gpus);
            let lacks_slots = pool.used + candidate.slots > pool.slots;
            let lacks_gpus = candidate.demand.gpus > self.free_gpus();
            if !held_back && !lacks_slots && !lacks_gpus {
                return Some(*holder);
            }
            if lacks_slots {
                lacking_pools.insert(&candidate.line.pool);
            }
            lacking_gpus |= lacks_gpus;
        }
        None
    }

    /// The first of a line that its pool could ever serve.
    fn head<'a>(&self, line: &Line, ranks: &'a BTreeSet<Rank>) -> Option<&'a Rank> {
        let pool = &self.pools[&line.pool];
        if pool.slots == 0 {
            return None;
        }
        ranks.iter().find(|(_, holder)| self.candidates[holder].slots <= pool.slots)
    }

    fn free_gpus(&self) -> u32 {
        self.gpus.values().filter(|by| by.is_none()).count() as u32
    }

    fn take(&mut self, holder: Holder, pool: &str, slots: u32, gpus: Vec<String>) {
        self.pools.entry(pool.to_owned()).or_default().used += slots;
        for gpu in &gpus {
            self.gpus.insert(gpu.clone(), Some(holder));
        }
        let before = self.held.insert(holder, Held { pool: pool.to_owned(), slots, gpus });
        assert!(before.is_none(), "an instance was granted twice");
    }

    /// After a restart: an attempt that lives on holds again what it held, also beyond what there is now.
    pub fn adopt(&mut self, run: RunKey, slot: Slot, pool: Option<&str>, slots: u32, gpus: Vec<String>) {
        let holder = Holder { run, slot };
        if !self.held.contains_key(&holder) {
            self.withdraw(run, slot);
            self.take(holder, pool.unwrap_or(DEFAULT_POOL), slots, gpus);
        }
    }

    /// Gives back what an instance holds. Twice is once.
    pub fn release(&mut self, run: RunKey, slot: Slot) {
        let holder = Holder { run, slot };
        let Some(held) = self.held.remove(&holder) else { return };
        if let Some(pool) = self.pools.get_mut(&held.pool) {
            pool.used -= held.slots;
        }
        for gpu in held.gpus {
            if let Some(by) = self.gpus.get_mut(&gpu)
                && *by == Some(holder)
            {
                *by = None;
            }
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

    /// What an instance in line waits for; `None` if it is not in line.
    pub fn why(&self, run: RunKey, slot: Slot) -> Option<Blocked> {
        let candidate = self.candidates.get(&Holder { run, slot })?;
        let pool = &self.pools[&candidate.line.pool];
        let free = self.free_gpus();
        Some(if self.held.len() as u32 >= self.parallelism {
            Blocked::Parallelism { max: self.parallelism }
        } else if pool.used + candidate.slots > pool.slots {
            let (slots, used) = (pool.slots, pool.used);
            Blocked::Pool { pool: candidate.line.pool.clone(), slots, used, asked: candidate.slots }
        } else if candidate.demand.gpus > free {
            Blocked::Gpus { asked: candidate.demand.gpus, free, total: self.gpus.len() as u32 }
        } else {
            let rivals = self
                .lines
                .iter()
                .filter(|(line, _)| line.pool == candidate.line.pool || (line.wants_gpus && candidate.line.wants_gpus));
            Blocked::Behind { ahead: rivals.map(|(_, ranks)| ranks.range(..candidate.rank).count()).sum() }
        })
    }

    /// Panics when something is held twice, beyond what there is, or by nobody. `adopted` allows for more than the
    /// pools have, which only a restart with smaller pools brings about.
    pub fn sanity_check(&self, adopted: bool) {
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        let mut devices: BTreeMap<&str, Holder> = BTreeMap::new();
        for (holder, held) in &self.held {
            *used.entry(&held.pool).or_default() += held.slots;
            for gpu in &held.gpus {
                assert!(devices.insert(gpu, *holder).is_none(), "{gpu} is held twice");
            }
            assert!(!self.candidates.contains_key(holder), "{holder:?} holds and is in line");
        }
        for (name, pool) in &self.pools {
            assert_eq!(pool.used, used.get(name.as_str()).copied().unwrap_or(0), "use of pool {name}");
            assert!(adopted || pool.used <= pool.slots, "pool {name} holds more than it has");
        }
        for (gpu, by) in &self.gpus {
            assert_eq!(by.as_ref(), devices.get(gpu.as_str()), "holder of {gpu}");
        }
        assert!(adopted || self.held.len() as u32 <= self.parallelism, "parallelism");
        let in_line: usize = self.lines.values().map(BTreeSet::len).sum();
        assert_eq!(in_line, self.candidates.len(), "candidates in line");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::TaskIx;

    fn offer(task: u32, priority: i64, slots: u32, gpus: u32) -> Offer {
        let demand = Demand { gpus, ..Demand::default() };
        Offer { slot: Slot::new(TaskIx(task), 0), pool: None, pool_slots: slots, priority, demand }
    }

    fn granted(admission: &mut Admission) -> Vec<u32> {
        let tasks = admission.grant().iter().map(|grant| grant.holder.slot.task.0).collect();
        admission.sanity_check(false);
        tasks
    }

    #[test]
    fn the_best_goes_first_and_nothing_goes_beyond_a_pool() {
        let mut admission = Admission::new(32, []);
        admission.set_pool(DEFAULT_POOL, 4);
        for (task, priority, slots) in [(1, 0, 1), (2, 9, 3), (3, 5, 2), (4, 0, 1)] {
            admission.offer(RunKey(1), &offer(task, priority, slots, 0)).unwrap();
        }
        // 2 takes three slots; 3 wants two and holds the line, although 1 would fit.
        assert_eq!(granted(&mut admission), [2]);
        let why = admission.why(RunKey(1), Slot::new(TaskIx(3), 0)).unwrap();
        insta::assert_snapshot!(why, @"the pool `default_pool` has 3 of 4 slots in use, and it asks for 2");
        admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
        admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
        assert_eq!(granted(&mut admission), [3, 1, 4]);
    }

    #[test]
    fn gpus_are_exact_devices_and_a_waiting_gang_is_not_overtaken_by_small_ones() {
        let mut admission = Admission::new(32, ["gpu-0".to_owned(), "gpu-1".to_owned()]);
        admission.offer(RunKey(1), &offer(1, 0, 1, 1)).unwrap();
        assert_eq!(admission.grant()[0].gpus, ["gpu-0"]);
        admission.offer(RunKey(1), &offer(2, 0, 1, 2)).unwrap();
        admission.offer(RunKey(1), &offer(3, 0, 1, 1)).unwrap();
        admission.offer(RunKey(1), &offer(4, 0, 1, 0)).unwrap();
        assert_eq!(granted(&mut admission), [4]);
        admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
        assert_eq!(granted(&mut admission), [2]);
        let refusal = admission.offer(RunKey(1), &offer(5, 0, 1, 3)).unwrap_err();
        insta::assert_snapshot!(refusal, @"it asks for 3 GPUs, and this machine has 2");
    }

    #[test]
    fn a_waiting_gang_is_not_overtaken_through_another_pool() {
        let mut admission = Admission::new(32, ["gpu-0".to_owned(), "gpu-1".to_owned()]);
        admission.set_pool("other", 8);
        admission.offer(RunKey(1), &offer(1, 0, 1, 1)).unwrap();
        assert_eq!(granted(&mut admission), [1]);
        admission.offer(RunKey(1), &offer(2, 0, 1, 2)).unwrap();
        admission.offer(RunKey(1), &Offer { pool: Some("other".to_owned()), ..offer(3, 0, 1, 1) }).unwrap();
        assert_eq!(granted(&mut admission), [0; 0]);
        let why = admission.why(RunKey(1), Slot::new(TaskIx(3), 0)).unwrap();
        insta::assert_snapshot!(why, @"1 task is before it in line");
    }

    #[test]
    fn who_asks_for_more_than_a_pool_has_waits_alone() {
        let mut admission = Admission::new(32, []);
        admission.set_pool(DEFAULT_POOL, 2);
        admission.offer(RunKey(1), &offer(1, 9, 3, 0)).unwrap();
        admission.offer(RunKey(1), &offer(2, 0, 1, 0)).unwrap();
        assert_eq!(granted(&mut admission), [2]);
        let why = admission.why(RunKey(1), Slot::new(TaskIx(1), 0)).unwrap();
        insta::assert_snapshot!(why, @"the pool `default_pool` has 1 of 2 slots in use, and it asks for 3");
        admission.set_pool(DEFAULT_POOL, 4);
        assert_eq!(granted(&mut admission), [1]);
    }

    #[test]
    fn a_forgotten_run_holds_nothing() {
        let mut admission = Admission::new(1, []);
        for task in 0..3 {
            admission.offer(RunKey(7), &offer(task, 0, 1, 0)).unwrap();
        }
        assert_eq!(granted(&mut admission), [0]);
        admission.adopt(RunKey(8), Slot::new(TaskIx(0), 0), None, 1, Vec::new());
        admission.forget(RunKey(7));
        admission.sanity_check(false);
        assert_eq!(admission.pool_use(DEFAULT_POOL), Some((1, 128)));
    }
}
