//! The true processes of jobs, by attempt, and what whoever runs them knows: which ends it has seen, what waits for a verdict,
//! and what waits for room. An attempt that was told to stop never begins.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::Place;
use crate::state::Exit;

#[derive(Debug, Clone)]
pub(super) struct Rank {
    pub place: Place,
    /// It has begun.
    pub runs: bool,
    /// When and how it ends by itself, unless something happens to it before.
    pub ends: (Timestamp, Exit),
    pub exit: Option<Exit>,
    /// Whoever runs it knows of its end, and has said so.
    pub seen: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Attempt {
    pub ranks: Vec<Rank>,
    /// It must not begin, and what runs of it ends at that time.
    pub stop: Option<Timestamp>,
    /// The end is at that time and no sooner: it does not listen to polite words.
    pub stubborn: bool,
    /// It was said that all of it runs, or did.
    pub started: bool,
    /// Recovery has it stopped, and is asked what becomes of it.
    pub suspected: bool,
    /// Its end is a person's doing, or that of whoever runs it: no verdict is waited for.
    pub dropped: bool,
}

/// A restart that waits for its time and for room.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub attempt: u32,
    pub exclude: BTreeSet<String>,
    pub not_before: Timestamp,
}

impl Attempt {
    pub fn lives(&self) -> bool {
        self.ranks.iter().any(Rank::lives)
    }

    pub fn is_seen(&self) -> bool {
        self.ranks.iter().all(|rank| rank.seen)
    }
}

impl Rank {
    /// Runs, or holds its place and will.
    pub fn lives(&self) -> bool {
        self.exit.is_none()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Jobs {
    pub attempts: BTreeMap<(String, u32), Attempt>,
    /// How many ranks each has.
    pub width: BTreeMap<String, usize>,
    /// Which attempt of a job waits for a verdict.
    pub held: BTreeMap<String, u32>,
    pub waiting: BTreeMap<String, Waiting>,
    /// Attempts that were not begun by recovery.
    pub foreign: BTreeSet<(String, u32)>,
}

impl Jobs {
    pub fn on(&self, node: &str) -> impl Iterator<Item = (&(String, u32), usize, &Rank)> {
        let ranks = self
            .attempts
            .iter()
            .flat_map(|(key, attempt)| attempt.ranks.iter().enumerate().map(move |(at, rank)| (key, at, rank)));
        ranks.filter(move |(_, _, rank)| rank.lives() && rank.place.node == node)
    }

    /// The attempt of a job whose end is not seen.
    pub fn live(&self, job: &str) -> Option<u32> {
        let mut live = self.attempts.iter().filter(|((of, _), row)| of == job && !row.is_seen());
        live.next_back().map(|((_, attempt), _)| *attempt)
    }

    /// The newest that has had its places.
    pub fn newest(&self, job: &str) -> u32 {
        self.attempts.keys().filter(|(of, _)| of == job).map(|(_, attempt)| *attempt).max().unwrap_or(0)
    }

    pub fn uses(&self, gpu: &str) -> bool {
        let mut ranks = self.attempts.values().flat_map(|attempt| &attempt.ranks);
        ranks.any(|rank| rank.lives() && rank.place.gpus.iter().any(|id| id == gpu))
    }

    /// Whether the attempt runs, waits for a verdict or for room: what a server is told that asks.
    pub fn is_over(&self, job: &str, attempt: u32) -> bool {
        let waits = self.waiting.get(job).is_some_and(|waiting| waiting.attempt <= attempt);
        let held = self.held.get(job).is_some_and(|held| *held <= attempt);
        !(waits || held || self.live(job) == Some(attempt))
    }
}
