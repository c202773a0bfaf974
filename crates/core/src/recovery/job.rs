//! A job: all of its ranks run, or none goes on. The first that fails ends the attempt; what the others say after that is
//! read in the light of it, since we stopped them.
//!
//! Invariant: every end that is told and is no success is answered, if only with the word that recovery has no say in it. Whoever
//! runs the job may be waiting for a verdict, and knows nothing of what is known here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::effect::{Act, Place, StopWhy};
use super::policy::JobSpec;
use super::record::{Failure, JobRecord, Key, PastAttempt, RankRecord};
use super::signal::{Advice, Class, Signal, SignalKind};
use super::state::JobState;
use super::step::{Step, later};
use crate::state::Exit;

/// How long an error of the application's own explains an end of its attempt.
const HINT: SignedDuration = SignedDuration::from_mins(10);

fn ranks_of(places: Vec<Place>) -> Vec<RankRecord> {
    places.into_iter().map(|place| RankRecord { place, exit: None }).collect()
}

/// The attempt that a row was about, now that another one follows.
pub(super) fn past_attempt(row: &JobRecord, now: Timestamp) -> Option<PastAttempt> {
    let places: Vec<Place> = row.ranks.iter().map(|rank| rank.place.clone()).collect();
    let until = if row.state.is_final() { row.since } else { now };
    if places.is_empty() { row.before.clone() } else { Some(PastAttempt { attempt: row.attempt, until, places }) }
}

impl Step<'_> {
    /// All ranks run.
    pub fn job_started(&mut self, job: String, attempt: u32, places: Vec<Place>, spec: JobSpec) {
        let Some(row) = self.r.jobs.get(&job) else {
            return self.new_job(job, attempt, places, spec);
        };
        match row.state {
            _ if attempt < row.attempt => {}
            // Somebody else began it anew: it is another one for us.
            _ if attempt > row.attempt => self.new_job(job, attempt, places, spec),
            // It was ordered as this attempt, and stopped before it began: a person has begun it anew since.
            _ if row.state.is_final() && row.ranks.is_empty() => self.new_job(job, attempt, places, spec),
            JobState::Restarting | JobState::Starting => {
                self.settle_restart(&job);
                let row = self.job(&job);
                if row.ranks.is_empty() {
                    row.ranks = ranks_of(places);
                }
                row.spec = spec;
                self.become_job(&job, JobState::Running, None, "all of its ranks run");
                self.job_over(&job);
            }
            // The word of its start was late, and it is to end.
            JobState::Stopping if row.ranks.is_empty() => {
                self.job(&job).ranks = ranks_of(places);
            }
            JobState::Running
            | JobState::Stopping
            | JobState::AwaitingVerdict
            | JobState::Complete
            | JobState::Failed
            | JobState::UserStopped => {}
        }
    }

    /// Begun anew by whoever runs it, or for the first time. What it has drawn on counts on, unless a person began it anew.
    fn new_job(&mut self, job: String, attempt: u32, places: Vec<Place>, spec: JobSpec) {
        let past = self.r.jobs.get(&job);
        let steps = past.map_or(0, |past| past.steps);
        let goes_on = past.filter(|past| !past.state.is_final() || past.goes_on);
        let restarts = goes_on.map(|past| past.restarts.clone()).unwrap_or_default();
        let before = past.and_then(|past| past_attempt(past, self.now));
        let row = JobRecord {
            job: job.clone(),
            attempt,
            state: JobState::Running,
            since: self.now,
            deadline: None,
            spec,
            ranks: ranks_of(places),
            stop: None,
            stops: 0,
            failure: None,
            hint: None,
            restarts,
            before,
            goes_on: false,
            reminded: 0,
            trail: Vec::new(),
            open: Vec::new(),
            steps,
        };
        self.touch(Key::Job(job.clone()));
        self.r.jobs.insert(job, row);
    }

    /// It has its nodes.
    pub fn job_starting(&mut self, job: &str, attempt: u32, places: Vec<Place>) {
        let Some(row) = self.r.jobs.get(job) else { return };
        if row.attempt != attempt || row.state != JobState::Restarting {
            return;
        }
        self.settle_restart(job);
        self.job(job).ranks = ranks_of(places);
        self.become_job(job, JobState::Starting, Some(self.r.policy.deadlines.start), "it has its nodes");
    }

    fn settle_restart(&mut self, job: &str) {
        self.drop_open_of_job(job, |act| matches!(act, Act::RestartJob { .. }));
    }

    pub fn rank_ended(&mut self, job: &str, attempt: u32, rank: u32, exit: Exit, message: &str) {
        // Of a gang that is over for us, the last that ends may end well, and all of it waits.
        let is_over = |state: JobState| state.is_final() && state != JobState::Complete;
        if !exit.is_success() || self.r.jobs.get(job).is_some_and(|row| row.attempt == attempt && is_over(row.state)) {
            self.answer_end(job, attempt, &exit.to_string());
        }
        let Some(row) = self.r.jobs.get(job) else { return };
        let Some(known) = row.ranks.get(rank as usize) else { return };
        if row.attempt != attempt || known.exit.is_some() {
            return;
        }
        let (state, node) = (row.state, known.place.node.clone());
        self.job(job).ranks[rank as usize].exit = Some(exit.clone());
        if state.is_final() && !self.r.jobs[job].is_live() {
            self.drop_open_of_job(job, |act| matches!(act, Act::StopJob { .. }));
        }
        match state {
            JobState::Running | JobState::Starting if exit.is_success() => self.job_over(job),
            JobState::Running | JobState::Starting => self.rank_failed(job, rank, &exit, message),
            JobState::Stopping => self.stopped(job),
            JobState::AwaitingVerdict
            | JobState::Restarting
            | JobState::Complete
            | JobState::Failed
            | JobState::UserStopped => {}
        }
        self.freed([node].into());
    }

    /// An end of an attempt that is not known here, or of a job that is over for us: it is left to whoever runs it.
    fn answer_end(&mut self, job: &str, attempt: u32, exit: &str) {
        match self.r.jobs.get(job) {
            Some(row) if row.state.is_final() && attempt <= row.attempt => {
                let is_answer = |act: &Act| matches!(act, Act::FailJob { attempt: of, .. } if *of >= attempt);
                // One that is on its way may have come before there was anybody who waits: it is said again.
                let said = row.open.iter().find(|effect| is_answer(&effect.act)).map(|effect| effect.act.clone());
                let why = format!("left to its own retries; {exit}");
                let class = Class::Application;
                let left = Act::FailJob { job: job.to_owned(), attempt, why, class, leave: true };
                self.drop_open_of_job(job, is_answer);
                self.emit_for_job(job, said.unwrap_or(left));
            }
            Some(row) if attempt <= row.attempt => {}
            Some(row) => {
                let spec = row.spec.clone();
                self.new_job(job.to_owned(), attempt, Vec::new(), spec);
                self.leave(job, exit);
            }
            None => {
                self.new_job(job.to_owned(), attempt, Vec::new(), JobSpec::default());
                self.leave(job, exit);
            }
        }
    }

    /// It is over, and nobody has told how. Nothing that was wanted for it is wanted any more.
    pub fn job_over_untold(&mut self, job: &str, attempt: u32) {
        let Some(row) = self.r.jobs.get(job).filter(|row| row.attempt == attempt) else { return };
        let nodes = row.nodes();
        match row.state {
            JobState::Running | JobState::Starting | JobState::Stopping => {
                self.r.jobs.remove(job);
                self.remove(Key::Job(job.to_owned()));
            }
            // It was given up while something of it ran.
            JobState::Complete | JobState::Failed | JobState::UserStopped => {
                for rank in &mut self.job(job).ranks {
                    rank.exit.get_or_insert(Exit::Lost { reason: "its end was never told".to_owned() });
                }
                self.drop_open_of_job(job, |act| matches!(act, Act::StopJob { .. }));
            }
            // What is ordered next is answered by whoever runs it.
            JobState::AwaitingVerdict | JobState::Restarting => return,
        }
        self.freed(nodes);
    }

    /// Success is all ranks' success, and nothing less.
    fn job_over(&mut self, job: &str) {
        let ranks = &self.r.jobs[job].ranks;
        if !ranks.is_empty() && ranks.iter().all(|rank| rank.exit.as_ref().is_some_and(Exit::is_success)) {
            self.become_job(job, JobState::Complete, None, "all of its ranks ended well");
            self.forget_job_later(job);
        }
    }

    /// The first rank that fails: what it says, and its node, are looked at. Those after it were told to stop.
    fn rank_failed(&mut self, job: &str, rank: u32, exit: &Exit, message: &str) {
        let row = &self.r.jobs[job];
        let place = row.ranks[rank as usize].place.clone();
        let attempt = row.attempt;
        let has_hint = row.hint.as_ref().is_some_and(|(at, _)| later(*at, HINT) > self.now);
        let advice = row.spec.exits.advice(exit);
        let told = exit.to_string();
        let why = match message.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            // It says by itself how it ended.
            Some(line) if line.contains(&told) => format!("rank {rank} on {}: {line}", place.node),
            Some(line) => format!("rank {rank} on {}: {exit}: {line}", place.node),
            None => format!("rank {rank} on {}: {exit}", place.node),
        };
        // Nobody of ours asked for it.
        if *exit == Exit::Cancelled {
            self.stopped_by_user(job, &why);
            // A person's stop is told as such; this may be one that makes room, and it goes on later.
            self.job(job).goes_on = true;
            return;
        }
        let signal = |kind, gpu: Option<&String>| Signal {
            id: format!("{job}@{attempt}/{rank}"),
            node: place.node.clone(),
            boot_id: None,
            gpu: gpu.cloned(),
            job: None,
            at: self.now,
            kind,
            advice: Advice::Check,
            evidence: format!("{job}: {why}"),
        };
        let (class, signal) = match exit {
            Exit::Lost { .. } => (Class::Infrastructure, Some(signal(SignalKind::NodeLost, None))),
            Exit::StartFailed { lasting, .. } => {
                (if *lasting { Class::Application } else { Class::Infrastructure }, None)
            }
            Exit::Code { .. } | Exit::Signal { .. } if advice == Advice::Check && !has_hint => {
                let kind = SignalKind::ExitCode { code: exit.code().unwrap_or_default() };
                (Class::Unknown, Some(signal(kind, place.gpus.first())))
            }
            Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory | Exit::TimedOut | Exit::Cancelled => {
                (Class::Application, None)
            }
        };
        if let Some(signal) = signal
            && self.r.node(&place.node).is_some()
        {
            self.suspect(signal);
            // All of its GPUs are under suspicion, not only the first.
            if let Some(id) = self.open_incident(&place.node)
                && class == Class::Unknown
            {
                self.incident(id).gpus.extend(place.gpus.iter().cloned());
            }
        }
        if !self.r.may_act(&place.node) {
            return self.leave(job, &why);
        }
        let lasting = matches!(exit, Exit::StartFailed { lasting: true, .. });
        self.fail_job(job, class, &why, StopWhy::Recovery);
        let suspect = self.open_incident(&place.node);
        // The node may have failed its check before the job did, and waits for the job to end.
        let known = suspect.map(|id| (id, self.r.incidents[&id].verdict));
        if let Some(failure) = &mut self.job(job).failure {
            failure.lasting |= lasting;
            failure.exclude.insert(place.node.clone());
            if class == Class::Unknown {
                failure.suspects.extend(known);
            }
        }
        if let Some(id) = suspect {
            self.incident(id).jobs.insert(job.to_owned());
        }
        self.stopped(job);
    }

    /// Recovery has no say here: whoever runs the job does with its failure as they would without it.
    fn leave(&mut self, job: &str, why: &str) {
        let row = &self.r.jobs[job];
        let (attempt, why) = (row.attempt, format!("left to its own retries; {why}"));
        self.become_job(job, JobState::Failed, None, why.clone());
        self.job(job).goes_on = true;
        self.emit_for_job(
            job,
            Act::FailJob { job: job.to_owned(), attempt, why, class: Class::Application, leave: true },
        );
        self.forget_job_later(job);
    }

    /// The attempt must end. Why, and that we stop it, is recorded with that, before anybody is told to stop.
    pub fn fail_job(&mut self, job: &str, class: Class, why: &str, stop: StopWhy) {
        let row = &self.r.jobs[job];
        if let Some(failure) = &row.failure {
            if failure.class == Class::Unknown && class == Class::Infrastructure && !row.state.is_final() {
                if let Some(failure) = &mut self.job(job).failure {
                    failure.class = class;
                }
                if self.r.jobs[job].state == JobState::AwaitingVerdict {
                    self.restart(job, class);
                }
            }
            return;
        }
        let (at, state) = (self.now, row.state);
        if !matches!(state, JobState::Running | JobState::Starting | JobState::Restarting) {
            return;
        }
        let failure = Failure {
            at,
            class,
            why: why.to_owned(),
            suspects: BTreeMap::new(),
            exclude: BTreeSet::new(),
            peers: false,
            lasting: false,
        };
        let row = self.job(job);
        row.failure = Some(failure);
        row.stops = 0;
        self.settle_restart(job);
        self.become_job(job, JobState::Stopping, Some(self.r.policy.deadlines.stop), why);
        if state == JobState::Restarting || self.r.jobs[job].is_live() {
            self.order_stop(job, stop, false);
        }
    }

    pub fn order_stop(&mut self, job: &str, why: StopWhy, force: bool) {
        let within = later(self.now, self.r.policy.deadlines.stop);
        let row = self.job(job);
        row.stop = Some(why);
        row.stops += 1;
        row.deadline = Some(within);
        let attempt = row.attempt;
        self.emit_for_job(job, Act::StopJob { job: job.to_owned(), attempt, why, force });
    }

    /// Nothing of the attempt runs any more.
    pub fn job_stopped(&mut self, job: &str, attempt: u32) {
        // It answers an order of ours; a job that is not known any more had none.
        if self.r.jobs.get(job).is_some_and(|row| attempt <= row.attempt && row.state != JobState::Complete) {
            self.answer_end(job, attempt, "nothing of it runs any more");
        }
        let Some(row) = self.r.jobs.get(job) else { return };
        if row.attempt != attempt {
            return;
        }
        let nodes = row.nodes();
        let exit = match row.stop {
            Some(_) => Exit::Cancelled,
            None => Exit::Lost { reason: "nothing of it runs any more".to_owned() },
        };
        let was_live = row.is_live();
        let state = row.state;
        for rank in &mut self.job(job).ranks {
            rank.exit.get_or_insert(exit.clone());
        }
        self.drop_open_of_job(job, |act| matches!(act, Act::StopJob { .. }));
        match state {
            JobState::Running | JobState::Starting if was_live => {
                self.fail_job(job, Class::Infrastructure, "nothing of it runs any more", StopWhy::Recovery);
                self.stopped(job);
            }
            JobState::Stopping => self.decide(job),
            JobState::Running
            | JobState::Starting
            | JobState::AwaitingVerdict
            | JobState::Restarting
            | JobState::Complete
            | JobState::Failed
            | JobState::UserStopped => {}
        }
        self.freed(nodes);
    }

    /// Another of its ranks has ended. Once all have, goes on; where it is not known which there are, waits to be told.
    pub fn stopped(&mut self, job: &str) {
        let row = &self.r.jobs[job];
        if row.state == JobState::Stopping && !row.ranks.is_empty() && !row.is_live() {
            self.drop_open_of_job(job, |act| matches!(act, Act::StopJob { .. }));
            self.decide(job);
        }
    }

    /// A person stops it; that is never a failure, whatever else is going on.
    pub fn user_stop(&mut self, job: &str, by: &str) {
        if self.r.jobs.contains_key(job) {
            self.stopped_by_user(job, &format!("stopped by {by}"));
        }
    }

    fn stopped_by_user(&mut self, job: &str, why: &str) {
        let row = &self.r.jobs[job];
        if row.state.is_final() {
            return;
        }
        // Of what was ordered and has not begun nothing runs, and whatever begins under its number is that person's.
        let may_run = row.is_live();
        self.drop_open_of_job(job, |act| !matches!(act, Act::Notify { .. }));
        self.become_job(job, JobState::UserStopped, None, why);
        if may_run {
            self.order_stop(job, StopWhy::User, false);
        }
        self.forget_job_later(job);
    }
}
