//! Samples of a node by columns: the ids of its devices once, and of each device a row of numbers for each moment.
//!
//! A thousand machines with eight devices each have millions of samples, so a number has four bytes, and an id is not said with
//! each. Invariant: every device has as many rows as there are moments.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::series::{Point, Sample};

/// At least so many rows more are made room for at a time; else room doubles, and half of it may be empty for ever.
const ROOM: usize = 8;

/// `N`: how many of the numbers of a [`Point`] are kept, from its first.
#[derive(Debug, Default)]
pub(super) struct Columns<const N: usize> {
    moments: VecDeque<Timestamp>,
    devices: Vec<Device<N>>,
}

#[derive(Debug)]
struct Device<const N: usize> {
    id: Box<str>,
    /// NaN: it did not tell. [`AWAY`] as the first: it was not there.
    rows: VecDeque<[f32; N]>,
}

const AWAY: f32 = f32::NEG_INFINITY;

impl<const N: usize> Device<N> {
    fn push(&mut self, point: Option<&Point>) {
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact((self.rows.len() / 8).max(ROOM));
        }
        self.rows.push_back(match point {
            Some(point) => std::array::from_fn(|at| numbers(point)[at].map_or(f32::NAN, |number| number as f32)),
            None => [AWAY; N],
        });
    }

    fn point(&self, at: usize) -> Option<Point> {
        let row = self.rows.get(at).filter(|row| is_there(*row))?;
        let number = |at: usize| row.get(at).filter(|number| !number.is_nan()).map(|number| thousandths(*number));
        Some(Point {
            use_percent: number(0),
            used_mib: number(1),
            power_watts: number(2),
            celsius: number(3),
            seconds: number(4),
            joules: number(5),
            max_use_percent: number(6),
            max_used_mib: number(7),
        })
    }
}

fn numbers(point: &Point) -> [Option<f64>; 8] {
    let Point { use_percent, used_mib, power_watts, celsius, seconds, joules, max_use_percent, max_used_mib } = *point;
    [use_percent, used_mib, power_watts, celsius, seconds, joules, max_use_percent, max_used_mib]
}

fn is_there(row: &[f32]) -> bool {
    row.first() != Some(&AWAY)
}

/// As it was told, and not with the digits that four bytes make up.
fn thousandths(number: f32) -> f64 {
    (f64::from(number) * 1000.0).round() / 1000.0
}

impl<const N: usize> Columns<N> {
    pub fn of(samples: impl IntoIterator<Item = Sample>) -> Self {
        let mut columns = Columns::default();
        samples.into_iter().for_each(|sample| columns.push(&sample));
        columns
    }

    pub fn push(&mut self, sample: &Sample) {
        for id in
            sample.gpus.keys().filter(|id| !self.devices.iter().any(|device| *device.id == ***id)).collect::<Vec<_>>()
        {
            let mut device = Device { id: id.as_str().into(), rows: VecDeque::new() };
            self.moments.iter().for_each(|_| device.push(None));
            self.devices.push(device);
        }
        self.moments.push_back(sample.at);
        self.devices.iter_mut().for_each(|device| device.push(sample.gpus.get(&*device.id)));
    }

    pub fn pop(&mut self) {
        self.moments.pop_front();
        self.devices.retain_mut(|device| {
            let was_there = device.rows.pop_front().is_some_and(|row| is_there(&row));
            !was_there || device.rows.iter().any(|row| is_there(row))
        });
    }

    pub fn clear(&mut self) {
        *self = Columns::default();
    }

    pub fn len(&self) -> usize {
        self.moments.len()
    }

    pub fn first(&self) -> Option<Timestamp> {
        self.moments.front().copied()
    }

    pub fn last(&self) -> Option<Timestamp> {
        self.moments.back().copied()
    }

    /// The oldest first.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        self.moments.iter().enumerate().map(move |(at, moment)| {
            let gpus = self.devices.iter().filter_map(|device| Some((device.id.to_string(), device.point(at)?)));
            Sample { at: *moment, gpus: gpus.collect() }
        })
    }

    /// What a device did, the oldest first.
    pub fn device(&self, id: &str) -> impl Iterator<Item = (Timestamp, Point)> {
        let device = self.devices.iter().find(|device| *device.id == *id);
        let points = device.into_iter().flat_map(|device| (0..device.rows.len()).map(move |at| device.point(at)));
        self.moments.iter().zip(points).filter_map(|(moment, point)| Some((*moment, point?)))
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let of = |device: &Device<N>| {
            size_of::<Device<N>>() + device.id.len() + device.rows.capacity() * size_of::<[f32; N]>()
        };
        self.moments.capacity() * size_of::<Timestamp>() + self.devices.iter().map(of).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample(second: i64, gpus: &[(&str, Option<f64>)]) -> Sample {
        let point = |watts| Point { power_watts: watts, used_mib: Some(40_960.0), ..Point::default() };
        let gpus: BTreeMap<String, Point> = gpus.iter().map(|(id, watts)| ((*id).to_owned(), point(*watts))).collect();
        Sample { at: Timestamp::from_second(second).unwrap(), gpus }
    }

    #[test]
    fn samples_come_back_as_they_were_also_of_devices_that_come_and_go() {
        let samples = [
            sample(1, &[("a", Some(312.53)), ("b", None)]),
            sample(2, &[("a", Some(0.1))]),
            sample(3, &[("b", Some(61.3)), ("c", Some(700.0))]),
        ];
        let mut columns = Columns::<4>::of(samples.clone());
        assert_eq!(columns.samples().collect::<Vec<_>>(), samples);
        let watts: Vec<_> = columns.device("b").map(|(at, point)| (at.as_second(), point.power_watts)).collect();
        assert_eq!(watts, [(1, None), (3, Some(61.3))]);
        assert_eq!(columns.device("d").count(), 0);
        columns.pop();
        columns.pop();
        assert_eq!(columns.samples().collect::<Vec<_>>(), samples[2..]);
        assert_eq!((columns.devices.len(), columns.len()), (2, 1), "the first is forgotten with its last sample");
    }
}
