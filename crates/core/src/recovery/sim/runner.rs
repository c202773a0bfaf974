//! Whoever runs the jobs, in the same process as the server: it sees ends, holds failures for a verdict, gives room, and does what
//! recovery and people want. What it knows it has written; what it says is lost when the server dies before it is heard.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::super::{EffectId, Input, StopWhy};
use super::jobs::{Attempt, Waiting};
use super::world::{Event, Outcome, World};
use crate::state::Exit;

impl World {
    /// Ends that nobody has seen so far, by the processes of an attempt.
    pub fn see_ends(&mut self, job: &str, attempt: u32) {
        if self.is_down {
            return;
        }
        let key = (job.to_owned(), attempt);
        let Some(row) = self.jobs.attempts.get_mut(&key) else { return };
        let unseen = row.ranks.iter_mut().enumerate().filter(|(_, rank)| !rank.seen);
        let mut ended: Vec<(u32, Exit)> = Vec::new();
        for (at, rank) in unseen {
            if let Some(exit) = rank.exit.clone() {
                rank.seen = true;
                ended.push((at as u32, exit));
            }
        }
        if ended.is_empty() {
            return;
        }
        // Who was ended for another one's sake is told of after that.
        ended.sort_by_key(|(_, exit)| *exit == Exit::Cancelled);
        let fails = ended.iter().any(|(_, exit)| !exit.is_success());
        if fails
            && ended.iter().all(|(_, exit)| exit.is_success() || *exit == Exit::Cancelled)
            && !row.suspected
            && row.stop.is_none()
        {
            // It makes room for another.
            row.dropped = true;
        }
        self.say_started(job, attempt);
        for (rank, exit) in ended {
            self.send(Input::RankEnded { job: job.to_owned(), attempt, rank, exit, message: String::new() });
        }
        if fails && self.jobs.attempts[&key].lives() {
            // All of them, or none.
            self.end(job, attempt, false);
        }
        self.is_it_over(job, attempt);
    }

    /// All of an attempt is over: does a verdict say what becomes of it?
    fn is_it_over(&mut self, job: &str, attempt: u32) {
        let row = &self.jobs.attempts[&(job.to_owned(), attempt)];
        let fails = |rank: &&super::jobs::Rank| rank.exit.as_ref().is_some_and(|exit| !exit.is_success());
        if !row.is_seen() || !row.ranks.iter().any(|rank| fails(&rank)) {
            return;
        }
        let asks = row.ranks.iter().filter(fails).any(|rank| self.server.r.may_act(&rank.place.node));
        if row.dropped {
            if self.rng.percent(50) {
                self.saw("a job made room and began anew");
                self.at(SignedDuration::from_secs(60), Event::Again(job.to_owned()));
            }
        } else if row.suspected || asks {
            self.say(|| format!("{job}@{attempt} waits for a verdict"));
            self.jobs.held.insert(job.to_owned(), attempt);
        }
    }

    pub fn say_started(&mut self, job: &str, attempt: u32) {
        let row = self.jobs.attempts.get_mut(&(job.to_owned(), attempt)).expect("an attempt");
        if !std::mem::replace(&mut row.started, true) {
            let ranks = row.ranks.iter().map(|rank| rank.place.clone()).collect();
            let (job, spec) = (job.to_owned(), self.specs[job].clone());
            self.send(Input::JobStarted { job, attempt, ranks, spec });
        }
    }

    /// What is said again of what goes on, when a server begins to lead: ends that it did not see, and what waits for a verdict.
    pub fn say_again(&mut self) {
        for ((job, attempt), row) in self.jobs.attempts.clone() {
            let ranks: Vec<_> = row.ranks.iter().map(|rank| rank.place.clone()).collect();
            let (is_live, is_held) = (!row.is_seen(), self.jobs.held.get(&job) == Some(&attempt));
            if is_live {
                self.send(Input::JobStarting { job: job.clone(), attempt, ranks: ranks.clone() });
            }
            if row.started && (is_live || is_held) {
                let (job, spec) = (job.clone(), self.specs[&job].clone());
                self.send(Input::JobStarted { job, attempt, ranks, spec });
            }
            if is_held {
                let mut ended: Vec<_> = row.ranks.iter().enumerate().collect();
                ended.sort_by_key(|(_, rank)| rank.exit == Some(Exit::Cancelled));
                for (at, rank) in ended {
                    let Some(exit) = rank.exit.clone() else { continue };
                    let (job, message) = (job.clone(), String::new());
                    self.send(Input::RankEnded { job, attempt, rank: at as u32, exit, message });
                }
            }
            self.see_ends(&job, attempt);
        }
    }

    /// What runs of an attempt ends, or has `force`: at once.
    pub fn end(&mut self, job: &str, attempt: u32, force: bool) {
        let now = self.now;
        let row = self.jobs.attempts.get_mut(&(job.to_owned(), attempt)).expect("an attempt");
        let polite = if row.stubborn { 100_000 } else { 30 };
        let wait = SignedDuration::from_secs(if force { 1 } else { self.rng.between(1, polite) });
        let at = row.stop.map_or(now + wait, |at| at.min(now + wait));
        row.stop = Some(at);
        self.at(at.duration_since(now), Event::Rank(job.to_owned(), attempt));
        // Processes that an order did not reach are told again when they can be.
        self.at(wait, Event::Rank(job.to_owned(), attempt));
    }

    /// Recovery wants an attempt ended, or one that has not begun taken back.
    pub fn stop(&mut self, job: &str, attempt: u32, why: StopWhy, force: bool) {
        if self.jobs.live(job) == Some(attempt) {
            if why != StopWhy::User {
                self.jobs.attempts.get_mut(&(job.to_owned(), attempt)).expect("it lives").suspected = true;
                self.end(job, attempt, force);
            }
            return;
        }
        if let Some(waiting) = self.jobs.waiting.get(job).filter(|waiting| waiting.attempt <= attempt)
            && why != StopWhy::User
        {
            let held = waiting.attempt - 1;
            self.jobs.waiting.remove(job);
            self.jobs.held.insert(job.to_owned(), held);
        }
        self.send(Input::JobStopped { job: job.to_owned(), attempt });
    }

    pub fn restart(&mut self, job: &str, number: u32, exclude: &BTreeSet<String>, not_before: Timestamp, id: EffectId) {
        let next = Waiting { attempt: number, exclude: exclude.clone(), not_before };
        if self.jobs.live(job) == Some(number) {
            return;
        }
        let is_waiting = self.jobs.waiting.get(job).is_some_and(|waiting| waiting.attempt <= number);
        if !is_waiting && self.jobs.held.get(job).is_none_or(|held| *held >= number) {
            // Its run has decided otherwise.
            return self.send(Input::UserStop { job: job.to_owned(), by: "its run".to_owned() });
        }
        let dice = self.rng.below(100);
        if dice < 4 {
            self.saw("a restart did not work");
            return self.send(Input::EffectFailed { effect: id, why: "refused".to_owned(), certain: true });
        }
        self.jobs.held.remove(job);
        self.jobs.waiting.insert(job.to_owned(), next);
        let wait = not_before.duration_since(self.now).max(SignedDuration::from_secs(1));
        self.at(wait, Event::Room(job.to_owned()));
        if dice < 8 {
            self.send(Input::EffectFailed { effect: id, why: "timed out".to_owned(), certain: false });
        }
    }

    /// Is there room for a restart?
    pub fn room(&mut self, job: &str) -> Outcome {
        let Some(next) = self.jobs.waiting.get(job).cloned() else { return Ok(()) };
        if self.now < next.not_before {
            return Ok(());
        }
        let Some(places) = self.places(self.jobs.width[job], &next.exclude) else { return Ok(()) };
        self.jobs.waiting.remove(job);
        self.given(job, next.attempt, places)
    }

    fn given(&mut self, job: &str, attempt: u32, ranks: Vec<super::super::Place>) -> Outcome {
        if let Some(((_, number), _)) = self.jobs.attempts.iter().find(|((of, _), row)| of == job && row.lives()) {
            return Err(format!("{job}@{attempt} begins while attempt {number} runs"));
        }
        if let Some(held) = self.jobs.held.get(job) {
            return Err(format!("{job}@{attempt} begins while attempt {held} waits for a verdict"));
        }
        self.place(job, attempt, ranks.clone());
        self.send(Input::JobStarting { job: job.to_owned(), attempt, ranks });
        Ok(())
    }

    /// Recovery is through with it.
    pub fn give_up(&mut self, job: &str, attempt: u32, leave: bool) {
        if self.jobs.live(job) == Some(attempt) && !leave {
            let row: &mut Attempt = self.jobs.attempts.get_mut(&(job.to_owned(), attempt)).expect("it lives");
            row.dropped |= row.suspected;
        }
        if self.jobs.waiting.get(job).is_some_and(|waiting| waiting.attempt <= attempt) && !leave {
            self.jobs.waiting.remove(job);
        }
        if self.jobs.held.get(job).is_some_and(|held| *held <= attempt) {
            self.jobs.held.remove(job);
            if leave && self.rng.percent(30) {
                self.saw("a job was left to its own retries");
                self.at(SignedDuration::from_secs(30), Event::Again(job.to_owned()));
            }
        }
    }

    /// A person stops it, whatever it does.
    pub fn person_stops(&mut self, job: &str) {
        if let Some(attempt) = self.jobs.live(job) {
            self.jobs.attempts.get_mut(&(job.to_owned(), attempt)).expect("it lives").dropped = true;
            self.end(job, attempt, false);
        }
        self.jobs.held.remove(job);
        self.jobs.waiting.remove(job);
        self.send(Input::UserStop { job: job.to_owned(), by: "ann".to_owned() });
    }

    /// A person, or its own retries, begin it anew, once nothing of it runs.
    pub fn again(&mut self, job: &str) -> Outcome {
        if self.jobs.held.contains_key(job) || self.jobs.waiting.contains_key(job) {
            return Ok(());
        }
        let places = match self.jobs.live(job) {
            None => self.places(self.jobs.width[job], &BTreeSet::new()),
            Some(_) => None,
        };
        let Some(places) = places else {
            if self.fault_at.is_some() {
                self.at(SignedDuration::from_secs(300), Event::Again(job.to_owned()));
            }
            return Ok(());
        };
        let attempt = self.jobs.newest(job) + 1;
        self.jobs.foreign.insert((job.to_owned(), attempt));
        self.given(job, attempt, places)
    }
}
