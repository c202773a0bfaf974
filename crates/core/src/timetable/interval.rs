//! Trigger times at equal distances: `base + k × period` for every whole `k`.
//!
//! They lie on the time line of instants, so a clock change does not touch them. They are whole seconds, so a store
//! that keeps less of a time than a nanosecond gives back the same times.

use jiff::{SignedDuration, Timestamp};

use super::{SHORTEST_INTERVAL, ScheduleError};

#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub base: Timestamp,
    period: SignedDuration,
}

impl Grid {
    pub fn new(period: SignedDuration, base: Timestamp) -> Result<Self, ScheduleError> {
        if period < SHORTEST_INTERVAL || period.subsec_nanos() != 0 {
            return Err(ScheduleError::Interval(period));
        }
        let base = super::second_of(base).unwrap_or(Timestamp::MIN);
        Ok(Grid { base, period })
    }

    pub fn after(&self, t: Timestamp) -> Option<Timestamp> {
        self.at(self.steps_to(t).div_euclid(self.period.as_nanos()) + 1)
    }

    pub fn before(&self, t: Timestamp) -> Option<Timestamp> {
        self.at((self.steps_to(t) - 1).div_euclid(self.period.as_nanos()))
    }

    fn steps_to(&self, t: Timestamp) -> i128 {
        t.as_nanosecond() - self.base.as_nanosecond()
    }

    fn at(&self, k: i128) -> Option<Timestamp> {
        let nanos = k.checked_mul(self.period.as_nanos())?.checked_add(self.base.as_nanosecond())?;
        Timestamp::from_nanosecond(nanos).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_reaches_both_ways_from_its_base_without_drift() {
        let base: Timestamp = "2024-01-01T00:00:00.5Z".parse().unwrap();
        let grid = Grid::new(SignedDuration::from_mins(7), base).unwrap();
        let on = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(on("2024-01-01T00:00:00Z"), Some(grid.base));
        assert_eq!(grid.after(grid.base), on("2024-01-01T00:07:00Z"));
        assert_eq!(grid.before(grid.base), on("2023-12-31T23:53:00Z"));
        assert_eq!(grid.before(base), Some(grid.base));
        // 7 minutes do not divide a day: a year later it is still a whole number of periods.
        let later = grid.after("2025-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!((later.as_second() - grid.base.as_second()) % 420, 0);
        assert_eq!(grid.before(later).and_then(|t| grid.after(t)), Some(later));
        assert_eq!(grid.after(Timestamp::MAX), None);
        assert_eq!(grid.before(Timestamp::MIN), None);
    }
}
