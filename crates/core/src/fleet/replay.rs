//! Work of a trace played against a fleet: how much of it a policy places, and how long it waits.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::gang::Gang;
use super::place::{Fleet, LeaseId, Refused};
use super::promise::Promises;
use super::request::Request;
use super::{Amount, Workload};
use crate::sim::rng::Rng;

/// A job of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Of each member, where it is a gang.
    pub request: Request,
    /// How many members it has, on a node each; 1: it is no gang.
    pub members: u32,
    /// Seconds since the trace began.
    pub arrives: f64,
    /// Seconds that it runs.
    pub lasts: f64,
}

/// What came of arrivals without departures, one try each.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    pub placed: usize,
    pub failed: usize,
    /// All that was asked for, of all GPUs, in per cent.
    pub load_percent: f64,
    /// Of all GPUs, in per cent.
    pub allocated_gpu_percent: f64,
    /// Idle to no use for the usual work.
    pub fragmented_gpu_percent: f64,
}

/// What came of arrivals and departures with a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    pub placed: usize,
    /// No node can ever take them.
    pub failed: usize,
    pub mean_wait_s: f64,
    pub p99_wait_s: f64,
    /// At the moment when most was held.
    pub most_allocated_percent: f64,
    /// Held GPUs over the time from the first arrival to the last departure, of all GPUs.
    pub utilisation_percent: f64,
    pub fragmented_gpu_percent: f64,
}

impl Job {
    /// Undivided GPUs and parts of GPUs that all of it asks for.
    fn gpus(&self) -> f64 {
        self.request.size().0.to_f64() * f64::from(self.members)
    }
}

/// The leases of a job.
fn leases(at: usize, job: &Job) -> Vec<LeaseId> {
    (0..job.members).map(|member| LeaseId(format!("{at}/{member}"))).collect()
}

fn place(fleet: &mut Fleet, at: usize, job: &Job) -> Result<(), Refused> {
    match &leases(at, job)[..] {
        [one] => fleet.place(one.clone(), &job.request).map(drop),
        ids => fleet.place_gang(ids, &job.request, &Gang::of(job.members), &Promises::default()),
    }
}

/// The published protocol: jobs drawn from the trace are added until all together ask for `load` times the GPUs of the
/// fleet, and come in an order that the seed decides. For a smaller load, those that come last in it are left out.
pub fn inflated(jobs: &[Job], gpus: Amount, load: f64, seed: u64) -> Vec<Job> {
    let mut draw = Rng::new(seed);
    let mut all = jobs.to_vec();
    let wanted = gpus.to_f64() * load;
    let size = Job::gpus;
    let mut asked: f64 = all.iter().map(size).sum();
    let has_gpus = asked > 0.0;
    while has_gpus && asked < wanted {
        let job = &jobs[draw.below(jobs.len())];
        asked += size(job);
        all.push(job.clone());
    }
    shuffle(&mut all, &mut draw);
    while asked > wanted
        && let Some(last) = all.last().map(size).filter(|last| asked - last >= wanted)
    {
        asked -= last;
        all.pop();
    }
    all
}

/// The jobs of the trace in an order that the seed decides.
pub fn shuffled(jobs: &[Job], seed: u64) -> Vec<Job> {
    let mut all = jobs.to_vec();
    shuffle(&mut all, &mut Rng::new(seed));
    all
}

/// The jobs come closer together, or further apart, until the work that arrives while they do is `load` times what the
/// GPUs of the fleet can do in that time. A seed decides which of them comes at which moment; without one they come in the
/// order of the trace.
pub fn squeezed(jobs: &[Job], gpus: Amount, load: f64, seed: Option<u64>) -> Vec<Job> {
    let mut moments: Vec<f64> = jobs.iter().map(|job| job.arrives).collect();
    let mut all = jobs.to_vec();
    if let Some(seed) = seed {
        shuffle(&mut all, &mut Rng::new(seed));
        moments.sort_by(f64::total_cmp);
    }
    let first = moments.iter().copied().fold(f64::INFINITY, f64::min);
    let factor = if load > 0.0 { load_of(jobs, gpus) / load } else { 1.0 };
    for (job, moment) in all.iter_mut().zip(moments) {
        job.arrives = (moment - first) * factor;
    }
    all
}

/// The work that arrives, in GPU seconds, of what the fleet can do from the first arrival to the last. 0 where that is no
/// time, or nobody wants a GPU.
pub fn load_of(jobs: &[Job], gpus: Amount) -> f64 {
    let moments = || jobs.iter().map(|job| job.arrives);
    let span = moments().fold(f64::NEG_INFINITY, f64::max) - moments().fold(f64::INFINITY, f64::min);
    let work: f64 = jobs.iter().map(|job| job.gpus() * job.lasts.max(0.0)).sum();
    let could = gpus.to_f64() * span;
    if could > 0.0 { work / could } else { 0.0 }
}

fn shuffle(jobs: &mut [Job], draw: &mut Rng) {
    for at in (1..jobs.len()).rev() {
        jobs.swap(at, draw.below(at + 1));
    }
}

/// The usual work of these jobs.
pub fn workload(jobs: &[Job]) -> Workload {
    Workload::of(jobs.iter().map(|job| &job.request))
}

/// Places one after the other; nothing ever ends.
pub fn fill(fleet: &mut Fleet, jobs: &[Job]) -> Filled {
    let mut placed = 0;
    for (at, job) in jobs.iter().enumerate() {
        if place(fleet, at, job).is_ok() {
            placed += job.members as usize;
        }
    }
    let (held, all) = (fleet.gpus_held(), fleet.gpus());
    let percent = |part: f64| if all.is_zero() { 0.0 } else { 100.0 * part / all.to_f64() };
    Filled {
        placed,
        failed: jobs.iter().map(|job| job.members as usize).sum::<usize>() - placed,
        load_percent: percent(jobs.iter().map(Job::gpus).sum()),
        allocated_gpu_percent: percent(held.to_f64()),
        fragmented_gpu_percent: percent(fleet.fragments()),
    }
}

/// Plays arrivals and departures in virtual time. Whoever finds no room waits; when something ends, those who wait are
/// tried in the order of their arrival, and one that does not fit lets those behind it pass.
pub fn timed(fleet: &mut Fleet, jobs: &[Job]) -> Timed {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|a, b| jobs[*a].arrives.total_cmp(&jobs[*b].arrives).then(a.cmp(b)));
    let mut arrivals = order.into_iter().peekable();
    let mut ends: BinaryHeap<Reverse<(Moment, usize)>> = BinaryHeap::new();
    let mut waiting: BTreeSet<(Moment, usize)> = BTreeSet::new();
    let mut waits = Vec::new();
    let (mut failed, mut held_seconds, mut fragment_seconds, mut most) = (0, 0.0, 0.0, Amount::ZERO);
    let begins = arrivals.peek().map_or(0.0, |at| jobs[*at].arrives);
    let mut now = begins;
    loop {
        let next_arrival = arrivals.peek().map(|at| jobs[*at].arrives);
        let next_end = ends.peek().map(|Reverse((moment, _))| moment.0);
        let next = match (next_arrival, next_end) {
            (Some(arrival), Some(end)) => arrival.min(end),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => break,
        };
        let held = fleet.gpus_held();
        most = most.max(held);
        held_seconds += held.to_f64() * (next - now);
        fragment_seconds += fleet.fragments() * (next - now);
        now = next;
        let mut has_room = false;
        while let Some(Reverse((_, at))) = ends.peek().filter(|Reverse((moment, _))| moment.0 <= now) {
            leases(*at, &jobs[*at]).iter().for_each(|id| drop(fleet.release(id)));
            ends.pop();
            has_room = true;
        }
        let mut tried = match has_room {
            true => std::mem::take(&mut waiting),
            false => BTreeSet::new(),
        };
        while let Some(at) = arrivals.next_if(|at| jobs[*at].arrives <= now) {
            tried.insert((Moment(jobs[at].arrives), at));
        }
        // Alike requests fail alike, until something ends.
        let mut full: BTreeSet<(&Request, u32)> = BTreeSet::new();
        for (moment, at) in tried {
            let job = &jobs[at];
            let outcome = match full.contains(&(&job.request, job.members)) {
                true => Err(Refused::Full),
                false => place(fleet, at, job),
            };
            match outcome {
                Ok(()) => {
                    waits.extend((0..job.members).map(|_| now - job.arrives));
                    ends.push(Reverse((Moment(now + job.lasts.max(0.0)), at)));
                }
                Err(Refused::Full) => {
                    full.insert((&job.request, job.members));
                    waiting.insert((moment, at));
                }
                Err(_) => failed += job.members as usize,
            }
        }
    }
    let all = fleet.gpus();
    let whole = all.to_f64() * (now - begins);
    let percent = |part: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    waits.sort_by(f64::total_cmp);
    let rank = (waits.len() as f64 * 0.99).ceil() as usize;
    Timed {
        placed: waits.len(),
        failed,
        mean_wait_s: if waits.is_empty() { 0.0 } else { waits.iter().sum::<f64>() / waits.len() as f64 },
        p99_wait_s: waits.get(rank.saturating_sub(1)).copied().unwrap_or(0.0),
        most_allocated_percent: if all.is_zero() { 0.0 } else { 100.0 * most.to_f64() / all.to_f64() },
        utilisation_percent: percent(held_seconds),
        fragmented_gpu_percent: percent(fragment_seconds),
    }
}

/// Seconds; ordered, since no trace has a moment that is no number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
