//! Work of a trace played against a fleet: how much of it a policy places. In time it is played by
//! [`crate::admission::replay`].

use super::gang::Gang;
use super::place::{Fleet, LeaseId, Refused};
use super::promise::Promises;
use super::request::Request;
use super::{Amount, Workload};
use crate::sim::rng::Rng;

/// A job of a trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// Of each member, where it is a gang.
    pub request: Request,
    /// How many members it has, on a node each; 1: it is no gang.
    pub members: u32,
    /// Seconds since the trace began.
    pub arrives: f64,
    /// Seconds that it runs.
    pub lasts: f64,
    pub namespace: String,
    pub priority: i64,
    pub is_preemptible: bool,
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

impl Job {
    /// Undivided GPUs and parts of GPUs that all of it asks for.
    pub fn gpus(&self) -> f64 {
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

/// Seconds; ordered, since no trace has a moment that is no number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment(pub f64);

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
