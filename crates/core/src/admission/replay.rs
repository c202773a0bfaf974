//! A trace in time, played by the admission of servers: queue, promises, priorities, quotas and all.
//!
//! Whoever is made to end does so at once, stands in line again and begins anew. Invariant: the same jobs give the same
//! figures; nothing here draws or reads a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Admission, DEFAULT_POOL, Holder, Quota};
use crate::engine::{Demand, Offer, Slot};
use crate::fleet::replay::{Job, Moment};
use crate::fleet::{Amount, Gang, Node, Policy, Twice};
use crate::id::RunKey;
use crate::ir::TaskIx;

/// What came of arrivals and departures with a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Of all.
    pub all: Waits,
    /// At the moment when most was held.
    pub most_allocated_percent: f64,
    /// Held GPUs over the time from the first arrival to the last departure, of all GPUs.
    pub utilisation_percent: f64,
    pub fragmented_gpu_percent: f64,
    pub namespaces: BTreeMap<String, Waits>,
}

/// How it went with some of the jobs. Members of a gang count each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Waits {
    pub placed: usize,
    /// No node can ever take them, or no quota lets them.
    pub failed: usize,
    /// How often one was made to end for another.
    pub preempted: usize,
    pub mean_wait_s: f64,
    pub p99_wait_s: f64,
    /// Of all GPUs over the time, what they held.
    pub gpu_percent: f64,
    waits: Vec<f64>,
}

impl Waits {
    fn conclude(&mut self, gpu_seconds: f64) {
        let waits = &mut self.waits;
        waits.sort_by(f64::total_cmp);
        let rank = (waits.len() as f64 * 0.99).ceil() as usize;
        self.placed = waits.len();
        self.mean_wait_s = if waits.is_empty() { 0.0 } else { waits.iter().sum::<f64>() / waits.len() as f64 };
        self.p99_wait_s = waits.get(rank.saturating_sub(1)).copied().unwrap_or(0.0);
        self.gpu_percent = if gpu_seconds > 0.0 { 100.0 * self.gpu_percent / gpu_seconds } else { 0.0 };
        waits.clear();
    }
}

/// A job on its way.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    /// How often it began.
    begun: u32,
    /// Since when it is in line, or runs.
    since: f64,
    waited: f64,
}

struct Play<'a> {
    jobs: &'a [Job],
    admission: Admission,
    courses: Vec<Course>,
    /// When which job ends, if it began so many times.
    ends: BinaryHeap<Reverse<(Moment, usize, u32)>>,
    told: Timed,
}

/// Plays arrivals and departures in virtual time.
pub fn timed(nodes: Vec<Node>, policy: Policy, quotas: Vec<Quota>, jobs: &[Job]) -> Result<Timed, Twice> {
    let mut admission = Admission::new(u32::MAX, nodes)?;
    admission.set_policy(policy);
    admission.set_pool(DEFAULT_POOL, u32::MAX);
    admission.set_quotas(quotas);
    // The usual work is that of the trace.
    jobs.iter().for_each(|job| admission.usual.saw(&job.request));
    let all = admission.fleet.gpus();
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|a, b| jobs[*a].arrives.total_cmp(&jobs[*b].arrives).then(a.cmp(b)));
    let begins = order.first().map_or(0.0, |at| jobs[*at].arrives);
    let mut arrivals = order.into_iter().peekable();
    let (mut now, mut held_seconds, mut fragment_seconds, mut most) = (begins, 0.0, 0.0, Amount::ZERO);
    let told = Timed {
        all: Waits::default(),
        most_allocated_percent: 0.0,
        utilisation_percent: 0.0,
        fragmented_gpu_percent: 0.0,
        namespaces: jobs.iter().map(|job| (job.namespace.clone(), Waits::default())).collect(),
    };
    let mut play =
        Play { jobs, admission, courses: vec![Course::default(); jobs.len()], ends: BinaryHeap::new(), told };
    loop {
        let next_arrival = arrivals.peek().map(|at| jobs[*at].arrives);
        let next_end = play.ends.peek().map(|Reverse((moment, ..))| moment.0);
        let next = match (next_arrival, next_end) {
            (Some(arrival), Some(end)) => arrival.min(end),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => break,
        };
        let held = play.admission.fleet.gpus_held();
        most = most.max(held);
        held_seconds += held.to_f64() * (next - now);
        fragment_seconds += play.admission.fleet.fragments() * (next - now);
        now = next;
        while let Some(Reverse((moment, at, begun))) = play.ends.peek().copied().filter(|Reverse(end)| end.0.0 <= now) {
            play.ends.pop();
            // It may have been made to end, and begun anew, since.
            if play.courses[at].begun == begun && play.admission.holds(key(at), slot(0)) {
                play.end(at, moment.0);
                play.finish(at);
            }
        }
        while let Some(at) = arrivals.next_if(|at| jobs[*at].arrives <= now) {
            play.arrive(at, now);
        }
        play.settle(now);
    }
    let Play { jobs, admission, told: mut timed, .. } = play;
    // Whoever is in line now, with nobody else there, is let go by no quota.
    for Holder { run, .. } in admission.candidates.keys() {
        let job = &jobs[run.0 as usize];
        timed.all.failed += job.members as usize;
        timed.namespaces.entry(job.namespace.clone()).or_default().failed += job.members as usize;
    }
    let whole = all.to_f64() * (now - begins);
    let percent = |part: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    timed.most_allocated_percent = if all.is_zero() { 0.0 } else { 100.0 * most.to_f64() / all.to_f64() };
    timed.utilisation_percent = percent(held_seconds);
    timed.fragmented_gpu_percent = percent(fragment_seconds);
    timed.all.conclude(whole);
    timed.namespaces.values_mut().for_each(|waits| waits.conclude(whole));
    Ok(timed)
}

fn key(at: usize) -> RunKey {
    RunKey(at as i64)
}

fn slot(member: u32) -> Slot {
    Slot::new(TaskIx(0), member)
}

impl Play<'_> {
    fn both(&mut self, at: usize, change: impl Fn(&mut Waits)) {
        change(&mut self.told.all);
        change(self.told.namespaces.entry(self.jobs[at].namespace.clone()).or_default());
    }

    fn arrive(&mut self, at: usize, now: f64) {
        let job = &self.jobs[at];
        let offer = Offer {
            slot: slot(0),
            gang: (job.members > 1).then(|| Gang::of(job.members)),
            namespace: job.namespace.clone(),
            pool: None,
            pool_slots: 1,
            priority: job.priority,
            is_preemptible: job.is_preemptible,
            // How long it lasts nobody says.
            limit: None,
            demand: Demand { request: Some(Arc::new(job.request.clone())), ..Demand::default() },
        };
        self.courses[at].since = now;
        if self.admission.offer(key(at), &offer).is_err() {
            let members = job.members as usize;
            self.both(at, |waits| waits.failed += members);
        }
    }

    /// Lets begin who can, and end who has to.
    fn settle(&mut self, now: f64) {
        let moment = Timestamp::from_millisecond((now * 1000.0) as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        loop {
            for grant in self.admission.grant(moment) {
                let at = grant.holder.run.0 as usize;
                let course = &mut self.courses[at];
                *course = Course { begun: course.begun + 1, since: now, waited: course.waited + now - course.since };
                self.ends.push(Reverse((Moment(now + self.jobs[at].lasts.max(0.0)), at, course.begun)));
            }
            let told = self.admission.preemptions();
            if told.is_empty() {
                return;
            }
            for preemption in told {
                let at = preemption.victim.run.0 as usize;
                let members = self.jobs[at].members as usize;
                self.end(at, now);
                self.both(at, |waits| waits.preempted += members);
                self.arrive(at, now);
            }
        }
    }

    /// It holds nothing any more.
    fn end(&mut self, at: usize, now: f64) {
        let (job, since) = (&self.jobs[at], self.courses[at].since);
        (0..job.members).for_each(|member| self.admission.release(key(at), slot(member)));
        let gpu_seconds = job.gpus() * (now - since);
        self.both(at, |waits| waits.gpu_percent += gpu_seconds);
    }

    fn finish(&mut self, at: usize) {
        let (waited, members) = (self.courses[at].waited, self.jobs[at].members as usize);
        self.both(at, |waits| waits.waits.extend(std::iter::repeat_n(waited, members)));
    }
}
