//! Which signals act: each once, none of a boot that is over, none that tells what is already repaired.

use jiff::{SignedDuration, Timestamp};

use super::effect::Act;
use super::record::ApplicationError;
use super::signal::{Advice, Signal, SignalKind};
use super::step::{Step, earlier, later};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Older signals do not act, so their ids need not be known.
const MEMORY: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many ids of signals are known of a node.
const TAKEN: usize = 256;
/// How many signals wait for a look at the node.
const HELD: usize = 16;
/// Lines of one crash, where it is not known which attempt they are of.
const ONE_CRASH: SignedDuration = SignedDuration::from_secs(60);

impl Step<'_> {
    /// A signal came. Does it act?
    pub fn screen(&mut self, signal: Signal) {
        let known = self.r.node(&signal.node).is_some();
        if !known {
            return self.of_job_alone(&signal);
        }
        if !self.take_once(&signal) {
            return;
        }
        let row = &self.r.nodes[&signal.node];
        match (&signal.boot_id, &row.boot_id) {
            (Some(of), _) if row.past_boots.contains(of) => {}
            (Some(of), Some(current)) if of != current => self.hold(signal),
            (Some(_), None) => self.hold(signal),
            (Some(_) | None, _) => self.weigh(signal),
        }
    }

    /// Whether it was not taken before. Which ones were is kept for a while; what is older does not act.
    fn take_once(&mut self, signal: &Signal) -> bool {
        let row = &self.r.nodes[&signal.node];
        let oldest = row.forgot_at.unwrap_or(Timestamp::MIN).max(earlier(self.now, MEMORY));
        if signal.at <= oldest || row.taken.contains_key(&signal.id) {
            return false;
        }
        let row = self.node(&signal.node);
        row.taken.retain(|_, at| *at > oldest);
        row.taken.insert(signal.id.clone(), signal.at);
        if row.taken.len() > TAKEN {
            let mut times: Vec<Timestamp> = row.taken.values().copied().collect();
            times.sort();
            // A quarter at once: what is forgotten by time is forgotten with all of its time.
            let forgot = times[TAKEN / 4];
            row.taken.retain(|_, at| *at > forgot);
            row.forgot_at = Some(forgot);
        }
        true
    }

    /// Of a boot that nobody has heard of: a later one than is known, or an earlier. The node knows.
    fn hold(&mut self, signal: Signal) {
        let name = signal.node.clone();
        let row = self.node(&name);
        if row.held.len() < HELD {
            row.held.push(signal);
        }
        if !row.open.iter().any(|effect| matches!(effect.act, Act::Observe { .. })) {
            self.emit(&name, Act::Observe { node: name.clone() });
        }
        // Of a node in trouble, the next look is the incident's to say.
        if !self.r.nodes[&name].state.is_under_way() {
            self.again_in(&name, self.r.policy.deadlines.observe);
        }
    }

    /// It did not say which boot it runs: it is asked again, seldom where it has not answered for long, and a day at most.
    pub fn look_for_held(&mut self, node: &str) {
        let Some(newest) = self.r.nodes[node].held.iter().map(|signal| signal.at).max() else { return };
        if self.now > later(newest, DAY) {
            self.node(node).held.clear();
            return self.drop_open(node, |act| matches!(act, Act::Observe { .. }));
        }
        self.look(node);
        let seldom = self.r.policy.deadlines.suspected;
        if self.now > later(newest, seldom) {
            self.again_in(node, seldom);
        }
    }

    /// The node was looked at: held signals of its boot act, the others are of the past.
    pub fn let_held_act(&mut self, node: &str) {
        let row = &self.r.nodes[node];
        if row.held.is_empty() || row.boot_id.is_none() {
            return;
        }
        let current = self.r.nodes[node].boot_id.clone();
        let held = std::mem::take(&mut self.node(node).held);
        for signal in held.into_iter().filter(|signal| signal.boot_id == current) {
            self.weigh(signal);
        }
    }

    /// It is of this boot, and new. Whether it tells something new is another question.
    fn weigh(&mut self, mut signal: Signal) {
        let cleared = self.r.nodes[&signal.node].cleared_at;
        // An absence is over as soon as somebody sees the node; a line is of the time it was written at.
        if cleared.is_some_and(|cleared| signal.at <= cleared) {
            return;
        }
        match signal.advice {
            Advice::Ignore => return,
            Advice::RestartApp => {
                if let SignalKind::Xid { .. } = signal.kind
                    && self.is_hardware_after_all(&signal)
                {
                    signal.advice = Advice::Check;
                    signal.evidence = format!("{} (again on the same GPU within a day)", signal.evidence);
                }
            }
            Advice::Check | Advice::ResetGpu | Advice::Reboot | Advice::Replace | Advice::ContactSupport => {}
        }
        if signal.advice == Advice::RestartApp {
            return self.of_application(&signal);
        }
        self.suspect(signal);
    }

    /// An application's error that comes back on one GPU, while its application has none on others, is the GPU's.
    fn is_hardware_after_all(&mut self, signal: &Signal) -> bool {
        let Some(gpu) = &signal.gpu else { return false };
        let since = earlier(self.now, DAY);
        let job = self.job_on_gpu(&signal.node, gpu);
        let attempt = job.as_ref().map(|job| format!("{job}@{}", self.r.jobs[job].attempt));
        let row = self.node(&signal.node);
        row.application_errors.retain(|error| error.at > since);
        let is_same = |error: &ApplicationError| {
            let near = signal.at < later(error.at, ONE_CRASH) && error.at < later(signal.at, ONE_CRASH);
            error.gpu == *gpu && if attempt.is_some() { error.job == attempt } else { near }
        };
        if !row.application_errors.iter().any(is_same) {
            row.application_errors.push(ApplicationError { gpu: gpu.clone(), at: signal.at, job: attempt });
        }
        let here = row.application_errors.iter().filter(|error| error.gpu == *gpu).count();
        if here < self.r.policy.application_errors_per_day.max(1) as usize {
            return false;
        }
        let of_job = |error: &&ApplicationError| match (&job, &error.job) {
            (Some(job), Some(of)) => of.rsplit_once('@').is_some_and(|(of, _)| of == job),
            (None, _) | (_, None) => false,
        };
        let errors = self.r.nodes.values().flat_map(|node| &node.application_errors);
        let elsewhere = errors.filter(of_job).any(|error| error.gpu != *gpu && error.at > since);
        if elsewhere {
            return false;
        }
        self.node(&signal.node).application_errors.retain(|error| error.gpu != *gpu);
        true
    }

    /// The job that runs with this GPU.
    pub fn job_on_gpu(&self, node: &str, gpu: &str) -> Option<String> {
        let uses = |rank: &super::RankRecord| {
            rank.exit.is_none() && rank.place.node == node && rank.place.gpus.iter().any(|id| id == gpu)
        };
        self.r.jobs.values().find(|job| job.ranks.iter().any(uses)).map(|job| job.job.clone())
    }
}
