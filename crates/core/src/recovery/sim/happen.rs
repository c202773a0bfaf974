//! What happens to machines and processes by themselves, once its time has come.

use jiff::{SignedDuration, Timestamp};

use super::super::{Input, Rung};
use super::world::{Event, LEASE, World};
use crate::state::Exit;

impl World {
    /// What is due at a machine.
    pub fn machine(&mut self, name: &str) {
        let now = self.now;
        let machine = self.machines.get_mut(name).expect("a machine");
        let mut is_news = false;
        if machine.away.is_some_and(|at| at <= now) {
            (machine.away, machine.away_since, is_news) = (None, None, true);
        }
        if machine.starting.is_some_and(|at| at <= now) {
            let by = machine.repair.take().map_or(Rung::Reboot, |(rung, _)| rung);
            let ours = machine.fault.as_ref().is_some_and(|fault| !fault.done.is_empty());
            machine.comes_up(by);
            if let Some(fault) = &mut machine.fault {
                // Whether it helped is ours to find out only where it was ours to try.
                fault.restarted &= ours;
            }
            is_news = true;
        }
        let overdue = machine.away_since.is_some_and(|since| since + LEASE <= now);
        let (answers, seen) = (machine.answers(), machine.seen());
        if overdue {
            self.kill_all(name);
        }
        if is_news && answers {
            self.say(|| format!("{name} is there, {:?}", seen.boot_id));
            self.send(Input::Observed { node: name.to_owned(), seen });
        }
    }

    /// Whatever runs there is gone.
    pub fn kill_all(&mut self, node: &str) {
        let mut gone = Vec::new();
        for ((job, attempt), row) in &mut self.jobs.attempts {
            for (at, rank) in row.ranks.iter_mut().enumerate() {
                if rank.lives() && rank.place.node == node {
                    let exit = Exit::Lost { reason: "its machine".to_owned() };
                    rank.exit = Some(exit.clone());
                    let (job, message) = (job.clone(), String::new());
                    gone.push(Input::RankEnded { job, attempt: *attempt, rank: at as u32, exit, message });
                }
            }
        }
        gone.into_iter().for_each(|input| self.send(input));
    }

    /// Ranks begin: all of them, or not.
    pub fn begin(&mut self, job: &str, attempt: u32) {
        let key = (job.to_owned(), attempt);
        let dice = self.rng.below(100);
        let mut row = self.jobs.attempts[&key].clone();
        if row.stop.is_some() {
            return;
        }
        row.stubborn = self.rng.percent(15);
        let was_whole = row.ranks.iter().all(|rank| rank.lives());
        let places: Vec<_> = row.ranks.iter().map(|rank| rank.place.clone()).collect();
        let mut failed = Vec::new();
        for (at, rank) in row.ranks.iter_mut().enumerate().filter(|(_, rank)| rank.lives()) {
            let machine = &self.machines[&rank.place.node];
            if !machine.answers() || (dice < 6 && at == 0) {
                let exit = Exit::start_failed("no image");
                rank.exit = Some(exit.clone());
                failed.push((at as u32, exit));
                continue;
            }
            // Nobody ever hears of this one; its start has a deadline.
            rank.runs = !(dice > 96 && at == 0 && attempt > 1);
            if machine.broken().iter().any(|gpu| rank.place.gpus.contains(gpu)) {
                rank.ends = (self.now + SignedDuration::from_secs(20), Exit::Code { code: 1 });
            }
        }
        let all = row.ranks.iter().all(|rank| rank.runs);
        let ends: Vec<Timestamp> = row.ranks.iter().map(|rank| rank.ends.0).collect();
        self.jobs.attempts.insert(key, row);
        for at in ends {
            self.at(at.duration_since(self.now), Event::Rank(job.to_owned(), attempt));
        }
        if all || (attempt == 1 && was_whole) {
            let (job, spec) = (job.to_owned(), self.specs[job].clone());
            let input = Input::JobStarted { job, attempt, ranks: places, spec };
            self.send(input);
        }
        for (rank, exit) in failed {
            self.send(Input::RankEnded { job: job.to_owned(), attempt, rank, exit, message: String::new() });
        }
    }

    /// What is due of an attempt.
    pub fn ranks(&mut self, job: &str, attempt: u32) {
        let now = self.now;
        let mut told = Vec::new();
        let Some(row) = self.jobs.attempts.get_mut(&(job.to_owned(), attempt)) else { return };
        let is_stopped = row.stop.is_some_and(|at| at <= now);
        for (at, rank) in row.ranks.iter_mut().enumerate().filter(|(_, rank)| rank.lives()) {
            let machine = &self.machines[&rank.place.node];
            let exit = match () {
                () if rank.runs && rank.ends.0 <= now => rank.ends.1.clone(),
                () if is_stopped && (machine.answers() || !rank.runs) => Exit::Cancelled,
                () => continue,
            };
            rank.exit = Some(exit.clone());
            let (job, message) = (job.to_owned(), String::new());
            told.push(Input::RankEnded { job, attempt, rank: at as u32, exit, message });
        }
        let is_over = is_stopped && !row.lives();
        told.into_iter().for_each(|input| self.send(input));
        if is_over {
            self.send(Input::JobStopped { job: job.to_owned(), attempt });
        }
    }
}
