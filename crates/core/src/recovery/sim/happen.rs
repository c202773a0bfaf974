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
            // Orders that did not reach it do now.
            let here: Vec<(String, u32)> = self.jobs.on(name).map(|(key, _, _)| key.clone()).collect();
            for (job, attempt) in here {
                self.at(SignedDuration::from_secs(1), Event::Rank(job, attempt));
            }
            self.say(|| format!("{name} is there, {:?}", seen.boot_id));
            self.send(Input::Observed { node: name.to_owned(), seen });
        }
    }

    /// Whatever runs there is gone.
    pub fn kill_all(&mut self, node: &str) {
        for row in self.jobs.attempts.values_mut() {
            for rank in row.ranks.iter_mut().filter(|rank| rank.lives() && rank.place.node == node) {
                rank.exit = Some(Exit::Lost { reason: "its machine".to_owned() });
            }
        }
        for (job, attempt) in self.jobs.attempts.keys().cloned().collect::<Vec<_>>() {
            self.see_ends(&job, attempt);
        }
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
        let is_ordered = attempt > 1 && !self.jobs.foreign.contains(&key);
        for (at, rank) in row.ranks.iter_mut().enumerate().filter(|(_, rank)| rank.lives()) {
            let machine = &self.machines[&rank.place.node];
            if !machine.answers() || (dice < 6 && at == 0) {
                rank.exit = Some(Exit::start_failed("no image"));
                continue;
            }
            // Nobody ever hears of this one; a start that recovery has ordered has a deadline.
            rank.runs = !(dice > 96 && at == 0 && is_ordered);
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
        if all {
            self.say_started(job, attempt);
        }
        self.see_ends(job, attempt);
    }

    /// What is due of an attempt.
    pub fn ranks(&mut self, job: &str, attempt: u32) {
        let now = self.now;
        let Some(row) = self.jobs.attempts.get_mut(&(job.to_owned(), attempt)) else { return };
        let is_stopped = row.stop.is_some_and(|at| at <= now);
        for rank in row.ranks.iter_mut().filter(|rank| rank.lives()) {
            let machine = &self.machines[&rank.place.node];
            rank.exit = match () {
                () if rank.runs && rank.ends.0 <= now => Some(rank.ends.1.clone()),
                () if is_stopped && (machine.answers() || !rank.runs) => Some(Exit::Cancelled),
                () => None,
            };
        }
        self.see_ends(job, attempt);
    }
}
