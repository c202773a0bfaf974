//! The simulated server: the machine in memory, its rows, and what is still to be performed.
//!
//! Invariant: an effect is performed only after the rows that want it are written. A crash takes all but the rows.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::super::{
    Advice, Changes, Effect, Input, JobState, Key, NodeFacts, NodeState, Policy, Record, Recovery, SignalKind,
};
use super::world::{Outcome, World};

pub(super) struct Server {
    pub r: Recovery,
    pub rows: BTreeMap<Key, Record>,
    pub todo: VecDeque<Effect>,
    pub facts: BTreeMap<String, NodeFacts>,
    /// As it was last written, also when its row is not needed any more.
    pub last: BTreeMap<String, (u32, JobState)>,
}

impl Server {
    pub fn new(policy: Policy) -> Server {
        let (r, rows, todo) = (Recovery::new(policy), BTreeMap::new(), VecDeque::new());
        Server { r, rows, todo, facts: BTreeMap::new(), last: BTreeMap::new() }
    }

    pub fn know(&mut self, input: Input, now: Timestamp) {
        let changes = self.r.apply(input, now);
        self.write(changes);
    }

    fn write(&mut self, changes: Changes) {
        for record in changes.records {
            if let Record::Job(job) = &record {
                self.last.insert(job.job.clone(), (job.attempt, job.state));
            }
            self.rows.insert(record.key(), record);
        }
        for key in changes.removed {
            self.rows.remove(&key);
        }
        self.todo.extend(changes.effects);
    }
}

impl World {
    /// Tells the machine; what changed is written, unless the server crashes before that.
    pub fn tell(&mut self, input: Input) -> Outcome {
        if self.may_crash(1) {
            let twin = self.server.r.clone();
            self.saw("crashed before it wrote");
            self.server.r.apply(input, self.now);
            return self.crash(&twin);
        }
        let fresh = match &input {
            Input::UserStop { job, .. } => self.server.r.job(job).filter(|job| !job.state.is_final()),
            _ => None,
        };
        let stopped = fresh.map(|job| job.job.clone());
        if let Input::Dismiss { incident, .. } | Input::Retry { incident, .. } = &input {
            // A person wants it tried again.
            let node = self.server.r.incident(*incident).map(|incident| incident.node.clone());
            if let Some(fault) =
                node.and_then(|node| self.machines.get_mut(&node)).and_then(|machine| machine.fault.as_mut())
            {
                fault.done.clear();
                fault.restarted = false;
            }
        }
        if input != Input::Tick {
            self.say(|| format!("told {input:?}"));
        }
        let before: Vec<(String, NodeState)> =
            self.server.r.nodes().map(|node| (node.name.clone(), node.state)).collect();
        let in_repair = self.server.r.in_repair().count();
        let changes = self.server.r.apply(input, self.now);
        self.server.r.sanity_check();
        super::check::written(self, &changes, in_repair)?;
        self.note(&before, &changes);
        if !changes.records.is_empty() {
            self.poll = SignedDuration::from_secs(30).max(self.poll / 2);
        }
        self.server.write(changes);
        self.user_stopped.extend(stopped);
        if self.may_crash(1) {
            self.saw("crashed after it wrote");
            let twin = self.server.r.clone();
            return self.crash(&twin);
        }
        Ok(())
    }

    /// What became of nodes and jobs, for the trace.
    fn note(&self, before: &[(String, NodeState)], changes: &Changes) {
        for (name, from) in before {
            let to = self.server.r.node(name).map(|node| node.state);
            if let Some(to) = to.filter(|to| to != from) {
                self.say(|| format!("   {name}: {from} → {to}"));
                match to {
                    NodeState::Queued => self.saw("waited in line"),
                    NodeState::OutOfService => self.saw("out of service"),
                    NodeState::AwaitingApproval => self.saw("awaited approval"),
                    NodeState::Healthy if *from == NodeState::Verifying => self.saw("repaired"),
                    NodeState::Verifying if !matches!(from, NodeState::Remediating { .. }) => {
                        self.saw("came up anew before its repair");
                    }
                    NodeState::Healthy
                    | NodeState::Suspected
                    | NodeState::Fenced
                    | NodeState::Checking
                    | NodeState::Draining
                    | NodeState::Remediating { .. }
                    | NodeState::Verifying => {}
                }
            }
        }
        for record in &changes.records {
            if let Record::Job(job) = record {
                self.say(|| format!("   {}@{} is {}", job.job, job.attempt, job.state));
                match job.state {
                    JobState::Complete => self.saw("a job was complete"),
                    JobState::Failed => self.saw("a job failed"),
                    JobState::AwaitingVerdict => self.saw("a job awaited a verdict"),
                    JobState::Restarting => self.saw("a job restarted"),
                    JobState::UserStopped | JobState::Running | JobState::Stopping | JobState::Starting => {}
                }
            }
        }
    }

    pub fn may_crash(&mut self, percent: u32) -> bool {
        self.crashes_left > 0 && self.rng.percent(percent) && self.rng.percent(50)
    }

    /// The server goes, and another comes: from the rows, with what is open.
    pub fn crash(&mut self, twin: &Recovery) -> Outcome {
        self.crashes_left -= 1;
        self.say(|| "the server crashes".to_owned());
        let policy = twin.policy().clone();
        let (restored, again) = Recovery::restore(policy, self.server.rows.values().cloned());
        if restored != *twin {
            return Err(format!("restored, it is another: {}", super::check::difference(&restored, twin)));
        }
        restored.sanity_check();
        self.server.r = restored;
        self.server.todo = again.into();
        Ok(())
    }

    /// The server looks at everything: what an event did not tell, this does.
    pub fn poll(&mut self) -> Outcome {
        for name in self.machines.keys().cloned().collect::<Vec<_>>() {
            let machine = &self.machines[&name];
            if machine.gone {
                if self.server.r.node(&name).is_some() {
                    self.tell(Input::NodeGone { node: name, why: "not listed".to_owned() })?;
                }
                continue;
            }
            let (seen, answers) = (machine.seen(), machine.answers());
            let is_broken = machine.fault.clone().filter(|_| answers);
            if !answers && self.rng.percent(70) {
                self.signal(&name, None, SignalKind::NodeLost, Advice::Check);
            }
            if let Some(fault) = is_broken.filter(|_| self.rng.percent(30)) {
                let kind = SignalKind::Dcgm { what: "MEM".to_owned() };
                self.signal(&name, Some(&fault.gpu), kind, Advice::Check);
            }
            let differs = self.server.r.node(&name).is_some_and(|node| node.seen != seen);
            if differs || self.rng.percent(20) {
                self.tell(Input::Observed { node: name, seen })?;
            }
        }
        self.poll_jobs()?;
        self.another_job();
        self.patience_ends()?;
        self.somebody_approves()?;
        // What did not work before is tried again.
        let open: Vec<Effect> = self.server.r.open_effects().cloned().collect();
        for effect in open {
            let is_there = self.server.todo.iter().any(|todo| todo.id == effect.id);
            if !(is_there || effect.act.is_once() && effect.begun) {
                self.server.todo.push_back(effect);
            }
        }
        self.next_poll();
        Ok(())
    }

    /// A job that machines fail again and again may begin anew some times each day, for ever. Long after the last fault,
    /// people stop those.
    fn patience_ends(&mut self) -> Outcome {
        if self.fault_at.is_none() && self.now > self.quiet_since + SignedDuration::from_hours(60) {
            let open = self.server.r.jobs().filter(|job| !job.state.is_final() && !job.restarts.is_empty());
            for job in open.map(|job| job.job.clone()).collect::<Vec<_>>() {
                self.saw("a person lost patience");
                self.tell(Input::UserStop { job, by: "ann".to_owned() })?;
            }
        }
        Ok(())
    }

    fn poll_jobs(&mut self) -> Outcome {
        for (key, attempt) in self.jobs.attempts.clone() {
            let (job, number) = key;
            let Some(row) = self.server.r.job(&job) else { continue };
            if row.attempt != number {
                continue;
            }
            let (state, known) = (row.state, row.ranks.clone());
            let all_run = !attempt.ranks.is_empty() && attempt.ranks.iter().all(|rank| rank.runs);
            if all_run && matches!(state, JobState::Restarting | JobState::Starting) {
                self.tell_started(&job, number)?;
            }
            let is_told = |at: usize| known.get(at).is_none_or(|rank| rank.exit.is_some());
            for (at, rank) in attempt.ranks.iter().enumerate() {
                if let Some(exit) = rank.exit.clone().filter(|_| !is_told(at)) {
                    let (job, message) = (job.clone(), String::new());
                    self.tell(Input::RankEnded { job, attempt: number, rank: at as u32, exit, message })?;
                }
            }
            let waits =
                state == JobState::Stopping || (state.is_final() && known.iter().any(|rank| rank.exit.is_none()));
            if waits && !attempt.lives() {
                self.tell(Input::JobStopped { job, attempt: number })?;
            }
        }
        Ok(())
    }

    fn tell_started(&mut self, job: &str, attempt: u32) -> Outcome {
        let ranks = self.jobs.attempts[&(job.to_owned(), attempt)].ranks.iter().map(|rank| rank.place.clone());
        let (ranks, spec) = (ranks.collect(), self.specs[job].clone());
        self.tell(Input::JobStarted { job: job.to_owned(), attempt, ranks, spec })
    }
}
