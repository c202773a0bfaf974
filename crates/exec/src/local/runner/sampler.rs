//! Samples the use of GPUs while attempts hold some: one `nvidia-smi` at a time, however many attempts there are.
//!
//! A sampler that fails or hangs costs the samples and nothing else; it gives up after a few failures in a row.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::process;
use super::reaper::Reaper;
use crate::backend::GpuUsage;
use crate::gpu::nvml::STAND_IN;
use crate::gpu::{HeldGpu, LIBRARY_PATH, SAMPLE_ARGS, Sample, Tally, parse_samples};
use crate::program;

const EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
const FAILURES: u32 = 3;

/// The one sampler of a runner.
pub struct Sampler {
    reaper: Rc<Reaper>,
    meters: RefCell<Vec<Weak<Meter>>>,
    running: Cell<bool>,
}

/// What was measured for one attempt.
pub struct Meter {
    /// Devices by index or UUID, as the attempt was given them.
    held: Vec<HeldGpu>,
    since: Instant,
    /// By UUID, with the index.
    tallies: RefCell<BTreeMap<String, (u32, Tally)>>,
}

impl Sampler {
    pub fn new(reaper: Rc<Reaper>) -> Rc<Sampler> {
        Rc::new(Sampler { reaper, meters: RefCell::default(), running: Cell::new(false) })
    }

    /// Measures these devices for as long as the meter is kept.
    pub fn measure(self: &Rc<Self>, held: Vec<HeldGpu>, env: &BTreeMap<String, String>) -> Rc<Meter> {
        let meter = Rc::new(Meter { held, since: crate::clock::instant(), tallies: RefCell::default() });
        self.meters.borrow_mut().push(Rc::downgrade(&meter));
        let path = env.get("PATH").cloned().unwrap_or_default();
        if !self.running.get()
            && let Some(mut argv) = asks(&meter.held, &path)
        {
            self.running.set(true);
            let asked_with = env.iter().filter(|(name, _)| ["PATH", LIBRARY_PATH].contains(&name.as_str()));
            let asked_with = asked_with.map(|(name, value)| (name.clone(), value.clone())).collect();
            argv.extend(SAMPLE_ARGS.map(str::to_owned));
            tokio::task::spawn_local(Rc::clone(self).run(argv, asked_with));
        }
        meter
    }

    async fn run(self: Rc<Self>, argv: Vec<String>, env: BTreeMap<String, String>) {
        let mut failures = 0;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while failures < FAILURES {
            ticks.tick().await;
            self.meters.borrow_mut().retain(|meter| meter.strong_count() > 0);
            if self.meters.borrow().is_empty() {
                break;
            }
            match process::capture(&self.reaper, &argv, &env, PATIENCE).await {
                Ok((text, failed)) => {
                    let samples = parse_samples(&text);
                    // Of one device that is lost it tells by its status, and of the others as ever.
                    match failed.filter(|_| samples.is_empty()) {
                        Some(error) => {
                            failures += 1;
                            super::note(&format!("GPU use is not sampled: {error}"));
                        }
                        None => failures = 0,
                    }
                    let now = crate::clock::instant();
                    self.meters.borrow().iter().filter_map(Weak::upgrade).for_each(|meter| meter.add(&samples, now));
                }
                Err(error) => {
                    failures += 1;
                    super::note(&format!("GPU use is not sampled: {error}"));
                }
            }
        }
        self.running.set(false);
    }
}

/// Who can be asked about these devices; nobody about pretend ones.
fn asks(gpus: &[HeldGpu], path: &str) -> Option<Vec<String>> {
    if let Some(program) = program::find("nvidia-smi", path, Path::new("/")) {
        return Some(vec![program.to_string_lossy().into_owned()]);
    }
    let is_real = |gpu: &HeldGpu| gpu.id.starts_with("GPU-") || gpu.id.starts_with("MIG-");
    // The file that this process was started from, also when an upgrade has put another in its place.
    let stand_in = || [&["/proc/self/exe"][..], &STAND_IN].concat().into_iter().map(str::to_owned).collect();
    gpus.iter().any(is_real).then(stand_in)
}

impl Meter {
    fn add(&self, samples: &[Sample], now: Instant) {
        let second = now.duration_since(self.since).as_secs_f64();
        for sample in samples {
            if !self.held.iter().any(|held| is_of(held, &sample.uuid, sample.index)) {
                continue;
            }
            let mut tallies = self.tallies.borrow_mut();
            let (_, tally) = tallies.entry(sample.uuid.clone()).or_insert_with(|| (sample.index, Tally::default()));
            tally.count();
            tally.used.at(second, sample.utilization_percent);
            tally.memory.at(second, sample.memory_mib);
            tally.power.at(second, sample.power_watts);
        }
    }

    /// One entry per device that was sampled at least once, or per instance of one.
    pub fn usage(&self) -> Vec<GpuUsage> {
        let tallies = self.tallies.borrow();
        let of = |(uuid, (index, tally)): (&String, &(u32, Tally))| {
            let held = self.held.iter().filter(|held| is_of(held, uuid, *index));
            // An index is no name for ever.
            let name = |held: &HeldGpu| if held.device == held.id { uuid.clone() } else { held.id.clone() };
            held.filter_map(|held| tally.usage(&name(held), held.part)).collect::<Vec<_>>()
        };
        tallies.iter().flat_map(of).collect()
    }
}

fn is_of(held: &HeldGpu, uuid: &str, index: u32) -> bool {
    held.device == uuid || held.device == index.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_its_own_devices_by_index_or_uuid() {
        let mut held: Vec<HeldGpu> = ["0", "GPU-c"].map(HeldGpu::whole).into();
        held.push(HeldGpu { id: "MIG-1".into(), device: "GPU-d".into(), part: 0.25 });
        let start = crate::clock::instant();
        let meter = Meter { held, since: start, tallies: RefCell::default() };
        let first = "0, GPU-a, 50, 100, 200\n1, GPU-b, 99, 900, 9\n2, GPU-c, 10, 7, [N/A]\n3, GPU-d, [N/A], 8, 400\n";
        meter.add(&parse_samples(first), start);
        let later = start + Duration::from_secs(18);
        meter.add(&parse_samples("0, GPU-a, 100, 300, 400\n2, GPU-c, [N/A], 7, 5\n3, GPU-d, [N/A], 8, 400\n"), later);
        let [a, c, mig] = &meter.usage()[..] else { panic!("three are held") };
        assert_eq!((a.mean_utilization_percent, a.max_utilization_percent), (Some(75.0), Some(100.0)));
        assert_eq!((a.mean_memory_bytes, a.max_memory_bytes), (Some(200 << 20), Some(300 << 20)));
        assert_eq!((c.uuid.as_str(), c.samples, c.max_utilization_percent), ("GPU-c", 2, Some(10.0)));
        assert_eq!((a.energy_wh, c.energy_wh), (Some(1.5), None), "300 W for 18 s");
        assert_eq!((mig.uuid.as_str(), mig.part, mig.max_utilization_percent), ("MIG-1", Some(0.25), None));
        assert_eq!((mig.max_memory_bytes, mig.energy_wh), (Some(8 << 20), Some(0.5)), "a quarter of 400 W for 18 s");
        // Of a gap in which nobody looked, only the begin is counted.
        meter.add(&parse_samples("0, GPU-a, 100, 300, 400\n"), later + Duration::from_secs(3600));
        assert!((meter.usage()[0].energy_wh.unwrap() - (1.5 + 400.0 * 30.0 / 3600.0)).abs() < 1e-9);
    }
}
