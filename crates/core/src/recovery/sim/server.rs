//! The simulated server: the machine in memory, its rows, and what is still to be performed.
//!
//! Invariant: an effect is performed only after the rows that want it are written. A crash takes all but the rows.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::super::{
    Advice, Changes, Effect, Input, JobState, Key, NodeFacts, NodeState, Policy, Record, Recovery, Signal, SignalKind,
};
use super::world::{Event, Outcome, World};

pub(super) struct Server {
    pub r: Recovery,
    pub rows: BTreeMap<Key, Record>,
    pub todo: VecDeque<Effect>,
    pub facts: BTreeMap<String, NodeFacts>,
    /// As it was last written, also when its row is not needed any more.
    pub last: BTreeMap<String, Last>,
}

/// What was last written of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub attempt: u32,
    pub state: JobState,
    /// Something of the attempt ran.
    pub began: bool,
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
                let (attempt, state, began) = (job.attempt, job.state, !job.ranks.is_empty());
                self.last.insert(job.job.clone(), Last { attempt, state, began });
            }
            self.rows.insert(record.key(), record);
        }
        for key in changes.removed {
            if let Key::Job(job) = &key {
                // One that is over without a word of how.
                self.last.retain(|name, last| name != job || last.state.is_final());
            }
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
        self.tell_whole(input)?;
        if self.may_crash(1) {
            self.saw("crashed after it wrote");
            let twin = self.server.r.clone();
            return self.crash(&twin);
        }
        Ok(())
    }

    /// The same, and it is written.
    pub fn tell_whole(&mut self, input: Input) -> Outcome {
        if let Input::JobStarted { job, attempt, .. } | Input::RankEnded { job, attempt, .. } = &input
            && self.jobs.foreign.contains(&(job.clone(), *attempt))
        {
            self.user_stopped.remove(job);
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
        if let Input::Signal(Signal { job: Some(of), .. }) = &input {
            self.meant.insert((of.job.clone(), of.attempt));
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
        super::check::wanted(self, &changes)?;
        self.note(&before, &changes);
        if !changes.records.is_empty() {
            self.poll = SignedDuration::from_secs(30).max(self.poll / 2);
        }
        self.server.write(changes);
        self.user_stopped.extend(stopped);
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

    /// The server goes, and after a while another comes: from the rows, with what is open. What was on its way is lost.
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
        self.server.todo.clear();
        self.events.retain(|_, event| match event {
            Event::Told(Input::Signal(_)) => true,
            Event::Told(_) | Event::Checked(..) | Event::Drain(..) => false,
            Event::Machine(_)
            | Event::Begin(..)
            | Event::Rank(..)
            | Event::Room(_)
            | Event::Again(_)
            | Event::Gone(_)
            | Event::Poll => true,
        });
        let longest = *self.rng.pick(&[0, 0, 60, 10_000]).unwrap_or(&0);
        let down = SignedDuration::from_secs(self.rng.between(0, longest));
        self.nobody_leads(self.now + down)?;
        if down > SignedDuration::from_mins(10) {
            self.saw("no server led for long");
        }
        self.tell(Input::Resumed)?;
        let r = &self.server.r;
        let (todo, again): (&mut VecDeque<Effect>, Vec<Effect>) =
            (&mut self.server.todo, again.into_iter().filter(|effect| r.is_open(&effect.id)).collect());
        let news: Vec<Effect> =
            again.into_iter().filter(|effect| !todo.iter().any(|other| other.id == effect.id)).collect();
        todo.extend(news);
        self.say_again();
        Ok(())
    }

    /// Machines and processes go on; nobody sees it.
    fn nobody_leads(&mut self, until: Timestamp) -> Outcome {
        self.is_down = true;
        let mut later = Vec::new();
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > until {
                self.events.insert((at, 0), event);
                break;
            }
            self.now = self.now.max(at);
            match event {
                Event::Machine(_) | Event::Rank(..) => self.happens(event)?,
                Event::Gone(_)
                | Event::Told(_)
                | Event::Checked(..)
                | Event::Begin(..)
                | Event::Room(_)
                | Event::Again(_)
                | Event::Drain(..)
                | Event::Poll => later.push(event),
            }
        }
        self.now = self.now.max(until);
        self.is_down = false;
        later.into_iter().for_each(|event| self.at(SignedDuration::from_secs(1), event));
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
            // One that is well is asked nothing; one that was away is seen when it is back.
            let was_away = self.server.r.node(&name).is_some_and(|node| !node.seen.agent);
            if was_away && answers {
                self.tell(Input::Observed { node: name, seen })?;
            }
        }
        for job in self.jobs.waiting.keys().cloned().collect::<Vec<_>>() {
            self.room(&job)?;
        }
        self.look_at_jobs()?;
        self.another_job();
        self.patience_ends();
        self.somebody_approves()?;
        self.next_poll();
        Ok(())
    }

    /// A job that machines fail again and again may begin anew some times each day, for ever. Long after the last fault,
    /// people stop those.
    fn patience_ends(&mut self) {
        if self.fault_at.is_none() && self.now > self.quiet_since + SignedDuration::from_hours(60) {
            let open = self.server.r.jobs().filter(|job| !job.state.is_final());
            for job in open.map(|job| job.job.clone()).collect::<Vec<_>>() {
                self.saw("a person lost patience");
                self.person_stops(&job);
            }
        }
    }

    /// Whether jobs that are believed to go on do, which is all that anybody asks of them.
    fn look_at_jobs(&mut self) -> Outcome {
        let going: Vec<(String, u32)> = self
            .server
            .r
            .jobs()
            .filter(|job| !job.state.is_final() || job.is_live())
            .map(|job| (job.job.clone(), job.attempt))
            .collect();
        for (job, attempt) in going {
            let is_told = self.told_until.get(&job).is_some_and(|until| *until >= self.now);
            if !is_told && self.jobs.is_over(&job, attempt) {
                self.saw("a job was over without a word");
                self.tell(Input::JobOver { job, attempt })?;
            }
        }
        Ok(())
    }
}
