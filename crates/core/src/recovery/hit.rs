//! What signals mean for jobs: which of them a fault takes, which must not go on, and what explains a failure that follows.

use super::effect::{NoticeKind, StopWhy};
use super::record::RankRecord;
use super::signal::{Advice, Class, Signal, SignalKind};
use super::state::JobState;
use super::step::Step;

impl Step<'_> {
    /// What a signal means for jobs: those whose GPU it took, or that it is about, must not go on.
    pub fn hit_jobs(&mut self, signal: &Signal) {
        let Some(id) = self.open_incident(&signal.node) else { return };
        if !self.r.may_act(&signal.node) {
            return;
        }
        let why = signal.words_on();
        for job in self.job_keys() {
            let row = &self.r.jobs[&job];
            let here = |rank: &&RankRecord| rank.place.node == signal.node;
            let has_gpu = |rank: &RankRecord| match &signal.gpu {
                Some(gpu) => rank.place.gpus.contains(gpu),
                None => !rank.place.gpus.is_empty(),
            };
            let is_on = row.ranks.iter().filter(here).any(has_gpu);
            let is_meant = signal.job.as_ref().is_some_and(|of| of.job == job && of.attempt == row.attempt);
            let leaves = signal.kind == SignalKind::SpotInterruption;
            let is_there = row.ranks.iter().any(|rank| here(&rank));
            match row.state {
                JobState::Running | JobState::Starting => {
                    let is_lost = (signal.advice.is_conclusive() && is_on && row.live_on(&signal.node))
                        || (leaves && row.live_on(&signal.node));
                    if !is_lost && !is_meant {
                        continue;
                    }
                    let class = match (leaves, is_lost) {
                        // Nobody has failed.
                        (true, _) => Class::Moved,
                        (false, true) => Class::Infrastructure,
                        (false, false) => Class::Unknown,
                    };
                    self.fail_job(&job, class, &why, StopWhy::Recovery);
                }
                JobState::Stopping | JobState::AwaitingVerdict if is_there => {
                    let is_reason = signal.kind.is_absence() || (signal.advice.is_conclusive() && is_on);
                    if is_reason {
                        self.fail_job(&job, Class::Infrastructure, &why, StopWhy::Recovery);
                    }
                }
                JobState::Stopping
                | JobState::AwaitingVerdict
                | JobState::Restarting
                | JobState::Complete
                | JobState::Failed
                | JobState::UserStopped => continue,
            }
            self.blame(&job, id, &signal.node);
        }
    }

    /// An incident that may explain the job's failure.
    pub fn blame(&mut self, job: &str, id: super::IncidentId, node: &str) {
        let verdict = self.r.incidents[&id].verdict;
        if let Some(failure) = &mut self.job(job).failure {
            failure.suspects.entry(id).or_insert(verdict);
            failure.exclude.insert(node.to_owned());
            self.incident(id).jobs.insert(job.to_owned());
        }
    }

    /// The application's own error. It is the reason, should the attempt fail now; one that hangs is ended.
    pub fn of_application(&mut self, signal: &Signal) {
        let why = signal.words_on();
        if let Some(of) = &signal.job {
            return self.end_meant(&of.job.clone(), of.attempt, Class::Application, &why);
        }
        let job = signal.gpu.as_ref().and_then(|gpu| self.job_on_gpu(&signal.node, gpu, signal.at));
        if let Some((job, attempt)) = job
            && self.r.jobs[&job].attempt == attempt
        {
            let now = self.now;
            self.job(&job).hint = Some((now, why));
        }
    }

    /// A signal of a job that no node in particular is behind.
    pub fn of_job_alone(&mut self, signal: &Signal) {
        let Some(of) = &signal.job else { return };
        let class = if signal.advice >= Advice::Check { Class::Unknown } else { Class::Application };
        if signal.advice != Advice::Ignore {
            let why = signal.words();
            self.end_meant(&of.job.clone(), of.attempt, class, &why);
        }
    }

    /// A job goes on on a node that is out of service, and must not.
    pub fn end_on_retired(&mut self, signal: &Signal) {
        if let Some(of) = signal.job.as_ref().filter(|_| signal.advice >= Advice::Check) {
            let why = signal.words_on();
            self.end_meant(&of.job, of.attempt, Class::Infrastructure, &why);
        }
    }

    fn end_meant(&mut self, job: &str, attempt: u32, class: Class, why: &str) {
        let Some(row) = self.r.jobs.get(job) else { return };
        if row.attempt != attempt || row.state != JobState::Running {
            return;
        }
        if !row.nodes().iter().any(|node| self.r.may_act(node)) {
            let text = format!("{job}: would end it and begin it anew; recovery only watches here; {why}");
            return self.tell_of_job(job, NoticeKind::Would, text);
        }
        self.fail_job(job, class, why, StopWhy::Recovery);
        self.stopped(job);
    }
}
