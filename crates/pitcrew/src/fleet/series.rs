//! What the devices of a node did: the last hour at each answer, and a day in means of five minutes.
//!
//! Invariant: however long a server runs, a node has at most [`RECENT`] and [`OLDER`] samples.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use pitcrew_exec::GpuUsage;
use pitcrew_exec::gpu::Reading;
use serde::{Deserialize, Serialize};

/// An hour, at an answer every 10 seconds.
const RECENT: usize = 360;
/// A day of five minutes each.
const OLDER: usize = 288;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Seconds that become one sample.
const STEP: i64 = 300;
/// How long older samples are kept.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What the devices of a node did at a moment, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at: Timestamp,
    pub gpus: BTreeMap<String, Point>,
}

/// What a device did, as far as it told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub use_percent: Option<f64>,
    pub used_mib: Option<f64>,
    pub power_watts: Option<f64>,
    pub celsius: Option<f64>,
}

/// The samples of a node.
#[derive(Debug, Default)]
pub struct Series {
    recent: VecDeque<Sample>,
    older: VecDeque<Sample>,
    /// Those of the five minutes under way.
    step: Vec<Sample>,
}

impl Series {
    /// Goes on after what is stored, the oldest first.
    pub fn after(older: impl IntoIterator<Item = Sample>) -> Series {
        let mut series = Series { older: older.into_iter().collect(), ..Series::default() };
        series.older.drain(..series.older.len().saturating_sub(OLDER));
        series
    }

    /// Takes an answer. Gives the mean of the five minutes that it ends, to be stored.
    pub fn add(&mut self, readings: &[Reading], at: Timestamp) -> Option<Sample> {
        if readings.is_empty() {
            return None;
        }
        let gpus = readings.iter().map(|reading| (reading.uuid.clone(), Point::of(reading))).collect();
        let sample = Sample { at, gpus };
        let begins = |at: Timestamp| at.as_second().div_euclid(STEP);
        let is_over = self.step.first().is_some_and(|first| begins(first.at) != begins(at));
        let ended = if is_over { mean(&std::mem::take(&mut self.step)) } else { None };
        self.step.push(sample.clone());
        // A clock that was put back must not make it grow.
        self.step.truncate(RECENT);
        self.recent.push_back(sample);
        while self.recent.len() > RECENT || self.recent.front().is_some_and(|first| at.duration_since(first.at) > HOUR)
        {
            self.recent.pop_front();
        }
        if let Some(ended) = &ended {
            self.older.push_back(ended.clone());
            while self.older.len() > OLDER {
                self.older.pop_front();
            }
        }
        ended
    }

    /// All samples, the oldest first: means where the last hour does not reach.
    pub fn all(&self) -> Vec<Sample> {
        let hour = self.recent.front().map(|first| first.at);
        let older = self.older.iter().filter(|sample| hour.is_none_or(|hour| sample.at < hour));
        older.chain(&self.recent).cloned().collect()
    }
}

/// Longer gaps tell nothing of the power in between.
const LONGEST_GAP: f64 = 30.0;

/// What devices did between two moments, for an attempt that held them on a machine where nothing of ours measures: as
/// the samples of its node tell, one entry per device that has at least one.
pub fn usage(samples: &[Sample], gpus: &[String], from: Timestamp, to: Timestamp) -> Vec<GpuUsage> {
    let within = || samples.iter().filter(|sample| (from..=to).contains(&sample.at));
    let of = |id: &String| {
        let points: Vec<(Timestamp, &Point)> =
            within().filter_map(|sample| Some((sample.at, sample.gpus.get(id)?))).collect();
        let used: Vec<f64> = points.iter().filter_map(|(_, point)| point.use_percent).collect();
        let memory: Vec<f64> = points.iter().filter_map(|(_, point)| point.used_mib).collect();
        let power: Vec<(Timestamp, f64)> = points.iter().filter_map(|(at, p)| Some((*at, p.power_watts?))).collect();
        let joules = power.windows(2).map(|pair| {
            let gap = pair[1].0.duration_since(pair[0].0).as_secs_f64().clamp(0.0, LONGEST_GAP);
            (pair[0].1 + pair[1].1) / 2.0 * gap
        });
        let bytes = |mib: f64| (mib * 1_048_576.0) as u64;
        let mean = |all: &[f64]| all.iter().sum::<f64>() / (all.len().max(1) as f64);
        let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
        (!points.is_empty()).then(|| GpuUsage {
            uuid: id.clone(),
            samples: u32::try_from(points.len()).unwrap_or(u32::MAX),
            mean_utilization_percent: mean(&used),
            max_utilization_percent: most(&used),
            mean_memory_bytes: bytes(mean(&memory)),
            max_memory_bytes: bytes(most(&memory)),
            energy_wh: (power.len() > 1).then(|| joules.sum::<f64>() / 3600.0),
        })
    };
    gpus.iter().filter_map(of).collect()
}

impl Point {
    fn of(reading: &Reading) -> Point {
        Point {
            use_percent: reading.use_percent,
            used_mib: reading.used_mib.map(|mib| mib as f64),
            power_watts: reading.power_watts,
            celsius: reading.celsius,
        }
    }
}

/// One sample for several, at the time of the first; what nobody told stays unknown.
fn mean(samples: &[Sample]) -> Option<Sample> {
    let at = samples.first()?.at;
    let mut points: BTreeMap<&String, Vec<&Point>> = BTreeMap::new();
    for (id, point) in samples.iter().flat_map(|sample| &sample.gpus) {
        points.entry(id).or_default().push(point);
    }
    let over = |points: &[&Point], of: fn(&Point) -> Option<f64>| {
        let told: Vec<f64> = points.iter().filter_map(|point| of(point)).collect();
        (!told.is_empty()).then(|| (told.iter().sum::<f64>() / told.len() as f64 * 10.0).round() / 10.0)
    };
    let point = |points: Vec<&Point>| Point {
        use_percent: over(&points, |point| point.use_percent),
        used_mib: over(&points, |point| point.used_mib),
        power_watts: over(&points, |point| point.power_watts),
        celsius: over(&points, |point| point.celsius),
    };
    Some(Sample { at, gpus: points.into_iter().map(|(id, points)| (id.clone(), point(points))).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_100 + seconds).unwrap()
    }

    fn reading(percent: Option<f64>) -> [Reading; 1] {
        [Reading { uuid: "GPU-a".into(), use_percent: percent, power_watts: Some(300.0), ..Reading::default() }]
    }

    #[test]
    fn two_days_of_answers_become_an_hour_and_a_day() {
        let mut series = Series::default();
        let mut stored = Vec::new();
        for n in 0..2 * 24 * 360 {
            // Every other answer does not tell the use.
            let percent = (n % 2 == 0).then_some(f64::from(n % 60));
            stored.extend(series.add(&reading(percent), at(i64::from(n) * 10)));
        }
        assert_eq!((series.recent.len(), series.older.len(), stored.len()), (RECENT, OLDER, 2 * OLDER - 1));
        assert_eq!(stored[0].gpus["GPU-a"].use_percent, Some(14.0));
        assert_eq!((stored[0].at, stored[0].gpus["GPU-a"].power_watts), (at(0), Some(300.0)));
        assert_eq!(stored[0].gpus["GPU-a"].celsius, None);
        let all = series.all();
        assert!(all.windows(2).all(|pair| pair[0].at < pair[1].at), "in order, and nothing twice");
        assert!(all.len() > RECENT + OLDER - 20);
        let again = Series::after(stored);
        assert_eq!(again.all().len(), OLDER);
        assert!(series.add(&[], at(0)).is_none());
    }

    #[test]
    fn an_attempt_gets_what_its_devices_did_while_it_held_them() {
        let sample = |second, percent, mib, watts| Sample {
            at: at(second),
            gpus: BTreeMap::from([
                ("GPU-a".to_owned(), Point { use_percent: percent, used_mib: mib, power_watts: watts, celsius: None }),
                ("GPU-b".to_owned(), Point::default()),
            ]),
        };
        let samples = [
            sample(0, Some(100.0), Some(9.0), Some(999.0)),
            sample(10, Some(20.0), Some(1.0), Some(100.0)),
            sample(20, None, Some(3.0), Some(300.0)),
            sample(90, Some(60.0), None, Some(300.0)),
            sample(100, Some(100.0), Some(9.0), Some(999.0)),
        ];
        let held = ["GPU-a".to_owned(), "GPU-b".to_owned(), "GPU-c".to_owned()];
        let [a, b] = &usage(&samples, &held, at(5), at(95))[..] else { panic!("of two there are samples") };
        assert_eq!((a.samples, a.mean_utilization_percent, a.max_utilization_percent), (3, 40.0, 60.0));
        assert_eq!((a.mean_memory_bytes, a.max_memory_bytes), (2 << 20, 3 << 20));
        // 200 W for 10 s, and 300 W for 30 s of the 70 in which nobody looked.
        assert_eq!(a.energy_wh, Some(11_000.0 / 3600.0));
        assert_eq!((b.uuid.as_str(), b.samples, b.max_memory_bytes, b.energy_wh), ("GPU-b", 3, 0, None));
        assert!(usage(&samples, &held, at(21), at(89)).is_empty());
    }
}
