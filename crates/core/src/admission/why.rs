//! Why an instance waits, or can never start, in sentences for people: from the very facts that grants are made by.

use std::fmt;

use super::pass::asked_of;
use super::quota::Quotas;
use super::{Admission, Candidate, Holder, KeptSlots, Lack, Line};
use crate::engine::Slot;
use crate::fleet::{BadRequest, Gang, Miss, Promises, Request};
use crate::id::RunKey;

/// Nodes that are told of in one sentence.
const TOLD: usize = 3;

/// Why an offer can never be granted, as a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the pool `{0}` does not exist; create it with `pitcrew pools set {0} SLOTS`")]
    NoSuchPool(String),
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// Each node, and what keeps it from ever taking this, the nearest miss first.
    #[error("no node can ever take it{}", nearest(.0))]
    NoNode(Vec<(String, Miss)>),
    #[error(
        "it has {members} members that run at a time, and all tasks together are {max} at most (`parallelism` of the server)"
    )]
    Parallelism { members: u32, max: u32 },
    /// A gang; why the other nodes cannot take a member.
    #[error("{few}{}", others(.misses))]
    TooFew { few: Few, misses: Vec<(String, Miss)> },
}

/// A gang for which there are not enough nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few {
    members: u32,
    could: usize,
    /// The label that they have to agree in.
    near: Option<String>,
}

impl Few {
    pub(super) fn of(gang: &Gang, could: usize) -> Few {
        let near = gang.topology.as_ref().filter(|topology| topology.is_required);
        Few { members: gang.count, could, near: near.map(|topology| topology.label.clone()) }
    }
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = match self.could {
            0 => "no node".to_owned(),
            1 => "only 1 node".to_owned(),
            could => format!("only {could} nodes"),
        };
        write!(f, "it has {} members with a node each, and {} could ever take one", self.members, told)?;
        match &self.near {
            Some(label) => write!(f, " that agree in the label `{label}`"),
            None => Ok(()),
        }
    }
}

fn others(misses: &[(String, Miss)]) -> String {
    if misses.is_empty() { String::new() } else { format!("; of the others, {}", listed(misses)) }
}

fn nearest(misses: &[(String, Miss)]) -> String {
    match misses.is_empty() {
        true => "; there are no nodes".to_owned(),
        false => format!(", not even when it is empty: {}", listed(misses)),
    }
}

fn listed(misses: &[(String, Miss)]) -> String {
    let told = misses.iter().take(TOLD).map(|(node, miss)| format!("`{node}`: {miss}"));
    let mut text = told.collect::<Vec<_>>().join("; ");
    if misses.len() > TOLD {
        text.push_str(&format!("; and {} more nodes", misses.len() - TOLD));
    }
    text
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
    Quota(Lack),
    /// Somebody before it waits for the quota of its namespace.
    QuotaKept {
        namespace: String,
    },
    /// What is left of the quotas of the cohort is kept for those before it that wait for room.
    CohortKept {
        cohort: String,
    },
    /// Somebody else is the first to get what the cohort can lend.
    LoanKept {
        cohort: String,
    },
    /// Each node, and why it does not take it now.
    Room {
        nodes: Vec<(String, Miss)>,
    },
    /// Members that would find a node now, of how many. Of the other nodes, why they take none.
    Gang {
        members: u32,
        found: usize,
        /// The label that their nodes have to agree in.
        near: Option<String>,
        nodes: Vec<(String, Miss)>,
    },
    /// A gang waits for a worker to come.
    TooFew(Few),
    /// There is no worker for its queue.
    Unserved {
        queue: String,
    },
    /// What is left of the slots of its pool is kept for somebody before it.
    SlotsKept {
        pool: String,
    },
    /// What is left of the places of all that run is.
    PlacesKept,
    /// It would fit, but in the room that is kept for somebody who came before it.
    Kept,
    /// Nothing is known against it; these many are before it in line.
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
            Blocked::Quota(lack) => lack.fmt(f),
            Blocked::QuotaKept { namespace } => {
                write!(f, "what is left of the quota of namespace `{namespace}` is kept for a task before it")
            }
            Blocked::CohortKept { cohort } => {
                write!(f, "what is left of the quotas of the cohort `{cohort}` is kept for tasks before it")
            }
            Blocked::LoanKept { cohort } => {
                write!(f, "it would have to borrow, and what the cohort `{cohort}` can lend is kept for another task")
            }
            Blocked::Room { nodes } => write!(f, "no node has room for it: {}", listed(nodes)),
            Blocked::Gang { members, found, near, nodes } => {
                write!(f, "{found} of its {members} members would find a node now")?;
                if let Some(label) = near {
                    write!(f, " with nodes that agree in the label `{label}`")?;
                }
                f.write_str(", and they begin together")?;
                if nodes.is_empty() { Ok(()) } else { write!(f, ": {}", listed(nodes)) }
            }
            Blocked::TooFew(few) => write!(f, "{few}: another worker has to come"),
            Blocked::Unserved { queue } => {
                write!(
                    f,
                    "no worker serves the queue `{queue}`; `pitcrew worker --queue {queue}` on a machine starts one"
                )
            }
            Blocked::SlotsKept { pool } => {
                write!(f, "what is left of the slots of the pool `{pool}` is kept for a task before it")
            }
            Blocked::PlacesKept => {
                f.write_str("what is left of the places for running tasks (`parallelism`) is kept for a task before it")
            }
            Blocked::Kept => f.write_str("the room that there is, is kept for a task that waits longer"),
            Blocked::Behind { ahead: 0 } => f.write_str("it is next in line"),
            Blocked::Behind { ahead: 1 } => f.write_str("1 task is before it in line"),
            Blocked::Behind { ahead } => write!(f, "{ahead} tasks are before it in line"),
        }
    }
}

impl Admission {
    /// What an instance in line waits for; `None` if it is not in line. A gang is asked about by its first member.
    pub fn why(&self, run: RunKey, slot: Slot) -> Option<Blocked> {
        let holder = Holder { run, slot };
        let candidate = self.candidates.get(&holder)?;
        let pool = &self.pools[&candidate.line.pool];
        let members = candidate.line.members();
        if self.here() + members > self.parallelism {
            return Some(Blocked::Parallelism { max: self.parallelism });
        }
        if let Some(request) = &candidate.line.request
            && !self.fleet.could_now(request, candidate.line.gang.as_ref())
        {
            return Some(self.why_no_room(&candidate.line, request));
        }
        if pool.used + candidate.slots > pool.slots {
            let (slots, used) = (pool.slots, pool.used);
            return Some(Blocked::Pool { pool: candidate.line.pool.clone(), slots, used, asked: candidate.slots });
        }
        if let Some(blocked) = self.why_not_by_quota(holder) {
            return Some(blocked);
        }
        if let Some(request) = &candidate.line.request
            && (self.fleet.explain(request).iter().all(|(_, miss)| miss.is_some())
                || self.why_not_all(&candidate.line, request).is_some())
        {
            return Some(self.why_no_room(&candidate.line, request));
        }
        if let Some(blocked) = self.why_kept(holder).filter(|_| self.is_settled) {
            return Some(blocked);
        }
        let rivals = self.lines.iter().filter(|(line, _)| line.pool == candidate.line.pool);
        let ahead = rivals.map(|(_, ranks)| ranks.range(..candidate.rank).count()).sum();
        Some(Blocked::Behind { ahead })
    }

    /// Whether the last pass kept for somebody else what it asks for.
    fn why_kept(&self, holder: Holder) -> Option<Blocked> {
        let Candidate { line, slots, asked, .. } = &self.candidates[&holder];
        let quotas = self.quotas.in_pass();
        if let Some(lack) = quotas.lack(&line.namespace, asked) {
            return Some(match lack.cohort {
                Some(cohort) => Blocked::CohortKept { cohort },
                None => Blocked::QuotaKept { namespace: lack.namespace },
            });
        }
        if let Some(blocked) = self.why_no_loan(holder, &quotas) {
            return Some(blocked);
        }
        let KeptSlots { slots: kept, places, lacking } = &self.kept;
        // What is kept for itself is in no way of it.
        let (own, own_places) = self.promised.get(&holder).map_or((0, 0), |_| (*slots, line.members()));
        let kept = kept.get(&line.pool).copied().unwrap_or_default().saturating_sub(own);
        if lacking.contains(&line.pool) || self.lacks_slots(holder, kept) {
            return Some(Blocked::SlotsKept { pool: line.pool.clone() });
        }
        if self.here() + places.saturating_sub(own_places) + line.members() > self.parallelism {
            return Some(Blocked::PlacesKept);
        }
        line.request.as_ref().filter(|request| self.is_kept(holder, request)).map(|_| Blocked::Kept)
    }

    /// Whether it finds no room beside what is promised to others.
    fn is_kept(&self, holder: Holder, request: &Request) -> bool {
        let promises = self.promises_beside(holder);
        !promises.is_empty() && !self.fleet.has_beside(request, self.candidates[&holder].line.gang.as_ref(), &promises)
    }

    /// What is promised to all others.
    pub(super) fn promises_beside(&self, holder: Holder) -> Promises {
        let mut promises = Promises::default();
        for (other, promised) in self.promised.iter().filter(|(other, _)| **other != holder) {
            if let Some(asked) = &self.candidates[other].line.request {
                promises.keep(&self.fleet.able(&promised.nodes, asked), asked);
            }
        }
        promises
    }

    fn why_no_room(&self, line: &Line, request: &Request) -> Blocked {
        if let Some(queue) = request.queue.as_ref().filter(|queue| !self.fleet.serves(queue)) {
            return Blocked::Unserved { queue: queue.clone() };
        }
        let told = self.fleet.explain(request).into_iter();
        let mut nodes: Vec<(String, Miss)> = told.filter_map(|(node, miss)| Some((node.to_owned(), miss?))).collect();
        let is_of_queue = |(_, miss): &(String, Miss)| !matches!(miss, Miss::Queue(_));
        if nodes.iter().any(is_of_queue) {
            nodes.retain(is_of_queue);
        }
        nodes.sort_by_key(|(_, miss)| std::cmp::Reverse(miss.nearness()));
        match self.why_not_all(line, request) {
            Some(Blocked::Gang { members, found, near, .. }) => Blocked::Gang { members, found, near, nodes },
            Some(few) => few,
            None => Blocked::Room { nodes },
        }
    }

    /// Whether nodes are missing for a gang: ever, or now.
    fn why_not_all(&self, line: &Line, request: &Request) -> Option<Blocked> {
        let gang = line.gang.as_ref()?;
        let (found, could) = self.fleet.places(request, gang);
        let few = Few::of(gang, could);
        if could < gang.count as usize {
            return Some(Blocked::TooFew(few));
        }
        let Few { members, near, .. } = few;
        (found < gang.count as usize).then(|| Blocked::Gang { members, found, near, nodes: Vec::new() })
    }

    fn why_not_by_quota(&self, holder: Holder) -> Option<Blocked> {
        let candidate = &self.candidates[&holder];
        let (namespace, asked) = (&candidate.line.namespace, &candidate.asked);
        if let Some(lack) = self.quotas.lack(namespace, asked) {
            return Some(Blocked::Quota(lack));
        }
        if asked.is_zero() || !self.is_settled {
            return None;
        }
        let is_kept = |resource| self.held_back.get(namespace).and_then(|kept| kept.get(&resource));
        if asked_of(asked).filter_map(is_kept).any(|by| *by < candidate.rank) {
            return Some(Blocked::QuotaKept { namespace: namespace.to_string() });
        }
        self.why_no_loan(holder, &self.quotas)
    }

    /// Whether it would have to borrow what is kept for somebody else.
    fn why_no_loan(&self, holder: Holder, quotas: &Quotas) -> Option<Blocked> {
        let Candidate { line, rank, asked, .. } = &self.candidates[&holder];
        let cohort = quotas.cohort(&line.namespace)?;
        let kept = self.owed.get(cohort).filter(|kept| kept.by.1 != holder && kept.is_from(&line.namespace, *rank))?;
        let borrows = quotas.would_borrow(&line.namespace, asked).any(|resource| kept.has(resource));
        borrows.then(|| Blocked::LoanKept { cohort: cohort.to_owned() })
    }
}
