//! What the devices of a node did: the last hour at each answer, a day in means of five minutes, and a week by the hour.
//!
//! Invariants: however long a server runs, a node has at most [`RECENT`], [`OLDER`] and [`OLDEST`] samples. A mean keeps
//! what an hour of samples would tell of energy and of the most, so an attempt that was long loses neither.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use pitcrew_exec::GpuUsage;
use pitcrew_exec::gpu::{HeldGpu, Mean, Reading, Tally};
use serde::{Deserialize, Serialize};

use super::columns::Columns;

/// An hour, at an answer every 10 seconds.
const RECENT: usize = 360;
/// A day of five minutes each.
const OLDER: usize = 288;
/// A week of hours.
const OLDEST: usize = 168;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Seconds that become one sample.
const STEP: i64 = 300;
/// How long older samples are kept, and the oldest.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);
pub const KEPT_HOURS: SignedDuration = SignedDuration::from_hours(24 * 7);

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
    /// Of a mean: for how long it was known, what it took in that time, and the most of each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_use_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_used_mib: Option<f64>,
}

/// What an answer tells of a device, and what a mean does.
const TOLD: usize = 4;
const MEANT: usize = 8;

/// The samples of a node.
#[derive(Debug, Default)]
pub struct Series {
    recent: Columns<TOLD>,
    older: Columns<MEANT>,
    oldest: Columns<MEANT>,
    /// Those of the five minutes under way.
    step: Columns<TOLD>,
    /// The means of the hour under way.
    hour: Columns<MEANT>,
}

/// What came to an end with an answer, and is to be stored.
#[derive(Debug, Default)]
pub struct Ended {
    pub step: Option<Sample>,
    pub hour: Option<Sample>,
}

impl Series {
    /// Goes on after what is stored, the oldest first.
    pub fn after(older: impl IntoIterator<Item = Sample>, oldest: impl IntoIterator<Item = Sample>) -> Series {
        let mut series = Series { older: Columns::of(older), oldest: Columns::of(oldest), ..Series::default() };
        keep(&mut series.older, OLDER);
        keep(&mut series.oldest, OLDEST);
        if let Some(last) = series.older.last().map(hour_of) {
            series.hour = Columns::of(series.older.samples().filter(|sample| hour_of(sample.at) == last));
        }
        series
    }

    /// Takes an answer. Gives the mean of the five minutes that it ends, and of the hour.
    pub fn add(&mut self, readings: &[Reading], at: Timestamp) -> Ended {
        if readings.is_empty() {
            return Ended::default();
        }
        let gpus = readings.iter().map(|reading| (reading.uuid.clone(), Point::of(reading))).collect();
        let sample = Sample { at, gpus };
        let begins = |at: Timestamp| at.as_second().div_euclid(STEP);
        let is_over = self.step.first().is_some_and(|first| begins(first) != begins(at));
        let ended = is_over.then(|| mean(&self.step.samples().collect::<Vec<_>>(), &sample)).flatten();
        if is_over {
            self.step.clear();
        }
        // A clock that was put back must not make it grow.
        if self.step.len() < RECENT {
            self.step.push(&sample);
        }
        self.recent.push(&sample);
        while self.recent.len() > RECENT || self.recent.first().is_some_and(|first| at.duration_since(first) > HOUR) {
            self.recent.pop();
        }
        let Some(step) = ended else { return Ended::default() };
        self.older.push(&step);
        keep(&mut self.older, OLDER);
        let is_over = self.hour.first().is_some_and(|first| hour_of(first) != hour_of(step.at));
        let hour = is_over.then(|| mean_of_means(&self.hour.samples().collect::<Vec<_>>())).flatten();
        if is_over {
            self.hour.clear();
        }
        self.hour.push(&step);
        if let Some(hour) = &hour {
            self.oldest.push(hour);
            keep(&mut self.oldest, OLDEST);
        }
        Ended { step: Some(step), hour }
    }

    /// All samples, the oldest first: means where the last hour does not reach.
    pub fn all(&self) -> Vec<Sample> {
        let hour = self.recent.first();
        let older = self.older.samples().filter(|sample| hour.is_none_or(|hour| sample.at < hour));
        older.chain(self.recent.samples()).collect()
    }
}

fn keep<const N: usize>(columns: &mut Columns<N>, most: usize) {
    while columns.len() > most {
        columns.pop();
    }
}

/// What devices did between two moments, for an attempt that held them on a machine where nothing of ours measures: as
/// the samples of its node tell, one entry per device that has at least one.
pub fn usage(series: &Series, held: &[HeldGpu], from: Timestamp, to: Timestamp) -> Vec<GpuUsage> {
    held.iter().filter_map(|held| series.tally(&held.device, from, to).usage(&held.id, held.part)).collect()
}

impl Series {
    /// What a device did between two moments: each while by the finest samples that there are of it.
    fn tally(&self, id: &str, from: Timestamp, to: Timestamp) -> Tally {
        let mut tally = Tally::default();
        let (from, to) = (second(from), second(to));
        let begin = |first: Option<Timestamp>| first.map_or(f64::INFINITY, second);
        let recent = begin(self.recent.first());
        for (samples, limit) in [(&self.oldest, begin(self.older.first()).min(recent)), (&self.older, recent)] {
            for (at, point) in samples.device(id) {
                let (begin, seconds) = (second(at), point.seconds.unwrap_or(STEP as f64));
                let (first, last) = (begin.max(from), (begin + seconds).min(to).min(limit));
                if last <= first {
                    continue;
                }
                let share = if seconds > 0.0 { (last - first) / seconds } else { 0.0 };
                // What was the most of a while may have been before the attempt.
                let is_its_own = begin >= from;
                tally.count();
                let most = |most: Option<f64>| most.filter(|_| is_its_own);
                tally.used.over(last - first, point.use_percent, most(point.max_use_percent));
                tally.memory.over(last - first, point.used_mib, most(point.max_used_mib));
                let watts = match point.joules {
                    Some(joules) => Some(joules * share / (last - first)),
                    None => point.power_watts,
                };
                tally.power.over(last - first, watts, None);
            }
        }
        for (at, point) in self.recent.device(id) {
            let at = second(at);
            if !(from..=to).contains(&at) {
                continue;
            }
            tally.count();
            tally.used.at(at, point.use_percent);
            tally.memory.at(at, point.used_mib);
            tally.power.at(at, point.power_watts);
        }
        tally
    }
}

fn second(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

impl Point {
    fn of(reading: &Reading) -> Point {
        Point {
            use_percent: reading.use_percent,
            used_mib: reading.used_mib.map(|mib| mib as f64),
            power_watts: reading.power_watts,
            celsius: reading.celsius,
            ..Point::default()
        }
    }
}

/// One sample for several, at the time of the first, and until `next`; what nobody told stays unknown.
fn mean(samples: &[Sample], next: &Sample) -> Option<Sample> {
    let at = samples.first()?.at;
    let ids: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.gpus.keys()).collect();
    let gpus = ids.into_iter().map(|id| {
        let of: [(Mean, fn(&Point) -> Option<f64>); 4] = [
            (Mean::default(), |point| point.use_percent),
            (Mean::default(), |point| point.used_mib),
            (Mean::default(), |point| point.power_watts),
            (Mean::default(), |point| point.celsius),
        ];
        let means = of.map(|(mut mean, of)| {
            let points = || samples.iter().filter_map(|sample| Some((second(sample.at), sample.gpus.get(id)?)));
            points().for_each(|(at, point)| mean.at(at, of(point)));
            if let Some(value) = next.gpus.get(id).and_then(of) {
                mean.until(second(next.at), value);
            }
            mean
        });
        let [used, memory, power, celsius] = &means;
        let point = Point {
            use_percent: used.mean().map(tenths),
            used_mib: memory.mean().map(tenths),
            power_watts: power.mean().map(tenths),
            celsius: celsius.mean().map(tenths),
            seconds: Some(tenths(means.iter().map(Mean::seconds).fold(0.0, f64::max))),
            joules: power.area().map(tenths),
            max_use_percent: used.most(),
            max_used_mib: memory.most(),
        };
        (id.clone(), point)
    });
    Some(Sample { at, gpus: gpus.collect() })
}

/// One for several that are means themselves.
fn mean_of_means(samples: &[Sample]) -> Option<Sample> {
    let at = samples.first()?.at;
    let ids: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.gpus.keys()).collect();
    let gpus = ids.into_iter().map(|id| {
        let (mut used, mut memory, mut power, mut celsius) =
            (Mean::default(), Mean::default(), Mean::default(), Mean::default());
        let (mut seconds, mut joules) = (0.0, None);
        for point in samples.iter().filter_map(|sample| sample.gpus.get(id)) {
            let for_seconds = point.seconds.unwrap_or(STEP as f64);
            used.over(for_seconds, point.use_percent, point.max_use_percent);
            memory.over(for_seconds, point.used_mib, point.max_used_mib);
            power.over(for_seconds, point.power_watts, None);
            celsius.over(for_seconds, point.celsius, None);
            seconds += for_seconds;
            if let Some(more) = point.joules.or_else(|| point.power_watts.map(|watts| watts * for_seconds)) {
                joules = Some(joules.unwrap_or(0.0) + more);
            }
        }
        let point = Point {
            use_percent: used.mean().map(tenths),
            used_mib: memory.mean().map(tenths),
            power_watts: power.mean().map(tenths),
            celsius: celsius.mean().map(tenths),
            seconds: Some(tenths(seconds)),
            joules: joules.map(tenths),
            max_use_percent: used.most(),
            max_used_mib: memory.most(),
        };
        (id.clone(), point)
    });
    Some(Sample { at, gpus: gpus.collect() })
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
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
        let (mut stored, mut hours) = (Vec::new(), Vec::new());
        for n in 0..2 * 24 * 360 {
            // Every other answer does not tell the use.
            let percent = (n % 2 == 0).then_some(f64::from(n % 60));
            let ended = series.add(&reading(percent), at(i64::from(n) * 10));
            stored.extend(ended.step);
            hours.extend(ended.hour);
        }
        assert_eq!((series.recent.len(), series.older.len(), stored.len()), (RECENT, OLDER, 2 * OLDER - 1));
        // From 0 at its begin to 30 at that of the next.
        let point = &stored[0].gpus["GPU-a"];
        assert_eq!((point.use_percent, point.max_use_percent), (Some(15.0), Some(28.0)));
        assert_eq!((point.seconds, point.joules), (Some(300.0), Some(90_000.0)));
        assert_eq!((stored[0].at, stored[0].gpus["GPU-a"].power_watts), (at(0), Some(300.0)));
        assert_eq!(stored[0].gpus["GPU-a"].celsius, None);
        let all = series.all();
        assert!(all.windows(2).all(|pair| pair[0].at < pair[1].at), "in order, and nothing twice");
        assert!(all.len() > RECENT + OLDER - 20);
        let again = Series::after(stored, hours);
        assert_eq!(again.all().len(), OLDER);
        assert!(series.add(&[], at(0)).step.is_none());
    }

    /// Of a thousand machines like this one, a server keeps 200 MB after a week, and not gigabytes.
    #[test]
    fn a_week_of_eight_devices_takes_little() {
        let mut series = Series::default();
        let readings: Vec<Reading> = (0..8)
            .map(|at| Reading {
                uuid: format!("GPU-{at:08}-1234-5678-9abc-def012345678"),
                use_percent: Some(97.0),
                power_watts: Some(612.37),
                ..Reading::default()
            })
            .collect();
        for n in 0..8 * 24 * 360 {
            series.add(&readings, at(n * 10));
        }
        let Series { recent, older, oldest, step, hour } = &series;
        assert_eq!((recent.len(), older.len(), oldest.len()), (RECENT, OLDER, OLDEST));
        let bytes = recent.bytes() + older.bytes() + oldest.bytes() + step.bytes() + hour.bytes();
        assert!(bytes < 200_000, "{bytes}");
        assert_eq!(series.all().last().unwrap().gpus[&readings[7].uuid].power_watts, Some(612.37));
    }

    fn held(ids: &[&str]) -> Vec<HeldGpu> {
        ids.iter().map(|id| HeldGpu::whole(id)).collect()
    }

    #[test]
    fn an_attempt_gets_what_its_devices_did_while_it_held_them() {
        let point =
            |percent, mib, watts| Point { use_percent: percent, used_mib: mib, power_watts: watts, ..Point::default() };
        let sample = |second, percent, mib, watts| Sample {
            at: at(second),
            gpus: BTreeMap::from([
                ("GPU-a".to_owned(), point(percent, mib, watts)),
                ("GPU-b".to_owned(), Point::default()),
            ]),
        };
        let recent = [
            sample(0, Some(100.0), Some(9.0), Some(999.0)),
            sample(10, Some(20.0), Some(1.0), Some(100.0)),
            sample(20, None, Some(3.0), Some(300.0)),
            sample(90, Some(60.0), None, Some(300.0)),
            sample(100, Some(100.0), Some(9.0), Some(999.0)),
        ];
        let series = Series { recent: Columns::of(recent), ..Series::default() };
        let mut wanted = held(&["GPU-a", "GPU-b", "GPU-c"]);
        wanted.push(HeldGpu { id: "MIG-1".into(), device: "GPU-a".into(), part: 0.25 });
        let [a, b, mig] = &usage(&series, &wanted, at(5), at(95))[..] else { panic!("of three there are samples") };
        let (mean, most) = (a.mean_utilization_percent, a.max_utilization_percent);
        assert_eq!((a.samples, mean, most), (3, Some(40.0), Some(60.0)));
        assert_eq!((a.mean_memory_bytes, a.max_memory_bytes), (Some(2 << 20), Some(3 << 20)));
        // 200 W for 10 s, and 300 W for 30 s of the 70 in which nobody looked.
        assert_eq!(a.energy_wh, Some(11_000.0 / 3600.0));
        assert_eq!((b.uuid.as_str(), b.samples, b.max_memory_bytes, b.energy_wh), ("GPU-b", 3, None, None));
        assert_eq!((mig.uuid.as_str(), mig.part, mig.energy_wh), ("MIG-1", Some(0.25), Some(2_750.0 / 3600.0)));
        assert_eq!(mig.max_memory_bytes, Some(3 << 20), "of the whole device");
        assert!(usage(&series, &held(&["GPU-a"]), at(21), at(89)).is_empty());
    }

    #[test]
    fn a_long_attempt_loses_neither_its_energy_nor_its_peak_and_a_restart_changes_nothing() {
        let mut series = Series::default();
        let (mut steps, mut hours) = (Vec::new(), Vec::new());
        // Three days, with a peak in the first hour of the attempt, which is between two answers of the means.
        let end = 3 * 24 * 3600;
        for second in (0..=end).step_by(10) {
            let percent = if second == 7_210 { 99.0 } else { 50.0 };
            let ended = series.add(&reading(Some(percent)), at(second));
            steps.extend(ended.step);
            hours.extend(ended.hour);
        }
        for (begin, long) in [(end - 10 * 3600, 10.0), (7_000, (end - 7_000) as f64 / 3600.0), (end - 1800, 0.5)] {
            let [used] = &usage(&series, &held(&["GPU-a"]), at(begin), at(end))[..] else { panic!("{begin}") };
            let energy = used.energy_wh.unwrap();
            assert!((energy - 300.0 * long).abs() < 0.01 * 300.0 * long, "{begin}: {energy} of {}", 300.0 * long);
            let mean = used.mean_utilization_percent.unwrap();
            assert!((mean - 50.0).abs() < 0.2, "{begin}: {mean}");
        }
        // The means of the hour that held the peak know of it.
        let [used] = &usage(&series, &held(&["GPU-a"]), at(3_000), at(end))[..] else { panic!("it was sampled") };
        assert_eq!(used.max_utilization_percent, Some(99.0));
        let [used] = &usage(&series, &held(&["GPU-a"]), at(20_000), at(end))[..] else { panic!("it was sampled") };
        assert_eq!(used.max_utilization_percent, Some(50.0), "before it began");

        let mut again = Series::after(steps, hours);
        for second in (end + 10..=end + 3600).step_by(10) {
            again.add(&reading(Some(50.0)), at(second));
        }
        let [used] = &usage(&again, &held(&["GPU-a"]), at(7_000), at(end + 3600))[..] else { panic!("it was sampled") };
        let (energy, all) = (used.energy_wh.unwrap(), 300.0 * (end + 3600 - 7_000) as f64 / 3600.0);
        assert!((energy - all).abs() < 0.01 * all, "{energy} of {all}");
    }

    #[test]
    fn means_that_an_older_version_stored_count_for_their_five_minutes() {
        let json = serde_json::json!({ "at": at(0), "gpus": { "GPU-a": { "use_percent": 40.0, "used_mib": null,
            "power_watts": 300.0, "celsius": null } } });
        let series = Series::after([serde_json::from_value::<Sample>(json).unwrap()], []);
        let [used] = &usage(&series, &held(&["GPU-a"]), at(-10), at(1000))[..] else { panic!("it was sampled") };
        assert_eq!(
            (used.energy_wh, used.max_utilization_percent, used.max_memory_bytes),
            (Some(25.0), Some(40.0), None)
        );
    }
}
