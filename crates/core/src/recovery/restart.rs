//! What becomes of a job that has ended before its time: it waits for a verdict, begins anew, or fails.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::effect::{Act, EffectId, Notice, NoticeKind, StopWhy};
use super::job::past_attempt;
use super::policy::Restart;
use super::record::{RestartRecord, Verdict};
use super::signal::{Advice, Class, Signal, SignalKind};
use super::state::{JobState, NodeState};
use super::step::{Step, earlier, later};
use super::verdict::class_of;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// The wait between restarts that follow each other fast; twice as long each time, up to so often.
const WAIT: SignedDuration = SignedDuration::from_secs(15);
const DOUBLINGS: u32 = 5;

impl Step<'_> {
    /// Nothing of it runs any more.
    pub fn decide(&mut self, job: &str) {
        let row = &self.r.jobs[job];
        let Some(failure) = &row.failure else { return };
        if failure.lasting {
            let why = failure.why.clone();
            return self.fail_for_good(job, &why);
        }
        match failure.class {
            Class::Application | Class::Infrastructure | Class::Moved => {
                let class = failure.class;
                self.restart(job, class);
            }
            Class::Unknown if self.may_go_on_unknown(job) => self.restart(job, Class::Unknown),
            Class::Unknown => {
                let within = Some(self.r.policy.deadlines.verdict);
                self.become_job(job, JobState::AwaitingVerdict, within, "all of its ranks have ended");
                self.resolve(job);
            }
        }
    }

    /// Whether it may begin anew before it is known whose fault it was: once in an hour, and if it could be either's.
    fn may_go_on_unknown(&self, job: &str) -> bool {
        let row = &self.r.jobs[job];
        let pending = row.failure.iter().flat_map(|failure| failure.suspects.values());
        let since = earlier(self.now, HOUR);
        let recent = |class| matches!(class, Class::Unknown | Class::Application);
        row.spec.restart == Restart::Immediately
            && pending.clone().any(Option::is_none)
            && !row.restarts.iter().any(|restart| recent(restart.class) && restart.at > since)
            && self.may_restart(row, Class::Application).is_ok()
            && self.may_restart(row, Class::Infrastructure).is_ok()
    }

    /// Goes on as soon as the verdicts allow.
    pub fn resolve(&mut self, job: &str) {
        let Some(failure) = &self.r.jobs[job].failure else { return };
        let verdicts: Vec<Option<Verdict>> = failure.suspects.values().copied().collect();
        match class_of(verdicts.iter().copied()) {
            Class::Infrastructure => self.restart(job, Class::Infrastructure),
            Class::Application if self.ask_peers(job) => {}
            Class::Application => self.restart(job, Class::Application),
            Class::Unknown | Class::Moved if verdicts.iter().any(Option::is_none) => {}
            Class::Unknown | Class::Moved => self.restart(job, Class::Unknown),
        }
    }

    /// The node that failed first is well: those of the other ranks are checked, all at once. `true` if there are any.
    fn ask_peers(&mut self, job: &str) -> bool {
        let row = &self.r.jobs[job];
        let Some(failure) = &row.failure else { return false };
        if failure.peers || !row.spec.check_peers {
            return false;
        }
        let (attempt, why) = (row.attempt, failure.why.clone());
        let seen: BTreeSet<String> =
            failure.suspects.keys().filter_map(|id| self.r.incidents.get(id)).map(|past| past.node.clone()).collect();
        let mut peers: Vec<(String, BTreeSet<String>)> = Vec::new();
        for node in row.nodes().difference(&seen) {
            let here = row.ranks.iter().filter(|rank| rank.place.node == *node);
            peers.push((node.clone(), here.flat_map(|rank| rank.place.gpus.clone()).collect()));
        }
        if let Some(failure) = &mut self.job(job).failure {
            failure.peers = true;
        }
        let mut any = false;
        for (node, gpus) in peers {
            let is_well =
                self.r.node(&node).is_some_and(|row| row.state == NodeState::Healthy) || self.is_only_told(&node);
            // Others have its place by now: they will tell.
            if !is_well || !self.r.may_act(&node) || !self.r.users(&node, &gpus).is_empty() {
                continue;
            }
            let signal = Signal {
                id: format!("{job}@{attempt}/{node}"),
                node: node.clone(),
                boot_id: None,
                gpu: None,
                job: None,
                at: self.now,
                kind: SignalKind::Peer,
                advice: Advice::Check,
                evidence: format!("{job}: {why}"),
            };
            self.suspect(signal);
            if let Some(id) = self.open_incident(&node) {
                self.incident(id).gpus.extend(gpus);
                self.blame(job, id, &node);
                any = true;
            }
        }
        any
    }

    /// All ranks anew, or none; within the budget of whoever was to blame.
    pub fn restart(&mut self, job: &str, class: Class) {
        let row = &self.r.jobs[job];
        if let Err(why) = self.may_restart(row, class) {
            let failed = row.failure.as_ref().map(|failure| failure.why.clone()).unwrap_or_default();
            return self.fail_for_good(job, &format!("{why}; {failed}"));
        }
        let now = self.now;
        let close = |at| earlier(now, HOUR) < at;
        let recent = row.restarts.iter().filter(|restart| close(restart.at)).count() as u32;
        // The first at once.
        let wait = match recent {
            0 => SignedDuration::ZERO,
            n => WAIT.saturating_mul(1 << (n - 1).min(DOUBLINGS)),
        };
        let not_before = later(now, wait);
        let fenced: BTreeSet<String> = self.r.fenced().map(str::to_owned).collect();
        let row = self.job(job);
        row.before = past_attempt(row, now);
        let failure = row.failure.take();
        let (suspects, blamed) = failure.map(|failure| (failure.suspects, failure.exclude)).unwrap_or_default();
        let suspects = if class == Class::Unknown { suspects } else { Default::default() };
        row.restarts.retain(|past| past.class == Class::Application || past.at > earlier(now, DAY));
        row.attempt += 1;
        let attempt = row.attempt;
        row.restarts.push(RestartRecord { attempt, at: now, class, suspects });
        (row.stop, row.stops, row.hint) = (None, 0, None);
        row.ranks.clear();
        let exclude: BTreeSet<String> = match class {
            // Its nodes are as good as any.
            Class::Application => fenced,
            Class::Infrastructure | Class::Unknown | Class::Moved => fenced.union(&blamed).cloned().collect(),
        };
        self.become_job(job, JobState::Restarting, None, format!("begins anew; whose fault it was: {class}"));
        let deadline = later(not_before, self.r.policy.deadlines.room);
        self.job(job).deadline = Some(deadline);
        let act = Act::RestartJob { job: job.to_owned(), attempt, exclude, class, not_before };
        self.emit_for_job(job, act);
    }

    /// A restart that did not work.
    pub fn not_restarted(&mut self, id: &EffectId, job: &str, why: &str, certain: bool) {
        self.settle(id);
        if self.r.jobs[job].state != JobState::Restarting {
            return;
        }
        let why = format!("it could not begin anew: {why}");
        if certain {
            return self.restart(job, Class::Infrastructure);
        }
        // Some ranks may run: all of them are ended first.
        self.fail_job(job, Class::Infrastructure, &why, StopWhy::RollBack);
    }

    pub fn fail_for_good(&mut self, job: &str, why: &str) {
        let row = &self.r.jobs[job];
        let attempt = row.attempt;
        let class = row.failure.as_ref().map_or(Class::Infrastructure, |failure| match failure.class {
            Class::Unknown => class_of(failure.suspects.values().copied()),
            known => known,
        });
        self.drop_open_of_job(job, |act| !matches!(act, Act::Notify { .. } | Act::StopJob { .. }));
        self.become_job(job, JobState::Failed, None, why);
        // What it drew on is counted here, so its run must not try it once more; one without tries is told of as ever.
        let leave = class == Class::Application && self.r.jobs[job].spec.application_restarts == 0;
        let act = Act::FailJob { job: job.to_owned(), attempt, why: why.to_owned(), class, leave };
        self.emit_for_job(job, act);
        self.tell_of_job(job, NoticeKind::JobFailed, format!("{job} failed: {why}"));
        self.forget_job_later(job);
    }

    pub fn forget_job_later(&mut self, job: &str) {
        let at = later(self.now, self.r.policy.deadlines.forget);
        self.job(job).deadline = Some(at);
    }

    pub fn tell_of_job(&mut self, job: &str, kind: NoticeKind, text: String) {
        let row = &self.r.jobs[job];
        let evidence = row.failure.iter().map(|failure| failure.why.clone()).collect();
        let tried = row.restarts.iter().map(|past| format!("attempt {}: {}", past.attempt, past.class)).collect();
        let notice = Notice { kind, node: None, job: Some(job.to_owned()), text, evidence, tried, left: Vec::new() };
        self.emit_for_job(job, Act::Notify { notice });
    }
}
