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
use crate::gpu::{LIBRARY_PATH, SAMPLE_ARGS, Sample, parse_samples};
use crate::program;

const EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
const FAILURES: u32 = 3;
/// Between samples that are further apart nothing is known of the power.
const LONGEST_GAP: Duration = Duration::from_secs(30);

/// The one sampler of a runner.
pub struct Sampler {
    reaper: Rc<Reaper>,
    meters: RefCell<Vec<Weak<Meter>>>,
    running: Cell<bool>,
}

/// What was measured for one attempt.
pub struct Meter {
    /// By index or UUID, as the attempt was given them.
    wanted: Vec<String>,
    sums: RefCell<BTreeMap<String, Sums>>,
}

#[derive(Default)]
struct Sums {
    samples: u32,
    utilization: f64,
    max_utilization: f64,
    memory: u128,
    max_memory: u64,
    /// Joules up to the last sample of power, and that sample.
    energy: f64,
    power: Option<(Instant, f64)>,
    is_metered: bool,
}

impl Sampler {
    pub fn new(reaper: Rc<Reaper>) -> Rc<Sampler> {
        Rc::new(Sampler { reaper, meters: RefCell::default(), running: Cell::new(false) })
    }

    /// Measures these devices for as long as the meter is kept.
    pub fn measure(self: &Rc<Self>, gpus: &[String], env: &BTreeMap<String, String>) -> Rc<Meter> {
        let meter = Rc::new(Meter { wanted: gpus.to_vec(), sums: RefCell::default() });
        self.meters.borrow_mut().push(Rc::downgrade(&meter));
        let path = env.get("PATH").cloned().unwrap_or_default();
        if !self.running.get()
            && let Some(mut argv) = asks(gpus, &path)
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
                Ok(text) => {
                    failures = 0;
                    let samples = parse_samples(&text);
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
fn asks(gpus: &[String], path: &str) -> Option<Vec<String>> {
    if let Some(program) = program::find("nvidia-smi", path, Path::new("/")) {
        return Some(vec![program.to_string_lossy().into_owned()]);
    }
    let is_real = |gpu: &String| gpu.starts_with("GPU-") || gpu.starts_with("MIG-");
    // The file that this process was started from, also when an upgrade has put another in its place.
    let stand_in = || [&["/proc/self/exe"][..], &STAND_IN].concat().into_iter().map(str::to_owned).collect();
    gpus.iter().any(is_real).then(stand_in)
}

impl Meter {
    fn add(&self, samples: &[Sample], now: Instant) {
        for sample in samples {
            if !self.wanted.iter().any(|w| *w == sample.uuid || *w == sample.index.to_string()) {
                continue;
            }
            let mut sums = self.sums.borrow_mut();
            let sum = sums.entry(sample.uuid.clone()).or_default();
            sum.samples += 1;
            sum.utilization += sample.utilization_percent;
            sum.max_utilization = sum.max_utilization.max(sample.utilization_percent);
            sum.memory += u128::from(sample.memory_bytes);
            sum.max_memory = sum.max_memory.max(sample.memory_bytes);
            if let Some(watts) = sample.power_watts {
                if let Some((then, before)) = sum.power {
                    let gap = now.duration_since(then).min(LONGEST_GAP);
                    sum.energy += (before + watts) / 2.0 * gap.as_secs_f64();
                    sum.is_metered = true;
                }
                sum.power = Some((now, watts));
            }
        }
    }

    /// One entry per device that was sampled at least once.
    pub fn usage(&self) -> Vec<GpuUsage> {
        let sums = self.sums.borrow();
        sums.iter()
            .map(|(uuid, sum)| GpuUsage {
                uuid: uuid.clone(),
                samples: sum.samples,
                mean_utilization_percent: sum.utilization / f64::from(sum.samples),
                max_utilization_percent: sum.max_utilization,
                mean_memory_bytes: u64::try_from(sum.memory / u128::from(sum.samples)).unwrap_or(u64::MAX),
                max_memory_bytes: sum.max_memory,
                energy_wh: sum.is_metered.then_some(sum.energy / 3600.0),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_its_own_devices_by_index_or_uuid() {
        let meter = Meter { wanted: vec!["0".into(), "GPU-c".into()], sums: RefCell::default() };
        let start = crate::clock::instant();
        meter.add(&parse_samples("0, GPU-a, 50, 100, 200\n1, GPU-b, 99, 900, 9\n2, GPU-c, 10, 7, [N/A]\n"), start);
        let later = start + Duration::from_secs(18);
        meter.add(&parse_samples("0, GPU-a, 100, 300, 400\n2, GPU-c, [N/A], 7, 5\n"), later);
        let usage = meter.usage();
        assert_eq!(usage.len(), 2);
        assert_eq!((usage[0].mean_utilization_percent, usage[0].max_utilization_percent), (75.0, 100.0));
        assert_eq!((usage[0].mean_memory_bytes, usage[0].max_memory_bytes), (200 << 20, 300 << 20));
        assert_eq!((usage[1].uuid.as_str(), usage[1].samples), ("GPU-c", 1));
        assert_eq!((usage[0].energy_wh, usage[1].energy_wh), (Some(1.5), None), "300 W for 18 s");
        // Of a gap in which nobody looked, only the begin is counted.
        meter.add(&parse_samples("0, GPU-a, 100, 300, 400\n"), later + Duration::from_secs(3600));
        assert!((meter.usage()[0].energy_wh.unwrap() - (1.5 + 400.0 * 30.0 / 3600.0)).abs() < 1e-9);
    }
}
