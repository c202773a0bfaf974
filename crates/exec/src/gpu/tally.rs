//! What a device did over time, out of samples or of means of them.
//!
//! Invariants: what was never told is unknown and never 0; means are weighted by time; time in which nobody looked counts
//! for nothing.

use serde::{Deserialize, Serialize};

use crate::backend::GpuUsage;

/// Between samples that are further apart, in seconds, nothing is known of what lies between.
const LONGEST_GAP: f64 = 30.0;

/// What an attempt holds of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldGpu {
    /// As the attempt was given it: `GPU-…`, `MIG-…`, or an index.
    pub id: String,
    /// Of the device that is measured: that of an instance is the GPU that it was cut from.
    pub device: String,
    /// How much of the device: more than 0, at most 1.
    pub part: f64,
}

impl HeldGpu {
    /// All of a device.
    pub fn whole(id: &str) -> HeldGpu {
        HeldGpu { id: id.to_owned(), device: id.to_owned(), part: 1.0 }
    }
}

/// What is known of one device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    samples: u32,
    /// Percent.
    pub used: Mean,
    /// MiB.
    pub memory: Mean,
    /// Watts; its area is joules.
    pub power: Mean,
}

/// One figure over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mean {
    /// When it was told last, and what.
    last: Option<(f64, f64)>,
    area: f64,
    seconds: f64,
    sum: f64,
    count: u32,
    most: Option<f64>,
}

impl Mean {
    /// Takes what was told at a moment, in seconds since any.
    pub fn at(&mut self, second: f64, value: Option<f64>) {
        let Some(value) = value else { return };
        self.until(second, value);
        self.sum += value;
        self.count += 1;
        self.most = Some(self.most.map_or(value, |most| most.max(value)));
    }

    /// Goes on to a moment that is none of its own.
    pub fn until(&mut self, second: f64, value: f64) {
        if let Some((then, before)) = self.last {
            let gap = (second - then).clamp(0.0, LONGEST_GAP);
            self.area += (before + value) / 2.0 * gap;
            self.seconds += gap;
        }
        self.last = Some((second, value));
    }

    /// Takes what was told of a while.
    pub fn over(&mut self, seconds: f64, mean: Option<f64>, most: Option<f64>) {
        let Some(mean) = mean else { return };
        self.area += mean * seconds.max(0.0);
        self.seconds += seconds.max(0.0);
        self.sum += mean;
        self.count += 1;
        let most = most.unwrap_or(mean);
        self.most = Some(self.most.map_or(most, |before| before.max(most)));
    }

    pub fn mean(&self) -> Option<f64> {
        match (self.seconds > 0.0, self.count) {
            (true, _) => Some(self.area / self.seconds),
            (false, 0) => None,
            (false, count) => Some(self.sum / f64::from(count)),
        }
    }

    pub fn most(&self) -> Option<f64> {
        self.most
    }

    /// For how long it is known.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// It times seconds; `None`: it is not known for any while.
    pub fn area(&self) -> Option<f64> {
        (self.seconds > 0.0).then_some(self.area)
    }
}

impl Tally {
    /// A device that told something, or nothing, once more.
    pub fn count(&mut self) {
        self.samples = self.samples.saturating_add(1);
    }

    /// The figures of whoever held this part of it; `None`: it never answered. Energy is counted by the part.
    pub fn usage(&self, uuid: &str, part: f64) -> Option<GpuUsage> {
        let bytes = |mib: f64| (mib * 1_048_576.0) as u64;
        (self.samples > 0).then(|| GpuUsage {
            uuid: uuid.to_owned(),
            samples: self.samples,
            part: (part < 1.0).then_some(part),
            mean_utilization_percent: self.used.mean(),
            max_utilization_percent: self.used.most(),
            mean_memory_bytes: self.memory.mean().map(bytes),
            max_memory_bytes: self.memory.most().map(bytes),
            energy_wh: self.power.area().map(|joules| joules * part / 3600.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_weighted_by_time_and_what_is_not_told_is_not_known() {
        let mut mean = Mean::default();
        assert_eq!((mean.mean(), mean.most(), mean.area()), (None, None, None));
        mean.at(5.0, None);
        mean.at(10.0, Some(100.0));
        assert_eq!((mean.mean(), mean.most(), mean.area()), (Some(100.0), Some(100.0), None));
        mean.at(20.0, Some(300.0));
        // Nobody looked for an hour: what is known of it is the begin.
        mean.at(3620.0, Some(300.0));
        assert_eq!((mean.area(), mean.seconds(), mean.mean()), (Some(11_000.0), 40.0, Some(275.0)));
        mean.over(3600.0, Some(100.0), Some(900.0));
        assert_eq!((mean.area(), mean.most()), (Some(371_000.0), Some(900.0)));
        mean.over(3600.0, None, None);
        assert_eq!(mean.seconds(), 3640.0);
    }

    #[test]
    fn a_device_that_tells_nothing_has_figures_that_are_not_known() {
        let mut tally = Tally::default();
        assert_eq!(tally.usage("GPU-a", 1.0), None);
        tally.count();
        let usage = tally.usage("GPU-a", 1.0).unwrap();
        let json = serde_json::to_value(&usage).unwrap();
        assert_eq!(json, serde_json::json!({ "uuid": "GPU-a", "samples": 1 }));
        assert_eq!(serde_json::from_value::<GpuUsage>(json).unwrap(), usage);
        let old = serde_json::json!({ "uuid": "GPU-a", "samples": 1, "mean_utilization_percent": 3.5,
            "max_utilization_percent": 4.0, "mean_memory_bytes": 7, "max_memory_bytes": 8 });
        assert_eq!(serde_json::from_value::<GpuUsage>(old).unwrap().mean_utilization_percent, Some(3.5));
        tally.power.over(3600.0, Some(400.0), None);
        assert_eq!(tally.usage("MIG-1", 0.25).unwrap().energy_wh, Some(100.0), "by the part that was held");
    }
}
