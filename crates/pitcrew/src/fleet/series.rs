//! What the devices of a node did: the last hour at each answer, and a day in means of five minutes.
//!
//! Invariant: however long a server runs, a node has at most [`RECENT`] and [`OLDER`] samples.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
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
}
