//! Which signals act: each once, none of a boot that is over, none that tells what is already repaired.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::effect::{Act, Place};
use super::record::ApplicationError;
use super::signal::{Advice, JobRef, Signal, SignalKind};
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
        match (signal.advice, &signal.kind) {
            (Advice::Ignore, kind) if kind.is_for_people() => return self.only_tell(&signal),
            (Advice::Ignore, _) => return,
            (Advice::RestartApp, SignalKind::Xid { code }) => {
                let code = *code;
                if self.is_hardware_after_all(&signal) {
                    (signal.advice, signal.kind) = (Advice::Check, SignalKind::Repeated { code });
                    signal.evidence = format!("{} (again on the same GPU within a day)", signal.evidence);
                }
            }
            (
                Advice::RestartApp
                | Advice::Check
                | Advice::ResetGpu
                | Advice::Reboot
                | Advice::Replace
                | Advice::ContactSupport,
                _,
            ) => {}
        }
        if signal.advice == Advice::RestartApp {
            return self.of_application(&signal);
        }
        match signal.job.clone() {
            Some(of) => self.suspect_members(signal, &of),
            None => self.suspect(signal),
        }
    }

    /// What holds up a job may be on any of its machines: all of them are suspect, each with what the job has there.
    fn suspect_members(&mut self, signal: Signal, of: &JobRef) {
        let row = self.r.jobs.get(&of.job).filter(|row| row.attempt == of.attempt && row.is_live());
        let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rank in row.iter().flat_map(|row| &row.ranks) {
            let is_meant = rank.place.node == signal.node || row.is_some_and(|row| row.spec.check_peers);
            if is_meant && self.r.node(&rank.place.node).is_some() {
                places.entry(rank.place.node.clone()).or_default().extend(rank.place.gpus.iter().cloned());
            }
        }
        let gpus = places.remove(&signal.node).unwrap_or_default();
        let other = |(node, gpus): (String, BTreeSet<String>)| {
            let gpu = gpus.first().filter(|_| gpus.len() == 1).cloned();
            (Signal { id: format!("{}/{node}", signal.id), node, gpu, ..signal.clone() }, gpus)
        };
        let others: Vec<_> = places.into_iter().map(other).collect();
        for (signal, gpus) in std::iter::once((signal.clone(), gpus)).chain(others) {
            let node = signal.node.clone();
            self.suspect(signal);
            if let Some(id) = self.open_incident(&node) {
                self.incident(id).gpus.extend(gpus);
            }
        }
    }

    /// An application's error that comes back on one GPU is the GPU's, whatever ran there. Errors of a job that has shown them on
    /// another GPU as well are that job's own, wherever they were.
    fn is_hardware_after_all(&mut self, signal: &Signal) -> bool {
        let Some(gpu) = &signal.gpu else { return false };
        let since = earlier(self.now, DAY);
        let job = self.job_on_gpu(&signal.node, gpu, signal.at);
        let attempt = job.map(|(job, attempt)| format!("{job}@{attempt}"));
        let row = self.node(&signal.node);
        row.application_errors.retain(|error| error.at > since);
        let is_same = |error: &ApplicationError| {
            let near = signal.at < later(error.at, ONE_CRASH) && error.at < later(signal.at, ONE_CRASH);
            error.gpu == *gpu && if attempt.is_some() { error.job == attempt } else { near }
        };
        if !row.application_errors.iter().any(is_same) {
            row.application_errors.push(ApplicationError { gpu: gpu.clone(), at: signal.at, job: attempt });
        }
        let mut shown: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let errors = self.r.nodes.values().flat_map(|node| &node.application_errors);
        for error in errors.filter(|error| error.at > since) {
            if let Some(job) = job_of(error) {
                shown.entry(job).or_default().insert(&error.gpu);
            }
        }
        let is_the_jobs =
            |error: &&ApplicationError| job_of(error).and_then(|job| shown.get(job)).is_some_and(|gpus| gpus.len() > 1);
        let here = self.r.nodes[&signal.node].application_errors.iter().filter(|error| error.gpu == *gpu);
        if here.filter(|error| !is_the_jobs(error)).count() < self.r.policy.application_errors_per_day.max(1) as usize {
            return false;
        }
        self.node(&signal.node).application_errors.retain(|error| error.gpu != *gpu);
        true
    }

    /// The job that had this GPU at that time, and which attempt of it: the one that runs, unless another one has just ended.
    pub fn job_on_gpu(&self, node: &str, gpu: &str, at: Timestamp) -> Option<(String, u32)> {
        let has = |place: &Place| place.node == node && place.gpus.iter().any(|id| id == gpu);
        let (mut live, mut past) = (None, None);
        for row in self.r.jobs.values() {
            let mut mine = row.ranks.iter().filter(|rank| has(&rank.place)).peekable();
            if mine.peek().is_some() {
                let is_live = mine.any(|rank| rank.exit.is_none());
                let is_near = !row.state.is_final() || at < later(row.since, ONE_CRASH);
                match is_live {
                    true if row.since <= at || live.is_none() => live = Some((row.since <= at, row)),
                    false if is_near => past = Some((row.job.clone(), row.attempt)),
                    true | false => {}
                }
            }
            if let Some(before) = &row.before
                && before.places.iter().any(has)
                && at < later(before.until, ONE_CRASH)
            {
                past = Some((row.job.clone(), before.attempt));
            }
        }
        match live {
            Some((is_since, row)) if is_since || past.is_none() => Some((row.job.clone(), row.attempt)),
            Some(_) | None => past,
        }
    }
}

/// Without the number of its attempt.
fn job_of(error: &ApplicationError) -> Option<&str> {
    Some(error.job.as_deref()?.rsplit_once('@')?.0)
}
