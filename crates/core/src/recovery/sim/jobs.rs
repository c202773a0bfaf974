//! The true processes of jobs, by attempt. An attempt that was told to stop never begins.

use std::collections::BTreeMap;

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
}

#[derive(Debug, Clone, Default)]
pub(super) struct Attempt {
    pub ranks: Vec<Rank>,
    /// It must not begin, and what runs of it ends at that time.
    pub stop: Option<Timestamp>,
    /// The end is at that time and no sooner: it does not listen to polite words.
    pub stubborn: bool,
}

impl Attempt {
    pub fn lives(&self) -> bool {
        self.ranks.iter().any(Rank::lives)
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
}

impl Jobs {
    pub fn on(&self, node: &str) -> impl Iterator<Item = (&(String, u32), usize, &Rank)> {
        let ranks = self
            .attempts
            .iter()
            .flat_map(|(key, attempt)| attempt.ranks.iter().enumerate().map(move |(at, rank)| (key, at, rank)));
        ranks.filter(move |(_, _, rank)| rank.lives() && rank.place.node == node)
    }

    /// Attempts of a job of which something runs.
    pub fn live(&self, job: &str) -> Vec<u32> {
        let live = self.attempts.iter().filter(|((of, _), row)| of == job && row.lives());
        live.map(|((_, attempt), _)| *attempt).collect()
    }

    pub fn uses(&self, gpu: &str) -> bool {
        let mut ranks = self.attempts.values().flat_map(|attempt| &attempt.ranks);
        ranks.any(|rank| rank.lives() && rank.place.gpus.iter().any(|id| id == gpu))
    }
}
