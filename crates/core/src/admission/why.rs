//! Why an instance waits, or can never start, in sentences for people: from the very facts that grants are made by.

use std::fmt;

use super::pass::asked_of;
use super::{Admission, Holder, Lack};
use crate::engine::Slot;
use crate::fleet::{BadRequest, Miss, Request};
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
    /// Somebody else is the first to get what the cohort can lend.
    LoanKept {
        cohort: String,
    },
    /// Each node, and why it does not take it now.
    Room {
        nodes: Vec<(String, Miss)>,
    },
    /// There is no worker for its queue.
    Unserved {
        queue: String,
    },
    /// It would fit, but in the room that is kept for somebody who came before it.
    Kept,
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
            Blocked::Quota(lack) => lack.fmt(f),
            Blocked::QuotaKept { namespace } => {
                write!(f, "what is left of the quota of namespace `{namespace}` is kept for a task before it")
            }
            Blocked::LoanKept { cohort } => {
                write!(f, "it would have to borrow, and what the cohort `{cohort}` can lend is kept for another task")
            }
            Blocked::Room { nodes } => write!(f, "no node has room for it: {}", listed(nodes)),
            Blocked::Unserved { queue } => {
                write!(
                    f,
                    "no worker serves the queue `{queue}`; `pitcrew worker --queue {queue}` on a machine starts one"
                )
            }
            Blocked::Kept => f.write_str("the room that there is, is kept for a task that waits longer"),
            Blocked::Behind { ahead: 0 } => f.write_str("it is next in line"),
            Blocked::Behind { ahead: 1 } => f.write_str("1 task is before it in line"),
            Blocked::Behind { ahead } => write!(f, "{ahead} tasks are before it in line"),
        }
    }
}

impl Admission {
    /// What an instance in line waits for; `None` if it is not in line.
    pub fn why(&self, run: RunKey, slot: Slot) -> Option<Blocked> {
        let holder = Holder { run, slot };
        let candidate = self.candidates.get(&holder)?;
        let pool = &self.pools[&candidate.line.pool];
        if self.held.len() as u32 >= self.parallelism {
            return Some(Blocked::Parallelism { max: self.parallelism });
        }
        if let Some(request) = &candidate.line.request
            && !self.fleet.could_now(request)
        {
            return Some(self.why_no_room(request));
        }
        if pool.used + candidate.slots > pool.slots {
            let (slots, used) = (pool.slots, pool.used);
            return Some(Blocked::Pool { pool: candidate.line.pool.clone(), slots, used, asked: candidate.slots });
        }
        if let Some(blocked) = self.why_not_by_quota(holder) {
            return Some(blocked);
        }
        if let Some(request) = &candidate.line.request
            && self.fleet.explain(request).iter().all(|(_, miss)| miss.is_some())
        {
            return Some(self.why_no_room(request));
        }
        let rivals = self.lines.iter().filter(|(line, _)| line.pool == candidate.line.pool);
        let ahead = rivals.map(|(_, ranks)| ranks.range(..candidate.rank).count()).sum();
        let is_kept = self.is_settled
            && candidate.line.request.is_some()
            && self.promised.is_some_and(|(first, _)| first != holder && self.candidates.contains_key(&first));
        Some(if is_kept { Blocked::Kept } else { Blocked::Behind { ahead } })
    }

    fn why_no_room(&self, request: &Request) -> Blocked {
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
        Blocked::Room { nodes }
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
        let cohort = self.quotas.cohort(namespace)?;
        let kept =
            self.owed.get(cohort).filter(|kept| kept.by.1 != holder && kept.is_from(namespace, candidate.rank))?;
        let borrows = self.quotas.would_borrow(namespace, asked).any(|resource| kept.has(resource));
        borrows.then(|| Blocked::LoanKept { cohort: cohort.to_owned() })
    }
}
